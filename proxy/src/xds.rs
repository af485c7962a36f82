//! Where the proxy is told what to serve: a stream from pilot, or a file.
//!
//! Never here: what a resource means (`api-xds` decodes, `table` compiles). Run as one task by `run`.

pub(crate) mod file;
pub(crate) mod session;
pub(crate) mod stream;

/// What sources are asked to tell of themselves, for `/config_dump` and readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SourceState {
    pub(crate) connected: bool,
    /// Why not, where it is not.
    pub(crate) reason: String,
}
