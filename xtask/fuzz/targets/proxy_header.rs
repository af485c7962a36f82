//! Fuzzes `fuzz::proxy_header`.
//!
//! Never here: laws (`src/lib.rs`). Run by `./run proxy_header SECONDS`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::proxy_header(input));
