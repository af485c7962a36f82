//! Every limit of citadel, with its unit and what happens when it is full.
//!
//! Never here: lifetimes (those are options, and `policy`'s). Read by all of citadel.

use std::{ops::RangeInclusive, time::Duration};

/// Requests being answered; over: a new one is answered `resource_exhausted`, and the caller tries again later.
pub(crate) const REQUESTS_MAX: usize = 1000;
/// Bytes of a certificate request (PEM); over: `invalid_argument`.
pub(crate) const REQUEST_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a bearer token; over: `unauthenticated`.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bits of an RSA key; outside: `invalid_argument`.
pub(crate) const RSA_BITS: RangeInclusive<usize> = 2_048..=8_192;
/// How far clocks may be apart: a certificate is valid from a little before it was made.
pub(crate) const SKEW: Duration = Duration::from_secs(120);
/// How far clocks may be apart where tokens are checked here.
pub(crate) const TOKEN_SKEW: Duration = Duration::from_secs(10);
/// How long calls under way may take when ending; over: they are cut.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at a plugged authority. Kubernetes itself takes up to a minute to bring a changed Secret into a volume.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How soon a root that could not be put into a namespace is put there again.
pub(crate) const BUNDLE_RETRY: Duration = Duration::from_secs(1);
