//! The messages of discovery, with Envoy's field numbers, and a resource's bytes in both protocols.
//!
//! Never here: what a resource means. Part of [`super`].

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

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
