//! Renewal in a day that passes at once, and the client against a real gRPC server.
//!
//! Never here: citadel. Run by `cargo test`.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use api_xds::ca::{
    CreateCertificateRequest, CreateCertificateResponse,
    server::{CertificateServer, Certificates},
};
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    clock::{Clock, Jump},
    grpc,
    tls::tests::Root,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Signs anything; fails the first `failures` times.
struct Signer {
    root: Root,
    clock: Clock,
    failures: AtomicU32,
    asked: AtomicU32,
}

impl Signer {
    fn new(clock: Clock, failures: u32) -> Self {
        Self { root: Root::new(), clock, failures: AtomicU32::new(failures), asked: AtomicU32::new(0) }
    }

    fn answer(&self, csr: &str, lifetime: Duration) -> Signed {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let now = self.clock.now();
        request.params.not_before = now.into();
        request.params.not_after = (now + lifetime).into();
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = request.params.signed_by(&request.public_key, self.root.issuer()).unwrap();
        vec![signed.pem(), self.root.pem()]
    }
}

impl Authority for Signer {
    fn sign(&self, csr_pem: String, lifetime: Duration) -> Signing<'_> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let fails = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        Box::pin(async move {
            if fails {
                return Err(IdentityError::Unreachable { address: "citadel:8060".into(), reason: "no answer".into() });
            }
            Ok(self.answer(&csr_pem, lifetime))
        })
    }
}

fn wanted() -> RenewalOptions {
    RenewalOptions {
        wanted: Wanted::Spiffe("spiffe://cluster.local/ns/default/sa/a".into()),
        lifetime: DAY,
        roots: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_of_its_life_and_failures_are_tried_again() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let clock = Clock::starting_at(start);
    let signer = Arc::new(Signer::new(clock, 3));
    let identity = Identity::new();
    let stop = CancellationToken::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let renewal = Renewal::new(identity.clone(), wanted(), Arc::clone(&signer), clock);
    let keeper =
        tokio::spawn(renewal.run(stop.clone(), move |reason: &str| heard.lock().unwrap().push(reason.to_owned())));
    identity.wait().await;
    assert_eq!(told.lock().unwrap().len(), 3);
    let first = identity.certificate().get().unwrap();
    assert_eq!(first.identity().unwrap().service_account(), "a");
    let mut changes = identity.changes();
    changes.mark_unchanged();
    changes.changed().await.unwrap();
    let second = identity.certificate().get().unwrap();
    let waited = second.not_before().duration_since(first.not_before()).unwrap();
    assert!((DAY.mul_f64(0.489)..=DAY.mul_f64(0.511)).contains(&waited), "{waited:?}");
    assert_ne!(first.key_pem(), second.key_pem());
    assert_eq!(signer.asked.load(Ordering::SeqCst), 5);
    stop.cancel();
    keeper.await.unwrap();
}

/// Renewals in three days of a clock that is set; the authority's is right, and no certificate may run out.
async fn renewals(jumps: &'static [Jump]) -> u32 {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let right = Clock::starting_at(start);
    let signer = Arc::new(Signer::new(right, 0));
    let identity = Identity::new();
    let stop = CancellationToken::new();
    let renewal = Renewal::new(identity.clone(), wanted(), Arc::clone(&signer), Clock::jumping(start, jumps));
    let keeper = tokio::spawn(renewal.run(stop.clone(), |_: &str| {}));
    identity.wait().await;
    for hour in 0..72 {
        let left = identity.certificate().get().unwrap().not_after().duration_since(right.now()).unwrap_or_default();
        assert!(left > DAY.mul_f64(0.4), "after {hour} hours with {jumps:?} {left:?} are left");
        right.sleep(Duration::from_secs(3600)).await;
    }
    stop.cancel();
    keeper.await.unwrap();
    signer.asked.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_lets_no_certificate_run_out_and_does_not_ask_again_and_again() {
    const HOUR: i64 = 3600;
    const fn at(hour: u64, seconds: i64) -> Jump {
        Jump { after: Duration::from_secs(hour * 3600), seconds }
    }
    const CASES: &[&[Jump]] = &[
        &[],
        &[at(5, HOUR), at(7, -HOUR)],
        &[at(5, -HOUR), at(7, HOUR)],
        &[at(11, 2 * HOUR), at(12, -2 * HOUR)],
        &[at(0, 30 * 24 * HOUR)],
        &[at(0, -30 * 24 * HOUR)],
        &[at(30, -30 * 24 * HOUR)],
    ];
    for jumps in CASES {
        let asked = renewals(jumps).await;
        // At every half day, or an hour or two before it.
        assert!((6..=8).contains(&asked), "{asked} with {jumps:?}");
    }
}

#[tokio::test]
async fn files_are_taken_when_they_belong_together() {
    let folder = std::env::temp_dir().join(format!("identity-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let root = Root::new();
    let identity = Identity::new();
    let mut files = Files::new(identity.clone(), &folder, Clock::system());
    assert!(files.read().await.unwrap_err().to_string().contains("cert-chain.pem"));
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let (one, two) = (root.sign(&["spiffe://a/ns/b/sa/one"]), root.sign(&["spiffe://a/ns/b/sa/two"]));
    write("cert-chain.pem", one.chain_pem());
    write("key.pem", one.key_pem());
    write("root-cert.pem", &root.pem());
    assert!(files.read().await.unwrap());
    assert!(!files.read().await.unwrap());
    write("key.pem", two.key_pem());
    assert!(files.read().await.is_err(), "half of a change is not taken");
    assert_eq!(identity.certificate().get().unwrap().uris(), ["spiffe://a/ns/b/sa/one"]);
    write("cert-chain.pem", two.chain_pem());
    assert!(files.read().await.unwrap());
    assert_eq!(identity.certificate().get().unwrap().uris(), ["spiffe://a/ns/b/sa/two"]);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Answers with what it was asked by whom, as a refusal, unless the token is the right one.
struct Desk(Signer);

#[tonic::async_trait]
impl Certificates for Desk {
    async fn create_certificate(
        &self,
        request: tonic::Request<CreateCertificateRequest>,
    ) -> Result<tonic::Response<CreateCertificateResponse>, tonic::Status> {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let peer = request.extensions().get::<grpc::Peer>().unwrap().identity.clone();
        if token.as_deref() == Some("Bearer good") || peer.is_some() {
            let asked = request.into_inner();
            let lifetime = Duration::from_secs(asked.validity_duration.unsigned_abs());
            return Ok(tonic::Response::new(CreateCertificateResponse {
                cert_chain: self.0.answer(&asked.csr, lifetime),
            }));
        }
        Err(tonic::Status::unauthenticated(format!("token {token:?} is not known")))
    }
}

#[tokio::test]
async fn the_client_shows_its_token_or_its_certificate_and_checks_the_authoritys_name() {
    let folder = std::env::temp_dir().join(format!("identity-client-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (token, roots) = (folder.join("token"), folder.join("root-cert.pem"));
    let desk = Desk(Signer::new(Clock::system(), 0));
    std::fs::write(&roots, desk.0.root.pem()).unwrap();
    let own = Identity::holding(desk.0.root.sign(&["istio-citadel.istio-system.svc"]), desk.0.root.roots());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let tls = own.server_config(false, vec!["cluster.local".into()], vec![b"h2".to_vec()]).unwrap();
    let routes = tonic::service::Routes::new(CertificateServer::new(desk));
    let serving = tokio::spawn(grpc::serve(listener, Some(tls), routes, Duration::ZERO, stop.clone()));

    let name = Some("istio-citadel.istio-system.svc".to_owned());
    let options =
        CaOptions { address, name, roots, token: Some(token.clone()), cluster: "Kubernetes".into(), mark: None };
    let identity = Identity::new();
    let client = CaClient::new(options.clone(), identity.certificate().clone());
    let mut renewal = Renewal::new(identity.clone(), wanted(), client, Clock::system());
    assert!(matches!(renewal.renew().await, Err(IdentityError::File { .. })), "no token, no certificate");
    std::fs::write(&token, "bad\n").unwrap();
    let refused = renewal.renew().await.unwrap_err();
    assert!(matches!(&refused, IdentityError::Refused(why) if why.contains("Bearer bad")), "{refused}");
    std::fs::write(&token, "good\n").unwrap();
    renewal.renew().await.unwrap();
    std::fs::remove_file(&token).unwrap();
    renewal.renew().await.unwrap();

    let elsewhere = CaOptions { name: Some("other.istio-system.svc".into()), ..options };
    let client = CaClient::new(elsewhere, identity.certificate().clone());
    let error = Renewal::new(Identity::new(), wanted(), client, Clock::system()).renew().await.unwrap_err();
    assert!(error.to_string().contains("expected [other.istio-system.svc]"), "{error}");
    stop.cancel();
    serving.await.unwrap().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}
