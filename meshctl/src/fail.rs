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

/// What went wrong, cause by cause. What the API server said stands for itself: the rest repeats it.
fn text(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref::<kube::Error>() {
            parts.push(status.message.clone());
            break;
        }
        parts.push(cause.to_string());
    }
    parts.join(": ")
}

/// Prints an error and gives its code.
pub(crate) fn tell(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", text(error));
    ExitCode::from(error.downcast_ref::<Coded>().map_or(FAILED, |coded| coded.code))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_servers_own_words_are_said_once() {
        let status = kube::core::Status::failure("pods \"a\" not found", "NotFound").with_code(404).boxed();
        let error = Err::<(), _>(kube::Error::Api(status)).context("could not read the Pod").unwrap_err();
        assert_eq!(text(&error), "could not read the Pod: pods \"a\" not found");
        assert_eq!(text(&coded(USAGE, "no").context("could not")), "could not: no");
    }
}
