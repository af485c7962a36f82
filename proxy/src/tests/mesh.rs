//! Requests through two proxies, over mutual TLS, and TLS with certificates from secrets.
//!
//! Identities are signed in the test; what must be refused is refused by the handshake or the policy.
//! Never here: citadel. Run by `cargo test`.

use std::{net::SocketAddr, sync::Arc};

use api::spec::*;
use api_rt::{
    identity::Identity,
    tls::{Certificate, Roots},
};
use http::Request;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use super::{
    Client, Proxy, app, ask, get, local, nobody, ok,
    spec::{chain, cluster, endpoint, forward, listener, retry, route, server, spec, to},
};
use crate::worker::Here;

/// A root, and identities that it signed.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) roots: Roots,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let roots = Roots::from_pem(root.pem().as_bytes()).unwrap();
        Self { issuer: Issuer::new(params, key), roots }
    }

    pub(super) fn identity(&self, uri: &str) -> Identity {
        let (chain, key) = self.sign(SanType::URI(uri.try_into().unwrap()));
        Identity::holding(Certificate::from_pem(&chain, &key).unwrap(), self.roots.clone())
    }

    /// A chain and its key, as PEM.
    pub(super) fn sign(&self, name: SanType) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

pub(super) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
pub(super) const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

/// The inbound side of a sidecar in front of an application.
pub(super) fn inbound(app: SocketAddr, strict: bool, authorization: Vec<Authorization>) -> Spec {
    let reading = HttpServer {
        client_cert: ClientCertHeader::AppendForward,
        authorization,
        ..server(vec![route(Action::Forward(Box::new(forward("inbound|80||"))))])
    };
    let tls = ServerTls {
        certificate: CertificateRef::Workload,
        client_roots: Some(RootsRef::Mesh),
        require_client_certificate: true,
        trust_domains: vec!["cluster.local".into()],
        alpn: vec!["h2".into(), "http/1.1".into()],
        mesh: true,
        min_version: TlsVersion::V1_2,
    };
    let network = Network::Http(Box::new(reading));
    let secured = FilterChain {
        name: "tls".into(),
        matches: ChainMatch { transport: Some(Transport::Tls), ..ChainMatch::default() },
        tls: Some(tls),
        network: network.clone(),
    };
    let mut listener = Listener { direction: Direction::Inbound, ..listener(secured) };
    if !strict {
        let matches = ChainMatch { transport: Some(Transport::Raw), ..ChainMatch::default() };
        listener.chains.push(FilterChain { name: "plain".into(), matches, tls: None, network });
    }
    // The application speaks HTTP/1, whatever rides between the proxies.
    spec(listener, vec![Cluster { http: UpstreamHttp::default(), ..cluster("inbound|80||", &[app]) }])
}

/// The outbound side of a sidecar towards inbound sides.
pub(super) fn outbound(to_addresses: &[SocketAddr], identities: &[&str], version: UpstreamVersion) -> Spec {
    let client = ClientTls {
        sni: Some("outbound_.80_._.reviews.shop.svc.cluster.local".into()),
        alpn: vec!["istio-peer-exchange".into(), "istio".into()],
        certificate: Some(CertificateRef::Workload),
        roots: Some(RootsRef::Mesh),
        subject_alt_names: identities.iter().map(|id| (*id).to_owned()).collect(),
        insecure: false,
        mesh: true,
    };
    let endpoints = to_addresses.iter().map(|address| Endpoint { mtls: true, ..endpoint(*address) }).collect();
    let cluster = Cluster {
        discovery: Discovery::Static(vec![Locality { endpoints, ..Locality::default() }]),
        tls: UpstreamTls::Auto(client),
        http: UpstreamHttp { version, ..UpstreamHttp::default() },
        ..cluster("c", &[])
    };
    let action = Action::Forward(Box::new(Forward { retry: Some(retry()), ..forward("c") }));
    spec(listener(chain(Network::Http(Box::new(server(vec![route(action)]))))), vec![cluster])
}

pub(super) async fn serve(identity: Identity, spec: &Spec) -> (Proxy, SocketAddr) {
    let mut proxy = Proxy::new(identity);
    let faults = proxy.apply(spec);
    assert!(faults.is_empty(), "{faults:?}");
    let address = proxy.listen("l").await;
    (proxy, address)
}

async fn through(version: UpstreamVersion) {
    let authority = Authority::new();
    let app = app(ok).await;
    let (inner, inside) = serve(authority.identity(REVIEWS), &inbound(app, true, vec![])).await;
    let (outer, address) = serve(authority.identity(WEB), &outbound(&[inside], &[REVIEWS], version)).await;
    let mut client = Client::to(address).await;
    for _ in 0..3 {
        let reply = client.ask(&get("/")).await;
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        assert!(reply.contains(&format!("By={REVIEWS};Hash=")) && reply.contains(&format!("URI={WEB}")), "{reply}");
        assert!(!reply.contains("x-envoy-peer-metadata"), "{reply}");
    }
    let inner = inner.metrics();
    assert!(inner.contains("connection_security_policy=\"mutual_tls\""), "{inner}");
    assert!(inner.contains("source_principal=\"spiffe://cluster.local/ns/shop/sa/web\""), "{inner}");
    let outer = outer.metrics();
    assert!(
        outer.contains("response_code=\"200\"") && outer.contains("connection_security_policy=\"unknown\""),
        "{outer}"
    );
}

#[test]
fn requests_pass_over_mutual_tls_on_http1() {
    local(through(UpstreamVersion::Http1));
}

#[test]
fn requests_pass_over_mutual_tls_on_http2() {
    local(through(UpstreamVersion::Http2));
}

#[test]
fn a_change_of_endpoints_keeps_the_connections_to_those_that_stay() {
    local(async {
        let authority = Authority::new();
        let (_server, reviews) =
            serve(authority.identity(REVIEWS), &inbound(app(|_| ok("hi")).await, true, vec![])).await;
        let outbound = |weight| {
            let mut spec = outbound(&[reviews], &[REVIEWS], UpstreamVersion::Http1);
            for cluster in spec.clusters.values_mut() {
                let Discovery::Static(places) = &mut Arc::make_mut(cluster).discovery else { panic!("not static") };
                places[0].endpoints[0].weight = weight;
            }
            spec
        };
        let (mut proxy, address) = serve(authority.identity(WEB), &outbound(1)).await;
        let mut client = Client::to(address).await;
        for weight in 2..6 {
            assert!(client.ask(&get("/")).await.ends_with("hi"));
            assert!(proxy.apply(&outbound(weight)).is_empty());
        }
        let tables = proxy.worker.shared.tables.load();
        let made: u64 = tables.clusters().map(|cluster| cluster.live.stats.connections_total.get()).sum();
        assert_eq!(made, 1);
    });
}

#[test]
fn connections_whose_settings_no_table_has_any_more_are_closed() {
    local(async {
        let authority = Authority::new();
        let (_server, reviews) =
            serve(authority.identity(REVIEWS), &inbound(app(|_| ok("hi")).await, true, vec![])).await;
        let outbound = |names: &[&str]| outbound(&[reviews], names, UpstreamVersion::Http1);
        let (mut proxy, address) = serve(authority.identity(WEB), &outbound(&[REVIEWS])).await;
        let mut client = Client::to(address).await;
        assert!(client.ask(&get("/")).await.ends_with("hi"));
        assert!(proxy.apply(&outbound(&[REVIEWS, WEB])).is_empty());
        assert!(client.ask(&get("/")).await.ends_with("hi"));
        let open = || -> u64 {
            proxy.worker.shared.tables.load().clusters().map(|cluster| cluster.live.stats.connections.get()).sum()
        };
        assert_eq!(open(), 2);
        proxy.worker.pools.sweep(tokio::time::Instant::now());
        assert_eq!(open(), 1);
    });
}

#[test]
fn another_identity_is_not_spoken_to() {
    local(async {
        let authority = Authority::new();
        let app = app(|_| ok("x")).await;
        let (_, inside) = serve(authority.identity(WEB), &inbound(app, true, vec![])).await;
        let spec = outbound(&[inside], &[REVIEWS], UpstreamVersion::Http1);
        let (_, address) = serve(authority.identity(WEB), &spec).await;
        let reply = ask(address, &get("/")).await;
        assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("TLS error"), "{reply}");
    });
}

#[test]
fn strict_refuses_what_is_plain_and_permissive_takes_it() {
    local(async {
        let authority = Authority::new();
        let app = app(|_| ok("served")).await;
        let (_, strict) = serve(authority.identity(REVIEWS), &inbound(app, true, vec![])).await;
        let mut client = Client::to(strict).await;
        client.send(&get("/")).await;
        let mut nothing = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut client.0, &mut nothing).await;
        assert!(nothing.is_empty(), "{ended:?}");
        let (_, permissive) = serve(authority.identity(REVIEWS), &inbound(app, false, vec![])).await;
        assert!(ask(permissive, &get("/")).await.ends_with("served"));
    });
}

#[test]
fn a_certificate_of_another_root_or_trust_domain_is_refused() {
    local(async {
        let authority = Authority::new();
        let app = app(|_| ok("x")).await;
        let (_, inside) = serve(authority.identity(REVIEWS), &inbound(app, true, vec![])).await;
        let spec = outbound(&[inside], &[REVIEWS], UpstreamVersion::Http1);
        for identity in [Authority::new().identity(WEB), authority.identity("spiffe://other.test/ns/shop/sa/web")] {
            let (_, address) = serve(identity, &spec).await;
            let reply = ask(address, &get("/")).await;
            assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
        }
    });
}

#[test]
fn only_callers_that_a_policy_allows_pass() {
    local(async {
        let authority = Authority::new();
        let app = app(|_| ok("x")).await;
        let allow = |principal: &str| {
            let source = vec![AuthorizationClause::is(SourceTest::Principals(vec![principal.into()]))];
            let rule = AuthorizationRule { name: "r".into(), from: vec![source], to: vec![], origin: None };
            vec![Authorization { action: AuthorizationAction::Allow, rules: vec![rule] }]
        };
        for (principal, status) in [("cluster.local/ns/shop/sa/web", "200"), ("cluster.local/ns/shop/sa/other", "403")]
        {
            let (_, inside) = serve(authority.identity(REVIEWS), &inbound(app, true, allow(principal))).await;
            let spec = outbound(&[inside], &[REVIEWS], UpstreamVersion::Http2);
            let (_, address) = serve(authority.identity(WEB), &spec).await;
            let reply = ask(address, &get("/")).await;
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{principal}: {reply}");
        }
    });
}

#[test]
fn what_did_not_reach_the_application_is_tried_elsewhere_even_a_post() {
    local(async {
        let authority = Authority::new();
        let good = app(|_| ok("here")).await;
        let (_, dead) = serve(authority.identity(REVIEWS), &inbound(nobody().await, true, vec![])).await;
        let (_, alive) = serve(authority.identity(REVIEWS), &inbound(good, true, vec![])).await;
        for version in [UpstreamVersion::Http1, UpstreamVersion::Http2] {
            let spec = outbound(&[dead, alive], &[REVIEWS], version);
            let (_, address) = serve(authority.identity(WEB), &spec).await;
            let mut client = Client::to(address).await;
            for _ in 0..6 {
                let reply = client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
                assert!(reply.ends_with("here"), "{reply}");
                assert!(!reply.contains("not-delivered"), "{reply}");
            }
        }
    });
}

#[test]
fn tls_of_users_ends_and_begins_with_certificates_from_secrets() {
    local(async {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
        let own = params.self_signed(&key).unwrap();
        let secret = |name: &str, value| Arc::new(Secret { name: name.into(), value });
        let app = app(|_| ok("x")).await;
        let tls = ServerTls {
            certificate: CertificateRef::Secret("kubernetes://shop".into()),
            client_roots: None,
            require_client_certificate: false,
            trust_domains: Vec::new(),
            alpn: vec!["h2".into(), "http/1.1".into()],
            mesh: false,
            min_version: TlsVersion::V1_2,
        };
        let action = Action::Forward(Box::new(forward("c")));
        let edge = HttpServer { edge: true, ..server(vec![route(action)]) };
        let ending = FilterChain { tls: Some(tls), ..chain(Network::Http(Box::new(edge))) };
        let listener = Listener { direction: Direction::Gateway, detect: Detect::default(), ..listener(ending) };
        let plain = Cluster { http: UpstreamHttp::default(), ..cluster("c", &[app]) };
        let mut gateway = spec(listener, vec![plain]);
        let value = SecretValue::Certificate { chain: own.pem().into_bytes(), key: key.serialize_pem().into_bytes() };
        gateway.secrets.insert("kubernetes://shop".into(), secret("kubernetes://shop", value));
        let (_, edge) = serve(Identity::new(), &gateway).await;

        let client = ClientTls {
            sni: Some("shop.test".into()),
            roots: Some(RootsRef::Secret("kubernetes://roots".into())),
            ..ClientTls::default()
        };
        for version in [UpstreamVersion::Http1, UpstreamVersion::Http2] {
            let outside = Cluster {
                tls: UpstreamTls::On(client.clone()),
                http: UpstreamHttp { version, ..UpstreamHttp::default() },
                ..cluster("c", &[edge])
            };
            let mut out = super::spec::http(vec![route(Action::Forward(Box::new(forward("c"))))], vec![outside]);
            let roots = SecretValue::Roots(own.pem().into_bytes());
            out.secrets.insert("kubernetes://roots".into(), secret("kubernetes://roots", roots));
            let (_, address) = serve(Identity::new(), &out).await;
            let reply = ask(address, &get("/")).await;
            assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        }
    });
}

#[test]
fn grpc_keeps_its_trailers() {
    local(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let frames = [
                    Ok::<_, std::convert::Infallible>(http_body::Frame::data(body)),
                    Ok(http_body::Frame::trailers(trailers)),
                ];
                Ok::<_, std::convert::Infallible>(http::Response::new(StreamBody::new(futures::stream::iter(frames))))
            });
            let serving =
                hyper::server::conn::http2::Builder::new(Here).serve_connection(TokioIo::new(socket), service);
            assert!(serving.await.is_ok());
        });
        let (proxy, address) = super::proxy(&to(&[upstream])).await;
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(Here, TokioIo::new(socket)).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        let request = Request::post("http://a.test/a.B/C")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(bytes::Bytes::from_static(b"message")))
            .unwrap();
        let whole = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(whole.to_bytes(), "message");
        let metrics = proxy.metrics();
        assert!(
            metrics.contains("request_protocol=\"grpc\"") && metrics.contains("grpc_response_status=\"0\""),
            "{metrics}"
        );
    });
}
