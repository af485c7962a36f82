//! What a proxy is told, as Envoy v3 messages: spec to wire, and wire to spec.
//!
//! `discovery` is the envelope (own messages, shared bytes), `node` says who asks, `ca` asks for certificates.
//! [`encode()`] writes one resource in the dialect its reader understands; [`decode()`] reads any control plane's resources
//! and checks them again. `decode(encode(s)) == s` for what our own proxies read.
//! Never here: decisions about traffic; what a proxy is told is `api-mesh`'s, what it does with it is `api`'s.
//! Used by pilot (encode), the proxy (decode) and `meshctl proxy-config` (both).

pub mod ca;
mod decode;
pub mod discovery;
mod encode;
mod names;
pub mod node;
#[cfg(test)]
mod strategies;
mod typed;

pub use decode::{DecodeError, decode};
pub use encode::{EncodeError, Encoded, encode};

use api::spec::ResourceKind;

/// Type URL of clusters (CDS).
pub const TYPE_URL_CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Type URL of endpoints (EDS).
pub const TYPE_URL_ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Type URL of listeners (LDS).
pub const TYPE_URL_LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Type URL of route tables (RDS).
pub const TYPE_URL_ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Type URL of single virtual hosts (VHDS).
pub const TYPE_URL_VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// Type URL of secrets (SDS).
pub const TYPE_URL_SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// The type URL that resources of a kind are subscribed to under.
pub fn type_url(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Cluster => TYPE_URL_CLUSTER,
        ResourceKind::Endpoints => TYPE_URL_ENDPOINTS,
        ResourceKind::Listener => TYPE_URL_LISTENER,
        ResourceKind::Routes => TYPE_URL_ROUTES,
        ResourceKind::VirtualHost => TYPE_URL_VIRTUAL_HOST,
        ResourceKind::Secret => TYPE_URL_SECRET,
    }
}

/// The kind that a type URL stands for; none for types we do not speak.
pub fn kind(type_url: &str) -> Option<ResourceKind> {
    match type_url {
        TYPE_URL_CLUSTER => Some(ResourceKind::Cluster),
        TYPE_URL_ENDPOINTS => Some(ResourceKind::Endpoints),
        TYPE_URL_LISTENER => Some(ResourceKind::Listener),
        TYPE_URL_ROUTES => Some(ResourceKind::Routes),
        TYPE_URL_VIRTUAL_HOST => Some(ResourceKind::VirtualHost),
        TYPE_URL_SECRET => Some(ResourceKind::Secret),
        _ => None,
    }
}

/// Who will read a resource; all see the same meaning, but not every field is for everyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// Our own proxy: everything, the private application protocol between our proxies included.
    Ours,
    /// A real Envoy beside our agent: what stock Envoy knows.
    Envoy,
    /// A proxyless gRPC client: API listeners, and the subset it knows.
    Grpc,
}
