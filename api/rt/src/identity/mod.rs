//! This program's own certificate: where it comes from, and that it never grows old.
//!
//! [`Identity`] is what the rest of the program holds: the current certificate and roots, and configurations that always use
//! them. It is filled by one keeper task: [`Renewal`] (key made here, signed by an [`Authority`], renewed at half of its
//! life) or [`Files`] (read from a folder, and again when they change).
//! Never here: the authority itself (`citadel`). Held by every program.

mod client;
mod files;
mod renewal;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use client::{CaClient, CaOptions};
pub use files::Files;
pub use renewal::{Renewal, RenewalOptions, Wanted};

use crate::tls::{
    self, Certificate, CertificateSlot, ClientOptions, Clients, Expect, Peers, Roots, RootsSlot, ServerOptions,
    TlsError,
};

/// Why a certificate was not had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The authority refused; asking again with the same token will not help.
    #[error("the certificate authority refused: {0}")]
    Refused(String),
    /// The authority could not be asked.
    #[error("could not ask the certificate authority at {address}: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// A file could not be read.
    #[error("could not read {path}")]
    File {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key or CSR could not be made.
    #[error("could not make a key or certificate request")]
    Key(#[from] rcgen::Error),
    /// What was received is no good certificate.
    #[error(transparent)]
    Certificate(#[from] tls::CertificateError),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A signed certificate, PEM, one text per certificate: leaf first, root last.
pub type Signed = Vec<String>;
/// An answer to come.
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<Signed, IdentityError>> + Send + 'a>>;

/// Something that signs certificate requests.
pub trait Authority: Send + Sync + 'static {
    /// Asks for a certificate for this request (PEM) and lifetime.
    fn sign(&self, csr_pem: String, lifetime: Duration) -> Signing<'_>;
}

impl<T: Authority + ?Sized> Authority for Arc<T> {
    fn sign(&self, csr_pem: String, lifetime: Duration) -> Signing<'_> {
        (**self).sign(csr_pem, lifetime)
    }
}

/// The current certificate and roots of this program; clones share them.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: CertificateSlot,
    roots: RootsSlot,
    generation: watch::Sender<u64>,
}

impl Default for Identity {
    fn default() -> Self {
        Self { certificate: CertificateSlot::default(), roots: RootsSlot::default(), generation: watch::Sender::new(0) }
    }
}

impl Identity {
    /// No certificate yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An identity that holds this and is never renewed, for tests and for those who renew it themselves.
    pub fn holding(certificate: Certificate, roots: Roots) -> Self {
        let identity = Self::new();
        identity.put(certificate, roots);
        identity
    }

    /// Replaces certificate and roots.
    pub fn put(&self, certificate: Certificate, roots: Roots) {
        // Roots first: a peer that is shown the new certificate at once may already use its own new one.
        self.roots.put(roots);
        self.certificate.put(certificate);
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Replaces the roots alone.
    pub fn put_roots(&self, roots: Roots) {
        self.roots.put(roots);
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Where the certificate is.
    pub fn certificate(&self) -> &CertificateSlot {
        &self.certificate
    }

    /// Where the roots are.
    pub fn roots(&self) -> &RootsSlot {
        &self.roots
    }

    /// A number that grows with every change of certificate or roots; 0: none yet.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Waits for the first certificate.
    pub async fn wait(&self) {
        let mut changes = self.changes();
        // The sender lives in `self`, so this cannot fail while we are here.
        let _there = changes.wait_for(|_| self.certificate.get().is_some()).await.is_ok();
    }

    /// TLS as a server of the mesh: clients of these trust domains (empty: any) may, or must, prove who they are.
    ///
    /// # Errors
    /// TLS could not be set up.
    pub fn server_config(
        &self,
        required: bool,
        trust_domains: Vec<String>,
        alpn: Vec<Vec<u8>>,
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let peers = Peers::Mesh { trust_domains, identities: Vec::new() };
        let expect = Expect { roots: self.roots.clone(), peers };
        tls::server_config(ServerOptions {
            certificate: Arc::new(self.certificate.clone()),
            clients: if required { Clients::Required(expect) } else { Clients::Optional(expect) },
            alpn,
            only_tls13: false,
        })
    }

    /// TLS as a server that does not ask its clients, such as a webhook.
    ///
    /// # Errors
    /// TLS could not be set up.
    pub fn anonymous_server_config(&self, alpn: Vec<Vec<u8>>) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        tls::server_config(ServerOptions {
            certificate: Arc::new(self.certificate.clone()),
            clients: Clients::NotAsked,
            alpn,
            only_tls13: false,
        })
    }

    /// TLS as a client that shows its certificate and expects this.
    ///
    /// # Errors
    /// TLS could not be set up.
    pub fn client_config(&self, peers: Peers, alpn: Vec<Vec<u8>>) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        tls::client_config(ClientOptions {
            certificate: Some(self.certificate.clone()),
            expect: Expect { roots: self.roots.clone(), peers },
            alpn,
            only_tls13: false,
        })
    }
}

#[cfg(test)]
mod tests;
