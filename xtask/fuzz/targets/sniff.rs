//! Fuzzes `fuzz::sniff`.
//!
//! Never here: laws (`src/lib.rs`). Run by `./run sniff SECONDS`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::sniff(input));
