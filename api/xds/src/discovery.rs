//! The discovery envelope: ADS requests and responses of Envoy v3, and the gRPC service that carries them.
//!
//! The messages have Envoy's field numbers and are read and written by any xDS peer. Resources stay encoded: a response
//! holds shared bytes, made once by [`frame`] for all proxies that are sent them, and a client decodes them one by one,
//! so that one bad resource spoils no other. The stubs carry them under Envoy's service name.
//! Never here: what a resource means, or which is sent when. Called by pilot (server) and proxy (client).

mod body;
mod requests;
mod server;

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tonic::{
    Request, Status, Streaming,
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, StdError, http, tokio_stream::Stream},
};
use tonic_prost::ProstCodec;

pub use self::{
    requests::Requests,
    server::{Aggregated, AggregatedServer, Opening, Responses},
};

/// Full name of the service.
pub const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
const WHOLE_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// A flag and the length of a message, before each (gRPC over HTTP/2).
const PREFIX_BYTES: usize = 5;
/// Largest request that a server reads.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest response that a client reads.
pub const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;

// -------------------------------------------------------------------------------------------------------------- messages

/// Any message, with the URL of its type (`google.protobuf.Any`).
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// URL of the type.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// Why a client refused a response (`google.rpc.Status`).
#[derive(Clone, PartialEq, Message)]
pub struct ErrorDetail {
    /// gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Text.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Where a proxy runs.
#[derive(Clone, PartialEq, Message)]
pub struct NodeLocality {
    /// Region.
    #[prost(string, tag = "1")]
    pub region: String,
    /// Zone.
    #[prost(string, tag = "2")]
    pub zone: String,
    /// Sub-zone.
    #[prost(string, tag = "3")]
    pub sub_zone: String,
}

/// Who asks (`envoy.config.core.v3.Node`).
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Node id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Service that the proxy stands for.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// What else is known about it; Istio's keys.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<prost_types::Struct>,
    /// Where it runs.
    #[prost(message, optional, tag = "4")]
    pub locality: Option<NodeLocality>,
    /// Its program.
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    /// Its program's version.
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
    /// What it can do.
    #[prost(string, repeated, tag = "10")]
    pub client_features: Vec<String>,
}

/// Who answers.
#[derive(Clone, PartialEq, Message)]
pub struct ControlPlane {
    /// Its name.
    #[prost(string, tag = "1")]
    pub identifier: String,
}

/// Asks for all resources of a type by name, or answers a response (state of the world).
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryRequest {
    /// Version of the last response that was taken.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Who asks; given with the first request of a stream.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// Names asked for; empty asks for everything where the type allows it.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// Type asked for.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Nonce of the response that this answers; empty for the first request of a type.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Why that response was refused.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<ErrorDetail>,
}

/// Resources of one type (state of the world).
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryResponse {
    /// Version of the resources.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Encoded [`Any`]s; read them with [`DiscoveryResponse::decoded`].
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// Their type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be given back in the answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Who answers.
    #[prost(message, optional, tag = "6")]
    pub control_plane: Option<ControlPlane>,
}

impl DiscoveryResponse {
    /// The resources, each decoded by itself.
    pub fn decoded(&self) -> impl Iterator<Item = Result<Any, prost::DecodeError>> + '_ {
        self.resources.iter().map(|bytes| Any::decode(bytes.clone()))
    }
}

/// Changes what is asked for, or answers a response (delta).
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; given with the first request of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// Type asked for.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names to add; `*` for everything.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names to drop.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// What the client already has, with the version of each; given with the first request of a type.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// Nonce of the response that this answers.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Why that response was refused.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<ErrorDetail>,
}

/// Resources that were added, changed or removed (delta).
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryResponse {
    /// For people to read.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// Encoded [`Resource`]s; read them with [`DeltaDiscoveryResponse::decoded`].
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// Their type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be given back in the answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that are no more.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Who answers.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
}

impl DeltaDiscoveryResponse {
    /// The resources, each decoded by itself.
    pub fn decoded(&self) -> impl Iterator<Item = Result<Resource, prost::DecodeError>> + '_ {
        self.resources.iter().map(|bytes| Resource::decode(bytes.clone()))
    }
}

/// A resource with its name and version (delta).
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Version of this resource.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource; absent where a name asked for stands for nothing.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Other names that are answered by it (VHDS).
    #[prost(string, repeated, tag = "4")]
    pub aliases: Vec<String>,
}

/// A resource as it is sent: one buffer for both protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// An encoded [`Resource`], for delta responses.
    pub delta: Bytes,
    /// An encoded [`Any`], for state-of-the-world responses; a part of `delta`.
    pub any: Bytes,
}

/// Encodes a resource for sending, once for all who are sent it.
pub fn frame(name: &str, version: &str, type_url: &str, value: &[u8]) -> Frame {
    let text = |tag: u32, text: &str| key_len(tag) + encoded_len_varint(text.len() as u64) + text.len();
    let any_len = text(1, type_url) + key_len(2) + encoded_len_varint(value.len() as u64) + value.len();
    let head_len = text(3, name) + text(1, version) + key_len(2) + encoded_len_varint(any_len as u64);
    let mut out = BytesMut::with_capacity(head_len + any_len);
    let put = |out: &mut BytesMut, tag: u32, bytes: &[u8]| {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.put_slice(bytes);
    };
    put(&mut out, 3, name.as_bytes());
    put(&mut out, 1, version.as_bytes());
    encode_key(2, WireType::LengthDelimited, &mut out);
    encode_varint(any_len as u64, &mut out);
    put(&mut out, 1, type_url.as_bytes());
    put(&mut out, 2, value);
    let delta = out.freeze();
    let any = delta.slice(head_len..);
    Frame { delta, any }
}

// ---------------------------------------------------------------------------------------------------------------- client

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

#[cfg(test)]
mod tests {
    use super::*;

    fn resource() -> Resource {
        Resource {
            version: "7".into(),
            resource: Some(Any { type_url: "type.googleapis.com/a.B".into(), value: Bytes::from(vec![3; 300]) }),
            name: "outbound|80||a".into(),
            aliases: Vec::new(),
        }
    }

    #[test]
    fn a_frame_is_a_resource_and_holds_its_any() {
        let wanted = resource();
        let any = wanted.resource.clone().unwrap();
        let frame = frame(&wanted.name, &wanted.version, &any.type_url, &any.value);
        assert_eq!(Resource::decode(frame.delta).unwrap(), wanted);
        assert_eq!(Any::decode(frame.any).unwrap(), any);
    }

    #[test]
    fn a_response_carries_frames_as_messages() {
        use envoy_types::pb::envoy::service::discovery::v3 as envoy;
        let wanted = resource();
        let any = wanted.resource.clone().unwrap();
        let frame = frame(&wanted.name, &wanted.version, &any.type_url, &any.value);
        let delta = DeltaDiscoveryResponse {
            system_version_info: "s".into(),
            resources: vec![frame.delta],
            type_url: any.type_url.clone(),
            nonce: "n".into(),
            removed_resources: vec!["gone".into()],
            control_plane: Some(ControlPlane { identifier: "me".into() }),
        };
        let theirs = envoy::DeltaDiscoveryResponse::decode(delta.encode_to_vec().as_slice()).unwrap();
        assert_eq!(theirs.resources[0].name, wanted.name);
        assert_eq!(theirs.resources[0].version, wanted.version);
        assert_eq!(theirs.resources[0].resource.as_ref().unwrap().value, any.value);
        assert_eq!(theirs.removed_resources, ["gone"]);
        assert_eq!((theirs.nonce.as_str(), theirs.type_url), ("n", any.type_url.clone()));
        assert_eq!(theirs.control_plane.unwrap().identifier, "me");

        let whole = DiscoveryResponse {
            version_info: "v".into(),
            resources: vec![frame.any],
            type_url: any.type_url.clone(),
            nonce: "n".into(),
            control_plane: None,
        };
        let theirs = envoy::DiscoveryResponse::decode(whole.encode_to_vec().as_slice()).unwrap();
        assert_eq!(theirs.resources[0].type_url, any.type_url);
        assert_eq!((theirs.version_info.as_str(), theirs.nonce.as_str()), ("v", "n"));
    }

    #[test]
    fn requests_of_others_are_read() {
        use envoy_types::pb::envoy::{config::core::v3 as core, service::discovery::v3 as envoy};
        let node =
            core::Node { id: "i".into(), cluster: "c".into(), user_agent_name: "envoy".into(), ..Default::default() };
        let delta = envoy::DeltaDiscoveryRequest {
            node: Some(node.clone()),
            type_url: "t".into(),
            resource_names_subscribe: vec!["a".into()],
            resource_names_unsubscribe: vec!["b".into()],
            initial_resource_versions: [("x".to_owned(), "1".to_owned())].into(),
            response_nonce: "n".into(),
            ..Default::default()
        };
        let ours = DeltaDiscoveryRequest::decode(delta.encode_to_vec().as_slice()).unwrap();
        assert_eq!(ours.node.as_ref().unwrap().user_agent_name, "envoy");
        assert_eq!(ours.initial_resource_versions["x"], "1");
        assert_eq!(
            (ours.resource_names_subscribe, ours.resource_names_unsubscribe),
            (vec!["a".into()], vec!["b".into()])
        );

        let whole = envoy::DiscoveryRequest {
            version_info: "v".into(),
            node: Some(node),
            resource_names: vec!["a".into()],
            type_url: "t".into(),
            response_nonce: "n".into(),
            error_detail: Some(envoy_types::pb::google::rpc::Status {
                code: 3,
                message: "bad".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let ours = DiscoveryRequest::decode(whole.encode_to_vec().as_slice()).unwrap();
        assert_eq!(ours.error_detail.unwrap().message, "bad");
        assert_eq!((ours.version_info.as_str(), ours.response_nonce.as_str(), ours.type_url.as_str()), ("v", "n", "t"));
        assert_eq!(ours.resource_names, ["a"]);
    }
}
