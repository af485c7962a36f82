//! Label and field selectors.
//!
//! Parses `a=b,c in (d,e),!f` and `metadata.name=x`; answers whether an object matches. Never here: which objects.
//! Called by list, watch, delete collection, and by webhook configurations (`LabelSelector` objects).

use serde_json::{Map, Value};

use crate::kinds::Kind;
use crate::object;
use crate::reply::Refusal;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// A conjunction of tests on labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Labels(Vec<(String, Test)>);

impl Labels {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut tests = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            tests.push(one(part).ok_or_else(|| {
                Refusal::bad_request(format!(
                    "unable to parse requirement: found '{part}', expected: a label requirement"
                ))
            })?);
        }
        Ok(Self(tests))
    }

    /// A `LabelSelector` object: `matchLabels` and `matchExpressions`.
    pub(crate) fn from_object(selector: &Value) -> Self {
        let mut tests = Vec::new();
        for (key, value) in object::members(selector, "/matchLabels").into_iter().flatten() {
            tests.push((key.clone(), Test::In(vec![value.as_str().unwrap_or_default().to_owned()])));
        }
        for expression in object::items(selector, "/matchExpressions") {
            let values: Vec<String> =
                object::items(expression, "/values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let test = match object::text(expression, "/operator") {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                _ => Test::Absent,
            };
            tests.push((object::text(expression, "/key").to_owned(), test));
        }
        Self(tests)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.0.iter().all(|(key, test)| {
            let value = labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
            match (test, value) {
                (Test::In(values), Some(value)) => values.iter().any(|wanted| wanted == value),
                (Test::NotIn(values), Some(value)) => !values.iter().any(|wanted| wanted == value),
                (Test::Exists, Some(_)) | (Test::Absent | Test::NotIn(_), None) => true,
                (Test::Greater(bound), Some(value)) => value.parse::<i64>().is_ok_and(|value| value > *bound),
                (Test::Less(bound), Some(value)) => value.parse::<i64>().is_ok_and(|value| value < *bound),
                (Test::In(_) | Test::Exists | Test::Greater(_) | Test::Less(_), None) | (Test::Absent, Some(_)) => {
                    false
                }
            }
        })
    }

    pub(crate) fn matches_object(&self, value: &Value) -> bool {
        self.matches(object::members(value, "/metadata/labels"))
    }
}

/// At commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn one(part: &str) -> Option<(String, Test)> {
    let key = |text: &str| -> Option<String> {
        let text = text.trim();
        let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        fits.then(|| text.to_owned())
    };
    if let Some(rest) = part.strip_prefix('!') {
        return Some((key(rest)?, Test::Absent));
    }
    for (operator, negative) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((name, value)) = part.split_once(operator) {
            let values = vec![value.trim().to_owned()];
            return Some((key(name)?, if negative { Test::NotIn(values) } else { Test::In(values) }));
        }
    }
    if let Some((name, bound)) = part.split_once('>') {
        return Some((key(name)?, Test::Greater(bound.trim().parse().ok()?)));
    }
    if let Some((name, bound)) = part.split_once('<') {
        return Some((key(name)?, Test::Less(bound.trim().parse().ok()?)));
    }
    if let Some((head, list)) = part.split_once('(') {
        let values: Vec<String> =
            list.trim().strip_suffix(')')?.split(',').map(|value| value.trim().to_owned()).collect();
        let (name, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => Some((key(name)?, Test::In(values))),
            "notin" => Some((key(name)?, Test::NotIn(values))),
            _ => None,
        };
    }
    Some((key(part)?, Test::Exists))
}

/// A conjunction of tests on fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields(Vec<(String, bool, String)>);

impl Fields {
    pub(crate) fn parse(text: &str, kind: &Kind) -> Result<Self, Refusal> {
        let mut tests = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (name, equal, value) = if let Some((name, value)) = part.split_once("!=") {
                (name, false, value)
            } else if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (name, true, value)
            } else {
                return Err(Refusal::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'")));
            };
            if !supported(kind, name) {
                return Err(Refusal::bad_request(format!("field label not supported: {name}")));
            }
            tests.push((name.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(tests))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one name that can match, if there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.0.iter().find(|(field, equal, _)| *equal && field == "metadata.name").map(|(_, _, value)| value.as_str())
    }

    pub(crate) fn matches(&self, value: &Value) -> bool {
        self.0.iter().all(|(field, equal, wanted)| {
            let pointer = match field.as_str() {
                "source" => "/source/component".to_owned(),
                "reportingComponent" => "/reportingComponent".to_owned(),
                field => format!("/{}", field.replace('.', "/")),
            };
            let found = match value.pointer(&pointer) {
                Some(Value::String(text)) => text.clone(),
                None | Some(Value::Null) if matches!(field.as_str(), "spec.unschedulable" | "spec.hostNetwork") => {
                    "false".to_owned()
                }
                None | Some(Value::Null) => String::new(),
                Some(other) => other.to_string(),
            };
            (found == *wanted) == *equal
        })
    }
}

fn supported(kind: &Kind, field: &str) -> bool {
    if matches!(field, "metadata.name" | "metadata.namespace") {
        return true;
    }
    if let Some(custom) = kind.custom() {
        return custom.selectable.iter().any(|path| path == field);
    }
    let allowed: &[&str] = match kind.storage.as_str() {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "namespaces" => &["status.phase"],
        "secrets" => &["type"],
        "nodes" => &["spec.unschedulable"],
        "services" => &["spec.clusterIP", "spec.type"],
        "replicasets.apps" => &["status.replicas"],
        "jobs.batch" => &["status.successful"],
        _ => &[],
    };
    allowed.contains(&field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(selector: &str, labels: &Value, want: bool) {
        assert_eq!(Labels::parse(selector).unwrap().matches(labels.as_object()), want, "{selector}");
    }

    #[test]
    fn labels() {
        let of = json!({"app": "a", "n": "5", "x.io/y": ""});
        for (selector, want) in [
            ("", true),
            ("app=a", true),
            ("app==a,n", true),
            ("app!=a", false),
            ("z!=a", true),
            ("app in (a, b)", true),
            ("app notin (a,b)", false),
            ("z notin (a)", true),
            ("!z", true),
            ("!app", false),
            ("n>4", true),
            ("n<4", false),
            ("x.io/y=", true),
            ("app in (b),n", false),
        ] {
            check(selector, &of, want);
        }
        assert!(Labels::parse("a b c").is_err());
    }
}
