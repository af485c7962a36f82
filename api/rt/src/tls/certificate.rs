//! A certificate with its key, and roots, read from PEM and checked once.
//!
//! A [`Certificate`] is a chain whose key fits; it knows its names and its lifetime. [`Roots`] are one or more anchors.
//! Never here: files, or verification of peers. Made by `identity` and by whoever reads secrets.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use api::name::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, pem::PemObject as _};

use super::provider;

/// Largest PEM that is read, bytes.
const LARGEST_PEM: usize = 1 << 20;

/// Why something is not a certificate, key or list of roots.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM.
    #[error("the {what} cannot be read as PEM: {reason}")]
    Pem {
        /// What was read.
        what: &'static str,
        /// What the reader says.
        reason: String,
    },
    /// PEM, but nothing of the kind within.
    #[error("the {what} holds none")]
    Empty {
        /// What was read.
        what: &'static str,
    },
    /// Too large.
    #[error("the {what} is larger than {LARGEST_PEM} bytes")]
    TooLarge {
        /// What was read.
        what: &'static str,
    },
    /// The certificate's own bytes are wrong.
    #[error("the certificate cannot be read: {0}")]
    Bad(String),
    /// The key is of no kind that TLS knows.
    #[error("the private key cannot be used: {0}")]
    Key(rustls::Error),
    /// The key is another's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

/// A certificate chain, leaf first, with the leaf's key; what it says of itself is at hand.
#[derive(Clone)]
pub struct Certificate {
    signed: Arc<CertifiedKey>,
    chain_pem: Arc<str>,
    key_pem: Arc<str>,
    uris: Vec<String>,
    dns_names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("uris", &self.uris)
            .field("dns_names", &self.dns_names)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

fn at(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(after) => SystemTime::UNIX_EPOCH + Duration::from_secs(after),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}

fn sections(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    if pem.len() > LARGEST_PEM {
        return Err(CertificateError::TooLarge { what });
    }
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::Pem { what, reason: error.to_string() })?;
    if found.is_empty() { Err(CertificateError::Empty { what }) } else { Ok(found) }
}

impl Certificate {
    /// Reads a chain (leaf first) and its key.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not belong together.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let chain = sections("certificate chain", chain_pem.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| CertificateError::Pem { what: "private key", reason: error.to_string() })?;
        let signing = provider().key_provider.load_private_key(key).map_err(CertificateError::Key)?;
        let leaf = chain.first().ok_or(CertificateError::Empty { what: "certificate chain" })?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|error| CertificateError::Bad(error.to_string()))?;
        let validity = parsed.validity();
        let (not_before, not_after) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let names = webpki::EndEntityCert::try_from(leaf).map_err(|error| CertificateError::Bad(error.to_string()))?;
        let (uris, dns_names) = (
            names.valid_uri_names().map(str::to_owned).collect(),
            names.valid_dns_names().map(str::to_owned).collect(),
        );
        let signed = CertifiedKey::new(chain, signing);
        match signed.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(CertificateError::KeyMismatch),
        }
        Ok(Self {
            signed: Arc::new(signed),
            chain_pem: chain_pem.into(),
            key_pem: key_pem.into(),
            uris,
            dns_names,
            not_before,
            not_after,
            serial,
        })
    }

    /// The identity, if its only URI is one.
    pub fn identity(&self) -> Option<SpiffeId> {
        match self.uris.as_slice() {
            [only] => only.parse().ok(),
            _ => None,
        }
    }

    /// URI names of the leaf.
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// DNS names of the leaf.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// Start of the lifetime.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of the lifetime.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Serial number of the leaf, hexadecimal.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The chain, PEM, leaf first.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The key, PEM. It must not leave the pod.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The chain and key as rustls takes them.
    pub fn signed(&self) -> &Arc<CertifiedKey> {
        &self.signed
    }
}

/// What certificates may chain to.
#[derive(Clone)]
pub struct Roots {
    anchors: Arc<[TrustAnchor<'static>]>,
    pem: Arc<str>,
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.anchors.len())
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Roots {
    /// Reads one root or more.
    ///
    /// # Errors
    /// There is none, or one cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let text = std::str::from_utf8(pem)
            .map_err(|error| CertificateError::Pem { what: "roots", reason: error.to_string() })?;
        let anchors = sections("roots", pem)?
            .iter()
            .map(|der| webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| CertificateError::Bad(error.to_string()))?;
        Ok(Self { anchors: anchors.into(), pem: text.into() })
    }

    /// The anchors.
    pub fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// All roots, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}
