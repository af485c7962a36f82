//! Begun by `cargo xtask bench`.
//!
//! Never here: an assertion about speed.

fn main() {}
