//! The shell that every program of the mesh shares: environment, log, metrics, readiness, drain, TLS, own identity, gRPC.
//!
//! Each module is one piece of that shell and takes what it needs as arguments.
//! Never here: decisions about the mesh (those are in `api`), or Kubernetes. Used by proxy, pilot, citadel and injector.

pub mod admin;
pub mod clock;
pub mod drain;
pub mod env;
pub mod grpc;
pub mod identity;
pub mod log;
pub mod metrics;
pub mod ready;
pub mod retry;
pub mod tls;
