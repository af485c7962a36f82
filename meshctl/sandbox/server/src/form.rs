//! How a client wants to see objects: as they are, as a table, or only their metadata.
//!
//! Reads `Accept`. Never here: the columns (see `table`). Called by get, list, watch and all writes.

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::reply::{Body, Refusal, json_body};
use crate::request::Query;
use crate::{object, table};

/// The form asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Table {
        beta: bool,
    },
    /// Metadata only; for lists too.
    Partial {
        beta: bool,
    },
}

const TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

impl Form {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut any = false;
        for header in headers.get_all(ACCEPT) {
            for range in header.to_str().unwrap_or_default().split(',') {
                any |= !range.trim().is_empty();
                if let Some(form) = one(range) {
                    return Ok(form);
                }
            }
        }
        if any {
            let text = format!("only the following media types are accepted: {TYPES}");
            return Err(Refusal::new(406, "NotAcceptable", text));
        }
        Ok(Self::Plain)
    }

    pub(crate) fn is_plain(self) -> bool {
        self == Self::Plain
    }

    /// One object.
    pub(crate) fn object(
        self,
        kind: &Kind,
        query: &Query,
        status: StatusCode,
        value: &Value,
    ) -> Result<Response<Body>, Refusal> {
        let shown = match self {
            Self::Plain => return Ok(json_body(status, value)),
            Self::Table { beta } => {
                let include = include(query)?;
                let mut table = empty_table(beta, &table::columns(kind));
                let row = table::row(kind, value, include);
                object::object(&mut table).insert("rows".to_owned(), json!([row]));
                object::metadata(&mut table)
                    .insert("resourceVersion".to_owned(), object::text(value, "/metadata/resourceVersion").into());
                table
            }
            Self::Partial { beta } => partial(value, beta),
        };
        Ok(json_body(status, &shown))
    }

    pub(crate) fn list(
        self,
        kind: &Kind,
        query: &Query,
        values: &[Value],
        metadata: Value,
    ) -> Result<Response<Body>, Refusal> {
        let shown = match self {
            Self::Plain => json!({
                "kind": kind.list_kind, "apiVersion": kind.api_version(),
                "metadata": metadata, "items": values,
            }),
            Self::Table { beta } => {
                let include = include(query)?;
                let mut table = empty_table(beta, &table::columns(kind));
                let rows: Vec<Value> = values.iter().map(|value| table::row(kind, value, include)).collect();
                object::object(&mut table).insert("rows".to_owned(), rows.into());
                object::object(&mut table).insert("metadata".to_owned(), metadata);
                table
            }
            Self::Partial { beta } => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": meta_version(beta),
                "metadata": metadata,
                "items": values.iter().map(|value| partial(value, beta)).collect::<Vec<_>>(),
            }),
        };
        Ok(json_body(StatusCode::OK, &shown))
    }

    pub(crate) fn rows(self, kind: &Kind, query: &Query) -> Result<Rows, Refusal> {
        Ok(Rows { columns: Some(table::columns(kind)), include: include(query)? })
    }
}

/// What a table's rows carry of their objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

fn include(query: &Query) -> Result<Include, Refusal> {
    match query.filled("includeObject") {
        None | Some("Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => Err(Refusal::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

/// The tables of one watch: columns are sent only once.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: Option<Vec<Value>>,
    include: Include,
}

impl Rows {
    pub(crate) fn event(&mut self, form: &Form, kind: &Kind, value: &Value) -> Value {
        match form {
            Form::Plain => value.clone(),
            Form::Partial { beta } => partial(value, *beta),
            Form::Table { beta } => {
                let mut table = empty_table(*beta, &self.columns.take().unwrap_or_default());
                let row = table::row(kind, value, self.include);
                object::object(&mut table).insert("rows".to_owned(), json!([row]));
                object::metadata(&mut table)
                    .insert("resourceVersion".to_owned(), object::text(value, "/metadata/resourceVersion").into());
                table
            }
        }
    }
}

fn one(range: &str) -> Option<Form> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?;
    let parameter = |name: &str| -> Option<&str> {
        range.split(';').skip(1).find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
    };
    if !matches!(media, "application/json" | "*/*" | "application/*") {
        return None;
    }
    let group = parameter("g");
    let beta = parameter("v") == Some("v1beta1");
    match (parameter("as"), group) {
        (None, _) => Some(Form::Plain),
        (Some("Table"), Some("meta.k8s.io")) => Some(Form::Table { beta }),
        (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io")) => {
            Some(Form::Partial { beta })
        }
        _ => None,
    }
}

fn meta_version(beta: bool) -> &'static str {
    if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
}

fn empty_table(beta: bool, columns: &[Value]) -> Value {
    json!({
        "kind": "Table", "apiVersion": meta_version(beta), "metadata": {}, "columnDefinitions": columns, "rows": [],
    })
}

pub(crate) fn partial(value: &Value, beta: bool) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": meta_version(beta),
        "metadata": value.get("metadata").cloned().unwrap_or_default(),
    })
}
