//! The way out: clusters and their endpoints as they live across table swaps, connections, pools and ejection.
//!
//! A table says what a cluster is; [`live`] holds what is counted about it, by cluster and address, so that a new table
//! finds breakers, ejections and connections as the old one left them.
//! Never here: which cluster a request goes to. Called by `http::send` and `tcp`.

pub(crate) mod connect;
mod http2;
pub(crate) mod lease;
pub(crate) mod live;
mod open;
pub(crate) mod pool;
pub(crate) mod send;
pub(crate) mod tls;
