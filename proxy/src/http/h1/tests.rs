//! The readers against RFC 9112, against every split of their input, and against hyper.
//!
//! Never here: sockets and replies (`crate::tests::http1`). Run by `cargo test`.

mod corpus;
mod judge;
mod laws;
mod replies;
mod requests;
