//! httpbin: says what it was asked.
//!
//! The paths of go-httpbin that samples and tests use. Never here: a mesh, or state.

use std::{collections::BTreeMap, time::Duration};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::app::{Answer, App, Ask, json as reply, reply as typed, text};

const DELAY_MAX: Duration = Duration::from_secs(10);
const BYTES_MAX: usize = 100 * 1024;

/// The service.
pub(crate) struct Httpbin;

impl App for Httpbin {
    async fn answer(&self, ask: Ask) -> Answer {
        let path = ask.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            [""] => typed(
                StatusCode::OK,
                "text/html; charset=utf-8",
                "<h1>httpbin</h1><p>Try /get, /headers, /status/418.</p>",
            ),
            ["get" | "post" | "put" | "patch" | "delete" | "anything", ..] => reply(StatusCode::OK, &echo(&ask)),
            ["headers"] => reply(StatusCode::OK, &json!({"headers": headers(&ask)})),
            ["user-agent"] => reply(StatusCode::OK, &json!({"user-agent": one(&ask, "user-agent")})),
            ["ip"] => reply(StatusCode::OK, &json!({"origin": one(&ask, "x-forwarded-for")})),
            ["uuid"] => reply(StatusCode::OK, &json!({"uuid": uuid()})),
            ["html"] => typed(StatusCode::OK, "text/html; charset=utf-8", "<html><body><h1>A page</h1></body></html>"),
            ["status", status] => match status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok()) {
                Some(StatusCode::IM_A_TEAPOT) => text(StatusCode::IM_A_TEAPOT, "I'm a teapot!"),
                Some(status) => text(status, ""),
                None => text(StatusCode::BAD_REQUEST, "invalid status\n"),
            },
            ["delay", seconds] => match seconds.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()) {
                Some(delay) => {
                    tokio::time::sleep(delay.min(DELAY_MAX)).await;
                    reply(StatusCode::OK, &echo(&ask))
                }
                None => text(StatusCode::BAD_REQUEST, "invalid duration\n"),
            },
            ["bytes", count] => match count.parse::<usize>() {
                Ok(count) if count <= BYTES_MAX => typed(StatusCode::OK, "application/octet-stream", vec![b'x'; count]),
                _ => text(StatusCode::BAD_REQUEST, "invalid byte count\n"),
            },
            ["base64", word] => match base64::engine::general_purpose::URL_SAFE.decode(word) {
                Ok(bytes) => typed(StatusCode::OK, "text/plain", bytes),
                Err(error) => text(StatusCode::BAD_REQUEST, &format!("{error}\n")),
            },
            ["response-headers"] => response_headers(&ask),
            ["redirect-to"] => redirect(&ask),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}

fn query(ask: &Ask) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for pair in ask.uri().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        found.entry(name.to_owned()).or_default().push(value.replace("%2F", "/").replace("%3A", ":"));
    }
    found
}

fn headers(ask: &Ask) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in ask.headers() {
        found.entry(canonical(name.as_str())).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    found
}

/// `x-request-id` as Go writes it: `X-Request-Id`.
fn canonical(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

fn one(ask: &Ask, name: &str) -> String {
    ask.headers().get(name).map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn echo(ask: &Ask) -> Value {
    let data = String::from_utf8_lossy(ask.body()).into_owned();
    json!({
        "args": query(ask), "headers": headers(ask), "method": ask.method().as_str(), "origin": one(ask, "x-forwarded-for"),
        "url": format!("http://{}{}", one(ask, "host"), ask.uri()),
        "json": serde_json::from_str::<Value>(&data).ok(), "data": data,
    })
}

fn response_headers(ask: &Ask) -> Answer {
    let wanted = query(ask);
    let mut answer = reply(StatusCode::OK, &json!(wanted));
    for (name, values) in wanted {
        for value in values {
            match (header::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
                (Ok(name), Ok(value)) => {
                    answer.headers_mut().append(name, value);
                }
                _ => return text(StatusCode::BAD_REQUEST, "invalid header\n"),
            }
        }
    }
    answer
}

fn redirect(ask: &Ask) -> Answer {
    let target = query(ask).remove("url").and_then(|urls| HeaderValue::from_str(urls.first()?).ok());
    match target {
        Some(url) => {
            let mut answer = typed(StatusCode::FOUND, "text/plain", Bytes::new());
            answer.headers_mut().insert(header::LOCATION, url);
            answer
        }
        None => text(StatusCode::BAD_REQUEST, "missing url\n"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a sample's luck needs no seed")]
fn uuid() -> String {
    let bits: u128 = rand::random();
    let text = format!("{bits:032x}");
    format!("{}-{}-4{}-a{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..])
}
