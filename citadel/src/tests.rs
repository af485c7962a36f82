//! The whole service over gRPC, with tokens from an issuer in the test; and an API server that stores objects in memory.
//!
//! Never here: single decisions (those are tested where they are made). Run by `cargo test`.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use api_rt::{
    clock::Clock,
    drain::CancellationToken,
    grpc,
    identity::{CaClient, CaOptions, Identity, IdentityError, Renewal, RenewalOptions, Wanted},
};
use api_xds::ca::{CreateCertificateRequest, client::CertificateClient, server::CertificateServer};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    limits::REQUESTS_MAX,
    policy::tests::policy,
    root::Root,
    serve::Desk,
    token::{
        Tokens,
        tests::{ISSUER, Issuer},
    },
};

/// Stores what is posted, by path below the namespace.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl FakeApi {
    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "istio-system")
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    async fn answer(&self, request: http::Request<Body>) -> http::Response<Full<bytes::Bytes>> {
        let path = request.uri().path().rsplit("istio-system/").next().unwrap().to_owned();
        let is_post = request.method() == http::Method::POST;
        let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
        // Others get their turn between the question and the answer, as over a network.
        tokio::task::yield_now().await;
        let mut stored = self.0.lock().unwrap();
        let failure = |code: u16, reason: &str| {
            let status = serde_json::json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason });
            (code, status.to_string().into_bytes())
        };
        let (code, bytes) = if is_post {
            let object: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let key = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
            match stored.entry(key) {
                std::collections::btree_map::Entry::Occupied(_) => failure(409, "AlreadyExists"),
                std::collections::btree_map::Entry::Vacant(place) => (201, place.insert(body).clone()),
            }
        } else {
            stored.get(&path).map_or_else(|| failure(404, "NotFound"), |found| (200, found.clone()))
        };
        let mut reply = http::Response::new(Full::new(bytes.into()));
        *reply.status_mut() = http::StatusCode::from_u16(code).unwrap();
        reply
    }
}

struct Citadel {
    issuer: Issuer,
    options: CaOptions,
    folder: std::path::PathBuf,
    stop: CancellationToken,
    turns: Arc<Semaphore>,
    serving: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Citadel {
    async fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("citadel-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let clock = Clock::system();
        let issuer = Issuer::new();
        let jwks = folder.join("jwks.json");
        std::fs::write(&jwks, serde_json::to_string(&issuer.keys()).unwrap()).unwrap();
        let root = Root::generate("cluster.local", clock.now()).unwrap();
        let roots = folder.join("root-cert.pem");
        std::fs::write(&roots, root.root_pem()).unwrap();
        let tokens = Tokens::Keys { jwks, issuer: ISSUER.into(), clock };
        let (_, root) = tokio::sync::watch::channel(Arc::new(root));
        let turns = Arc::new(Semaphore::new(REQUESTS_MAX));
        let desk = Desk { root, policy: policy(), tokens, clock, turns: Arc::clone(&turns) };
        let identity = Identity::new();
        let wanted = Wanted::DnsNames(vec!["istio-citadel.istio-system.svc".into()]);
        let own = RenewalOptions { wanted, lifetime: Duration::from_secs(3_600), roots: None };
        Renewal::new(identity.clone(), own, desk.clone(), clock).renew().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tls = identity.server_config(false, vec!["cluster.local".into()], vec![b"h2".to_vec()]).unwrap();
        let stop = CancellationToken::new();
        let routes = tonic::service::Routes::new(CertificateServer::new(desk));
        let serving = tokio::spawn(grpc::serve(listener, Some(tls), routes, Duration::ZERO, stop.clone()));
        let options = CaOptions {
            mark: None,
            address,
            name: Some("istio-citadel.istio-system.svc".into()),
            roots,
            token: Some(folder.join("token")),
            cluster: "Kubernetes".into(),
        };
        Self { issuer, options, folder, stop, turns, serving }
    }

    fn token(&self, subject: &str, audience: &str) {
        let token = self.issuer.token(subject, audience, Clock::system().unix() + 600);
        std::fs::write(self.folder.join("token"), token).unwrap();
    }

    async fn ask(&self, identity: &Identity, wanted: Wanted, lifetime: Duration) -> Result<(), IdentityError> {
        let client = CaClient::new(self.options.clone(), identity.certificate().clone());
        let options = RenewalOptions { wanted, lifetime, roots: None };
        Renewal::new(identity.clone(), options, client, Clock::system()).renew().await
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn refused(outcome: Result<(), IdentityError>) -> String {
    match outcome {
        Err(IdentityError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";
const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_workload_gets_its_identity_by_token_and_again_by_its_certificate() {
    let citadel = Citadel::start("workload").await;
    citadel.token("system:serviceaccount:shop:reviews", "istio-ca");
    let identity = Identity::new();
    let wanted = || Wanted::Spiffe(REVIEWS.into());
    citadel.ask(&identity, wanted(), HOUR).await.unwrap();
    let first = identity.certificate().get().unwrap();
    assert_eq!(first.uris(), [REVIEWS]);
    std::fs::remove_file(citadel.folder.join("token")).unwrap();
    citadel.ask(&identity, wanted(), HOUR).await.unwrap();
    let second = identity.certificate().get().unwrap();
    assert_eq!(second.uris(), [REVIEWS]);
    assert_ne!(first.serial(), second.serial());
    let admin = Wanted::Spiffe("spiffe://cluster.local/ns/shop/sa/admin".into());
    assert!(refused(citadel.ask(&identity, admin, HOUR).await).contains("may only have"));
    citadel.end().await;
}

#[tokio::test]
async fn one_request_too_many_is_told_to_come_again() {
    let citadel = Citadel::start("crowded").await;
    citadel.token("system:serviceaccount:shop:reviews", "istio-ca");
    let others = citadel.turns.acquire_many(u32::try_from(REQUESTS_MAX).unwrap()).await.unwrap();
    let wanted = || Wanted::Spiffe(REVIEWS.into());
    let outcome = citadel.ask(&Identity::new(), wanted(), HOUR).await;
    assert!(format!("{outcome:?}").contains("more than 1000 requests at once"), "{outcome:?}");
    drop(others);
    citadel.ask(&Identity::new(), wanted(), HOUR).await.unwrap();
    citadel.end().await;
}

#[tokio::test]
async fn a_control_program_gets_its_dns_names_and_nobody_else_does() {
    let citadel = Citadel::start("program").await;
    let istiod = || Wanted::DnsNames(vec!["istiod.istio-system.svc".into()]);
    citadel.token("system:serviceaccount:istio-system:istio-pilot", "istio-ca");
    let identity = Identity::new();
    citadel.ask(&identity, istiod(), HOUR).await.unwrap();
    assert!(identity.certificate().get().unwrap().dns_names().contains(&"istiod.istio-system.svc".to_owned()));
    citadel.token("system:serviceaccount:shop:reviews", "istio-ca");
    let why = refused(citadel.ask(&Identity::new(), istiod(), HOUR).await);
    assert_eq!(why, format!("the request asks for \"istiod.istio-system.svc\"; the caller may only have {REVIEWS}"));
    citadel.end().await;
}

#[tokio::test]
async fn wrong_tokens_lifetimes_and_impersonation_are_refused_and_nothing_is_signed() {
    let citadel = Citadel::start("wrong").await;
    let identity = Identity::new();
    let wanted = || Wanted::Spiffe(REVIEWS.into());
    citadel.token("system:serviceaccount:shop:reviews", "kubernetes");
    let why = refused(citadel.ask(&identity, wanted(), HOUR).await);
    assert!(why.starts_with("request authenticate failure: ") && why.contains("InvalidAudience"), "{why}");
    citadel.token("system:serviceaccount:shop:reviews", "istio-ca");
    let why = refused(citadel.ask(&identity, wanted(), HOUR * 24 * 365 * 10).await);
    assert!(why.contains("the longest is"), "{why}");
    assert!(identity.certificate().get().is_none());

    citadel.ask(&identity, wanted(), HOUR).await.unwrap();
    let tls = identity
        .client_config(api_rt::tls::Peers::Names(vec!["istio-citadel.istio-system.svc".into()]), vec![b"h2".to_vec()])
        .unwrap();
    let tls = Some((tls, "istio-citadel.istio-system.svc".to_owned()));
    let channel = grpc::channel(&grpc::Target { address: citadel.options.address.clone(), tls, mark: None }).unwrap();
    let mut client = CertificateClient::new(channel);
    let text = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.into())) };
    let impersonation = prost_types::Struct {
        fields: [("ImpersonatedIdentity".to_owned(), text("spiffe://cluster.local/ns/a/sa/b"))].into(),
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let ask = CreateCertificateRequest { csr, validity_duration: 60, metadata: Some(impersonation) };
    let status = client.create_certificate(tonic::Request::new(ask.clone())).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
    let plain = CreateCertificateRequest { metadata: None, ..ask };
    let mut with_bad_token = tonic::Request::new(plain.clone());
    with_bad_token.metadata_mut().insert("authorization", "Bearer nonsense".parse().unwrap());
    let status = client.create_certificate(with_bad_token).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "a wrong token is not mended by a certificate: {status}");
    assert_eq!(client.create_certificate(tonic::Request::new(plain)).await.unwrap().into_inner().cert_chain.len(), 2);
    citadel.end().await;
}
