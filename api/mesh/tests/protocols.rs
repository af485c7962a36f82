//! Where our own protocol is offered and taken: on ports that may carry requests, and on no other.
//!
//! Never here: who is told of it (`api-xds` writes it for our own proxies only). Called by `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use api::spec::{PRIVATE_ALPN, Spec, UpstreamTls};
use api_mesh::mesh;
use support::{resolve, sidecar};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec:
  clusterIP: 198.19.0.1
  selector: {app: a}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90}, {name: x, port: 91}, {name: grpc, port: 92}]
";

fn ours(alpn: &[String]) -> bool {
    alpn.iter().any(|name| name == PRIVATE_ALPN)
}

/// Whether a port's clients offer it, and whether each of the workload's mTLS chains behind the port takes it.
fn check(spec: &Spec, port: u16, target: u16, client: bool, server: &[bool]) {
    let UpstreamTls::Auto(tls) = &spec.clusters[&format!("outbound|{port}||a.default.svc.cluster.local")].tls else {
        panic!("no automatic mTLS on {port}")
    };
    assert_eq!(ours(&tls.alpn), client, "{port}: {:?}", tls.alpn);
    let chains = &spec.listeners["virtualInbound"].chains;
    let here = chains.iter().filter(|chain| chain.matches.destination_port == Some(target));
    let taken: Vec<bool> = here.filter_map(|chain| chain.tls.as_ref()).map(|tls| ours(&tls.alpn)).collect();
    assert_eq!(taken, server, "{target}");
}

#[test]
fn it_is_spoken_where_requests_of_http_1_may_be() {
    let spec = mesh::spec(&resolve(SERVICE).0, &sidecar(&[("app", "a")]));
    check(&spec, 80, 8080, true, &[true]);
    check(&spec, 90, 90, false, &[false]);
    check(&spec, 91, 91, true, &[true, false]);
    check(&spec, 92, 92, false, &[true]);
}
