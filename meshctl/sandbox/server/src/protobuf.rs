//! Protobuf bodies of built-in kinds → JSON, by the table of fields.
//!
//! Never here: encoding (every client takes JSON answers). Called by `body`.

use base64::Engine as _;
use serde_json::{Map, Number, Value};

use crate::limits::PROTOBUF_DEPTH_MAX;
use crate::schema::{self, Field, FieldKind, Type};

const MAGIC: &[u8] = b"k8s\0";

/// Why the bytes are no object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Prefix,
    #[error("proto: unexpected end of message")]
    Short,
    #[error("proto: illegal wire type {0}")]
    WireType(u8),
    #[error("proto: messages are nested too deeply")]
    Deep,
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Kind { kind: String, version: String },
    #[error("proto: a text is not UTF-8")]
    Utf8,
}

/// Decodes the envelope and the object in it.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let mut envelope = Reader(body.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?);
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &b""[..]);
    while let Some((number, wire)) = envelope.next()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => {
                let mut meta = Reader(bytes);
                while let Some((number, wire)) = meta.next()? {
                    match (number, wire) {
                        (1, Wire::Bytes(bytes)) => version = utf8(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = utf8(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let root =
        root(&version, &kind).ok_or_else(|| ProtobufError::Kind { kind: kind.clone(), version: version.clone() })?;
    let mut map = Map::new();
    map.insert("kind".to_owned(), kind.into());
    map.insert("apiVersion".to_owned(), version.into());
    message(root, raw, &mut map, 0)?;
    Ok(Value::Object(map))
}

fn root(version: &str, kind: &str) -> Option<&'static Type> {
    if let Some(kind) = crate::kinds::built_in().iter().find(|row| row.api_version() == version && row.kind == kind) {
        return match &kind.model {
            crate::kinds::Model::BuiltIn(root) => Some(root),
            crate::kinds::Model::Custom(_) => None,
        };
    }
    match kind {
        "DeleteOptions" => schema::find("meta/v1.DeleteOptions"),
        "Eviction" => schema::find("policy/v1.Eviction"),
        "Scale" => schema::find("autoscaling/v1.Scale"),
        "TokenRequest" => schema::find("authentication/v1.TokenRequest"),
        _ => None,
    }
}

enum Wire<'b> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'b [u8]),
    Fixed32(u32),
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::Short)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Short)
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], ProtobufError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn next(&mut self) -> Result<Option<(u32, Wire<'b>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| ProtobufError::Short)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| ProtobufError::Short)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Short)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| ProtobufError::Short)?)),
            other => return Err(ProtobufError::WireType(u8::try_from(other).unwrap_or_default())),
        };
        Ok(Some((number, wire)))
    }
}

fn utf8(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Utf8)
}

fn message(kind: &'static Type, bytes: &[u8], map: &mut Map<String, Value>, depth: usize) -> Result<(), ProtobufError> {
    if depth > PROTOBUF_DEPTH_MAX {
        return Err(ProtobufError::Deep);
    }
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        if let Some(inner) = kind.inlined(number) {
            if let Wire::Bytes(bytes) = wire {
                message(inner, bytes, map, depth + 1)?;
            }
            continue;
        }
        let Some(field) = kind.by_number(number) else { continue };
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others are single values")]
        match &field.kind {
            FieldKind::List(inner) => {
                let item = single(inner, wire, depth)?;
                if let Value::Array(items) = map.entry(field.name).or_insert_with(|| Value::Array(Vec::new())) {
                    items.push(item);
                }
            }
            FieldKind::Map(inner) => {
                if let Wire::Bytes(bytes) = wire {
                    let (key, value) = map_entry(inner, bytes, depth)?;
                    crate::object::object(map.entry(field.name).or_insert_with(|| Value::Object(Map::new())))
                        .insert(key, value);
                }
            }
            _ => {
                let value = single(&field.kind, wire, depth)?;
                if field.pointer || field.required || !zero(&value) {
                    put(map, field, value);
                }
            }
        }
    }
    Ok(())
}

fn put(map: &mut Map<String, Value>, field: &Field, value: Value) {
    if !value.is_null() {
        map.insert(field.name.to_owned(), value);
    }
}

fn zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn map_entry(inner: &FieldKind, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = utf8(bytes)?,
            (2, wire) => value = Some(single(inner, wire, depth)?),
            _ => {}
        }
    }
    let empty = || if matches!(inner, FieldKind::String | FieldKind::Bytes) { Value::from("") } else { Value::Null };
    Ok((key, value.unwrap_or_else(empty)))
}

fn single(kind: &FieldKind, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match (kind, wire) {
        (FieldKind::String, Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        (FieldKind::Bytes, Wire::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        (FieldKind::Bool, Wire::Varint(value)) => (value != 0).into(),
        (FieldKind::Int, Wire::Varint(value)) => value.cast_signed().into(),
        (FieldKind::Float, Wire::Fixed64(bits)) => Number::from_f64(f64::from_bits(bits)).into(),
        (FieldKind::Float, Wire::Fixed32(bits)) => Number::from_f64(f64::from(f32::from_bits(bits))).into(),
        (FieldKind::Time | FieldKind::MicroTime, Wire::Bytes(bytes)) => time(bytes, *kind == FieldKind::MicroTime)?,
        (FieldKind::Duration, Wire::Bytes(bytes)) => {
            let nanos = number(bytes, 1)?;
            format!("{}s", nanos / 1_000_000_000).into()
        }
        (FieldKind::Quantity, Wire::Bytes(bytes)) => text(bytes, 1)?.into(),
        (FieldKind::IntOrString, Wire::Bytes(bytes)) => {
            if number(bytes, 1)? == 1 {
                text(bytes, 3)?.into()
            } else {
                number(bytes, 2)?.into()
            }
        }
        (FieldKind::Fields | FieldKind::Raw | FieldKind::Any, Wire::Bytes(bytes)) => {
            serde_json::from_slice(raw(bytes, 1)?).unwrap_or_default()
        }
        (FieldKind::Extra, Wire::Bytes(bytes)) => {
            let mut items = Vec::new();
            let mut reader = Reader(bytes);
            while let Some((number, wire)) = reader.next()? {
                if let (1, Wire::Bytes(bytes)) = (number, wire) {
                    items.push(Value::from(utf8(bytes)?));
                }
            }
            items.into()
        }
        (FieldKind::Type(name), Wire::Bytes(bytes)) => {
            let mut map = Map::new();
            if let Some(inner) = schema::find(name) {
                message(inner, bytes, &mut map, depth + 1)?;
            }
            map.into()
        }
        (_, Wire::Varint(_)) => return Err(ProtobufError::WireType(0)),
        (_, Wire::Fixed64(_)) => return Err(ProtobufError::WireType(1)),
        (_, Wire::Bytes(_)) => return Err(ProtobufError::WireType(2)),
        (_, Wire::Fixed32(_)) => return Err(ProtobufError::WireType(5)),
    })
}

fn raw(bytes: &[u8], wanted: u32) -> Result<&[u8], ProtobufError> {
    let mut reader = Reader(bytes);
    let mut found = &b""[..];
    while let Some((number, wire)) = reader.next()? {
        if let (true, Wire::Bytes(bytes)) = (number == wanted, wire) {
            found = bytes;
        }
    }
    Ok(found)
}

fn text(bytes: &[u8], wanted: u32) -> Result<String, ProtobufError> {
    utf8(raw(bytes, wanted)?)
}

fn number(bytes: &[u8], wanted: u32) -> Result<i64, ProtobufError> {
    let mut reader = Reader(bytes);
    let mut found = 0;
    while let Some((number, wire)) = reader.next()? {
        if let (true, Wire::Varint(value)) = (number == wanted, wire) {
            found = value.cast_signed();
        }
    }
    Ok(found)
}

/// The zero time of Go is no time.
fn time(bytes: &[u8], micro: bool) -> Result<Value, ProtobufError> {
    let (seconds, nanos) = (number(bytes, 1)?, number(bytes, 2)?);
    if bytes.is_empty() || seconds <= -62_135_596_800 {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).unwrap_or_default();
    let Ok(time) = jiff::Timestamp::new(seconds, nanos) else { return Ok(Value::Null) };
    Ok(if micro {
        time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into()
    } else {
        crate::clock::seconds(time).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn a_config_map_is_read() {
        let meta = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        let metadata = [field(1, b"a"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &metadata), field(2, &entry)].concat();
        let body = [MAGIC.to_vec(), field(1, &meta), field(2, &raw)].concat();
        assert_eq!(
            decode(&body).unwrap(),
            serde_json::json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}})
        );
    }
}
