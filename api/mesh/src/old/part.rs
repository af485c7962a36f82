//! One part of an old object, read field by field, so that a field nobody reads is noticed.
//!
//! Never here: what a field means. Called by the translations of each group.

use serde_json::{Map, Value};

/// Some fields of an old object, and where they stand.
#[derive(Debug, Clone)]
pub(super) struct Part {
    path: String,
    fields: Map<String, Value>,
}

impl Part {
    /// The fields of a value; none where it is no object.
    pub(super) fn new(path: impl Into<String>, value: Value) -> Self {
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
        };
        Self { path: path.into(), fields }
    }

    /// Where a field of it stands.
    pub(super) fn at(&self, field: &str) -> String {
        format!("{}.{field}", self.path)
    }

    /// Where it stands itself.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether no field is left.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// A field, whatever it holds.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.shift_remove(field)
    }

    /// A field, if it holds a value of that form; otherwise it stays and is told as not translated.
    fn take_if<T>(&mut self, field: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = read(self.fields.get(field)?)?;
        self.fields.shift_remove(field);
        Some(value)
    }

    /// A text.
    pub(super) fn text(&mut self, field: &str) -> Option<String> {
        self.take_if(field, |value| value.as_str().map(str::to_owned))
    }

    /// A number that is no fraction, or the same as text.
    pub(super) fn number(&mut self, field: &str) -> Option<i64> {
        self.take_if(field, |value| value.as_i64().or_else(|| value.as_str()?.parse().ok()))
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&mut self, field: &str) -> bool {
        self.take_if(field, Value::as_bool).unwrap_or_default()
    }

    /// A list of texts or numbers, as texts.
    pub(super) fn texts(&mut self, field: &str) -> Vec<String> {
        let text = |item: &Value| item.as_str().map(str::to_owned).or_else(|| Some(item.as_u64()?.to_string()));
        self.take_if(field, |value| value.as_array()?.iter().map(text).collect()).unwrap_or_default()
    }

    /// Labels and the like.
    pub(super) fn pairs(&mut self, field: &str) -> Vec<(String, String)> {
        let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        self.take_if(field, |value| value.as_object()?.iter().map(pair).collect()).unwrap_or_default()
    }

    /// The fields below one.
    pub(super) fn part(&mut self, field: &str) -> Option<Self> {
        let path = self.at(field);
        self.take_if(field, |value| value.is_object().then(|| Self::new(path.as_str(), value.clone())))
    }

    /// The items of a list, each with its fields.
    pub(super) fn parts(&mut self, field: &str) -> Vec<Self> {
        let path = self.at(field);
        let items = self.take_if(field, |value| value.as_array().cloned()).unwrap_or_default();
        items.into_iter().enumerate().map(|(at, item)| Self::new(format!("{path}[{at}]"), item)).collect()
    }

    /// The fields that nobody has read.
    pub(super) fn left(&self) -> impl Iterator<Item = String> {
        self.fields.keys().map(|field| self.at(field))
    }
}
