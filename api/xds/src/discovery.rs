//! The discovery envelope: ADS requests and responses of Envoy v3, and the gRPC service that carries them.
//!
//! The messages have Envoy's field numbers and are read and written by any xDS peer. Resources stay encoded: a response
//! holds shared bytes, made once by [`frame`] for all proxies that are sent them, and a client decodes them one by one,
//! so that one bad resource spoils no other. The stubs carry them under Envoy's service name.
//! Never here: what a resource means, or which is sent when. Called by pilot (server) and proxy (client).

mod body;
mod client;
mod messages;
mod requests;
mod server;

pub use self::{
    client::AggregatedClient,
    messages::*,
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

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
