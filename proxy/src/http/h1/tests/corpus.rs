//! The fuzz targets' corpora, replayed: what was once an interesting input stays one.
//!
//! Never here: making new inputs (`xtask/fuzz`). Run by `cargo test`.

use std::path::Path;

use super::judge::{reply_laws, request_laws};

/// Gives each input of a corpus to a law.
fn replay(name: &str, mut law: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        law(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

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
