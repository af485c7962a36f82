//! The fuzz targets' corpora, replayed: what was once an interesting input stays one.
//!
//! Never here: making new inputs (`xtask/fuzz`). Run by `cargo test`.

use std::path::Path;

use crate::{http::h2, listen, proxy_header};

/// Gives each input of a corpus to a law.
pub(crate) fn replay(name: &str, mut law: impl FnMut(&[u8])) {
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
fn frames_keep_the_laws() {
    replay("http2_meter", h2::laws::laws);
}

#[test]
fn first_bytes_keep_the_laws() {
    replay("sniff", listen::laws::laws);
}

#[test]
fn headers_of_the_proxy_protocol_keep_the_laws() {
    replay("proxy_header", proxy_header::laws::laws);
}
