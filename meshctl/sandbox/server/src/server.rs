//! The server as its callers see it.
//!
//! Opens the store and the keys, answers requests, serves sockets, writes kubeconfigs. Never here: what a verb
//! does (see `verb`). Called by `meshctl up`, the node and tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use ipnet::Ipv4Net;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::{Keys, KeysError};
use crate::core::Core;
use crate::reply::Body;
use crate::store::{DiskError, Store};
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
    /// The first of them to be given.
    pub first_node_port: u16,
    /// More addresses that the server's certificate must name (127.0.0.1 and the first of `services` always are).
    pub addresses: Vec<IpAddr>,
    /// The issuer that tokens name, and the API's own audience.
    pub issuer: String,
}

impl Options {
    /// The sandbox's usual values over a state folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            services: Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 0, 0), 16),
            node_ports: 30000..=32767,
            first_node_port: 30000,
            addresses: Vec::new(),
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
        }
    }

    /// The ClusterIP of `default/kubernetes`.
    pub(crate) fn kubernetes_address(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.services.network()) + 1)
    }
}

/// Why a server could not be opened or set up.
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
    /// The database.
    #[error("could not open {path}")]
    Store {
        /// The database's file.
        path: PathBuf,
        /// Why.
        source: DiskError,
    },
    /// The CA, a certificate or a key.
    #[error("could not prepare the cluster's keys")]
    Keys(#[from] KeysError),
    /// An object that every cluster has could not be made.
    #[error("could not make {object}: {reason}")]
    Bootstrap {
        /// Which object.
        object: String,
        /// The API's message.
        reason: String,
    },
}

/// A Kubernetes API server. Clones share the same store.
#[derive(Clone)]
pub struct Server {
    core: Arc<Core>,
}

impl Server {
    /// Opens the store in the folder, making what is missing.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let folder = options.folder.clone();
        std::fs::create_dir_all(&folder).map_err(|source| OpenError::Folder { path: folder.clone(), source })?;
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(options.kubernetes_address())];
        addresses.extend(&options.addresses);
        let keys = Keys::open(&folder, &addresses)?;
        let path = folder.join("objects.redb");
        let store = Store::open(&path).map_err(|source| OpenError::Store { path, source })?;
        Ok(Self { core: Arc::new(Core::new(options, Arc::new(store), keys)) })
    }

    /// Says who serves logs, exec, attach and port-forward. Until then those requests answer 503.
    pub fn set_kubelet(&self, kubelet: Arc<dyn Kubelet>) {
        self.core.set_kubelet(kubelet);
    }

    /// Says how to reach addresses inside the sandbox (webhooks). Until then they are dialled from this process.
    pub fn set_dial(&self, dial: Arc<dyn Dial>) {
        self.core.set_dial(dial);
    }

    /// Answers one request. Upgrades (exec, attach, port-forward) work only over `serve`.
    pub async fn handle(&self, request: Request<Bytes>, user: User) -> Response<Body> {
        crate::dispatch::answer(&self.core, request, user).await
    }

    /// The user that a bearer token proves.
    pub(crate) fn user_of_token(&self, token: &str) -> Option<User> {
        match crate::auth::token::check(&self.core, token, &[]) {
            Ok((user, _)) => Some(user),
            Err(error) => {
                tracing::debug!(%error, "token refused");
                None
            }
        }
    }

    /// A client in this process that asks under this user's name. Needs a tokio runtime.
    pub fn client(&self, user: User) -> kube::Client {
        crate::client::client(self.clone(), user)
    }

    /// Makes what every cluster has: namespaces, roles, the `kubernetes` Service, default ServiceAccounts and their
    /// root certificate. Doing it again changes nothing.
    pub async fn bootstrap(&self) -> Result<(), OpenError> {
        crate::bootstrap::run(self, &self.core).await
    }

    /// Serves TLS on the listener until told to stop. May be called for several listeners.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let config = crate::serve::tls(&self.core.keys).map_err(std::io::Error::other)?;
        crate::serve::run(self.clone(), listener, config, stop).await
    }

    /// A kubeconfig for the administrator (client certificate) at this address.
    pub fn kubeconfig(&self, address: SocketAddr) -> Result<String, OpenError> {
        let leaf = self.core.keys.client(&User::admin())?;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        Ok(format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: sandbox\n  cluster:\n    server: https://{address}\n    certificate-authority-data: {}\n\
             users:\n\
             - name: sandbox-admin\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n\
             contexts:\n\
             - name: sandbox\n  context:\n    cluster: sandbox\n    user: sandbox-admin\n    namespace: default\n\
             current-context: sandbox\n",
            encode(self.core.keys.root()),
            encode(&leaf.certificate),
            encode(&leaf.key),
        ))
    }

    /// The cluster's root certificate: what `kube-root-ca.crt` holds.
    pub fn root_certificate(&self) -> &str {
        self.core.keys.root()
    }
}
