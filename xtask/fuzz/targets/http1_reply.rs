//! Fuzzes `fuzz::http1_reply`.
//!
//! Never here: laws (`src/lib.rs`). Run by `./run http1_reply SECONDS`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::http1_reply(input));
