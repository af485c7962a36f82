//! Pods: one worker each, and what it is made of.
//!
//! Never here: which Pods there are. Called by `node`; `env`, `person`, `backoff` and `status` are pure.

mod attend;
pub(crate) mod backoff;
mod begin;
pub(crate) mod board;
pub(crate) mod container;
pub(crate) mod env;
mod files;
pub(crate) mod kit;
pub(crate) mod live;
pub(crate) mod log;
pub(crate) mod person;
pub(crate) mod probe;
mod qos;
mod report;
mod start;
pub(crate) mod status;
mod tls;
pub(crate) mod volumes;
pub(crate) mod worker;
