//! Checks who the other side is: chain to the current roots, and the identity or names it must prove.
//!
//! A mesh peer proves exactly one URI name, which is a SPIFFE identity of an expected trust domain. A refusal names what
//! was found and what was expected. Never here: policy beyond the handshake. Put into configurations by `config`.

use std::{sync::Arc, time::SystemTime};

use api::name::SpiffeId;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::{Certificate, RootsSlot, provider};

/// Longest SPIFFE identity, bytes (SPIFFE-ID, section 2.3).
const LONGEST_ID: usize = 2_048;

/// Why the other side was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongPeer {
    /// It has none of the names it must prove.
    #[error("the peer proved [{}], expected [{}]", found.join(", "), expected.join(", "))]
    Names {
        /// Names in its certificate.
        found: Vec<String>,
        /// Names of which one was needed.
        expected: Vec<String>,
    },
    /// It comes from another trust domain.
    #[error("the peer proved {found}, expected an identity of trust domain [{}]", expected.join(", "))]
    TrustDomain {
        /// Its identity.
        found: SpiffeId,
        /// Trust domains that are accepted.
        expected: Vec<String>,
    },
    /// Its certificate has not exactly one URI name.
    #[error("the peer's certificate has {} URI names [{}], expected exactly one", found.len(), found.join(", "))]
    NotOneUri {
        /// They.
        found: Vec<String>,
    },
    /// Its URI name is no identity.
    #[error("the peer proved {found:?}, expected spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")]
    NotAnIdentity {
        /// The name.
        found: String,
    },
    /// This side has no roots yet.
    #[error("no roots to check the peer against yet")]
    NoRoots,
    /// Its chain does not lead to the roots, or is not valid now.
    #[error("the peer's certificate ([{}]) was not accepted: {reason}", found.join(", "))]
    Chain {
        /// Names in its certificate.
        found: Vec<String>,
        /// What the checker says.
        reason: webpki::Error,
    },
    /// It shows no readable certificate.
    #[error("the peer's certificate cannot be read: {0}")]
    Unreadable(webpki::Error),
}

impl WrongPeer {
    fn into_tls(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }
}

/// The refusal within a failed handshake, if that is why it failed.
pub fn wrong_peer(error: &std::io::Error) -> Option<&WrongPeer> {
    let cause = error.get_ref()?;
    if let Some(wrong) = cause.downcast_ref() {
        return Some(wrong);
    }
    if let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = cause.downcast_ref::<Error>()? {
        cause.downcast_ref()
    } else {
        None
    }
}

/// The error of a failed handshake so that its text says why in a sentence; rustls prints the refusal's insides.
pub fn plainly(error: std::io::Error) -> std::io::Error {
    match wrong_peer(&error) {
        Some(wrong) => std::io::Error::new(error.kind(), wrong.clone()),
        None => error,
    }
}

/// Whom to expect at the other end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Peers {
    /// Anyone whose chain leads to the roots.
    #[default]
    Chained,
    /// A mesh identity.
    Mesh {
        /// Trust domains it may come from; empty: any.
        trust_domains: Vec<String>,
        /// Identities of which it must be one; empty: any.
        identities: Vec<String>,
    },
    /// One of these names: URIs, DNS names (a wildcard in the certificate counts) or addresses.
    Names(Vec<String>),
    /// The name that the client connects to.
    ServerName,
    /// Anyone at all, unchecked. Only where a user has written so.
    Unchecked,
}

/// Roots and whom to expect.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// What chains must lead to.
    pub roots: RootsSlot,
    /// Who it may be.
    pub peers: Peers,
}

impl Expect {
    /// Whether who expects this would accept a certificate at this time, from a server and from a client.
    ///
    /// # Errors
    /// Why not.
    pub fn accept(&self, certificate: &Certificate, at: SystemTime) -> Result<(), WrongPeer> {
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let unreadable = WrongPeer::Unreadable(webpki::Error::BadDer);
        let (leaf, intermediates) = certificate.signed().cert.split_first().ok_or(unreadable)?;
        [KeyUsage::server_auth(), KeyUsage::client_auth()]
            .into_iter()
            .try_for_each(|usage| self.check(leaf, intermediates, None, usage, at))
    }
}

/// The identity that a finished handshake proved: that of the leaf's only URI name.
pub fn peer_identity(chain: Option<&[CertificateDer<'_>]>) -> Option<SpiffeId> {
    let leaf = EndEntityCert::try_from(chain?.first()?).ok()?;
    one_identity(&leaf).ok()
}

fn one_identity(leaf: &EndEntityCert<'_>) -> Result<SpiffeId, WrongPeer> {
    let uris: Vec<&str> = leaf.valid_uri_names().collect();
    match uris.as_slice() {
        [uri] => {
            let bad = || WrongPeer::NotAnIdentity { found: (*uri).to_owned() };
            let id: SpiffeId = uri.parse().map_err(|_| bad())?;
            // SPIFFE trust domains are lower case; one that is not would compare unequal to itself elsewhere.
            let lower = !id.trust_domain().bytes().any(|b| b.is_ascii_uppercase());
            if uri.len() <= LONGEST_ID && lower { Ok(id) } else { Err(bad()) }
        }
        other => Err(WrongPeer::NotOneUri { found: other.iter().map(|uri| (*uri).to_owned()).collect() }),
    }
}

fn names(leaf: &EndEntityCert<'_>) -> Vec<String> {
    leaf.valid_uri_names().chain(leaf.valid_dns_names()).map(str::to_owned).collect()
}

fn proves(leaf: &EndEntityCert<'_>, name: &str) -> bool {
    if name.contains("://") {
        return leaf.valid_uri_names().any(|uri| uri == name);
    }
    let exact = leaf.valid_dns_names().any(|dns| dns.eq_ignore_ascii_case(name));
    exact || ServerName::try_from(name).is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok())
}

impl Expect {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        connected_to: Option<&ServerName<'_>>,
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<(), WrongPeer> {
        let leaf = EndEntityCert::try_from(leaf).map_err(WrongPeer::Unreadable)?;
        if self.peers == Peers::Unchecked {
            return Ok(());
        }
        let roots = self.roots.get().ok_or(WrongPeer::NoRoots)?;
        let algorithms = provider().signature_verification_algorithms.all;
        leaf.verify_for_usage(algorithms, roots.anchors(), intermediates, now, usage, None, None)
            .map_err(|reason| WrongPeer::Chain { found: names(&leaf), reason })?;
        match &self.peers {
            Peers::Chained | Peers::Unchecked => Ok(()),
            Peers::Mesh { trust_domains, identities } => {
                let found = one_identity(&leaf)?;
                if !trust_domains.is_empty() && !trust_domains.iter().any(|domain| domain == found.trust_domain()) {
                    return Err(WrongPeer::TrustDomain { found, expected: trust_domains.clone() });
                }
                let text = found.to_string();
                if identities.is_empty() || identities.contains(&text) {
                    Ok(())
                } else {
                    Err(WrongPeer::Names { found: vec![text], expected: identities.clone() })
                }
            }
            Peers::Names(expected) => {
                if expected.iter().any(|name| proves(&leaf, name)) {
                    Ok(())
                } else {
                    Err(WrongPeer::Names { found: names(&leaf), expected: expected.clone() })
                }
            }
            Peers::ServerName => {
                let wanted = connected_to.map(|name| name.to_str().into_owned()).into_iter().collect();
                match connected_to {
                    Some(name) if leaf.verify_is_valid_for_subject_name(name).is_ok() => Ok(()),
                    Some(_) | None => Err(WrongPeer::Names { found: names(&leaf), expected: wanted }),
                }
            }
        }
    }
}

/// Checks servers, for clients of the mesh.
#[derive(Debug)]
pub struct SpiffeServerVerifier {
    expect: Expect,
    provider: Arc<CryptoProvider>,
}

impl SpiffeServerVerifier {
    /// Checks servers against this.
    pub fn new(expect: Expect) -> Self {
        Self { expect, provider: provider() }
    }
}

impl ServerCertVerifier for SpiffeServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.expect
            .check(end_entity, intermediates, Some(server_name), KeyUsage::server_auth(), now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(WrongPeer::into_tls)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks clients, for servers of the mesh.
#[derive(Debug)]
pub struct SpiffeClientVerifier {
    expect: Expect,
    required: bool,
    provider: Arc<CryptoProvider>,
}

impl SpiffeClientVerifier {
    /// Checks clients against this; `required`: a client without certificate is refused.
    pub fn new(expect: Expect, required: bool) -> Self {
        Self { expect, required, provider: provider() }
    }
}

impl ClientCertVerifier for SpiffeClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.expect
            .check(end_entity, intermediates, None, KeyUsage::client_auth(), now)
            .map(|()| ClientCertVerified::assertion())
            .map_err(WrongPeer::into_tls)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
