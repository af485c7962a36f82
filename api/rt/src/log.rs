//! What the program says to its operator, on standard error.
//!
//! Levels are given as Istio writes them (`default:info,xds:debug`) or as tracing does (`info,proxy=debug`), and can be
//! changed while running. Never here: access logs. Set up once in `main`; changed by `admin` at `/logging`.

use std::io;

use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The text names no levels.
    #[error("{levels:?} are not log levels: expected for example \"info\" or \"default:info,xds:debug\"")]
    Levels {
        /// The text.
        levels: String,
        /// What the reader says.
        source: tracing_subscriber::filter::ParseError,
    },
    /// It is set up already.
    #[error("the log is set up already")]
    Twice,
    /// It has gone.
    #[error("the log has ended")]
    Gone,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The log, to change its levels.
#[derive(Debug, Clone)]
pub struct Log(reload::Handle<EnvFilter, Registry>);

/// Istio's `scope:level` in tracing's words.
fn translate(levels: &str) -> String {
    let level = |word: &str| match word.to_ascii_lowercase().as_str() {
        "none" => "off".to_owned(),
        "critical" | "fatal" => "error".to_owned(),
        "warning" => "warn".to_owned(),
        other => other.to_owned(),
    };
    let one = |part: &str| match part.split_once(':') {
        Some(("default" | "all", word)) if !word.starts_with(':') => level(word),
        Some((scope, word)) if !word.starts_with(':') => format!("{scope}={}", level(word)),
        Some(_) | None => match part.split_once('=') {
            Some((scope, word)) => format!("{scope}={}", level(word)),
            None => level(part),
        },
    };
    levels.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect::<Vec<_>>().join(",")
}

fn filter(levels: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(translate(levels))
        .map_err(|source| LogError::Levels { levels: levels.to_owned(), source })
}

/// Sets up the log of this process.
///
/// # Errors
/// The levels cannot be read, or the log is set up already.
pub fn init(levels: &str, format: Format) -> Result<Log, LogError> {
    let (layer, handle) = reload::Layer::new(filter(levels)?);
    let registry = tracing_subscriber::registry().with(layer);
    match format {
        Format::Text => registry.with(fmt::layer().with_writer(io::stderr).with_ansi(false)).try_init(),
        Format::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init(),
    }
    .map_err(|_| LogError::Twice)?;
    Ok(Log(handle))
}

impl Log {
    /// The levels now, in tracing's words.
    pub fn levels(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Changes the levels.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn set(&self, levels: &str) -> Result<(), LogError> {
        self.0.reload(filter(levels)?).map_err(|_| LogError::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_read_as_istio_writes_them() {
        assert_eq!(translate("default:info,xds:debug"), "info,xds=debug");
        assert_eq!(translate("warning,dns=none"), "warn,dns=off");
        assert_eq!(translate("api_rt::tls=debug"), "api_rt::tls=debug");
        assert!(filter("xds:loud").is_err());
    }
}
