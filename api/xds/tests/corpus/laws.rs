//! What must hold for resources of any sender.
//!
//! Never here: expectations (`decode`'s tests). Used by the replay of the corpus and by the fuzz target.

use api::{
    note::Notes,
    spec::{Resource, ResourceKind},
};
use api_xds::{Dialect, decode, encode, type_url};

const KINDS: [ResourceKind; 6] = [
    ResourceKind::Cluster,
    ResourceKind::Endpoints,
    ResourceKind::Listener,
    ResourceKind::Routes,
    ResourceKind::VirtualHost,
    ResourceKind::Secret,
];

/// What a resource may grow to for each byte of its message, and for a message of no bytes: what is said once for all
/// routes of a table is handed down to each.
const BYTES_FOR_BYTE_MAX: usize = 1024;
const BYTES_MIN: usize = 16 * 1024;

/// What must hold for an input: a byte for the kind, then the message. Gives the kind where the message is taken.
///
/// What was read can be written, reads back as it was, and is not larger than its message allows.
pub(crate) fn laws(input: &[u8]) -> Option<ResourceKind> {
    let (first, message) = input.split_first()?;
    let kind = KINDS[usize::from(*first) % KINDS.len()];
    let mut notes = Notes::new();
    let read = decode(type_url(kind), message, &mut notes).ok()?;
    assert_eq!(read.kind(), kind);
    let size = size(&read);
    assert!(size <= BYTES_MIN + BYTES_FOR_BYTE_MAX * message.len(), "{size} bytes of {}", message.len());
    // What the encoder does not write is what only others say; what it writes must be the same.
    let written = encode(&read, Dialect::Ours).ok()?;
    assert_eq!(written.name, read.name());
    let back = decode(written.type_url, &written.value, &mut Notes::new());
    assert_eq!(back.as_ref(), Ok(&read), "what was written reads otherwise");
    Some(kind)
}

fn size(resource: &Resource) -> usize {
    serde_json::to_vec(resource).map_or(0, |text| text.len())
}
