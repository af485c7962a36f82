//! Spec to Envoy v3 messages.
//!
//! One resource in, the bytes of its message out, equal for equal resources, so that bytes can be shared and compared.
//! Never here: choosing what a proxy is told. Called by pilot through [`encode`].

use api::spec::Resource;
use bytes::Bytes;

use crate::Dialect;

/// A resource, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Type URL of the message.
    pub type_url: &'static str,
    /// Name it is subscribed to under.
    pub name: String,
    /// The message.
    pub value: Bytes,
    /// Hash of the message: equal versions mean equal bytes, on every replica.
    pub version: u64,
}

/// Why a resource cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The wire has no such value, or the reader would refuse it.
    #[error("{resource}: {path}: {reason}")]
    Field {
        /// Name of the resource.
        resource: String,
        /// Path of the field, in our words.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Writes a resource for a reader.
///
/// # Errors
/// The resource holds what the message cannot say.
pub fn encode(resource: &Resource, dialect: Dialect) -> Result<Encoded, EncodeError> {
    let _ = dialect;
    Err(EncodeError::Field {
        resource: resource.name().to_owned(),
        path: String::new(),
        reason: "not written yet".to_owned(),
    })
}
