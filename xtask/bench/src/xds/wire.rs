//! Delta ADS on the wire, as cheap as a load client needs it: framing, requests, and names and versions of responses.
//!
//! Resources themselves are passed over unread.
//! Never here: what to ask for (`stream`). Used by `stream`.

use std::collections::HashMap;

use api_xds::discovery::{DeltaDiscoveryRequest, Node};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

/// The method that opens a stream.
pub(crate) const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Length of what stands before each gRPC message: a flag and the message's length.
const PREFIX: usize = 5;

/// What a stream asks or answers.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    pub(crate) type_url: &'static str,
    pub(crate) node: Option<Node>,
    pub(crate) subscribe: Vec<String>,
    /// Versions held already.
    pub(crate) held: HashMap<String, String>,
    /// The response that this answers.
    pub(crate) nonce: String,
}

/// A request as a gRPC message.
pub(crate) fn request(ask: Ask) -> Bytes {
    let Ask { type_url, node, subscribe, held, nonce } = ask;
    let message = DeltaDiscoveryRequest {
        node,
        type_url: type_url.to_owned(),
        resource_names_subscribe: subscribe,
        initial_resource_versions: held,
        response_nonce: nonce,
        ..DeltaDiscoveryRequest::default()
    };
    let body = message.encode_to_vec();
    let mut out = BytesMut::with_capacity(PREFIX + body.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.put_slice(&body);
    out.freeze()
}

/// Takes the next whole gRPC message from what has come.
pub(crate) fn message(buffer: &mut BytesMut) -> Option<Bytes> {
    let length: [u8; 4] = buffer.get(1..PREFIX)?.try_into().ok()?;
    let whole = PREFIX + usize::try_from(u32::from_be_bytes(length)).ok()?;
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return None;
    }
    Some(buffer.split_to(whole).freeze().slice(PREFIX..))
}

/// A field of a message: its number and, where it has a length, its bytes.
type Field<'m> = (u32, &'m [u8]);

/// The fields of a message, in order; ends where it cannot be read.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Field<'m>;

    fn next(&mut self) -> Option<Field<'m>> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => {
                self.varint()?;
                &[][..]
            }
            1 => self.take(8)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.take(length)?
            }
            5 => self.take(4)?,
            _ => return None,
        };
        Some((number, value))
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A response, without its resources' content.
#[derive(Debug, Default)]
pub(crate) struct Response<'m> {
    pub(crate) type_url: &'m str,
    pub(crate) nonce: &'m str,
    /// Names and versions.
    pub(crate) resources: Vec<(&'m str, &'m str)>,
    pub(crate) removed: Vec<&'m str>,
}

/// Reads a response.
pub(crate) fn response(message: &[u8]) -> Response<'_> {
    let mut read = Response::default();
    for (number, value) in Fields(message) {
        match number {
            2 => {
                let (mut name, mut version) = ("", "");
                for (number, value) in Fields(value) {
                    match number {
                        1 => version = text(value),
                        3 => name = text(value),
                        _ => {}
                    }
                }
                read.resources.push((name, version));
            }
            4 => read.type_url = text(value),
            5 => read.nonce = text(value),
            6 => read.removed.push(text(value)),
            _ => {}
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use api_xds::discovery::{DeltaDiscoveryResponse, frame};

    use super::*;

    #[test]
    fn a_response_is_read_by_names_and_versions() {
        let response = DeltaDiscoveryResponse {
            system_version_info: "1".into(),
            resources: vec![frame("a", "7", "t", &[1; 300]).delta, frame("b", "8", "t", &[]).delta],
            type_url: "t".into(),
            nonce: "n".into(),
            removed_resources: vec!["c".into()],
            control_plane: None,
        };
        let bytes = response.encode_to_vec();
        let read = super::response(&bytes);
        assert_eq!((read.type_url, read.nonce), ("t", "n"));
        assert_eq!(read.resources, [("a", "7"), ("b", "8")]);
        assert_eq!(read.removed, ["c"]);
    }

    #[test]
    fn messages_are_taken_whole() {
        let sent = request(Ask { type_url: "t", subscribe: vec!["x".into()], ..Ask::default() });
        let mut buffer = BytesMut::from(&sent[..sent.len() - 1]);
        assert!(message(&mut buffer).is_none());
        buffer.put_slice(&sent[sent.len() - 1..]);
        let read = DeltaDiscoveryRequest::decode(message(&mut buffer).unwrap()).unwrap();
        assert_eq!(read.resource_names_subscribe, ["x"]);
        assert!(buffer.is_empty());
    }
}
