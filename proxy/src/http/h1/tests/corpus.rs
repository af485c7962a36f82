//! The corpora of the HTTP/1 readers, replayed.
//!
//! Never here: making new inputs (`xtask/fuzz`). Run by `cargo test`.

use super::judge::{reply_laws, request_laws};
use crate::tests::corpus::replay;

#[test]
fn requests_keep_the_laws() {
    let mut both = 0;
    replay("http1_request", |input| both += request_laws(input));
    assert!(both >= 8, "hyper and we must agree about something to be compared: {both}");
}

#[test]
fn replies_keep_the_laws() {
    replay("http1_reply", reply_laws);
}
