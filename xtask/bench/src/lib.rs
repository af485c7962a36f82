//! What both benches share: process measurements and the shape of what they print.
//!
//! Never here: what is measured. Used by `bench-data` and `bench-xds`.
