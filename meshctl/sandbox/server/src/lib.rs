//! A small, exact Kubernetes API server: request → response over a store.
//!
//! [`Server::handle`] answers one request; [`Server::client`] is a `kube` client without a socket; [`Server::serve`]
//! is the only place with sockets. Never here: processes, namespaces, the mesh.
//! Called by `sandbox-node` and `meshctl up`; both reach the cluster's state only through this API.

mod admission;
mod allocate;
mod auth;
mod body;
mod bootstrap;
mod cel_rules;
mod client;
mod clock;
pub mod controllers;
mod convert;
mod core;
mod crd;
mod defaults;
mod discovery;
mod dispatch;
mod form;
mod kinds;
mod kubelet;
mod limits;
mod object;
mod openapi;
mod patch;
mod protobuf;
mod quantity;
mod reply;
mod request;
mod schema;
mod selector;
mod serve;
mod server;
mod store;
mod stream;
mod table;
mod user;
mod validate;
mod verb;

pub use auth::KeysError;
pub use kubelet::{
    Attachment, Both, Dial, Duplex, ExecRequest, Kubelet, LogRequest, PodRef, Readable, StreamError, TerminalSize,
    Writable,
};
pub use reply::Body;
pub use server::{OpenError, Options, Server};
pub use store::DiskError;
pub use user::User;
