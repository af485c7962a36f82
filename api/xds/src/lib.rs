//! Specs as Envoy v3 xDS messages and back, and the discovery and certificate services that carry them.
//!
//! `discovery` is the envelope (own messages, shared bytes), `node` says who asks.
//! Never here: decisions, I/O, or what is sent when. Used by pilot, proxy, citadel and `api-rt`.

pub mod discovery;
pub mod node;
