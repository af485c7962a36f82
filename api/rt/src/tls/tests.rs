//! Handshakes in memory between all kinds of right and wrong peers.
//!
//! Certificates are made here, for a few names each. Never here: networks or files. Run by `cargo test`.

use std::{io, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls_pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// A root that signs what it is asked to.
pub(crate) struct Root(CertifiedIssuer<'static, KeyPair>);

impl Root {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "cluster.local");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(self.0.pem().as_bytes()).unwrap()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.0
    }

    fn leaf(&self, names: &[&str], usages: Vec<ExtendedKeyUsagePurpose>) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = usages;
        let san = |name: &&str| match name.contains("://") {
            true => SanType::URI((*name).try_into().unwrap()),
            false => SanType::DnsName((*name).try_into().unwrap()),
        };
        params.subject_alt_names = names.iter().map(san).collect();
        let signed = params.signed_by(&key, &self.0).unwrap();
        Certificate::from_pem(&signed.pem(), &key.serialize_pem()).unwrap()
    }

    pub(crate) fn sign(&self, names: &[&str]) -> Certificate {
        self.leaf(names, vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
    }
}

const A: &str = "spiffe://cluster.local/ns/default/sa/a";
const B: &str = "spiffe://cluster.local/ns/default/sa/b";

fn mesh(roots: &RootsSlot, identities: &[&str]) -> Expect {
    let identities = identities.iter().map(|id| (*id).to_owned()).collect();
    Expect { roots: roots.clone(), peers: Peers::Mesh { trust_domains: vec!["cluster.local".into()], identities } }
}

fn server(certificate: &CertificateSlot, clients: Clients) -> Arc<rustls::ServerConfig> {
    let certificate = Arc::new(certificate.clone());
    server_config(ServerOptions { certificate, clients, alpn: vec![], only_tls13: false }).unwrap()
}

fn client(certificate: Option<&CertificateSlot>, expect: Expect) -> Arc<rustls::ClientConfig> {
    client_config(ClientOptions { certificate: certificate.cloned(), expect, ..ClientOptions::default() }).unwrap()
}

type Proven = Option<String>;

/// What each side makes of the other: the identity it proved, or the error.
async fn meet(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
) -> (io::Result<Proven>, io::Result<Proven>) {
    let (near, far) = tokio::io::duplex(65_536);
    let text = |chain: Option<&[rustls_pki_types::CertificateDer<'_>]>| peer_identity(chain).map(|id| id.to_string());
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"!").await?;
        Ok(text(stream.get_ref().1.peer_certificates()))
    };
    let connect = async {
        let name = ServerName::try_from("b.default.svc").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        tokio::io::AsyncReadExt::read_u8(&mut stream).await?;
        Ok(text(stream.get_ref().1.peer_certificates()))
    };
    tokio::join!(accept, connect)
}

#[tokio::test]
async fn two_identities_of_one_mesh_prove_themselves_to_each_other() {
    let root = Root::new();
    let roots = RootsSlot::holding(root.roots());
    let (a, b) = (CertificateSlot::holding(root.sign(&[A])), CertificateSlot::holding(root.sign(&[B])));
    let (at_b, at_a) =
        meet(server(&b, Clients::Required(mesh(&roots, &[]))), client(Some(&a), mesh(&roots, &[B]))).await;
    assert_eq!(at_b.unwrap().as_deref(), Some(A));
    assert_eq!(at_a.unwrap().as_deref(), Some(B));
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused_and_both_are_named() {
    let root = Root::new();
    let roots = RootsSlot::holding(root.roots());
    let (a, b) = (CertificateSlot::holding(root.sign(&[A])), CertificateSlot::holding(root.sign(&[B])));
    let (_, at_a) = meet(server(&b, Clients::Required(mesh(&roots, &[]))), client(Some(&a), mesh(&roots, &[A]))).await;
    let error = at_a.unwrap_err();
    assert_eq!(wrong_peer(&error).unwrap().to_string(), format!("the peer proved [{B}], expected [{A}]"));
}

#[tokio::test]
async fn clients_that_are_not_of_the_mesh_are_refused() {
    let root = Root::new();
    let roots = RootsSlot::holding(root.roots());
    let b = CertificateSlot::holding(root.sign(&[B]));
    let other = Root::new();
    let server_only = root.leaf(&[A], vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let cases = [
        (root.sign(&["spiffe://other.domain/ns/default/sa/a"]), "trust domain [cluster.local]"),
        (root.sign(&[A, "spiffe://cluster.local/ns/default/sa/admin"]), "2 URI names"),
        (root.sign(&["a.default.svc"]), "0 URI names"),
        (root.sign(&["spiffe://CLUSTER.LOCAL/ns/default/sa/a"]), "expected spiffe://"),
        (root.sign(&["spiffe://cluster.local//ns/default/sa/a"]), "expected spiffe://"),
        (other.sign(&[A]), "was not accepted"),
        (server_only, "was not accepted"),
    ];
    for (certificate, says) in cases {
        let slot = CertificateSlot::holding(certificate);
        let (at_b, at_a) =
            meet(server(&b, Clients::Optional(mesh(&roots, &[]))), client(Some(&slot), mesh(&roots, &[]))).await;
        let error = at_b.unwrap_err();
        assert!(wrong_peer(&error).unwrap().to_string().contains(says), "{error} should say {says}");
        assert!(at_a.is_err());
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_nobody_or_refused() {
    let root = Root::new();
    let roots = RootsSlot::holding(root.roots());
    let b = CertificateSlot::holding(root.sign(&[B]));
    let nobody = client(None, mesh(&roots, &[]));
    let (at_b, _) = meet(server(&b, Clients::Optional(mesh(&roots, &[]))), Arc::clone(&nobody)).await;
    assert_eq!(at_b.unwrap(), None);
    let (at_b, _) = meet(server(&b, Clients::Required(mesh(&roots, &[]))), nobody).await;
    assert!(at_b.is_err());
}

#[tokio::test]
async fn rotation_and_new_roots_are_felt_by_the_next_handshake_with_the_old_configurations() {
    let (root, next) = (Root::new(), Root::new());
    let roots = RootsSlot::default();
    let (a, b) = (CertificateSlot::holding(root.sign(&[A])), CertificateSlot::holding(root.sign(&[B])));
    let (serves, calls) = (server(&b, Clients::Required(mesh(&roots, &[]))), client(Some(&a), mesh(&roots, &[])));
    let (_, at_a) = meet(Arc::clone(&serves), Arc::clone(&calls)).await;
    assert_eq!(wrong_peer(&at_a.unwrap_err()), Some(&WrongPeer::NoRoots));
    roots.put(Roots::from_pem((root.pem() + &next.pem()).as_bytes()).unwrap());
    assert!(meet(Arc::clone(&serves), Arc::clone(&calls)).await.0.is_ok());
    b.put(next.sign(&["spiffe://cluster.local/ns/default/sa/renewed"]));
    let (at_b, at_a) = meet(Arc::clone(&serves), Arc::clone(&calls)).await;
    assert!(at_b.is_ok());
    assert_eq!(at_a.unwrap().as_deref(), Some("spiffe://cluster.local/ns/default/sa/renewed"));
    roots.put(next.roots());
    let (at_b, at_a) = meet(serves, calls).await;
    assert!(at_b.is_err() && at_a.is_err(), "a's root is no longer trusted, and nothing was resumed");
}

#[tokio::test]
async fn a_connection_outlives_the_rotation_of_both_certificates() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let root = Root::new();
    let roots = RootsSlot::holding(root.roots());
    let (a, b) = (CertificateSlot::holding(root.sign(&[A])), CertificateSlot::holding(root.sign(&[B])));
    let (near, far) = tokio::io::duplex(65_536);
    let (serves, calls) = (server(&b, Clients::Required(mesh(&roots, &[]))), client(Some(&a), mesh(&roots, &[B])));
    let name = ServerName::try_from("b.default.svc").unwrap();
    let (at_b, at_a) =
        tokio::join!(TlsAcceptor::from(serves).accept(far), TlsConnector::from(calls).connect(name, near));
    let (mut at_b, mut at_a) = (at_b.unwrap(), at_a.unwrap());
    for round in 0..3 {
        at_a.write_u8(round).await.unwrap();
        at_a.flush().await.unwrap();
        assert_eq!(at_b.read_u8().await.unwrap(), round);
        at_b.write_u8(round).await.unwrap();
        at_b.flush().await.unwrap();
        assert_eq!(at_a.read_u8().await.unwrap(), round);
        a.put(root.sign(&[A]));
        b.put(root.sign(&[B]));
    }
}

#[tokio::test]
async fn dns_names_are_checked_against_the_name_or_the_list() {
    let root = Root::new();
    let roots = RootsSlot::holding(root.roots());
    let try_names = async |names: &[&str], peers: Peers| {
        let slot = CertificateSlot::holding(root.sign(names));
        let expect = Expect { roots: roots.clone(), peers };
        meet(server(&slot, Clients::NotAsked), client(None, expect)).await.1
    };
    let list = |names: &[&str]| Peers::Names(names.iter().map(|name| (*name).to_owned()).collect());
    assert!(try_names(&["b.default.svc"], Peers::ServerName).await.is_ok());
    assert!(try_names(&["*.default.svc"], Peers::ServerName).await.is_ok());
    assert!(try_names(&["*.svc"], Peers::ServerName).await.is_err());
    assert!(try_names(&["x.example.com"], list(&["y", "x.example.com"])).await.is_ok());
    assert!(try_names(&[B], list(&[B])).await.is_ok());
    let error = try_names(&["x.example.com"], list(&["y.example.com"])).await.unwrap_err();
    assert_eq!(wrong_peer(&error).unwrap().to_string(), "the peer proved [x.example.com], expected [y.example.com]");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let root = Root::new();
    let (a, b) = (root.sign(&[A]), root.sign(&[B]));
    let error = Certificate::from_pem(a.chain_pem(), b.key_pem()).unwrap_err();
    assert!(matches!(error, CertificateError::KeyMismatch), "{error}");
    assert!(matches!(Roots::from_pem(b"nothing"), Err(CertificateError::Empty { .. })));
    assert!(Certificate::from_pem(a.key_pem(), a.key_pem()).is_err());
}
