//! Gateway: what the mesh's edge listens for.
//!
//! Never here: routes (VirtualService), or whether a server makes sense. Used by `model`; Sidecar shares the TLS settings.
//! Called by serde.

use std::collections::BTreeMap;

use crate::object::shape::{cel, names, shapes};

shapes! {
    /// Listeners of the gateway workloads that `selector` names.
    pub struct Gateway {
        /// Labels of the gateway's Pods.
        #[serde(default)]
        pub selector: BTreeMap<String, String>,
        /// Listeners.
        #[serde(default)]
        pub servers: Vec<Server>,
    }

    /// One listener.
    pub struct Server {
        /// Port and protocol.
        pub port: GatewayPort,
        /// Hosts, each `[namespace/]name`.
        pub hosts: Vec<String>,
        /// TLS of the listener.
        pub tls: Option<ServerTls>,
        /// Name, for statistics.
        pub name: Option<String>,
        /// Address to listen on.
        pub bind: Option<String>,
        /// Where unmatched traffic goes.
        pub default_endpoint: Option<String>,
    }

    /// A port of a gateway.
    pub struct GatewayPort {
        /// Number.
        pub number: u32,
        /// `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `MONGO`, `TCP` or `TLS`.
        pub protocol: String,
        /// Name.
        pub name: String,
        /// Not used by Istio any more.
        pub target_port: Option<u32>,
    }

    /// TLS of a listener.
    #[schemars(extend("x-kubernetes-validations" = cel(&[
        ("only one of credentialNames or tlsCertificates can be set",
         "(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1"),
        ("only one of credentialName or credentialNames can be set",
         "(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1"),
        ("only one of credentialName or tlsCertificates can be set",
         "(has(self.credentialNames) ? 1 : 0) + (has(self.tlsCertificates) ? 1 : 0) <= 1"),
    ])))]
    pub struct ServerTls {
        /// Answers plain HTTP with a redirect to HTTPS.
        pub https_redirect: Option<bool>,
        /// Who proves what.
        pub mode: Option<ServerTlsMode>,
        /// File of the certificate.
        pub server_certificate: Option<String>,
        /// File of the key.
        pub private_key: Option<String>,
        /// File of the callers' authorities.
        pub ca_certificates: Option<String>,
        /// File of revoked certificates.
        pub ca_crl: Option<String>,
        /// Secret with certificate and key.
        pub credential_name: Option<String>,
        /// Secrets with certificates of two kinds (RSA, ECDSA).
        #[serde(default)]
        #[schemars(length(min = 1, max = 2))]
        pub credential_names: Vec<String>,
        /// Secret with the callers' authorities.
        pub ca_cert_credential_name: Option<String>,
        /// Files of certificates of two kinds.
        #[serde(default)]
        #[schemars(length(min = 1, max = 2))]
        pub tls_certificates: Vec<TlsCertificate>,
        /// Names that a caller may prove.
        #[serde(default)]
        pub subject_alt_names: Vec<String>,
        /// Hashes of callers' keys.
        #[serde(default)]
        pub verify_certificate_spki: Vec<String>,
        /// Hashes of callers' certificates.
        #[serde(default)]
        pub verify_certificate_hash: Vec<String>,
        /// Oldest TLS version.
        pub min_protocol_version: Option<TlsVersion>,
        /// Newest TLS version.
        pub max_protocol_version: Option<TlsVersion>,
        /// Ciphers, by OpenSSL's names.
        #[serde(default)]
        pub cipher_suites: Vec<String>,
        /// Curves.
        #[serde(default)]
        pub ecdh_curves: Vec<String>,
        /// Only for clients; kept since both share one message in Istio.
        #[schemars(extend("nullable" = true))]
        pub insecure_skip_verify: Option<bool>,
    }

    /// Files of one certificate.
    pub struct TlsCertificate {
        /// Certificate.
        pub server_certificate: Option<String>,
        /// Key.
        pub private_key: Option<String>,
        /// Callers' authorities.
        pub ca_certificates: Option<String>,
    }
}

names! {
    /// Who proves what to whom at a listener.
    pub enum ServerTlsMode {
        /// Not ended here: routed by server name.
        Passthrough = "PASSTHROUGH",
        /// The gateway proves who it is.
        Simple = "SIMPLE",
        /// The caller too, by certificate.
        Mutual = "MUTUAL",
        /// Not ended here: led to the cluster that the server name spells.
        AutoPassthrough = "AUTO_PASSTHROUGH",
        /// Both, with the mesh's identities.
        IstioMutual = "ISTIO_MUTUAL",
        /// The caller if it has a certificate.
        OptionalMutual = "OPTIONAL_MUTUAL",
    }

    /// A TLS version.
    pub enum TlsVersion {
        /// As the implementation has it.
        Auto = "TLS_AUTO",
        /// TLS 1.0.
        V1_0 = "TLSV1_0",
        /// TLS 1.1.
        V1_1 = "TLSV1_1",
        /// TLS 1.2.
        V1_2 = "TLSV1_2",
        /// TLS 1.3.
        V1_3 = "TLSV1_3",
    }
}
