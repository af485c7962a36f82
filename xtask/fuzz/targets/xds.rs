//! Fuzzes `fuzz::xds`.
//!
//! Never here: laws (`src/lib.rs`). Run by `./run xds SECONDS`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::xds(input));
