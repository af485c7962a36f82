//! The requests of one stream, read one by one.
//!
//! Room is held for a request only while it comes: of the many streams of a server nearly all are silent.
//! Never here: what a request means. Made by `server`.

use std::{future::poll_fn, marker::PhantomData, pin::Pin};

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message;
use tonic::{
    Status,
    body::Body,
    codegen::{Body as HttpBody, StdError},
};

use super::{PREFIX_BYTES, REQUEST_BYTES_MAX};

/// The requests of one stream.
#[derive(Debug)]
pub struct Requests<Q> {
    body: Body,
    /// What has come of the next request.
    come: BytesMut,
    of: PhantomData<fn() -> Q>,
}

impl<Q: Message + Default> Requests<Q> {
    /// Reads them from a body.
    pub(super) fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        Self { body: Body::new(body), come: BytesMut::new(), of: PhantomData }
    }

    /// The next request; none: the client has no more. Nothing is lost where this is dropped while it waits.
    ///
    /// # Errors
    /// The stream broke, or what came is not a request.
    pub async fn message(&mut self) -> Result<Option<Q>, Status> {
        loop {
            if let Some(request) = self.take()? {
                return Ok(Some(request));
            }
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.come.extend_from_slice(&data);
                    }
                }
                Some(Err(status)) => return Err(status),
                None if self.come.is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ended within a request")),
            }
        }
    }

    /// Takes the next request, where all of it has come.
    fn take(&mut self) -> Result<Option<Q>, Status> {
        let Some((prefix, come)) = self.come.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(Status::unimplemented("compressed requests are not read"));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > REQUEST_BYTES_MAX {
            return Err(Status::resource_exhausted(format!("a request of more than {REQUEST_BYTES_MAX} bytes")));
        }
        let Some(message) = come.get(..length) else {
            let missing = length - come.len();
            self.come.reserve(missing);
            return Ok(None);
        };
        let request = Q::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.come.advance(PREFIX_BYTES + length);
        if self.come.is_empty() {
            self.come = BytesMut::new();
        }
        Ok(Some(request))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;

    use super::{super::DeltaDiscoveryRequest, *};

    fn sent(names: usize) -> Vec<u8> {
        let request = DeltaDiscoveryRequest {
            type_url: "t".into(),
            resource_names_subscribe: vec!["name".into(); names],
            ..Default::default()
        };
        let mut out = vec![0];
        out.put_u32(u32::try_from(request.encoded_len()).unwrap());
        request.encode(&mut out).unwrap();
        out
    }

    /// What is read of these bytes when they come in chunks of this size.
    fn read(bytes: &[u8], chunk: usize) -> Result<Vec<usize>, tonic::Code> {
        let mut requests = Requests::<DeltaDiscoveryRequest>::new(Body::empty());
        let mut found = Vec::new();
        for chunk in bytes.chunks(chunk) {
            requests.come.extend_from_slice(chunk);
            while let Some(request) = requests.take().map_err(|status| status.code())? {
                found.push(request.resource_names_subscribe.len());
            }
        }
        assert!(!requests.come.is_empty() || requests.come.capacity() == 0, "room is given back");
        Ok(found)
    }

    #[test]
    fn requests_are_read_however_they_are_cut() {
        let bytes = [sent(3), sent(0), sent(1000)].concat();
        for chunk in [1, 4, 5, 7, 100, bytes.len()] {
            assert_eq!(read(&bytes, chunk), Ok(vec![3, 0, 1000]), "{chunk}");
        }
    }

    #[test]
    fn what_is_no_request_ends_the_stream() {
        assert_eq!(read(&[1, 0, 0, 0, 0], 5), Err(tonic::Code::Unimplemented));
        assert_eq!(read(&[0, 0xff, 0, 0, 0], 5), Err(tonic::Code::ResourceExhausted));
        assert_eq!(read(&[0, 0, 0, 0, 1, 0xff], 6), Err(tonic::Code::InvalidArgument));
    }
}
