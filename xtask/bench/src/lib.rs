//! What benches are made of: process measurements, load clients, peers' configurations and the bare floor.
//!
//! Never here: an assertion about speed. Used by the programs in `bin`, which `cargo xtask bench` runs.

pub mod data;
pub mod floor;
pub mod process;
pub mod xds;
