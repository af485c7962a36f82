//! The environment, read once into a value.
//!
//! Programs take [`Vars`] and ask it for typed values; a value that cannot be read is an error that names the variable.
//! Never here: which variables exist. Made in `main`; tests make their own.

use std::{collections::BTreeMap, fmt::Display, str::FromStr, time::Duration};

/// A variable that holds something else than it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// It is not set, and has no default.
    #[error("{name} is not set: {wants}")]
    Missing {
        /// Name of the variable.
        name: String,
        /// What it is for.
        wants: String,
    },
    /// Its text cannot be read.
    #[error("{name}={value:?}: {reason}")]
    Bad {
        /// Name of the variable.
        name: String,
        /// Its text.
        value: String,
        /// Why it cannot be read.
        reason: String,
    },
}

/// Variables by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vars(BTreeMap<String, String>);

impl Vars {
    /// Those of this process. Values that are not UTF-8 are left out.
    pub fn process() -> Self {
        Self(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// The text; none if it is not set or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// The text, or a default.
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.get(name).unwrap_or(default)
    }

    /// The text of a variable that must be set.
    ///
    /// # Errors
    /// It is not.
    pub fn required(&self, name: &str, wants: &str) -> Result<&str, EnvError> {
        self.get(name).ok_or_else(|| EnvError::Missing { name: name.to_owned(), wants: wants.to_owned() })
    }

    /// A value of any type that reads itself from text; none if it is not set.
    ///
    /// # Errors
    /// The text cannot be read.
    pub fn parse<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, EnvError> {
        self.read(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// A value of any type that reads itself from text, or a default.
    ///
    /// # Errors
    /// The text cannot be read.
    pub fn parse_or<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T, EnvError> {
        Ok(self.parse(name)?.unwrap_or(default))
    }

    /// A switch: `true`, `false`, `1`, `0`, `yes`, `no`, `on`, `off`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn switch(&self, name: &str, default: bool) -> Result<bool, EnvError> {
        let read = self.read(name, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" | "t" => Ok(true),
            "false" | "0" | "no" | "off" | "f" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        })?;
        Ok(read.unwrap_or(default))
    }

    /// A length of time as Go writes it: `10s`, `1m30s`, `250ms`, `24h`.
    ///
    /// # Errors
    /// The text is not one.
    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration, EnvError> {
        Ok(self
            .read(name, |text| parse_duration(text).ok_or_else(|| "expected a duration such as 10s or 1m30s".into()))?
            .unwrap_or(default))
    }

    fn read<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, EnvError> {
        self.get(name)
            .map(|value| {
                read(value).map_err(|reason| EnvError::Bad { name: name.to_owned(), value: value.to_owned(), reason })
            })
            .transpose()
    }

    /// All variables whose name begins so, without that beginning: `ISTIO_META_` gives `CLUSTER_ID`.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Vars {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Reads a length of time as Go writes it; none if it is not one, or is negative.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = next;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        for (text, millis) in
            [("10s", 10_000), ("1m30s", 90_000), ("250ms", 250), ("24h", 86_400_000), ("0", 0), ("1.5s", 1_500)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "10", "-1s", "s", "1d", "1s2"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_names_its_variable() {
        let vars: Vars = [("PORT", "99999"), ("ON", "maybe"), ("EMPTY", "")].into_iter().collect();
        assert!(vars.parse::<u16>("PORT").unwrap_err().to_string().starts_with("PORT=\"99999\": "));
        assert!(vars.switch("ON", true).is_err());
        assert_eq!(vars.parse_or("EMPTY", 5_u16), Ok(5));
        assert_eq!(
            vars.required("EMPTY", "the pod's name").unwrap_err().to_string(),
            "EMPTY is not set: the pod's name"
        );
    }
}
