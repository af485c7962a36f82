//! Group security.istio.io: its kinds as they are stored.
//!
//! Never here: meaning. Used by kind.
//! Called by serde.

use super::shape::shapes;

shapes! {
    /// A AuthorizationPolicy.
    pub struct AuthorizationPolicy {}
    /// A PeerAuthentication.
    pub struct PeerAuthentication {}
    /// A RequestAuthentication.
    pub struct RequestAuthentication {}
}
