//! What the fuzz targets try: the readers of `proxy` as they stand, and the judges of their tests.
//!
//! Each function panics where a law is broken. Never here: inputs. Called by `targets/`; the corpora are replayed by the
//! proxy's own tests.

#![allow(dead_code, missing_docs, unreachable_pub)]

#[path = "../../../proxy/src/limits.rs"]
mod limits;

mod h1;

use h1::tests::judge;

/// A client's bytes: no split changes the answer, hyper reads the same where it accepts what we accept, and what is
/// written upstream is read again as it was.
pub fn http1_request(input: &[u8]) {
    judge::request_laws(input);
}

/// An upstream's bytes: no split changes the answer.
pub fn http1_reply(input: &[u8]) {
    judge::reply_laws(input);
}
