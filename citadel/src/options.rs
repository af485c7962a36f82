//! The flags and environment of citadel, in one place.
//!
//! Never here: defaults that depend on a cluster. Read once, in `main`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;

fn duration(text: &str) -> Result<Duration, String> {
    api_rt::env::parse_duration(text).ok_or_else(|| "expected a duration such as 24h or 30m".to_owned())
}

/// The mesh's certificate authority.
#[derive(Debug, Clone, Parser)]
#[command(name = "citadel", version)]
pub(crate) struct Options {
    /// Namespace of the control programs; the root's Secret is here.
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub(crate) namespace: String,
    /// Trust domain of every identity.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub(crate) trust_domain: String,
    /// Domain of the cluster's DNS names.
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Where the certificate service listens.
    #[arg(long, env = "CITADEL_GRPC_ADDRESS", default_value = "[::]:8060")]
    pub(crate) grpc_address: SocketAddr,
    /// Where readiness and metrics are served.
    #[arg(long, env = "CITADEL_HTTP_ADDRESS", default_value = "[::]:15014")]
    pub(crate) http_address: SocketAddr,
    /// Lifetime of certificates where none is asked for.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = duration)]
    pub(crate) default_lifetime: Duration,
    /// Longest lifetime that may be asked for.
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", default_value = "2160h", value_parser = duration)]
    pub(crate) longest_lifetime: Duration,
    /// Folder of the root, for use without Kubernetes: ca-cert.pem, ca-key.pem (made if absent).
    #[arg(long, env = "CITADEL_ROOT_FOLDER")]
    pub(crate) root_folder: Option<PathBuf>,
    /// File of the keys (JWKS) that sign tokens, for use without Kubernetes.
    #[arg(long, env = "CITADEL_JWKS", requires = "root_folder")]
    pub(crate) jwks: Option<PathBuf>,
    /// Issuer of the tokens.
    #[arg(long, env = "CITADEL_TOKEN_ISSUER", default_value = "https://kubernetes.default.svc.cluster.local")]
    pub(crate) token_issuer: String,
    /// Log levels, for example "info" or "default:info,citadel:debug".
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// One JSON object a line.
    #[arg(long, env = "LOG_AS_JSON")]
    pub(crate) log_as_json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        let options = Options::try_parse_from(["citadel", "--default-lifetime", "1h", "--root-folder", "/x"]).unwrap();
        assert_eq!(options.default_lifetime, Duration::from_secs(3_600));
        assert!(Options::try_parse_from(["citadel", "--default-lifetime", "soon"]).is_err());
    }
}
