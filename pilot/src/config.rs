//! Pilot's flags and environment, read once.
//!
//! Never here: what the mesh is told (that is MeshConfig). Read by `main`, which hands each part its slice.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use api_mesh::model::Settings;
use clap::{Parser, builder::BoolishValueParser};

fn duration(text: &str) -> Result<Duration, String> {
    api_rt::env::parse_duration(text).ok_or_else(|| "expected a duration such as 24h or 30m".to_owned())
}

/// Where a server listens, or that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// It does not.
    Off,
    /// Here.
    At(SocketAddr),
}

fn port(text: &str) -> Result<Port, String> {
    match text {
        "off" => Ok(Port::Off),
        _ => text.parse().map(Port::At).map_err(|_| "expected IP:PORT, or \"off\"".to_owned()),
    }
}

/// Reads the mesh's objects and tells every proxy what to do.
#[derive(Debug, Clone, Parser)]
#[command(name = "pilot", version)]
pub(crate) struct Options {
    /// Folder of YAML files to read objects from, instead of a cluster; then there is no webhook and no status.
    #[arg(long, env = "PILOT_FOLDER")]
    pub(crate) folder: Option<PathBuf>,
    /// Where xDS is served in plaintext; "off": nowhere.
    #[arg(long, env = "PILOT_XDS_ADDRESS", default_value = "0.0.0.0:15010", value_parser = port)]
    pub(crate) xds: Port,
    /// Where xDS is served over mutual TLS, and requests for certificates are passed on; only with a certificate.
    #[arg(long, env = "PILOT_SECURE_ADDRESS", default_value = "0.0.0.0:15012", value_parser = port)]
    pub(crate) secure: Port,
    /// Where objects are judged at admission; only with a cluster.
    #[arg(long, env = "PILOT_WEBHOOK_ADDRESS", default_value = "0.0.0.0:15017", value_parser = port)]
    pub(crate) webhook: Port,
    /// Where readiness, metrics and debug pages are served.
    #[arg(long, env = "PILOT_HTTP_ADDRESS", default_value = "0.0.0.0:15014")]
    pub(crate) http: SocketAddr,
    /// Folder of cert-chain.pem, key.pem and root-cert.pem, instead of asking citadel.
    #[arg(long, env = "PILOT_IDENTITY_FOLDER")]
    pub(crate) identity: Option<PathBuf>,
    /// Citadel, as host:port; with a cluster the default is `istio-citadel` in pilot's namespace, otherwise none.
    #[arg(long, env = "CA_ADDR")]
    pub(crate) ca: Option<String>,
    /// File of the roots that citadel is checked against.
    #[arg(long, env = "CA_ROOT", default_value = "/var/run/secrets/istio/root-cert.pem")]
    pub(crate) ca_root: PathBuf,
    /// File of the token that proves to citadel who pilot is.
    #[arg(long, env = "CA_TOKEN", default_value = "/var/run/secrets/tokens/istio-token")]
    pub(crate) ca_token: PathBuf,
    /// Lifetime of the certificate to ask for.
    #[arg(long, env = "CERT_TTL", default_value = "24h", value_parser = duration)]
    pub(crate) lifetime: Duration,
    /// Namespace of the control programs, whose policies hold everywhere.
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub(crate) namespace: String,
    /// Name of this replica.
    #[arg(long, env = "POD_NAME", default_value = "pilot")]
    pub(crate) pod: String,
    /// Trust domain of every identity.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub(crate) trust_domain: String,
    /// Domain of the cluster's DNS names.
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Id of this cluster.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub(crate) cluster_id: String,
    /// Whether proxies serve HTTP/1.0, which they refuse otherwise.
    #[arg(long, env = "PILOT_HTTP10", value_parser = BoolishValueParser::new())]
    pub(crate) http10: bool,
    /// Log levels, for example "info" or "default:info,pilot:debug".
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// One JSON object a line.
    #[arg(long, env = "LOG_AS_JSON")]
    pub(crate) log_as_json: bool,
}

/// How pilot gets its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// Not at all.
    None,
    /// From files in a folder.
    Files(PathBuf),
    /// From citadel at `host:port`.
    Citadel(String),
}

impl Options {
    /// How pilot gets its certificate.
    pub(crate) fn certificate(&self) -> Certificate {
        match (&self.identity, &self.ca, &self.folder) {
            (Some(folder), _, _) => Certificate::Files(folder.clone()),
            (None, Some(address), _) => Certificate::Citadel(address.clone()),
            (None, None, None) => Certificate::Citadel(format!("istio-citadel.{}.svc:8060", self.namespace)),
            (None, None, Some(_)) => Certificate::None,
        }
    }

    /// What the mesh is told once.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            root_namespace: self.namespace.clone(),
            domain: self.cluster_domain.clone(),
            cluster_id: self.cluster_id.clone(),
            http10: self.http10,
            ..Settings::default()
        }
    }

    /// The DNS names that callers know pilot by.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        let name = |service: &str| format!("{service}.{}.svc", self.namespace);
        ["istiod", "istio-pilot"]
            .iter()
            .flat_map(|service| [name(service), format!("{service}.{}", self.namespace)])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &str) -> Result<Options, String> {
        Options::try_parse_from(["pilot"].into_iter().chain(args.split_whitespace())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_folder_needs_no_certificate() {
        let options = read("--folder=/tmp/mesh --xds 127.0.0.1:1 --http 127.0.0.1:2").unwrap();
        assert_eq!(options.certificate(), Certificate::None);
        assert_eq!(options.xds, Port::At("127.0.0.1:1".parse().unwrap()));
        assert_eq!(read("--folder /x --ca c:1").unwrap().certificate(), Certificate::Citadel("c:1".into()));
        assert_eq!(read("--ca c:1 --identity /id").unwrap().certificate(), Certificate::Files("/id".into()));
    }

    #[test]
    fn a_cluster_is_the_default() {
        let options = read("--xds=off --namespace mesh").unwrap();
        assert_eq!(options.xds, Port::Off);
        assert_eq!(options.dns_names()[0], "istiod.mesh.svc");
        assert_eq!(options.certificate(), Certificate::Citadel("istio-citadel.mesh.svc:8060".into()));
    }

    #[test]
    fn http_1_0_is_served_where_it_is_asked_for() {
        assert!(!read("--cluster-id x").unwrap().settings().http10);
        assert!(read("--http10").unwrap().settings().http10);
    }

    #[test]
    fn mistakes_are_told() {
        for (args, says) in
            [("--nope 1", "--nope"), ("--xds", "--xds"), ("--xds here", "IP:PORT"), ("--lifetime x", "24h")]
        {
            let error = read(args).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
