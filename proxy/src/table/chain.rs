//! What the proxy puts beside a filter chain: TLS as a server, the compiled access log.
//!
//! Never here: choosing a chain. Built by `table`; used by `listen::serve` and `http`.

use std::sync::Arc;

use api::spec::{AccessLog, CertificateRef, Network, PRIVATE_ALPN, RootsRef, ServerTls, TlsVersion};
use api_rt::tls::{CertificateSlot, Clients, Expect, Peers, RootsSlot, ServerOptions, server_config};
use rustls::ServerConfig;

use super::Builder;
use crate::{
    access::{Format, Log},
    upstream::tls::Secrets,
};

/// TLS of a chain, ready for use.
#[derive(Debug)]
pub(crate) struct Acceptor {
    protocols: Vec<String>,
    with_protocols: Arc<ServerConfig>,
    without: Arc<ServerConfig>,
}

impl Acceptor {
    /// The configuration for a client: where it offers no protocol of ours the handshake goes on without one, as
    /// Envoy's does.
    pub(crate) fn config(&self, offered: &[String]) -> &Arc<ServerConfig> {
        if offered.iter().any(|name| self.protocols.contains(name)) { &self.with_protocols } else { &self.without }
    }
}

/// What belongs to one chain.
#[derive(Debug)]
pub(crate) struct ChainExtra {
    pub(crate) tls: Option<Acceptor>,
    pub(crate) log: Option<Arc<Log>>,
}

impl ChainExtra {
    /// Builds what belongs to a chain.
    ///
    /// # Errors
    /// What cannot be offered, in words.
    pub(super) fn build(chain: &api::table::Chain, builder: &mut Builder) -> Result<Self, String> {
        let spec = chain.spec();
        let log = match &spec.network {
            Network::Http(server) => server.access_log.as_ref(),
            Network::Tcp(server) => server.access_log.as_ref(),
        };
        let requests = matches!(spec.network, Network::Http(_));
        let tls = spec.tls.as_ref().map(|tls| acceptor(tls, protocols(tls, requests), builder)).transpose()?;
        Ok(Self { tls, log: log.map(compile_log).transpose()? })
    }
}

fn compile_log(log: &AccessLog) -> Result<Arc<Log>, String> {
    let AccessLog { path, format, json } = log;
    let format = if *json { Format::json(format.as_deref()) } else { Format::text(format.as_deref()) };
    let format = format.map_err(|error| format!("access log format: {error}"))?;
    Ok(Arc::new(Log::new(path, format)))
}

/// The protocols that are taken. Ours is for requests, and only from who has proved to be of the mesh: what rides is
/// believed.
fn protocols(tls: &ServerTls, requests: bool) -> Vec<String> {
    let ours = requests && tls.mesh && tls.require_client_certificate;
    tls.alpn.iter().filter(|name| ours || *name != PRIVATE_ALPN).cloned().collect()
}

fn acceptor(tls: &ServerTls, protocols: Vec<String>, builder: &mut Builder) -> Result<Acceptor, String> {
    let secrets = &builder.secrets;
    let missing = |name: &String| format!("secret {name} is of another kind");
    let certificate: CertificateSlot = match &tls.certificate {
        CertificateRef::Workload => builder.identity.certificate().clone(),
        CertificateRef::Secret(name) => secrets.certificate(name).ok_or_else(|| missing(name))?,
        CertificateRef::Files { chain, key } => {
            secrets.certificate_files(chain, key).map_err(|error| error.to_string())?
        }
    };
    let roots: Option<RootsSlot> = match &tls.client_roots {
        None => None,
        Some(RootsRef::Mesh) => Some(builder.identity.roots().clone()),
        Some(RootsRef::Secret(name)) => Some(secrets.roots(name).ok_or_else(|| missing(name))?),
        Some(RootsRef::File(path)) => Some(secrets.roots_file(path).map_err(|error| error.to_string())?),
    };
    let roots = roots.or_else(|| tls.mesh.then(|| builder.identity.roots().clone()));
    let clients = match roots {
        None if tls.require_client_certificate => {
            return Err("client certificates are required, but there are no roots to check them against".to_owned());
        }
        None => Clients::NotAsked,
        Some(roots) => {
            let peers = if tls.mesh {
                Peers::Mesh { trust_domains: tls.trust_domains.clone(), identities: Vec::new() }
            } else {
                Peers::Chained
            };
            let expect = Expect { roots, peers };
            if tls.require_client_certificate { Clients::Required(expect) } else { Clients::Optional(expect) }
        }
    };
    let config = |alpn: Vec<Vec<u8>>| {
        server_config(ServerOptions {
            certificate: Arc::new(certificate.clone()),
            clients: clients.clone(),
            alpn,
            only_tls13: tls.min_version == TlsVersion::V1_3,
        })
        .map_err(|error| error.to_string())
    };
    let with_protocols = config(protocols.iter().map(|name| name.as_bytes().to_vec()).collect())?;
    Ok(Acceptor { protocols, with_protocols, without: config(Vec::new())? })
}
