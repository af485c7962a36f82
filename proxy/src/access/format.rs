//! Envoy's access log formats, compiled once: text with `%OPERATOR%`s, or a JSON object of such texts.
//!
//! Never here: where the values come from (the record gives them) or where lines go. Compiled with the tables.

use api::spec::{ACCESS_LOG_FIELDS, ACCESS_LOG_LINE};
use http::HeaderName;
use serde_json::Value;

use crate::http::headers::SERVICE_TIME;

/// Why a format is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("%{0}% is no operator that is offered")]
    Operator(String),
    #[error("a % stands alone; write %% for one")]
    Open,
    #[error("not a JSON object of texts: {0}")]
    Json(String),
}

/// What a header operator reads, with the name to read where the first is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) first: Name,
    pub(crate) second: Option<Name>,
    pub(crate) bytes_max: Option<usize>,
}

/// A header, or a part of the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    Header(HeaderName),
}

/// One piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    StartTime(Option<String>),
    Request(Headers),
    Response(Headers),
    Protocol,
    ResponseCode,
    ResponseFlags,
    ResponseCodeDetails,
    TerminationDetails,
    TransportFailure,
    BytesReceived,
    BytesSent,
    Duration,
    ResponseDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocal,
    DownstreamLocal,
    DownstreamLocalPort,
    DownstreamRemote,
    DownstreamRemoteAddress,
    ServerName,
    RouteName,
    GrpcStatus,
    PeerUri,
    HostName,
}

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    Text(Vec<Piece>),
    Json(Vec<(String, Vec<Piece>)>),
}

impl Format {
    /// Compiles a text; none: Istio's default line.
    pub(crate) fn text(format: Option<&str>) -> Result<Self, FormatError> {
        Ok(Self::Text(pieces(format.unwrap_or(ACCESS_LOG_LINE))?))
    }

    /// Compiles a JSON object; none: Istio's default fields.
    pub(crate) fn json(format: Option<&str>) -> Result<Self, FormatError> {
        let Some(format) = format else {
            let all = ACCESS_LOG_FIELDS.iter().map(|(key, text)| Ok(((*key).to_owned(), pieces(text)?)));
            return Ok(Self::Json(all.collect::<Result<_, FormatError>>()?));
        };
        let map: serde_json::Map<String, Value> =
            serde_json::from_str(format).map_err(|error| FormatError::Json(error.to_string()))?;
        let all = map.into_iter().map(|(key, value)| match value {
            Value::String(text) => Ok((key, pieces(&text)?)),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(FormatError::Json(format!("{key}: {other} is no text")))
            }
        });
        Ok(Self::Json(all.collect::<Result<_, FormatError>>()?))
    }

    fn all(&self) -> impl Iterator<Item = &Piece> {
        let (text, fields): (&[Piece], &[(String, Vec<Piece>)]) = match self {
            Self::Text(pieces) => (pieces, &[]),
            Self::Json(fields) => (&[], fields),
        };
        text.iter().chain(fields.iter().flat_map(|(_, pieces)| pieces))
    }

    /// The pieces that read request headers, in order.
    pub(super) fn request_headers(&self) -> impl Iterator<Item = &Headers> {
        self.all().filter_map(|piece| if let Piece::Request(headers) = piece { Some(headers) } else { None })
    }

    /// The headers of replies that lines show.
    pub(super) fn reply_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let read =
            self.all().filter_map(|piece| if let Piece::Response(headers) = piece { Some(headers) } else { None });
        let names = read.flat_map(|headers| [Some(&headers.first), headers.second.as_ref()].into_iter().flatten());
        // The record knows the time that the upstream took.
        names
            .filter_map(|name| if let Name::Header(name) = name { Some(name) } else { None })
            .filter(|n| **n != SERVICE_TIME)
    }
}

fn pieces(format: &str) -> Result<Vec<Piece>, FormatError> {
    let mut found = Vec::new();
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        // An operator's argument may hold a percent sign (time formats), so its end is looked for after the bracket.
        let bracket = after.find('(').filter(|at| after.find('%').is_some_and(|end| *at < end));
        let end = match bracket {
            Some(at) => after[at..].find(')').and_then(|close| after[at + close..].find('%').map(|e| at + close + e)),
            None => after.find('%'),
        };
        let end = end.ok_or(FormatError::Open)?;
        if !text.is_empty() {
            found.push(Piece::Text(std::mem::take(&mut text)));
        }
        found.push(operator(&after[..end])?);
        rest = &after[end + 1..];
    }
    text.push_str(rest);
    if !text.is_empty() {
        found.push(Piece::Text(text));
    }
    Ok(found)
}

fn name(text: &str) -> Option<Name> {
    Some(match text.to_ascii_lowercase().as_str() {
        ":method" => Name::Method,
        ":path" => Name::Path,
        ":authority" | "host" => Name::Authority,
        ":scheme" => Name::Scheme,
        ":status" => Name::Status,
        other => Name::Header(HeaderName::from_bytes(other.as_bytes()).ok()?),
    })
}

fn headers(argument: &str, bytes_max: Option<usize>) -> Option<Headers> {
    let (first, second) = match argument.split_once('?') {
        None => (argument, None),
        Some((first, second)) => (first, Some(name(second)?)),
    };
    Some(Headers { first: name(first)?, second, bytes_max })
}

fn operator(text: &str) -> Result<Piece, FormatError> {
    let bad = || FormatError::Operator(text.to_owned());
    let (word, argument, bytes_max) = match text.split_once('(') {
        None => (text, None, None),
        Some((word, rest)) => {
            let (argument, after) = rest.rsplit_once(')').ok_or_else(bad)?;
            let bytes_max = match after.strip_prefix(':') {
                None if after.is_empty() => None,
                None => return Err(bad()),
                Some(number) => Some(number.parse().map_err(|_| bad())?),
            };
            (word, Some(argument), bytes_max)
        }
    };
    Ok(match (word, argument) {
        ("START_TIME", format) => Piece::StartTime(format.map(str::to_owned)),
        ("REQ" | "REQ_WITHOUT_QUERY", Some(argument)) => Piece::Request(headers(argument, bytes_max).ok_or_else(bad)?),
        ("RESP", Some(argument)) => Piece::Response(headers(argument, bytes_max).ok_or_else(bad)?),
        ("PROTOCOL", None) => Piece::Protocol,
        ("RESPONSE_CODE", None) => Piece::ResponseCode,
        ("RESPONSE_FLAGS", None) => Piece::ResponseFlags,
        ("RESPONSE_CODE_DETAILS", None) => Piece::ResponseCodeDetails,
        ("CONNECTION_TERMINATION_DETAILS", None) => Piece::TerminationDetails,
        ("UPSTREAM_TRANSPORT_FAILURE_REASON", None) => Piece::TransportFailure,
        ("BYTES_RECEIVED", None) => Piece::BytesReceived,
        ("BYTES_SENT", None) => Piece::BytesSent,
        ("DURATION", None) => Piece::Duration,
        ("RESPONSE_DURATION", None) => Piece::ResponseDuration,
        ("UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS", None) => Piece::UpstreamHost,
        ("UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW", None) => Piece::UpstreamCluster,
        ("UPSTREAM_LOCAL_ADDRESS", None) => Piece::UpstreamLocal,
        ("DOWNSTREAM_LOCAL_ADDRESS", None) => Piece::DownstreamLocal,
        ("DOWNSTREAM_LOCAL_PORT", None) => Piece::DownstreamLocalPort,
        ("DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", None) => Piece::DownstreamRemote,
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", None) => {
            Piece::DownstreamRemoteAddress
        }
        ("REQUESTED_SERVER_NAME", None) => Piece::ServerName,
        ("ROUTE_NAME", None) => Piece::RouteName,
        ("GRPC_STATUS", _) => Piece::GrpcStatus,
        ("DOWNSTREAM_PEER_URI_SAN", None) => Piece::PeerUri,
        ("HOSTNAME", None) => Piece::HostName,
        _ => return Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_defaults_compile() {
        assert!(Format::text(None).is_ok());
        let Ok(Format::Json(fields)) = Format::json(None) else { panic!("json") };
        assert_eq!(fields.len(), 24);
    }

    #[test]
    fn operators_take_arguments() {
        let Ok(Format::Text(found)) = Format::text(Some("a%%b %START_TIME(%Y-%m)% %REQ(X?:PATH):5%\n")) else {
            panic!("text")
        };
        assert_eq!(found[0], Piece::Text("a%b ".into()));
        assert_eq!(found[1], Piece::StartTime(Some("%Y-%m".into())));
        let wanted =
            Headers { first: Name::Header(HeaderName::from_static("x")), second: Some(Name::Path), bytes_max: Some(5) };
        assert_eq!(found[3], Piece::Request(wanted));
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        assert_eq!(Format::text(Some("%NOPE%")), Err(FormatError::Operator("NOPE".into())));
        assert_eq!(Format::text(Some("100%")), Err(FormatError::Open));
        assert!(Format::json(Some("[1]")).is_err());
    }
}
