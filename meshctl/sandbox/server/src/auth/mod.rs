//! Who may ask, and for what: keys, certificates, tokens, roles.
//!
//! Never here: HTTP. Called by the rim (who is it), by `server` (may they), and by the review kinds.

mod keys;
pub(crate) mod rbac;
pub(crate) mod review;
pub(crate) mod roles;
pub(crate) mod token;

pub use keys::KeysError;
pub(crate) use keys::{Keys, user_of_certificate};
