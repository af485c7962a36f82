//! What the fuzz targets try: the readers of `proxy` and `api-xds` as they stand, and the laws of their tests.
//!
//! Each function panics where a law is broken. Never here: inputs. Called by `targets/`; the corpora are replayed by the
//! packages' own tests.

#![allow(dead_code, missing_docs, unreachable_pub, unused_imports, reason = "files of other packages, as they stand")]

mod h1;
#[path = "../../../proxy/src/http/h2"]
mod h2 {
    mod block;
    mod excess;
    mod frame;
    pub(crate) mod laws;
    mod meter;

    pub(crate) use excess::Excess;
}
#[path = "../../../proxy/src/limits.rs"]
mod limits;
#[path = "../../../proxy/src/listen"]
mod listen {
    mod detect;
    pub(crate) mod laws;
}
#[path = "../../../proxy/src"]
mod proxy_header {
    #[path = "proxy_header/laws.rs"]
    pub(crate) mod laws;
    mod proxy_header;

    use proxy_header::{Ends, Verdict, judge, write};
}
mod spent;
#[path = "../../../api/xds/tests/corpus/laws.rs"]
mod xds;

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

/// What happens on a connection of HTTP/2: no split changes the verdict, and the account stays small.
pub fn http2_meter(input: &[u8]) {
    spent::at_most(512 * 1024, || h2::laws::laws(input));
}

/// A connection's first bytes: more of them never change an answer, and a server of TLS reads the same hello.
pub fn sniff(input: &[u8]) {
    spent::at_most(1024 * 1024, || listen::laws::laws(input));
}

/// A header of the PROXY protocol: more bytes never change an answer, and what was read is written and read again.
pub fn proxy_header(input: &[u8]) {
    spent::at_most(64 * 1024, || proxy_header::laws::laws(input));
}

/// A resource of any kind: what was read is written and read again, and takes no more memory than its bytes may ask for.
pub fn xds(input: &[u8]) {
    spent::at_most(64 * 1024 * 1024, || {
        xds::laws(input);
    });
}
