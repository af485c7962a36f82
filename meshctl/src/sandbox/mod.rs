//! Sandboxes of this machine: where their state is, the daemon, how they are waited for.
//!
//! Never here: flags and printing (see `cmd`). Called by `up`, `down`, `env`, `shell` and `ls`.

pub(crate) mod daemon;
pub(crate) mod place;
