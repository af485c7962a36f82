//! Who is sent the certificates of gateways.
//!
//! Never here: what the API server is asked (`rights`). Run by `cargo test`.

use super::*;
use crate::rights::Right;

fn gateway_with_certificate() -> Vec<Value> {
    let spec = json!({ "selector": { "istio": "ingressgateway" }, "servers": [{
        "port": { "number": 443, "name": "https", "protocol": "HTTPS" }, "hosts": ["shop.example.com"],
        "tls": { "mode": "SIMPLE", "credentialName": "shop" } }] });
    vec![
        json!({ "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
                "metadata": { "name": "shop", "namespace": "default" }, "spec": spec }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "shop", "namespace": "istio-system" },
                "type": "kubernetes.io/tls", "data": { "tls.crt": "Y2VydA==", "tls.key": "a2V5" } }),
    ]
}

/// A client that asks for the certificate of the gateway.
async fn asks_for_secret(
    pilot: &Pilot,
    identity: Option<&str>,
    door: Door,
    id: &str,
) -> Client<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
    let (requests, receiver) = mpsc::channel(8);
    let mut client = AggregatedClient::new(pilot.channel(identity, door));
    let responses = client.delta(ReceiverStream::new(receiver)).await.unwrap();
    let client = Client { id: id.to_owned(), requests, responses, greeted: true };
    let text = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) };
    let labels = prost_types::Struct { fields: [("istio".to_owned(), text("ingressgateway"))].into() };
    let labels = prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(labels)) };
    let metadata = prost_types::Struct { fields: [("LABELS".to_owned(), labels)].into() };
    let node = discovery::Node { id: client.id.clone(), metadata: Some(metadata), ..Default::default() };
    let request = DeltaDiscoveryRequest {
        node: Some(node),
        type_url: api_xds::type_url(ResourceKind::Secret).into(),
        resource_names_subscribe: vec!["kubernetes://shop".into()],
        ..Default::default()
    };
    client.requests.send(request).await.unwrap();
    client
}

async fn secret_for(identity: Option<&str>, door: Door, id: &str) -> String {
    let pilot = Pilot::new(gateway_with_certificate());
    asks_for_secret(&pilot, identity, door, id).await.hears().await
}

#[tokio::test(start_paused = true)]
async fn certificates_come_and_go_with_the_right_to_read_them() {
    let server = crate::rights::tests::Server::default();
    server.says(Some(false));
    let pilot = Pilot::with(gateway_with_certificate(), server.rights());
    let gateway = "router~198.18.0.9~gw-1.istio-system~istio-system.svc.cluster.local";
    let proven = Some("spiffe://cluster.local/ns/istio-system/sa/gw");
    let mut client = asks_for_secret(&pilot, proven, Door::Proven, gateway).await;
    let right = |pilot: &Pilot| pilot.control.registry.all()[0].right;
    assert_eq!(client.hears().await, "sds -kubernetes://shop");
    assert_eq!(right(&pilot), Right::Withheld);
    server.says(Some(true));
    assert_eq!(client.hears().await, "sds kubernetes://shop", "asked again by itself");
    assert_eq!(right(&pilot), Right::Granted);
    server.says(None);
    tokio::time::sleep(3 * crate::limits::RIGHTS_HOLD).await;
    server.says(Some(false));
    assert_eq!(client.hears().await, "sds -kubernetes://shop");
}

#[tokio::test]
async fn certificates_go_only_to_gateways_that_proved_who_they_are() {
    let gateway = "router~198.18.0.9~gw-1.istio-system~istio-system.svc.cluster.local";
    let sidecar = "sidecar~198.18.0.9~gw-1.istio-system~istio-system.svc.cluster.local";
    let elsewhere = "router~198.18.0.9~gw-1.default~default.svc.cluster.local";
    let proven = Some("spiffe://cluster.local/ns/istio-system/sa/gw");
    let (given, withheld) = ("sds kubernetes://shop", "sds -kubernetes://shop");
    assert_eq!(secret_for(proven, Door::Proven, gateway).await, given);
    assert_eq!(secret_for(proven, Door::Proven, sidecar).await, withheld);
    assert_eq!(secret_for(None, Door::Open, gateway).await, withheld);
    let other = Some("spiffe://cluster.local/ns/default/sa/gw");
    assert_eq!(secret_for(other, Door::Proven, elsewhere).await, withheld);
}
