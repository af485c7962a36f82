//! Turns the text of variables into values, gathering what is wrong.
//!
//! Durations are Go's (`1m30s`, `250ms`), because that is what mesh settings hold; labels are the downward API's file.
//! Never here: which variables there are. Called by `env`.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

/// Reads variables by name.
pub(crate) struct Reader<'a> {
    /// Where variables are; empty ones count as absent.
    pub(crate) var: &'a dyn Fn(&str) -> Option<String>,
    /// What is wrong so far.
    pub(crate) errors: &'a mut Vec<String>,
}

impl Reader<'_> {
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.var)(name)
    }

    pub(crate) fn path(&self, name: &str, default: &str) -> PathBuf {
        self.text(name).unwrap_or_else(|| default.to_owned()).into()
    }

    pub(crate) fn number<T: FromStr>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.errors.push(format!("{name}: {text:?} is not a number in range"));
        }
        value
    }

    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        let text = self.text(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "yes" => Some(true),
            "false" | "0" | "f" | "no" => Some(false),
            _ => {
                self.errors.push(format!("{name}: {text:?} is neither true nor false"));
                None
            }
        }
    }

    /// A duration; a bare number counts seconds.
    pub(crate) fn duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        let value = text.parse().ok().map(Duration::from_secs).or_else(|| duration(&text));
        if value.is_none() {
            self.errors.push(format!("{name}: {text:?} is not a duration such as 5s"));
        }
        value
    }
}

/// A Go duration: `1h2m3.5s`, `250ms`, `0`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

/// Labels as the downward API writes them: one `key="escaped value"` a line.
pub(crate) fn downward_labels(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned());
            Some((key.to_owned(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "5", "s", "5x", "-1s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn labels_are_read_as_the_downward_api_writes_them() {
        let labels = downward_labels("app=\"a\"\nnote=\"say \\\"x\\\"\"\n");
        assert_eq!((labels["app"].as_str(), labels["note"].as_str()), ("a", "say \"x\""));
    }
}
