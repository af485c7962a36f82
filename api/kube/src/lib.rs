//! What the control programs share of Kubernetes: where objects come from, who is asking, who leads, and webhooks.
//!
//! Everything here is a shell around calls of the API server or reads of files.
//! Never here: decisions about the mesh (those are in `api-mesh`). Used by pilot, citadel, injector and `meshctl`.

pub mod access;
pub mod bundle;
pub mod client;
pub mod lease;
pub mod source;
pub mod token;
pub mod webhook;
pub mod yaml;
