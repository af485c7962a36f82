//! TLS as the mesh speaks it: certificates that may be replaced while in use, SPIFFE identities, and ready configurations.
//!
//! The cryptography is always AWS-LC, named explicitly. [`Certificate`] and [`Roots`] are checked once; the slots that hold
//! them are read at each handshake, so that rotation needs no new configuration and drops no connection.
//! Never here: where certificates come from (`identity`), sockets, or which peers policy allows. Used by all programs.

mod certificate;
mod config;
mod slot;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificate::{Certificate, CertificateError, Roots};
pub use config::{ClientOptions, Clients, ServerOptions, TlsError, client_config, server_config};
pub use slot::{CertificateSlot, RootsSlot};
pub use verify::{
    Expect, Peers, SpiffeClientVerifier, SpiffeServerVerifier, WrongPeer, peer_identity, plainly, wrong_peer,
};

/// AWS-LC, with post-quantum key exchange preferred.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// Makes AWS-LC the choice of libraries that do not ask; called first in `main`. Twice does no harm.
pub fn install() {
    // An error says only that it is installed already.
    let _installed = CryptoProvider::install_default(CryptoProvider::clone(&provider())).is_ok();
}

#[cfg(test)]
pub(crate) mod tests;
