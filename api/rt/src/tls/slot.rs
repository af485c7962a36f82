//! Places where the current certificate and the current roots are, read at each handshake.
//!
//! Clones share the place; putting something new in it changes every configuration made from it, at once.
//! Never here: renewal (`identity`). Before the first certificate or roots a handshake fails, it never passes unchecked.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Certificate, Roots};

/// Where the current certificate is.
#[derive(Debug, Clone, Default)]
pub struct CertificateSlot(Arc<ArcSwapOption<Certificate>>);

impl CertificateSlot {
    /// A place that holds this certificate.
    pub fn holding(certificate: Certificate) -> Self {
        Self(Arc::new(ArcSwapOption::from_pointee(certificate)))
    }

    /// The current certificate.
    pub fn get(&self) -> Option<Arc<Certificate>> {
        self.0.load_full()
    }

    /// Replaces the certificate; handshakes from now on use it.
    pub fn put(&self, certificate: Certificate) {
        self.0.store(Some(Arc::new(certificate)));
    }

    /// Whether both are the same place.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl ResolvesServerCert for CertificateSlot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|certificate| Arc::clone(certificate.signed()))
    }
}

impl ResolvesClientCert for CertificateSlot {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|certificate| Arc::clone(certificate.signed()))
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

/// Where the current roots are.
#[derive(Debug, Clone, Default)]
pub struct RootsSlot(Arc<ArcSwapOption<Roots>>);

impl RootsSlot {
    /// A place that holds these roots.
    pub fn holding(roots: Roots) -> Self {
        Self(Arc::new(ArcSwapOption::from_pointee(roots)))
    }

    /// The current roots.
    pub fn get(&self) -> Option<Arc<Roots>> {
        self.0.load_full()
    }

    /// Replaces the roots; handshakes from now on use them.
    pub fn put(&self, roots: Roots) {
        self.0.store(Some(Arc::new(roots)));
    }
}
