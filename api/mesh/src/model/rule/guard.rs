//! Valid forms of what guards: PeerAuthentication, kinds that are not enforced yet, and certificates.
//!
//! Never here: how they are read, or what they mean together. Part of [`super`].

use std::{collections::BTreeMap, sync::Arc};

use super::super::base::{Labels, Meta};

/// Which connections a workload takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// Plain only.
    Disable,
    /// Plain and mTLS.
    Permissive,
    /// mTLS only.
    Strict,
}

/// Who must prove an identity (PeerAuthentication).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAuthentication {
    /// Name and age.
    pub meta: Meta,
    /// Labels of the workloads; none: the whole namespace.
    pub selector: Option<Labels>,
    /// Mode; none: as the next wider policy says.
    pub mode: Option<MtlsMode>,
    /// Modes of single ports; none: as the workload's.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// An object that guards something in a way that is not enforced yet: what it selects denies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guard {
    /// Name and age.
    pub meta: Meta,
    /// Labels of the workloads; empty: all of the namespace (of the mesh, in the root namespace).
    pub selector: Labels,
}

/// What a Secret holds for TLS, as a gateway uses it; at least one of both.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TlsSecret {
    /// Chain and key, PEM.
    pub certificate: Option<(Pem, Pem)>,
    /// Roots that clients are checked against, PEM.
    pub roots: Option<Pem>,
}

/// Text in the form of PEM.
pub type Pem = Arc<[u8]>;

impl std::fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSecret").finish_non_exhaustive()
    }
}
