//! The corpus of the fuzz target `xds`, replayed: what was once an interesting input stays one.
//!
//! Never here: making new inputs (`xtask/fuzz`). Run by `cargo test -p api-xds`.

mod laws;

use std::{collections::BTreeSet, path::Path};

#[test]
fn resources_keep_the_laws() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/fuzz/corpus/xds");
    let mut kinds = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        kinds.extend(laws::laws(&input));
    }
    assert_eq!(kinds.len(), 6, "each kind of resource is read at least once: {kinds:?}");
}
