//! Valid form of Gateway.
//!
//! Never here: how they are read, or what they mean together. Part of [`super`].

use api::{name::Host, spec::TlsVersion};

use super::super::{
    base::{Labels, Meta},
    service::Protocol,
};

/// Ports that a gateway opens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Name and age.
    pub meta: Meta,
    /// Labels of the gateway's workloads, in any namespace.
    pub selector: Labels,
    /// Its servers.
    pub servers: Vec<Server>,
}

/// One port of a gateway, for some hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Where it stands in the list.
    pub index: usize,
    /// Port number as the gateway's Service has it.
    pub port: u16,
    /// Name of the port.
    pub port_name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Address to listen on; none: all.
    pub bind: Option<std::net::IpAddr>,
    /// Which VirtualServices may be served.
    pub hosts: Vec<ServerHost>,
    /// What it does with connections.
    pub mode: ServerMode,
}

/// A host of a server, and from which namespaces its VirtualServices may come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerHost {
    /// Namespace; none: any.
    pub namespace: Option<String>,
    /// Host.
    pub host: Host,
}

/// What a server does with connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerMode {
    /// Takes them as they come.
    Plain,
    /// Sends clients to https.
    RedirectToHttps,
    /// Passes TLS on as it is, by server name.
    Passthrough,
    /// Ends the mesh's own mTLS.
    Mesh {
        /// Smallest version.
        min_version: TlsVersion,
    },
    /// Ends TLS.
    Tls {
        /// Where the certificate is.
        certificate: ServerCertificate,
        /// Which clients it takes.
        clients: ServerClients,
        /// Smallest version.
        min_version: TlsVersion,
    },
    /// Asks for protection that is not enforced yet: it serves nothing.
    Closed,
}

/// Which clients a server that ends TLS takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerClients {
    /// All; none is asked for a certificate.
    Anyone,
    /// All, but a certificate that is shown must be good.
    Optional,
    /// Those that show a good certificate.
    Proven,
}

/// Where a server's certificate is, and the roots that its clients' certificates are checked against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerCertificate {
    /// In a Secret of the gateway's namespace.
    Secret(String),
    /// In files of the gateway's Pod.
    Files {
        /// Chain, PEM.
        chain: String,
        /// Key, PEM.
        key: String,
        /// Roots, PEM; none where no client is asked.
        roots: Option<String>,
    },
}
