//! The client's side of the service.
//!
//! Never here: what is asked for. Part of [`super`].

use bytes::Bytes;
use prost::Message;
use tonic::{
    Request, Status, Streaming,
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, StdError, http, tokio_stream::Stream},
};
use tonic_prost::ProstCodec;

use super::{
    DELTA_PATH, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, RESPONSE_BYTES_MAX,
    WHOLE_PATH,
};

/// The client's side of the service, over any channel.
#[derive(Debug, Clone)]
pub struct AggregatedClient<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> AggregatedClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// A client over this channel.
    pub fn new(channel: T) -> Self {
        Self { inner: tonic::client::Grpc::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX) }
    }

    /// Opens a state-of-the-world stream.
    ///
    /// # Errors
    /// What the channel or the server answers.
    pub async fn whole<S>(&mut self, requests: S) -> Result<Streaming<DiscoveryResponse>, Status>
    where
        S: Stream<Item = DiscoveryRequest> + Send + 'static,
    {
        self.open(WHOLE_PATH, requests).await
    }

    /// Opens a delta stream.
    ///
    /// # Errors
    /// What the channel or the server answers.
    pub async fn delta<S>(&mut self, requests: S) -> Result<Streaming<DeltaDiscoveryResponse>, Status>
    where
        S: Stream<Item = DeltaDiscoveryRequest> + Send + 'static,
    {
        self.open(DELTA_PATH, requests).await
    }

    async fn open<S, Q, R>(&mut self, path: &'static str, requests: S) -> Result<Streaming<R>, Status>
    where
        S: Stream<Item = Q> + Send + 'static,
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        self.inner.ready().await.map_err(|error| {
            let error: StdError = error.into();
            Status::unavailable(format!("channel is not ready: {error}"))
        })?;
        let path = http::uri::PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, R>::default();
        Ok(self.inner.streaming(Request::new(requests), path, codec).await?.into_inner())
    }
}
