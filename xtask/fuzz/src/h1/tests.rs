//! The judges of the readers' tests.
//!
//! Never here: anything of their own. Used by the targets.

#[path = "../../../../proxy/src/http/h1/tests/judge.rs"]
pub(crate) mod judge;
