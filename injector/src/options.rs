//! The flags and environment of the injector, in one place.
//!
//! Never here: settings of injection (those are in a ConfigMap). Read once, in `main`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

/// Adds sidecars to Pods as they are created.
#[derive(Debug, Clone, Parser)]
#[command(name = "injector", version)]
pub(crate) struct Options {
    /// Namespace of the control programs.
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub(crate) namespace: String,
    /// Service that the webhook is reached by; its DNS name is in the certificate.
    #[arg(long, env = "INJECTOR_SERVICE", default_value = "istio-sidecar-injector")]
    pub(crate) service: String,
    /// MutatingWebhookConfiguration to keep the CA bundle in.
    #[arg(long, env = "INJECTION_WEBHOOK_CONFIG_NAME", default_value = "istio-sidecar-injector")]
    pub(crate) webhook_configuration: String,
    /// ConfigMap of the settings of injection.
    #[arg(long, env = "INJECTOR_CONFIG_MAP", default_value = "istio-sidecar-injector")]
    pub(crate) config_map: String,
    /// ConfigMap of the mesh's settings.
    #[arg(long, env = "MESH_CONFIG_MAP", default_value = "istio")]
    pub(crate) mesh_config_map: String,
    /// Certificate authority; by default istio-citadel in the same namespace.
    #[arg(long, env = "CA_ADDR")]
    pub(crate) ca_address: Option<String>,
    /// Roots to check the authority against.
    #[arg(long, env = "CA_ROOT_CA", default_value = "/var/run/secrets/istio/root-cert.pem")]
    pub(crate) ca_roots: PathBuf,
    /// Own token for the authority.
    #[arg(long, env = "CA_TOKEN", default_value = "/var/run/secrets/tokens/istio-token")]
    pub(crate) token: PathBuf,
    /// Where the webhook listens.
    #[arg(long, env = "INJECTOR_HTTPS_ADDRESS", default_value = "[::]:15017")]
    pub(crate) https_address: SocketAddr,
    /// Where readiness and metrics are served.
    #[arg(long, env = "INJECTOR_HTTP_ADDRESS", default_value = "[::]:15014")]
    pub(crate) http_address: SocketAddr,
    /// Log levels, for example "info" or "default:info,injector:debug".
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// One JSON object a line.
    #[arg(long, env = "LOG_AS_JSON")]
    pub(crate) log_as_json: bool,
}

impl Options {
    /// Where certificates are asked for.
    pub(crate) fn authority(&self) -> String {
        self.ca_address.clone().unwrap_or_else(|| format!("istio-citadel.{}.svc:8060", self.namespace))
    }

    /// The name that the API server calls the webhook by.
    pub(crate) fn dns_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_namespace() {
        let options = Options::try_parse_from(["injector", "--namespace", "mesh"]).unwrap();
        assert_eq!(options.authority(), "istio-citadel.mesh.svc:8060");
        assert_eq!(options.dns_name(), "istio-sidecar-injector.mesh.svc");
    }
}
