//! Why the gate turns a request away: one status and one sentence for each reason.
//!
//! Never here: heads that cannot be read at all (`api::head` says so, the answer is 400). Made by `gate`, told by `reply`.

/// Why a request is turned away before anything decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// More than one host.
    #[error("the request names more than one host")]
    Hosts,
    /// A host that is no text.
    #[error("the host is not a DNS name or an address")]
    Host,
    /// A target that is no path, no `*` and no URL of HTTP.
    #[error("the request's target is not a path")]
    Target,
    /// A target that is longer than any path.
    #[error("the request's target is too long")]
    TargetTooLong,
    /// More header lines or bytes than a head may have.
    #[error("the request's head is too large")]
    HeadTooLarge,
    /// More than one length, or one that is no number.
    #[error("the request's length is not clear")]
    Length,
    /// `connection` holds what is no name.
    #[error("the connection header is no text")]
    Connection,
    /// A name that an application may take for one that the mesh sets.
    #[error("a header's name passes for another one")]
    Twin,
    /// An expectation that nobody knows.
    #[error("the expectation is not known")]
    Expectation,
    /// CONNECT where no tunnels are offered.
    #[error("tunnels are not offered")]
    Tunnel,
    /// HTTP/1.0 and older.
    #[error("HTTP/1.0 is not served")]
    Version,
    /// The process is short of memory.
    #[error("overload")]
    Overload,
}

impl Refusal {
    /// The status.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Hosts | Self::Host | Self::Target | Self::Length | Self::Connection | Self::Twin => 400,
            Self::Tunnel => 405,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::Version => 426,
            Self::HeadTooLarge => 431,
            Self::Overload => 503,
        }
    }

    /// What the log calls it.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Self::Hosts | Self::Host => "invalid_host",
            Self::Target => "invalid_path",
            Self::TargetTooLong => "path_too_long",
            Self::HeadTooLarge => "request_headers_too_large",
            Self::Length => "invalid_content_length",
            Self::Connection => "invalid_connection_header",
            Self::Twin => "unexpected_underscore",
            Self::Expectation => "expectation_failed",
            Self::Tunnel => "connect_not_offered",
            Self::Version => "low_version",
            Self::Overload => "overload",
        }
    }
}
