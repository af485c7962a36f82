//! Where the proxy is told what to serve: a stream from pilot, or a file.
//!
//! Never here: what a resource means (`api-xds` decodes, `table` compiles). Run as one task by `run`.

pub(crate) mod file;
pub(crate) mod session;
pub(crate) mod stream;
