//! Ready-made rustls configurations for servers and clients of the mesh.
//!
//! Made once per use and kept: what changes (certificate, roots) is read from slots at each handshake. Where the peer's
//! identity matters, sessions are not resumed, so that a changed root is felt by the next connection.
//! Never here: handshakes themselves. Called by proxy tables, `grpc` and the webhook server.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    server::{NoServerSessionStorage, ResolvesServerCert},
    version::{TLS12, TLS13},
};

use super::{CertificateSlot, Expect, Peers, SpiffeClientVerifier, SpiffeServerVerifier, provider};

/// Why a configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The provider does not offer the versions.
    #[error("no usable TLS version: {0}")]
    Versions(#[from] rustls::Error),
}

/// Whether clients are asked who they are.
#[derive(Debug, Clone, Default)]
pub enum Clients {
    /// They are not.
    #[default]
    NotAsked,
    /// They are; one that shows a certificate must show a good one.
    Optional(Expect),
    /// They are, and must.
    Required(Expect),
}

/// TLS as a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Own certificate.
    pub certificate: Arc<dyn ResolvesServerCert>,
    /// Who may connect.
    pub clients: Clients,
    /// Protocols, in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Refuses TLS 1.2.
    pub only_tls13: bool,
}

/// TLS as a client.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Own certificate, shown if the server asks.
    pub certificate: Option<CertificateSlot>,
    /// Whom to expect.
    pub expect: Expect,
    /// Protocols, in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Refuses TLS 1.2.
    pub only_tls13: bool,
}

fn versions(only_tls13: bool) -> &'static [&'static rustls::SupportedProtocolVersion] {
    static BOTH: [&rustls::SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    if only_tls13 { &BOTH[..1] } else { &BOTH }
}

/// A server's configuration.
///
/// # Errors
/// The provider does not offer the versions.
pub fn server_config(options: ServerOptions) -> Result<Arc<ServerConfig>, TlsError> {
    let ServerOptions { certificate, clients, alpn, only_tls13 } = options;
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions(only_tls13))?;
    let (builder, asked) = match clients {
        Clients::NotAsked => (builder.with_no_client_auth(), false),
        Clients::Optional(expect) => {
            (builder.with_client_cert_verifier(Arc::new(SpiffeClientVerifier::new(expect, false))), true)
        }
        Clients::Required(expect) => {
            (builder.with_client_cert_verifier(Arc::new(SpiffeClientVerifier::new(expect, true))), true)
        }
    };
    let mut config = builder.with_cert_resolver(certificate);
    config.alpn_protocols = alpn;
    if asked {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// A client's configuration.
///
/// # Errors
/// The provider does not offer the versions.
pub fn client_config(options: ClientOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let ClientOptions { certificate, expect, alpn, only_tls13 } = options;
    let by_name = matches!(expect.peers, Peers::ServerName | Peers::Unchecked) && certificate.is_none();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(only_tls13))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SpiffeServerVerifier::new(expect)));
    let mut config = match certificate {
        Some(slot) => builder.with_client_cert_resolver(Arc::new(slot)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn;
    if !by_name {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}
