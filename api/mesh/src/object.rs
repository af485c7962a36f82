//! Objects as Kubernetes stores them: every kind the mesh reads, with its fields and nothing decided.
//!
//! Turns one JSON object into a [`Stored`], naming the exact field where it cannot, and lists fields nobody knows.
//! Never here: whether an object makes sense (that is `model`), YAML, files, the network.
//! Called by `api-kube` for every object it sees, by pilot's admission webhook and by `meshctl`.

pub mod core;
mod crd;
mod error;
pub mod extensions;
mod kind;
pub mod mesh_config;
mod meta;
pub mod networking;
pub mod proxy_settings;
mod scalar;
mod schema;
pub mod security;
pub mod selector;
mod shape;
pub mod telemetry;

pub use crd::crds;
pub use error::ObjectError;
pub use kind::{Kind, Stored, Strictness, from_json};
pub use meta::{Condition, Metadata, Object, OwnerReference, Status, ValidationMessage, ValidationMessageType};
pub use scalar::{Duration, IntOrString};
