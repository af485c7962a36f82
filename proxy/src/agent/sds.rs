//! Envoy's secret service on a Unix socket: the workload's certificate as `default`, the mesh's roots as `ROOTCA`.
//!
//! A new certificate is sent on every open stream at once. Only the pod's own processes can reach the socket.
//! Never here: renewing (`identity`). Served by `agent`.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use api::spec::{Resource, ResourceKind, Secret, SecretValue};
use api_rt::identity::Identity;
use api_xds::{
    Dialect,
    discovery::{Any, DiscoveryRequest, DiscoveryResponse},
};
use bytes::Bytes;
use futures::{Stream, stream};
use prost::Message;
use tokio::net::UnixListener;
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{NamedService, StreamingService},
};
use tonic_prost::ProstCodec;

type Responses = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Result<Response<Responses>, Status>> + Send>>;

/// The service.
#[derive(Debug, Clone)]
struct Sds {
    identity: Identity,
}

impl NamedService for Sds {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

/// The secret of a name; none: there is none (yet).
fn secret(identity: &Identity, name: &str) -> Option<Secret> {
    let value = match name {
        "default" => {
            let own = identity.certificate().get()?;
            SecretValue::Certificate {
                chain: own.chain_pem().as_bytes().to_vec(),
                key: own.key_pem().as_bytes().to_vec(),
            }
        }
        "ROOTCA" => SecretValue::Roots(identity.roots().get()?.pem().as_bytes().to_vec()),
        _ => return None,
    };
    Some(Secret { name: name.to_owned(), value })
}

fn response(identity: &Identity, names: &[String], version: u64) -> Result<Option<DiscoveryResponse>, Status> {
    let mut resources = Vec::new();
    for name in names {
        let Some(secret) = secret(identity, name) else { return Ok(None) };
        let resource = Resource::Secret(secret.into());
        let encoded =
            api_xds::encode(&resource, Dialect::Envoy).map_err(|error| Status::internal(error.to_string()))?;
        let any = Any { type_url: encoded.type_url.to_owned(), value: encoded.value };
        resources.push(Bytes::from(any.encode_to_vec()));
    }
    Ok(Some(DiscoveryResponse {
        version_info: version.to_string(),
        resources,
        type_url: api_xds::type_url(ResourceKind::Secret).to_owned(),
        nonce: version.to_string(),
        control_plane: None,
    }))
}

/// One stream: its names, and the number of the identity that was sent last.
struct State {
    identity: Identity,
    requests: Streaming<DiscoveryRequest>,
    names: Vec<String>,
    sent: Option<u64>,
    changes: tokio::sync::watch::Receiver<u64>,
}

async fn next(mut state: State) -> Option<(Result<DiscoveryResponse, Status>, State)> {
    loop {
        let current = *state.changes.borrow_and_update();
        if !state.names.is_empty() && state.sent != Some(current) {
            match response(&state.identity, &state.names, current) {
                Ok(Some(response)) => {
                    state.sent = Some(current);
                    return Some((Ok(response), state));
                }
                Ok(None) => {}
                Err(status) => return Some((Err(status), state)),
            }
        }
        tokio::select! {
            message = state.requests.message() => match message {
                Ok(Some(request)) => {
                    if let Some(detail) = request.error_detail {
                        tracing::warn!(reason = detail.message, "Envoy refused a secret");
                    }
                    if request.resource_names != state.names {
                        state.names = request.resource_names;
                        state.sent = None;
                    }
                }
                Ok(None) => return None,
                Err(status) => return Some((Err(status), state)),
            },
            changed = state.changes.changed() => if changed.is_err() { return None },
        }
    }
}

impl StreamingService<DiscoveryRequest> for Sds {
    type Response = DiscoveryResponse;
    type ResponseStream = Responses;
    type Future = Opening;
    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Opening {
        let identity = self.identity.clone();
        Box::pin(async move {
            let changes = identity.changes();
            let state = State { identity, requests: request.into_inner(), names: Vec::new(), sent: None, changes };
            Ok(Response::new(Box::pin(stream::unfold(state, next)) as Responses))
        })
    }
}

impl<B> tower::Service<http::Request<B>> for Sds
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets" {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let codec = ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
            Ok(tonic::server::Grpc::new(codec).streaming(service, request).await)
        })
    }
}

/// Serves until stopped.
pub(crate) async fn serve(listener: UnixListener, identity: Identity, stop: CancellationToken) -> anyhow::Result<()> {
    let incoming = UnixListenerStream::new(listener).filter_map(|accepted| match accepted {
        Ok(stream) => Some(Ok::<_, std::io::Error>(stream)),
        Err(error) => {
            tracing::warn!(%error, "Envoy could not be accepted");
            None
        }
    });
    let server = tonic::transport::Server::builder().add_service(Sds { identity });
    // Streams never end by themselves: stopping drops them.
    tokio::select! {
        ended = server.serve_with_incoming(incoming) => Ok(ended?),
        () = stop.cancelled() => Ok(()),
    }
}
