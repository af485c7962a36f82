//! Responses on their way out, cut into pieces of bounded size.
//!
//! A response may be megabytes of shared resources. It is never copied as a whole: pieces are made as the transport takes
//! them, small resources gathered, large ones passed on as they are. So a slow client costs a piece, not a response.
//! Never here: which response is sent. Used by `server`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    vec,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tonic::{
    Status,
    codegen::{Body as HttpBody, http::HeaderMap, tokio_stream::Stream},
};

use super::{DeltaDiscoveryResponse, DiscoveryResponse, PREFIX_BYTES};

/// Bytes of a piece; a large resource may be more.
const PIECE_BYTES: usize = 32 * 1024;
/// From this size on a resource is a piece of its own, not copied.
const LARGE_BYTES: usize = 16 * 1024;
/// Number of the field of resources, in both protocols.
const RESOURCES: u32 = 2;

/// A response as bytes: what stands before its resources, the resources, and what stands behind.
pub(super) struct Parts {
    head: Vec<u8>,
    resources: Vec<Bytes>,
    tail: Vec<u8>,
}

/// A response that can be sent in pieces.
pub(super) trait Pieces {
    /// Its parts.
    fn parts(self) -> Parts;
}

impl Pieces for DiscoveryResponse {
    fn parts(self) -> Parts {
        let Self { version_info, resources, type_url, nonce, control_plane } = self;
        let head = Self { version_info, ..Self::default() };
        let tail = Self { type_url, nonce, control_plane, ..Self::default() };
        Parts { head: head.encode_to_vec(), resources, tail: tail.encode_to_vec() }
    }
}

impl Pieces for DeltaDiscoveryResponse {
    fn parts(self) -> Parts {
        let Self { system_version_info, resources, type_url, nonce, removed_resources, control_plane } = self;
        let head = Self { system_version_info, ..Self::default() };
        let tail = Self { type_url, nonce, removed_resources, control_plane, ..Self::default() };
        Parts { head: head.encode_to_vec(), resources, tail: tail.encode_to_vec() }
    }
}

fn field_len(resource: &Bytes) -> usize {
    key_len(RESOURCES) + encoded_len_varint(resource.len() as u64) + resource.len()
}

/// One response that is being sent.
struct Outgoing {
    /// Bytes to come, but for a large resource that is on its way already.
    left: usize,
    head: Option<Vec<u8>>,
    resources: vec::IntoIter<Bytes>,
    /// The next resource, its key sent already.
    large: Option<Bytes>,
    tail: Option<Vec<u8>>,
}

impl Outgoing {
    fn new(parts: Parts) -> Result<Self, Status> {
        let Parts { head, resources, tail } = parts;
        let length = head.len() + resources.iter().map(field_len).sum::<usize>() + tail.len();
        let stated = u32::try_from(length).map_err(|_| Status::resource_exhausted("a response of more than 4 GiB"))?;
        let mut start = Vec::with_capacity(PREFIX_BYTES + head.len());
        start.put_u8(0); // not compressed
        start.put_u32(stated);
        start.extend_from_slice(&head);
        Ok(Self {
            left: PREFIX_BYTES + length,
            head: Some(start),
            resources: resources.into_iter(),
            large: None,
            tail: Some(tail),
        })
    }

    /// The next piece; none: all is sent.
    fn piece(&mut self) -> Option<Bytes> {
        if let Some(large) = self.large.take() {
            return Some(large);
        }
        if self.left == 0 {
            return None;
        }
        let mut piece = BytesMut::with_capacity(self.left.min(PIECE_BYTES));
        if let Some(head) = self.head.take() {
            piece.extend_from_slice(&head);
        }
        while let Some(next) = self.resources.as_slice().first() {
            let whole = piece.len() + field_len(next) <= PIECE_BYTES;
            if next.len() < LARGE_BYTES && !whole && !piece.is_empty() {
                break;
            }
            let Some(next) = self.resources.next() else { break };
            encode_key(RESOURCES, WireType::LengthDelimited, &mut piece);
            encode_varint(next.len() as u64, &mut piece);
            if next.len() >= LARGE_BYTES {
                self.left -= piece.len() + next.len();
                self.large = Some(next);
                return Some(piece.freeze());
            }
            piece.extend_from_slice(&next);
        }
        if self.resources.as_slice().is_empty()
            && let Some(tail) = self.tail.take()
        {
            piece.extend_from_slice(&tail);
        }
        self.left -= piece.len();
        Some(piece.freeze())
    }
}

/// The body that carries a stream's responses, and its status at the end.
pub(super) struct Sending<S> {
    responses: S,
    now: Option<Outgoing>,
    over: bool,
}

impl<S> Sending<S> {
    /// Sends these responses.
    pub(super) fn new(responses: S) -> Self {
        Self { responses, now: None, over: false }
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    match status.add_header(&mut trailers) {
        Ok(()) => trailers,
        // A text that no header can carry is left out.
        Err(_) => {
            let mut bare = HeaderMap::new();
            bare.insert("grpc-status", i32::from(status.code()).into());
            bare
        }
    }
}

impl<S, R> HttpBody for Sending<S>
where
    S: Stream<Item = Result<R, Status>> + Unpin,
    R: Pieces,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.now.as_mut().and_then(Outgoing::piece) {
                return Poll::Ready(Some(Ok(http_body::Frame::data(piece))));
            }
            this.now = None;
            if this.over {
                return Poll::Ready(None);
            }
            let status = match ready!(Pin::new(&mut this.responses).poll_next(cx)) {
                Some(Ok(response)) => match Outgoing::new(response.parts()) {
                    Ok(outgoing) => {
                        this.now = Some(outgoing);
                        continue;
                    }
                    Err(status) => status,
                },
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            this.over = true;
            return Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers(&status)))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::frame, *};

    fn sent(sizes: &[usize]) -> (DeltaDiscoveryResponse, Vec<Bytes>) {
        let resource = |size: &usize| frame("name", "7", "type", &vec![3; *size]).delta;
        let response = DeltaDiscoveryResponse {
            system_version_info: "1".into(),
            resources: sizes.iter().map(resource).collect(),
            type_url: "type".into(),
            nonce: "n".into(),
            removed_resources: vec!["gone".into()],
            control_plane: None,
        };
        let mut outgoing = Outgoing::new(response.clone().parts()).unwrap();
        let pieces = std::iter::from_fn(|| outgoing.piece()).collect();
        (response, pieces)
    }

    fn check(sizes: &[usize]) {
        let (response, pieces) = sent(sizes);
        let all: Vec<u8> = pieces.iter().flatten().copied().collect();
        let (prefix, message) = all.split_at(PREFIX_BYTES);
        assert_eq!(prefix[0], 0);
        assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, message.len());
        assert_eq!(DeltaDiscoveryResponse::decode(message).unwrap(), response);
        let largest = sizes.iter().max().map_or(0, |size| size + 64);
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES.max(largest) && !piece.is_empty()));
    }

    #[test]
    fn pieces_make_up_the_message() {
        for sizes in [
            &[][..],
            &[0],
            &[10],
            &[1000; 100],
            &[LARGE_BYTES - 40, LARGE_BYTES - 40, LARGE_BYTES - 40],
            &[100_000],
            &[10, 100_000, 10, 200_000, 300_000, 10],
            &[40_000, 20],
        ] {
            check(sizes);
        }
    }

    #[test]
    fn a_large_resource_is_not_copied() {
        let (response, pieces) = sent(&[10, 100_000, 10]);
        assert!(pieces.iter().any(|piece| piece.as_ptr() == response.resources[1].as_ptr()));
    }
}
