//! What the server answers with: bodies, and the API's `Status` for refusals.
//!
//! [`Refusal`] holds one failure with the real server's words. Never here: when to refuse.
//! Called by every handler; the rim writes the response to the socket.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::limits::{WARNING_CHARS_MAX, WARNINGS_CHARS_MAX};

/// A response's body: whole, or a stream that is flushed chunk by chunk.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A whole body.
pub(crate) fn whole(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON body.
pub(crate) fn json_body(status: StatusCode, value: &Value) -> Response<Body> {
    whole(status, "application/json", value.to_string())
}

/// A plain text body.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", text)
}

/// Puts `Warning` headers on a response.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in shown(warnings) {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

/// Each warning once; shortened where they are too long together, and the last left out where that is not enough.
fn shown(warnings: &[String]) -> Vec<String> {
    let mut once: Vec<&String> = Vec::new();
    for warning in warnings {
        if !warning.is_empty() && !once.contains(&warning) {
            once.push(warning);
        }
    }
    let all: usize = once.iter().map(|warning| warning.chars().count()).sum();
    let each = if all > WARNINGS_CHARS_MAX { WARNING_CHARS_MAX } else { WARNINGS_CHARS_MAX };
    let mut room = WARNINGS_CHARS_MAX;
    let short = once.into_iter().map(|warning| warning.chars().take(each).collect::<String>());
    short
        .take_while(|warning| {
            let length = warning.chars().count();
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        })
        .collect()
}

/// One reason why an object is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// `FieldValueRequired`, …
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) field: String,
}

impl Cause {
    fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: field.into() }
    }

    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self::new("FieldValueRequired", field, message)
    }

    /// `shown` is the bad value as JSON would have it.
    pub(crate) fn invalid(field: impl Into<String>, shown: &Value, detail: impl AsRef<str>) -> Self {
        Self::new("FieldValueInvalid", field, format!("Invalid value: {}: {}", go_value(shown), detail.as_ref()))
    }

    pub(crate) fn unsupported(field: impl Into<String>, shown: &Value, allowed: &[&str]) -> Self {
        let list: Vec<String> = allowed.iter().map(|text| format!("{text:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", go_value(shown), list.join(", "));
        Self::new("FieldValueNotSupported", field, message)
    }

    pub(crate) fn duplicate(field: impl Into<String>, shown: &Value) -> Self {
        Self::new("FieldValueDuplicate", field, format!("Duplicate value: {}", go_value(shown)))
    }

    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {detail}"))
    }

    pub(crate) fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::new("FieldValueTooLong", field, format!("Too long: may not be more than {max} bytes"))
    }

    pub(crate) fn too_many(field: impl Into<String>, count: usize, max: usize) -> Self {
        Self::new("FieldValueTooMany", field, format!("Too many: {count}: must have at most {max} items"))
    }

    pub(crate) fn wrong_type(field: impl Into<String>, shown: &Value, detail: impl AsRef<str>) -> Self {
        Self::new("FieldValueTypeInvalid", field, format!("Invalid value: {}: {}", go_value(shown), detail.as_ref()))
    }

    pub(crate) fn not_found(field: impl Into<String>, shown: &Value) -> Self {
        Self::new("FieldValueNotFound", field, format!("Not found: {}", go_value(shown)))
    }
}

/// A value as Go's `%v` or `%q` prints it in messages: texts quoted, the rest as JSON.
fn go_value(value: &Value) -> String {
    value.to_string()
}

/// A failure, as the API's `Status` says it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Option<Box<Value>>,
    pub(crate) retry_after: Option<u32>,
    /// Token with which a list goes on that cannot go on as it began.
    pub(crate) go_on: Option<String>,
    pub(crate) warnings: Vec<String>,
}

impl Refusal {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, reason, message, details: None, retry_after: None, go_on: None, warnings: Vec::new() }
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        let mut refusal = Self::new(404, "NotFound", format!("{} \"{name}\" not found", kind.group_resource()));
        refusal.details = Some(Box::new(details(name, &kind.group, &kind.plural)));
        refusal
    }

    pub(crate) fn exists(kind: &Kind, name: &str) -> Self {
        let mut refusal =
            Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.group_resource()));
        refusal.details = Some(Box::new(details(name, &kind.group, &kind.plural)));
        refusal
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.group_resource());
        let mut refusal = Self::new(409, "Conflict", message);
        refusal.details = Some(Box::new(details(name, &kind.group, &kind.plural)));
        refusal
    }

    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_as(&kind.kind, &kind.group, name, causes)
    }

    pub(crate) fn invalid_as(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Self {
        let shown = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut texts: Vec<String> = Vec::new();
        for cause in causes {
            let text = format!("{}: {}", if cause.field.is_empty() { "<nil>" } else { &cause.field }, cause.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let mut refusal = Self::new(422, "Invalid", format!("{shown} \"{name}\" is invalid: {list}"));
        let mut all = Map::new();
        if !name.is_empty() {
            all.insert("name".to_owned(), name.into());
        }
        if !group.is_empty() {
            all.insert("group".to_owned(), group.into());
        }
        all.insert("kind".to_owned(), kind.into());
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| {
                let field = if cause.field.is_empty() { "<nil>" } else { &cause.field };
                json!({"reason": cause.reason, "message": cause.message, "field": field})
            })
            .collect();
        all.insert("causes".to_owned(), causes.into());
        refusal.details = Some(Box::new(all.into()));
        refusal
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn internal(message: impl AsRef<str>) -> Self {
        let message = message.as_ref();
        let mut refusal = Self::new(500, "InternalError", format!("Internal error occurred: {message}"));
        refusal.details = Some(Box::new(json!({"causes": [{"message": message}]})));
        refusal
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(crate) fn unknown_resource() -> Self {
        let mut refusal = Self::new(404, "NotFound", "the server could not find the requested resource");
        refusal.details = Some(Box::new(json!({})));
        refusal
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if self.reason.is_empty() {
            crate::object::take(crate::object::object(&mut status), "reason");
        }
        if let Some(token) = &self.go_on {
            status["metadata"]["continue"] = token.as_str().into();
        }
        let mut details = self.details.as_deref().cloned();
        if let Some(seconds) = self.retry_after {
            crate::object::object(details.get_or_insert_with(|| json!({})))
                .insert("retryAfterSeconds".to_owned(), seconds.into());
        }
        if let Some(details) = details {
            crate::object::object(&mut status).insert("details".to_owned(), details);
        }
        status
    }

    pub(crate) fn response(&self) -> Response<Body> {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json_body(code, &self.status());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        warn(&mut response, &self.warnings);
        response
    }
}

fn details(name: &str, group: &str, plural: &str) -> Value {
    let mut all = Map::new();
    all.insert("name".to_owned(), name.into());
    if !group.is_empty() {
        all.insert("group".to_owned(), group.into());
    }
    all.insert("kind".to_owned(), plural.into());
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(warnings: &[String], count: usize, longest: usize) {
        let mut response = text(StatusCode::OK, "");
        warn(&mut response, warnings);
        let headers: Vec<&HeaderValue> = response.headers().get_all(http::header::WARNING).iter().collect();
        assert_eq!(headers.len(), count);
        assert_eq!(headers.iter().map(|header| header.len()).max().unwrap_or(0), longest);
    }

    #[test]
    fn a_warning_is_told_once_in_any_language() {
        let (said, around) = ("fällt weg".to_owned(), "299 - \"\"".len());
        check(&[said.clone(), said.clone()], 1, said.len() + around);
        check(&[], 0, 0);
    }

    #[test]
    fn too_many_warnings_are_shortened_and_then_left_out() {
        let many: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(300))).collect();
        check(&many, WARNINGS_CHARS_MAX / WARNING_CHARS_MAX, WARNING_CHARS_MAX + "299 - \"\"".len());
    }
}
