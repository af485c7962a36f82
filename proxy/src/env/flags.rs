//! Reads the arguments of `proxy sidecar` and `proxy router`, as Istio's injection writes them.
//!
//! Flags that steer Istio's agent but not this program are taken and told in one log line, so that pod specs work as
//! they are.
//! Never here: the environment. Called by `main`.

use std::net::IpAddr;

use api::spec::ProxyKind;

/// The arguments.
#[derive(Debug, Clone)]
pub(crate) struct ProxyFlags {
    pub(crate) kind: ProxyKind,
    pub(crate) domain: Option<String>,
    pub(crate) concurrency: Option<u64>,
    pub(crate) log_level: String,
    pub(crate) log_json: bool,
    /// Flags of Istio's agent that mean nothing here.
    pub(crate) foreign: Vec<String>,
    pub(crate) errors: Vec<String>,
    /// Our address, where the environment does not say it.
    pub(crate) machine_address: Option<IpAddr>,
}

/// Splits `--name=value` and `--name value`.
pub(crate) fn pairs(args: &[String], bare: &[&str]) -> Result<Vec<(String, String)>, Vec<String>> {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if !arg.starts_with('-') {
            errors.push(format!("unexpected argument {arg:?}"));
        } else if let Some((name, value)) = arg.split_once('=') {
            found.push((name.to_owned(), value.to_owned()));
        } else if bare.contains(&arg.as_str()) {
            found.push((arg.clone(), "true".to_owned()));
        } else if let Some(value) = rest.next() {
            found.push((arg.clone(), value.clone()));
        } else {
            errors.push(format!("{arg}: expected a value"));
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// `default:info,misc:error` or `warning` to a level that our log knows.
fn level(text: &str) -> Option<&'static str> {
    let default = text.split(',').find_map(|part| match part.split_once(':') {
        None => Some(part),
        Some((scope, level)) => (scope == "default" || scope == "all").then_some(level),
    })?;
    Some(match default {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" | "fatal" => "error",
        "none" | "off" => "off",
        _ => return None,
    })
}

impl ProxyFlags {
    /// Reads the arguments after the kind of proxy.
    pub(crate) fn parse(kind: ProxyKind, args: &[String]) -> Self {
        let mut flags = Self {
            kind,
            domain: None,
            concurrency: None,
            log_level: "info".to_owned(),
            log_json: false,
            foreign: Vec::new(),
            errors: Vec::new(),
            machine_address: None,
        };
        let found = match pairs(args, &["--log_as_json", "--profiling", "--log_caller"]) {
            Ok(found) => found,
            Err(errors) => {
                flags.errors = errors;
                return flags;
            }
        };
        for (name, value) in found {
            match name.as_str() {
                "--domain" => flags.domain = Some(value),
                "--concurrency" => match value.parse() {
                    Ok(number) => flags.concurrency = Some(number),
                    Err(_) => flags.errors.push(format!("--concurrency: {value:?} is not a number")),
                },
                "--log_output_level" => match level(&value) {
                    Some(level) => flags.log_level = level.to_owned(),
                    None => flags.errors.push(format!("--log_output_level: {value:?} is not a level")),
                },
                "--log_as_json" => flags.log_json = value == "true",
                _ => flags.foreign.push(name),
            }
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injected_arguments_are_understood() {
        let args = "--domain a.svc.cluster.local --proxyLogLevel=warning --proxyComponentLogLevel=misc:error \
                    --log_output_level=default:debug --concurrency 2";
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        let flags = ProxyFlags::parse(ProxyKind::Sidecar, &args);
        assert!(flags.errors.is_empty(), "{:?}", flags.errors);
        assert_eq!((flags.domain.as_deref(), flags.concurrency), (Some("a.svc.cluster.local"), Some(2)));
        assert_eq!(flags.log_level, "debug");
        assert_eq!(flags.foreign, ["--proxyLogLevel", "--proxyComponentLogLevel"]);
    }

    #[test]
    fn a_flag_without_value_is_an_error() {
        let flags = ProxyFlags::parse(ProxyKind::Sidecar, &["--domain".into()]);
        assert_eq!(flags.errors, ["--domain: expected a value"]);
    }
}
