//! Writes one access log line from a record.
//!
//! Values that are absent are `-`, as Envoy writes them; text from the network is escaped so that it cannot end a line.
//! Never here: buffering. Called by `access` when a record is finished.

use std::{
    io::Write,
    time::{Duration, SystemTime},
};

use api::table::RuleName;
use http::{HeaderMap, HeaderValue, Version};

use crate::{
    http::headers::{ORIGINAL_PATH, SERVICE_TIME},
    tcp,
};

use super::{
    Record,
    format::{Format, Headers, Name, Piece},
};

/// Writes the line.
pub(crate) fn write(out: &mut Vec<u8>, format: &Format, record: &Record, began: SystemTime, took: Duration) {
    let mut header = 0;
    match format {
        Format::Text(pieces) => {
            for piece in pieces {
                put(out, piece, record, began, took, &mut header);
            }
            if out.last() != Some(&b'\n') {
                out.push(b'\n');
            }
        }
        Format::Json(fields) => {
            out.push(b'{');
            let mut value = Vec::new();
            for (index, (key, pieces)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                value.clear();
                for piece in pieces {
                    put(&mut value, piece, record, began, took, &mut header);
                }
                json_text(out, key);
                out.push(b':');
                // One operator alone keeps its type: numbers are numbers, what is absent is null.
                let single = pieces.len() == 1;
                if single && value == b"-" {
                    out.extend_from_slice(b"null");
                } else if single && is_number(&pieces[0]) {
                    out.extend_from_slice(&value);
                } else {
                    json_text(out, &String::from_utf8_lossy(&value));
                }
            }
            out.extend_from_slice(b"}\n");
        }
    }
}

fn is_number(piece: &Piece) -> bool {
    matches!(
        piece,
        Piece::ResponseCode | Piece::BytesReceived | Piece::BytesSent | Piece::Duration | Piece::ResponseDuration
    )
}

fn json_text(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(out, text);
    debug_assert!(written.is_ok(), "text is always JSON");
}

fn show(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

fn optional(out: &mut Vec<u8>, value: Option<impl std::fmt::Display>) {
    match value {
        Some(value) => show(out, value),
        None => out.push(b'-'),
    }
}

fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..0x20 | 0x7f => show(out, format_args!("\\x{byte:02x}")),
            byte => out.push(*byte),
        }
    }
}

fn put(out: &mut Vec<u8>, piece: &Piece, record: &Record, began: SystemTime, took: Duration, header: &mut usize) {
    let down = &record.downstream;
    match piece {
        Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
        Piece::StartTime(format) => start_time(out, began, format.as_deref()),
        Piece::Request(headers) => {
            let kept = record.asked.as_ref().and_then(|asked| asked.headers.get(*header)?.as_ref());
            *header += 1;
            request(out, headers, record, kept);
        }
        Piece::Response(headers) => {
            match response(&headers.first, record).or_else(|| response(headers.second.as_ref()?, record)) {
                Some(Shown::Number(number)) => {
                    let start = out.len();
                    show(out, number);
                    out.truncate(headers.bytes_max.map_or(usize::MAX, |most| start.saturating_add(most)));
                }
                Some(Shown::Text(value)) => text(out, Some(value), headers.bytes_max),
                None => text(out, None, None),
            }
        }
        Piece::Protocol => out.extend_from_slice(match record.version {
            Version::HTTP_10 => b"HTTP/1.0".as_slice(),
            Version::HTTP_2 => b"HTTP/2".as_slice(),
            tcp::NO_VERSION => b"-",
            _ => b"HTTP/1.1",
        }),
        Piece::ResponseCode => show(out, record.code),
        Piece::ResponseFlags => show(out, record.flags),
        Piece::ResponseCodeDetails => match &record.denied {
            Some(denied) if !record.tcp => show(out, denied),
            Some(_) | None => {
                let details = if record.details.is_empty() { "-" } else { record.details };
                out.extend_from_slice(details.as_bytes());
            }
        },
        // a request that is refused does not end its connection
        Piece::TerminationDetails => optional(out, record.denied.as_ref().filter(|_| record.tcp)),
        Piece::TransportFailure => text(out, record.transport_failure.as_deref().map(str::as_bytes), None),
        Piece::BytesReceived => show(out, record.received.get()),
        Piece::BytesSent => show(out, record.sent),
        Piece::Duration => show(out, took.as_millis()),
        Piece::ResponseDuration => {
            optional(out, record.replied.map(|at| at.duration_since(record.started).as_millis()));
        }
        Piece::UpstreamHost => optional(out, record.upstream),
        Piece::UpstreamCluster => optional(out, record.cluster.as_deref()),
        Piece::UpstreamLocal => optional(out, record.upstream_local),
        Piece::DownstreamLocal => show(out, down.local),
        Piece::DownstreamLocalPort => show(out, down.local.port()),
        Piece::DownstreamRemote => show(out, down.remote),
        Piece::DownstreamRemoteAddress => show(out, down.remote.ip()),
        Piece::ServerName => text(out, down.server_name.as_deref().map(str::as_bytes), None),
        Piece::RouteName => optional(out, record.route.as_ref().map(RuleName::as_str).filter(|name| !name.is_empty())),
        Piece::GrpcStatus => optional(out, record.grpc),
        Piece::PeerUri => optional(out, down.identity.as_ref()),
        Piece::HostName => out.extend_from_slice(record.worker.shared.own.name.as_bytes()),
    }
}

fn text(out: &mut Vec<u8>, value: Option<&[u8]>, bytes_max: Option<usize>) {
    match value {
        None | Some([]) => out.push(b'-'),
        Some(value) => escaped(out, &value[..bytes_max.unwrap_or(usize::MAX).min(value.len())]),
    }
}

fn request(out: &mut Vec<u8>, headers: &Headers, record: &Record, kept: Option<&HeaderValue>) {
    let asked = record.asked.as_deref();
    let part = |name: &Name| -> Option<&[u8]> {
        let asked = asked?;
        match name {
            Name::Method => Some(asked.method.as_str().as_bytes()),
            Name::Path => asked.path.as_ref().map(|path| path.as_str().as_bytes()),
            Name::Authority => asked.authority.as_ref().map(HeaderValue::as_bytes),
            Name::Scheme => Some(if asked.https { b"https" } else { b"http" }),
            Name::Header(name) if name == ORIGINAL_PATH => {
                asked.original_path.as_ref().map(|path| path.as_str().as_bytes())
            }
            Name::Status | Name::Header(_) => None,
        }
    };
    let found =
        part(&headers.first).or_else(|| kept.map(HeaderValue::as_bytes)).or_else(|| part(headers.second.as_ref()?));
    text(out, found, headers.bytes_max);
}

/// The kept value for a header operator: its first name's, else its second's.
pub(crate) fn keep(headers: &Headers, from: &HeaderMap) -> Option<HeaderValue> {
    let one = |name: &Name| match name {
        Name::Header(name) => from.get(name).cloned(),
        Name::Method | Name::Path | Name::Authority | Name::Scheme | Name::Status => None,
    };
    one(&headers.first).or_else(|| one(headers.second.as_ref()?))
}

/// A part of a reply's head.
enum Shown<'r> {
    Text(&'r [u8]),
    Number(u128),
}

fn response<'r>(name: &Name, record: &'r Record) -> Option<Shown<'r>> {
    match name {
        Name::Status => Some(Shown::Number(record.code.into())),
        Name::Header(name) if name == SERVICE_TIME => record.service_time.map(|time| Shown::Number(time.as_millis())),
        Name::Header(name) => record.reply_headers.get(name).map(|value| Shown::Text(value.as_bytes())),
        Name::Method | Name::Path | Name::Authority | Name::Scheme => None,
    }
}

fn start_time(out: &mut Vec<u8>, began: SystemTime, format: Option<&str>) {
    let Ok(at) = jiff::Timestamp::try_from(began) else { return out.push(b'-') };
    match format {
        None => show(out, at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")),
        Some("%s") => show(out, at.as_second()),
        Some("%s.%3f") => show(out, format_args!("{}.{:03}", at.as_second(), at.subsec_millisecond())),
        Some(format) => {
            let shown = jiff::fmt::strtime::format(format, at);
            match shown {
                Ok(shown) => out.extend_from_slice(shown.as_bytes()),
                Err(_) => out.push(b'-'),
            }
        }
    }
}

/// Expands the operators in the value of a header.
pub(crate) fn expand(format: &Format, record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    if let Format::Text(pieces) = format {
        let took = record.started.elapsed();
        let began = record.clock().now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut header = 0;
        for piece in pieces {
            put(&mut out, piece, record, began, took, &mut header);
        }
    }
    out
}
