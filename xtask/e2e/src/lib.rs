//! Whole-mesh tests: real programs, real kubectl, real network namespaces.
//!
//! A suite is one test program: it starts what it needs once, runs its tests in order, and cleans up whatever happens.
//! Never here: a decision of the mesh. Run by `cargo xtask test`.

pub mod authority;
pub mod beside;
pub mod bookinfo;
pub mod counters;
pub mod fault;
pub mod installed;
pub mod judge;
pub mod kubectl;
pub mod load;
pub mod netns;
pub mod person;
pub mod processes;
pub mod rig;
pub mod sandbox;
pub mod suite;
pub mod tokens;
pub mod wiretap;
