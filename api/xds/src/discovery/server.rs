//! The server's side of the service.
//!
//! Requests are read by `requests`; responses leave in pieces, as `body` cuts them.
//! Never here: what is answered. Implemented by pilot through [`Aggregated`].

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Body as HttpBody, Service, StdError, http, tokio_stream::Stream},
    server::NamedService,
};

use super::{
    DELTA_PATH, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Requests, SERVICE,
    WHOLE_PATH,
    body::{Pieces, Sending},
};

/// The responses of one stream.
pub type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// How a stream is opened: its responses, or a refusal.
pub type Opening<T> = Pin<Box<dyn Future<Output = Result<Response<Responses<T>>, Status>> + Send>>;

/// What a control plane does with streams.
pub trait Aggregated: Send + Sync + 'static {
    /// A state-of-the-world stream was opened.
    fn whole(self: Arc<Self>, request: Request<Requests<DiscoveryRequest>>) -> Opening<DiscoveryResponse>;
    /// A delta stream was opened.
    fn delta(self: Arc<Self>, request: Request<Requests<DeltaDiscoveryRequest>>) -> Opening<DeltaDiscoveryResponse>;
}

/// The server's side of the service.
#[derive(Debug)]
pub struct AggregatedServer<A>(Arc<A>);

impl<A> Clone for AggregatedServer<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Aggregated> AggregatedServer<A> {
    /// Serves with this control plane.
    pub fn new(control: Arc<A>) -> Self {
        Self(control)
    }
}

impl<A> NamedService for AggregatedServer<A> {
    const NAME: &'static str = SERVICE;
}

/// The answer that carries a stream's responses.
async fn answer<R: Pieces + Send + 'static>(opening: Opening<R>) -> http::Response<Body> {
    match opening.await {
        Err(status) => status.into_http(),
        Ok(response) => {
            let (metadata, responses, extensions) = response.into_parts();
            let mut answer = http::Response::new(Body::new(Sending::new(responses)));
            *answer.headers_mut() = metadata.into_headers();
            *answer.extensions_mut() = extensions;
            let grpc = http::HeaderValue::from_static("application/grpc");
            answer.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
            answer
        }
    }
}

impl<A, B> Service<http::Request<B>> for AggregatedServer<A>
where
    A: Aggregated,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let control = Arc::clone(&self.0);
        match request.uri().path() {
            WHOLE_PATH => {
                let opening = control.whole(Request::from_http(request.map(Requests::new)));
                Box::pin(async { Ok(answer(opening).await) })
            }
            DELTA_PATH => {
                let opening = control.delta(Request::from_http(request.map(Requests::new)));
                Box::pin(async { Ok(answer(opening).await) })
            }
            _ => Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) }),
        }
    }
}
