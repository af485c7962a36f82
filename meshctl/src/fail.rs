//! How a verb fails: one line with the most specific cause, and a code that scripts can rely on.
//!
//! The codes are sysexits' where one fits (64, 65, 69, 75), as istioctl's are. Never here: a panic.
//! Called by `main`; verbs wrap an error in [`Coded`] to choose another code than 1.

use std::process::ExitCode;

/// Something failed.
pub(crate) const FAILED: u8 = 1;
/// The command line was wrong.
pub(crate) const USAGE: u8 = 64;
/// The cluster, or the mesh in it, does not answer.
pub(crate) const UNREACHABLE: u8 = 69;
/// It did not get ready in time.
pub(crate) const TIMED_OUT: u8 = 75;

/// An error with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Coded {
    /// Exit code.
    pub(crate) code: u8,
    /// What went wrong.
    pub(crate) text: String,
}

/// An error with its exit code.
pub(crate) fn coded(code: u8, text: impl Into<String>) -> anyhow::Error {
    Coded { code, text: text.into() }.into()
}

/// Prints an error and gives its code.
pub(crate) fn tell(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(error.downcast_ref::<Coded>().map_or(FAILED, |coded| coded.code))
}
