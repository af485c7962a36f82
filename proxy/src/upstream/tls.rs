//! Which TLS a connection to an endpoint speaks: made from a cluster's settings when tables are built.
//!
//! One rustls configuration for each protocol that may ride on it, because what is offered (ALPN) differs; certificates
//! and roots are read from slots at each handshake, so that rotation needs no new configuration.
//! Never here: handshakes. Built by `table`; asked by `http::attempt`, `open` and `tcp`.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use api::spec::{CertificateRef, ClientTls, PRIVATE_ALPN, RootsRef};
use api_rt::{
    identity::Identity,
    tls::{CertificateSlot, ClientOptions, Expect, Peers, RootsSlot, TlsError, client_config},
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::connect::Secured;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Carries {
    /// Requests of HTTP/1, as they are.
    Http1,
    /// Requests of HTTP/1, on HTTP/2 where the endpoint's proxy is one of ours: the handshake tells.
    Ridden,
    Http2,
    Bytes,
}

/// A cluster's TLS, ready for use.
#[derive(Debug)]
pub(crate) struct Tls {
    /// Unique in the process: connections made with other settings are not reused.
    pub(crate) id: u64,
    certificate: Option<CertificateSlot>,
    expect: Expect,
    /// Made when a connection first needs it: most clusters of a large mesh are never called.
    http1: Offer,
    ridden: Offer,
    http2: Offer,
    bytes: Offer,
    /// Whether the endpoint's proxy may be one of ours.
    rides: bool,
    name: Option<ServerName<'static>>,
}

/// What is offered on a connection, and the configuration for it.
#[derive(Debug)]
struct Offer {
    alpn: Vec<Vec<u8>>,
    made: OnceLock<Arc<ClientConfig>>,
}

impl Offer {
    fn of(spec: &ClientTls, carries: Carries) -> Self {
        Self { alpn: alpn(spec, carries), made: OnceLock::new() }
    }
}

/// Why a cluster's TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientTlsError {
    #[error("{0:?} is no server name")]
    Name(String),
    #[error("secret {0} has not come or is of another kind")]
    Secret(String),
    #[error("could not read {path}: {reason}")]
    File { path: String, reason: String },
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Where certificates and roots that are not our own are found.
pub(crate) trait Secrets {
    fn certificate(&self, name: &str) -> Option<CertificateSlot>;
    fn roots(&self, name: &str) -> Option<RootsSlot>;
    fn certificate_files(&self, chain: &str, key: &str) -> Result<CertificateSlot, ClientTlsError>;
    fn roots_file(&self, path: &str) -> Result<RootsSlot, ClientTlsError>;
    fn machine_roots(&self) -> Result<RootsSlot, ClientTlsError>;
}

/// The protocols offered for what is carried: Istio's within the mesh, plain ones elsewhere.
fn alpn(spec: &ClientTls, carries: Carries) -> Vec<Vec<u8>> {
    let own = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
    let given = || {
        let names = spec.alpn.iter().filter(|name| *name != PRIVATE_ALPN);
        names.map(|name| name.as_bytes().to_vec()).collect()
    };
    match (carries, spec.mesh) {
        (Carries::Ridden, true) => own(&[PRIVATE_ALPN, "istio-http/1.1", "istio", "http/1.1"]),
        (Carries::Bytes, _) => given(),
        (Carries::Http1, true) => own(&["istio-http/1.1", "istio", "http/1.1"]),
        (Carries::Http2, true) => own(&["istio-h2", "istio", "h2"]),
        (Carries::Http1 | Carries::Ridden, false) if spec.alpn.iter().any(|name| name == "h2") => own(&["http/1.1"]),
        (Carries::Http1 | Carries::Ridden, false) => given(),
        (Carries::Http2, false) => own(&["h2"]),
    }
}

impl Tls {
    /// Makes a cluster's TLS ready.
    pub(crate) fn build(spec: &ClientTls, identity: &Identity, secrets: &impl Secrets) -> Result<Self, ClientTlsError> {
        let missing = |name: &String| ClientTlsError::Secret(name.clone());
        let certificate = match &spec.certificate {
            None => None,
            Some(CertificateRef::Workload) => Some(identity.certificate().clone()),
            Some(CertificateRef::Secret(name)) => Some(secrets.certificate(name).ok_or_else(|| missing(name))?),
            Some(CertificateRef::Files { chain, key }) => Some(secrets.certificate_files(chain, key)?),
        };
        let peers = if spec.insecure {
            Peers::Unchecked
        } else if spec.mesh {
            Peers::Mesh { trust_domains: Vec::new(), identities: spec.subject_alt_names.clone() }
        } else if spec.subject_alt_names.is_empty() {
            Peers::ServerName
        } else {
            Peers::Names(spec.subject_alt_names.clone())
        };
        let roots = match &spec.roots {
            Some(RootsRef::Mesh) => identity.roots().clone(),
            Some(RootsRef::Secret(name)) => secrets.roots(name).ok_or_else(|| missing(name))?,
            Some(RootsRef::File(path)) => secrets.roots_file(path)?,
            None if spec.mesh => identity.roots().clone(),
            None if spec.insecure => RootsSlot::default(),
            None => secrets.machine_roots()?,
        };
        let name = match &spec.sni {
            None => None,
            Some(text) => Some(server_name(text).ok_or_else(|| ClientTlsError::Name(text.clone()))?),
        };
        Ok(Self {
            id: NEXT.fetch_add(1, Relaxed),
            certificate,
            expect: Expect { roots, peers },
            http1: Offer::of(spec, Carries::Http1),
            ridden: Offer::of(spec, Carries::Ridden),
            http2: Offer::of(spec, Carries::Http2),
            bytes: Offer::of(spec, Carries::Bytes),
            rides: spec.mesh && spec.alpn.iter().any(|name| name == PRIVATE_ALPN),
            name,
        })
    }

    /// Whether the name comes from the request's host.
    pub(crate) fn name_from_host(&self) -> bool {
        self.name.is_none()
    }

    /// Whether requests of HTTP/1 may ride HTTP/2: the endpoint's proxy may be one of ours.
    pub(crate) fn rides(&self) -> bool {
        self.rides
    }

    fn config(&self, offer: &Offer) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(made) = offer.made.get() {
            return Ok(Arc::clone(made));
        }
        let made = client_config(ClientOptions {
            certificate: self.certificate.clone(),
            expect: self.expect.clone(),
            alpn: offer.alpn.clone(),
            only_tls13: false,
        })?;
        Ok(Arc::clone(offer.made.get_or_init(|| made)))
    }

    /// TLS for one connection; none: there is no name to send.
    pub(crate) fn secured(&self, carries: Carries, host: Option<&str>) -> Option<Secured> {
        let config = self.config(match carries {
            Carries::Http1 => &self.http1,
            Carries::Ridden => &self.ridden,
            Carries::Http2 => &self.http2,
            Carries::Bytes => &self.bytes,
        });
        let config = match config {
            Ok(config) => config,
            Err(error) => {
                tracing::warn!(%error, "TLS to an upstream cannot be set up");
                return None;
            }
        };
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host?.trim_matches(['[', ']']))?,
        };
        Some(Secured { config, name })
    }
}

/// Istio's names within the mesh hold underscores, which rustls takes as DNS names.
fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_names_can_be_sent() {
        assert!(server_name("outbound_.9080_.v1_.reviews.default.svc.cluster.local").is_some());
        assert!(server_name("outbound_.9080_._.reviews.default.svc.cluster.local").is_some());
    }

    #[test]
    fn within_the_mesh_the_protocol_is_told_by_istios_words() {
        let list = vec![PRIVATE_ALPN.into(), "istio-peer-exchange".into(), "istio".into()];
        let mesh = ClientTls { mesh: true, alpn: list, ..ClientTls::default() };
        assert_eq!(alpn(&mesh, Carries::Ridden)[..2], [PRIVATE_ALPN.as_bytes(), b"istio-http/1.1"]);
        assert_eq!(alpn(&mesh, Carries::Http1)[0], b"istio-http/1.1");
        assert_eq!(alpn(&mesh, Carries::Http2)[0], b"istio-h2");
        assert_eq!(alpn(&mesh, Carries::Bytes)[0], b"istio-peer-exchange");
        let plain = ClientTls { alpn: vec!["h2".into(), "http/1.1".into()], ..ClientTls::default() };
        assert_eq!(alpn(&plain, Carries::Http1), [b"http/1.1".to_vec()]);
    }
}
