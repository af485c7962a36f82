//! `/logging` as Envoy has it: loggers by Envoy's names, each with its level, and changes to one, some or all.
//!
//! A logger is a part of this program that does what Envoy's of that name does. Our own way of writing levels
//! (`level=default:info,proxy::tcp=debug`) is taken too.
//! Never here: writing the log (`api_rt::log`). Called by `admin`.

/// Envoy's loggers and the parts they stand for.
const LOGGERS: [(&str, &str); 19] = [
    ("admin", "proxy::admin"),
    ("config", "proxy::xds"),
    ("conn_handler", "proxy::listen"),
    ("connection", "proxy::listen::serve"),
    ("dns", "proxy::control"),
    ("filter", "proxy::tcp"),
    ("grpc", "tonic"),
    ("health_checker", "proxy::pod"),
    ("http", "proxy::http"),
    ("http2", "h2"),
    ("main", "proxy::run"),
    ("pool", "proxy::upstream::pool"),
    ("rbac", "proxy::http::authorize"),
    ("router", "proxy::http::retry"),
    ("runtime", "proxy::worker"),
    ("secret", "proxy::identity"),
    ("stats", "proxy::metrics"),
    ("tls", "rustls"),
    ("upstream", "proxy::upstream"),
];

/// How a change is written.
const USAGE: &str = "usage: /logging?<name>=<level> (change single level)\n\
                     usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
                     usage: /logging?level=<level> (change all levels)\n\
                     levels: trace debug info warning error critical off\n";

/// Levels as `DEFAULT,TARGET=LEVEL,…`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Levels {
    default: String,
    others: Vec<(String, String)>,
}

impl Levels {
    fn read(text: &str) -> Self {
        let mut levels = Self { default: "error".to_owned(), others: Vec::new() };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((target, level)) => levels.set(target, level),
                None => part.clone_into(&mut levels.default),
            }
        }
        levels
    }

    fn set(&mut self, target: &str, level: &str) {
        self.others.retain(|(known, _)| known != target);
        self.others.push((target.to_owned(), level.to_owned()));
    }

    /// The level of a target: that of the longest target above it.
    fn of(&self, target: &str) -> &str {
        let above = |known: &str| target == known || target.strip_prefix(known).is_some_and(|r| r.starts_with("::"));
        let best = self.others.iter().filter(|(known, _)| above(known)).max_by_key(|(known, _)| known.len());
        best.map_or(&self.default, |(_, level)| level)
    }

    fn write(&self) -> String {
        let others = self.others.iter().map(|(target, level)| format!(",{target}={level}"));
        std::iter::once(self.default.clone()).chain(others).collect()
    }
}

/// All loggers with their levels in Envoy's words; `levels` as the log tells them.
pub(crate) fn page(levels: &str) -> String {
    let levels = Levels::read(levels);
    let mut out = "active loggers:\n".to_owned();
    for (name, target) in LOGGERS {
        let level = match levels.of(target) {
            "warn" => "warning",
            other => other,
        };
        out.push_str(&format!("  {name}: {level}\n"));
    }
    out
}

fn level(text: &str) -> Result<&str, String> {
    match text {
        "trace" | "debug" | "info" | "error" | "off" => Ok(text),
        "warning" | "warn" => Ok("warn"),
        "critical" => Ok("error"),
        _ => Err(format!("error: unknown level {text:?}\n{USAGE}")),
    }
}

/// The levels after a change; `query` as Envoy or we write it.
///
/// # Errors
/// What is wrong with the query, and how it is written.
pub(crate) fn changed(levels: &str, query: &str) -> Result<String, String> {
    let query = query.replace("%2C", ",").replace("%3A", ":").replace("%3D", "=");
    let mut after = Levels::read(levels);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| USAGE.to_owned())?;
        let changes: Vec<(&str, &str)> = match name {
            // Our own way: the log reads it.
            "level" if value.contains([',', ':', '=']) => return Ok(value.to_owned()),
            "level" => {
                after = Levels { default: level(value)?.to_owned(), others: Vec::new() };
                continue;
            }
            "paths" => value
                .split(',')
                .map(|one| one.split_once(':').ok_or_else(|| USAGE.to_owned()))
                .collect::<Result<_, _>>()?,
            name => vec![(name, value)],
        };
        for (name, value) in changes {
            let (_, target) = LOGGERS
                .iter()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| format!("error: unknown logger name {name:?}\n{USAGE}"))?;
            after.set(target, level(value)?);
        }
    }
    Ok(after.write())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_changed_as_istioctl_asks() {
        let check = |before: &str, query: &str, want: &str| assert_eq!(changed(before, query).as_deref(), Ok(want));
        check("info", "level=warning", "warn");
        check("info,proxy::http=debug", "level=critical", "error");
        check("info", "http=debug", "info,proxy::http=debug");
        check("info,proxy::http=debug", "http=off", "info,proxy::http=off");
        check("info", "paths=http:debug%2Crbac:trace", "info,proxy::http=debug,proxy::http::authorize=trace");
        check("info", "level=default:info,proxy::tcp:debug", "default:info,proxy::tcp:debug");
    }

    #[test]
    fn a_wrong_change_is_told_with_the_usage() {
        for query in ["level=loud", "http=loud", "nobody=info", "paths=http", "http"] {
            assert!(changed("info", query).unwrap_err().contains("usage: /logging"), "{query}");
        }
    }

    #[test]
    fn every_logger_shows_the_level_that_counts_for_it() {
        let page = page("info,proxy::http=debug,proxy::http::authorize=warn");
        for line in ["  http: debug\n", "  router: debug\n", "  rbac: warning\n", "  pool: info\n"] {
            assert!(page.contains(line), "{page}");
        }
        assert!(page.starts_with("active loggers:\n  admin: info\n"));
    }
}
