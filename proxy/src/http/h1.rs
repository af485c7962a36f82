//! HTTP/1.1, both sides, strictly (RFC 9112).
//!
//! The readers ([`head`], [`request`], [`response`], [`chunk`], [`framing`]) are given bytes and say what they mean; they
//! know no socket. [`wire`] joins them to one; [`server`] and [`client`] drive it, each inside the task that is there
//! already. A head is written from the canonical head alone ([`write`](mod@write)), so that nothing a peer sent can end a
//! line.
//! Never here: what a request means (`gate` refuses what is well-formed and still not acceptable). Used by `codec` and
//! `upstream`.

mod answer;
pub(crate) mod chunk;
pub(crate) mod client;
pub(crate) mod date;
pub(crate) mod end;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod incoming;
mod patience;
pub(crate) mod pump;
pub(crate) mod queue;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod server;
pub(crate) mod spelling;
pub(crate) mod tunnel;
mod waiting;
pub(crate) mod wire;
pub(crate) mod write;

#[cfg(test)]
mod tests;
