//! What must hold for headers of the PROXY protocol, whatever bytes come.
//!
//! Never here: expectations (`proxy_header`'s tests). Used by the replay of the corpus and by the fuzz target.

use api::spec::ProxyVersion;

use super::{Ends, Verdict, judge, write};
use crate::limits::PROXY_HEADER_BYTES_MAX;

/// What must hold: an answer comes with the header's last byte and stays, and what was read is written and read again.
pub(crate) fn laws(input: &[u8]) {
    let mut decided = Verdict::More;
    for end in 0..=input.len() {
        let now = judge(&input[..end]);
        if decided == Verdict::More {
            if let Verdict::Is { length, .. } = now {
                assert_eq!(length, end, "it is known with its last byte");
            }
            decided = now;
        } else if let (Verdict::Wrong(_), Verdict::Wrong(_)) = (decided, now) {
            // The first complaint is the one that is told.
        } else {
            assert_eq!(now, decided, "at {end} bytes");
        }
    }
    assert!(decided != Verdict::More || input.len() < PROXY_HEADER_BYTES_MAX, "nobody waits for more than the limit");
    if let Verdict::Is { ends: Some(ends), .. } = decided {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            again(version, ends);
        }
    }
}

fn again(version: ProxyVersion, ends: Ends) {
    let bytes = write(version, ends);
    let Verdict::Is { length, ends: Some(read) } = judge(&bytes) else {
        panic!("{version:?} of {ends:?} is not read: {bytes:?}");
    };
    assert_eq!(length, bytes.len());
    // An address of version 4 may be written in the form of version 6, and the other way round: it is the same one.
    let same = |a: std::net::SocketAddr, b: std::net::SocketAddr| {
        a.ip().to_canonical() == b.ip().to_canonical() && a.port() == b.port()
    };
    assert!(same(read.from, ends.from) && same(read.to, ends.to), "{version:?}: {ends:?} is read as {read:?}");
    assert_eq!(write(version, read), bytes);
}
