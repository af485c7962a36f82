//! Certificates with their keys, and roots.
//!
//! Never here: how they are made or rotated. Part of [`super`]; shown without the key.

use serde::{Deserialize, Serialize};

/// A certificate with its key, or roots.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Name: `kubernetes://NAME`.
    pub name: String,
    /// What it holds.
    pub value: SecretValue,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a secret holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretValue {
    /// A certificate with its key.
    Certificate {
        /// Chain, PEM, leaf first.
        chain: Vec<u8>,
        /// Key, PEM.
        key: Vec<u8>,
    },
    /// Roots, PEM.
    Roots(Vec<u8>),
}
