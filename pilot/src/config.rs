//! Pilot's flags and environment, read once.
//!
//! Never here: what the mesh is told (that is MeshConfig). Read by `main`, which hands each part its slice.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use api_mesh::model::Settings;
use api_rt::env::{EnvError, Vars};

/// What `pilot --help` prints.
pub(crate) const HELP: &str = "\
pilot: reads the mesh's objects and tells every proxy what to do.

  --folder PATH       read objects from YAML files instead of a cluster (no webhook, no status)
  --xds ADDRESS       plaintext xDS (default 0.0.0.0:15010; \"off\": none)
  --secure ADDRESS    xDS over mutual TLS, and certificates passed on to citadel (default 0.0.0.0:15012; \"off\": none)
  --webhook ADDRESS   admission (default 0.0.0.0:15017; \"off\": none)
  --admin ADDRESS     /ready /metrics /version /debug (default 0.0.0.0:15014)
  --identity FOLDER   cert-chain.pem, key.pem, root-cert.pem instead of citadel

Environment: POD_NAME POD_NAMESPACE CLUSTER_ID DOMAIN TRUST_DOMAIN CA_ADDR CA_ROOT CA_TOKEN CERT_TTL LOG_LEVELS
LOG_FORMAT, and each flag as PILOT_FOLDER, PILOT_XDS, PILOT_SECURE, PILOT_WEBHOOK, PILOT_ADMIN, PILOT_IDENTITY.
";

/// Why pilot does not start; the one who wrote the flags is at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// No such flag.
    #[error("there is no flag {0}; --help lists them")]
    Flag(String),
    /// A flag has no value.
    #[error("{0} needs a value")]
    Value(String),
    /// Not an address.
    #[error("{name}: {value:?} is not IP:PORT or \"off\"")]
    Address {
        /// The flag.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A variable cannot be read.
    #[error(transparent)]
    Env(#[from] EnvError),
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    /// An API server.
    Cluster,
    /// A folder of YAML.
    Folder(PathBuf),
}

/// How pilot gets its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// Not at all.
    None,
    /// From files.
    Files(PathBuf),
    /// From citadel.
    Citadel {
        /// `host:port`.
        address: String,
        /// File of roots to check citadel against.
        roots: PathBuf,
        /// File of our own token.
        token: PathBuf,
        /// Lifetime to ask for.
        lifetime: Duration,
    },
}

/// Flags and environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) from: From,
    pub(crate) xds: Option<SocketAddr>,
    pub(crate) secure: Option<SocketAddr>,
    pub(crate) webhook: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) certificate: Certificate,
    pub(crate) settings: Settings,
    pub(crate) trust_domain: String,
    pub(crate) pod: String,
    pub(crate) log_levels: String,
    pub(crate) log_json: bool,
}

struct Flags {
    given: Vec<(&'static str, String)>,
}

const FLAGS: [(&str, &str); 6] = [
    ("--folder", "PILOT_FOLDER"),
    ("--xds", "PILOT_XDS"),
    ("--secure", "PILOT_SECURE"),
    ("--webhook", "PILOT_WEBHOOK"),
    ("--admin", "PILOT_ADMIN"),
    ("--identity", "PILOT_IDENTITY"),
];

impl Flags {
    fn read(args: &[String]) -> Result<Self, ConfigError> {
        let mut given = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let Some((name, _)) = FLAGS.iter().find(|(known, _)| *known == name) else {
                return Err(ConfigError::Flag(arg.clone()));
            };
            let value = value.or_else(|| args.next().cloned()).ok_or_else(|| ConfigError::Value(arg.clone()))?;
            given.push((*name, value));
        }
        Ok(Self { given })
    }

    fn get(&self, name: &str, vars: &Vars) -> Option<String> {
        let variable = FLAGS.iter().find(|(known, _)| *known == name).map_or("", |(_, variable)| *variable);
        let flag = self.given.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        flag.or_else(|| vars.get(variable).map(str::to_owned)).filter(|value| !value.is_empty())
    }

    fn address(
        &self,
        name: &'static str,
        vars: &Vars,
        default: Option<&str>,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        match self.get(name, vars).as_deref().or(default) {
            None | Some("off") => Ok(None),
            Some(value) => {
                let bad = || ConfigError::Address { name, value: value.to_owned() };
                value.parse().map(Some).map_err(|_| bad())
            }
        }
    }
}

impl Config {
    /// Reads flags (without the program's name) and environment.
    pub(crate) fn read(args: &[String], vars: &Vars) -> Result<Self, ConfigError> {
        let flags = Flags::read(args)?;
        let from = flags.get("--folder", vars).map_or(From::Cluster, |path| From::Folder(path.into()));
        let cluster = from == From::Cluster;
        let namespace = vars.text("POD_NAMESPACE", "istio-system").to_owned();
        let certificate = match (flags.get("--identity", vars), cluster) {
            (Some(folder), _) => Certificate::Files(folder.into()),
            (None, false) => Certificate::None,
            (None, true) => Certificate::Citadel {
                address: vars.text("CA_ADDR", &format!("istio-citadel.{namespace}.svc:8060")).to_owned(),
                roots: vars.text("CA_ROOT", "/var/run/secrets/istio/root-cert.pem").into(),
                token: vars.text("CA_TOKEN", "/var/run/secrets/tokens/istio-token").into(),
                lifetime: vars.duration("CERT_TTL", Duration::from_secs(24 * 3600))?,
            },
        };
        let secure = (certificate != Certificate::None).then_some("0.0.0.0:15012");
        let webhook = cluster.then_some("0.0.0.0:15017");
        let admin = flags.address("--admin", vars, Some("0.0.0.0:15014"))?;
        Ok(Self {
            xds: flags.address("--xds", vars, Some("0.0.0.0:15010"))?,
            secure: flags.address("--secure", vars, secure)?,
            webhook: flags.address("--webhook", vars, webhook)?,
            admin: admin.ok_or(ConfigError::Address { name: "--admin", value: "off".to_owned() })?,
            settings: Settings {
                root_namespace: namespace,
                domain: vars.text("DOMAIN", "cluster.local").to_owned(),
                cluster_id: vars.text("CLUSTER_ID", "Kubernetes").to_owned(),
                ..Settings::default()
            },
            trust_domain: vars.text("TRUST_DOMAIN", "cluster.local").to_owned(),
            pod: vars.text("POD_NAME", "pilot").to_owned(),
            log_levels: vars.text("LOG_LEVELS", "info").to_owned(),
            log_json: vars.text("LOG_FORMAT", "text") == "json",
            from,
            certificate,
        })
    }

    /// The DNS names that callers know pilot by.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        let namespace = &self.settings.root_namespace;
        let names = ["istiod", "istio-pilot"].into_iter();
        names.flat_map(|name| [format!("{name}.{namespace}.svc"), format!("{name}.{namespace}")]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &str, vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Config::read(&args, &vars.iter().copied().collect())
    }

    #[test]
    fn a_folder_needs_no_cluster() {
        let config = read("--folder=/tmp/mesh --xds 127.0.0.1:1 --admin 127.0.0.1:2", &[]).unwrap();
        assert_eq!(config.from, From::Folder("/tmp/mesh".into()));
        assert_eq!((config.secure, config.webhook, config.certificate), (None, None, Certificate::None));
        assert_eq!(config.xds, "127.0.0.1:1".parse().ok());
    }

    #[test]
    fn a_cluster_is_the_default() {
        let config = read("--xds=off", &[("POD_NAMESPACE", "mesh")]).unwrap();
        assert_eq!((config.from.clone(), config.xds), (From::Cluster, None));
        assert!(config.secure.is_some() && config.webhook.is_some());
        assert_eq!(config.dns_names()[0], "istiod.mesh.svc");
        assert!(
            matches!(config.certificate, Certificate::Citadel { address, .. } if address == "istio-citadel.mesh.svc:8060")
        );
    }

    #[test]
    fn mistakes_are_told() {
        for (args, says) in [("--nope 1", "--nope"), ("--xds", "needs a value"), ("--xds here", "\"here\"")] {
            let error = read(args, &[]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
