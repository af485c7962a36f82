//! A small, exact Kubernetes API server: request → response over a store.
//!
//! [`Server::handle`] answers one request; [`Server::client`] is a `kube` client without a socket; [`Server::serve`]
//! is the only place with sockets. Never here: processes, namespaces, the mesh.
//! Called by `sandbox-node` and `meshctl up`; both reach the cluster's state only through this API.

mod client;
mod kubelet;
mod reply;
mod server;
mod user;

pub use kubelet::{
    Attachment, Dial, Duplex, ExecRequest, Kubelet, LogRequest, PodRef, Readable, StreamError, TerminalSize, Writable,
};
pub use reply::Body;
pub use server::{OpenError, Options, Server};
pub use user::User;
