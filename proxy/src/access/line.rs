//! Writes one access log line from a record.
//!
//! Values that are absent are `-`, as Envoy writes them; text from the network is escaped so that it cannot end a line.
//! Never here: buffering. Called by `access` when a record is finished.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
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

fn number(out: &mut Vec<u8>, number: impl Into<u64>) {
    let (mut digits, mut rest) = ([b'0'; 20], number.into());
    let mut at = digits.len();
    while rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

fn millis(out: &mut Vec<u8>, length: Duration) {
    number(out, u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
}

fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(v4) = ip else { return show(out, ip) };
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        number(out, octet);
    }
}

fn address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    match address {
        None => out.push(b'-'),
        Some(v6 @ SocketAddr::V6(_)) => show(out, v6),
        Some(v4 @ SocketAddr::V4(_)) => {
            ip(out, v4.ip());
            out.push(b':');
            number(out, v4.port());
        }
    }
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
        Piece::StartTime(format) => start_time(out, began, format.as_deref(), record),
        Piece::Request(headers) => {
            let kept = record.asked.as_ref().and_then(|asked| asked.headers.get(*header)?.as_ref());
            *header += 1;
            request(out, headers, record, kept);
        }
        Piece::Response(headers) => {
            match response(&headers.first, record).or_else(|| response(headers.second.as_ref()?, record)) {
                Some(Shown::Number(value)) => {
                    let start = out.len();
                    number(out, value);
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
        Piece::ResponseCode => number(out, record.code),
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
        Piece::BytesReceived => number(out, record.received.get()),
        Piece::BytesSent => number(out, record.sent),
        Piece::Duration => millis(out, took),
        Piece::ResponseDuration => match record.replied {
            Some(at) => millis(out, at.duration_since(record.started)),
            None => out.push(b'-'),
        },
        Piece::UpstreamHost => address(out, record.upstream),
        Piece::UpstreamCluster => optional(out, record.cluster.as_deref()),
        Piece::UpstreamLocal => address(out, record.upstream_local),
        Piece::DownstreamLocal => address(out, Some(down.local)),
        Piece::DownstreamLocalPort => number(out, down.local.port()),
        Piece::DownstreamRemote => address(out, Some(down.remote)),
        Piece::DownstreamRemoteAddress => ip(out, down.remote.ip()),
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
    Number(u64),
}

fn response<'r>(name: &Name, record: &'r Record) -> Option<Shown<'r>> {
    match name {
        Name::Status => Some(Shown::Number(record.code.into())),
        Name::Header(name) if name == SERVICE_TIME => {
            record.service_time.map(|time| Shown::Number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
        }
        Name::Header(name) => record.reply_headers.get(name).map(|value| Shown::Text(value.as_bytes())),
        Name::Method | Name::Path | Name::Authority | Name::Scheme => None,
    }
}

fn start_time(out: &mut Vec<u8>, began: SystemTime, format: Option<&str>, record: &Record) {
    let Some(format) = format else {
        let written = record.worker.lines.seconds.with(began, |second, millis| {
            out.extend_from_slice(second);
            out.push(b'.');
            for unit in [100, 10, 1] {
                number(out, millis / unit % 10);
            }
            out.push(b'Z');
        });
        if written.is_none() {
            out.push(b'-');
        }
        return;
    };
    let Ok(at) = jiff::Timestamp::try_from(began) else { return out.push(b'-') };
    match format {
        "%s" => show(out, at.as_second()),
        "%s.%3f" => show(out, format_args!("{}.{:03}", at.as_second(), at.subsec_millisecond())),
        format => match jiff::fmt::strtime::format(format, at) {
            Ok(shown) => out.extend_from_slice(shown.as_bytes()),
            Err(_) => out.push(b'-'),
        },
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
