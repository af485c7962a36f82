//! The keeper: the sandbox's first process, and its parts.
//!
//! `birth` makes it, `serve` is its life, `wire` its language. Never here: Kubernetes.
//! The daemon talks to it through [`crate::link`].

pub(crate) mod birth;
mod netlink;
mod network;
mod process;
mod root;
mod serve;
mod share;
pub(crate) mod sys;
mod volume;
pub(crate) mod wire;
