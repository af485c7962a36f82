//! Fuzzes `fuzz::http2_meter`.
//!
//! Never here: laws (`src/lib.rs`). Run by `./run http2_meter SECONDS`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::http2_meter(input));
