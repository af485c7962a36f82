//! Mutual TLS from three PEM files: chain, key, root.
//!
//! Never here: identities; any certificate of the root will do. Called by `hop` and by the load clients.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, client::Resumption, crypto::aws_lc_rs, server::WebPkiClientVerifier,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};

/// The DNS name in every certificate of a bench.
pub(crate) const NAME: &str = "bench.test";

/// That name, as rustls wants it.
pub(crate) fn name() -> Result<ServerName<'static>> {
    ServerName::try_from(NAME).context("a name")
}

struct Files {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
}

fn read(dir: &Path) -> Result<Files> {
    let chain = CertificateDer::pem_file_iter(dir.join("cert-chain.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem"))?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(dir.join("root-cert.pem"))? {
        roots.add(root?)?;
    }
    Ok(Files { chain, key, roots })
}

/// The accepting side; asks for a certificate.
pub(crate) fn server(dir: &Path) -> Result<ServerConfig> {
    let Files { chain, key, roots } = read(dir)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The connecting side; every handshake is a full one.
pub(crate) fn client(dir: &Path, alpn: &[&str]) -> Result<ClientConfig> {
    let Files { chain, key, roots } = read(dir)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(config)
}
