//! Request bodies: JSON, YAML and protobuf → JSON values.
//!
//! JSON keeps the last of duplicate fields and names them all. Never here: kinds' rules, defaults.
//! Called by every handler that reads a body.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::reply::Refusal;

/// What the body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The media type of a body, without parameters; no header means JSON.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim)
}

pub(crate) fn format(headers: &HeaderMap) -> Result<Format, Refusal> {
    match media_type(headers) {
        "" | "application/json" | "*/*" => Ok(Format::Json),
        "application/yaml" | "text/yaml" | "application/x-yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Format::Protobuf),
        _ => Err(Refusal::new(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format - accepted media types include: {ACCEPTED}"),
        )),
    }
}

/// A body as JSON.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    /// Paths of fields that were given more than once.
    pub(crate) duplicates: Vec<String>,
}

/// Reads a body; the error's text is the decoder's.
pub(crate) fn decode(format: Format, body: &Bytes) -> Result<Decoded, String> {
    match format {
        Format::Json => json(body),
        Format::Yaml => yaml(body).map(|value| Decoded { value, duplicates: Vec::new() }),
        Format::Protobuf => crate::protobuf::decode(body)
            .map(|value| Decoded { value, duplicates: Vec::new() })
            .map_err(|error| error.to_string()),
    }
}

/// One YAML document.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(body).map_err(|_| "yaml: invalid UTF-8".to_owned())?;
    serde_saphyr::from_str(text).map_err(|error| format!("yaml: {error}"))
}

/// JSON with its duplicate fields.
pub(crate) fn json(body: &[u8]) -> Result<Decoded, String> {
    let found = RefCell::new(Found { path: Vec::new(), duplicates: Vec::new() });
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Seed(&found).deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(Decoded { value, duplicates: found.into_inner().duplicates })
}

struct Found {
    path: Vec<String>,
    duplicates: Vec<String>,
}

#[derive(Clone, Copy)]
struct Seed<'f>(&'f RefCell<Found>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        let base = self.0.borrow_mut().path.pop();
        loop {
            let step = format!("{}[{}]", base.as_deref().unwrap_or_default(), items.len());
            self.0.borrow_mut().path.push(step);
            let item = seq.next_element_seed(self)?;
            self.0.borrow_mut().path.pop();
            match item {
                Some(item) => items.push(item),
                None => break,
            }
        }
        if let Some(base) = base {
            self.0.borrow_mut().path.push(base);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            self.0.borrow_mut().path.push(key.clone());
            let value = access.next_value_seed(self)?;
            let mut found = self.0.borrow_mut();
            if map.contains_key(&key) {
                let path = found.path.join(".");
                found.duplicates.push(path);
            }
            found.path.pop();
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_named_and_the_last_wins() {
        let decoded = json(br#"{"spec":{"color":1,"l":[{"a":1,"a":2}],"color":3}}"#).unwrap();
        assert_eq!(decoded.duplicates, ["spec.l[0].a", "spec.color"]);
        assert_eq!(decoded.value["spec"]["color"], 3);
    }
}
