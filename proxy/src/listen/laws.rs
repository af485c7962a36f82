//! What must hold for what is found in a connection's first bytes, whatever they are.
//!
//! Never here: expectations (`detect`'s tests). Used by the replay of the corpus and by the fuzz target.

use rustls::server::Acceptor;

use super::detect::{Hello, Spoken, Verdict, judge};
use crate::limits::SNIFF_BYTES_MAX;

/// Looked at byte by byte up to here, and then in strides.
const CLOSE_BYTES: usize = 600;
const STRIDE: usize = 61;

/// What must hold: more bytes never change an answer, and a server of TLS reads the same hello.
pub(crate) fn laws(input: &[u8]) {
    let input = &input[..input.len().min(SNIFF_BYTES_MAX - 1)];
    for (tls, http) in [(true, true), (true, false), (false, true), (false, false)] {
        let ends = (0..=input.len()).filter(|end| *end <= CLOSE_BYTES || end % STRIDE == 0 || *end == input.len());
        let mut decided = Verdict::More;
        for end in ends {
            let now = judge(&input[..end], tls, http);
            if decided == Verdict::More {
                decided = now;
            } else {
                assert_eq!(now, decided, "at {end} bytes, tls {tls}, http {http}");
            }
        }
    }
    let Some(theirs) = by_rustls(input) else { return };
    let Verdict::Is(Spoken::Tls(ours)) = judge(input, true, true) else {
        panic!("a server of TLS takes it: {theirs:?}");
    };
    assert_eq!(ours.alpn, theirs.alpn);
    // It keeps no name that is an address, or none at all.
    if theirs.server_name.is_some() {
        assert_eq!(ours.server_name, theirs.server_name);
    }
}

/// The hello as rustls reads it, where it takes it.
fn by_rustls(mut input: &[u8]) -> Option<Hello> {
    let mut acceptor = Acceptor::default();
    loop {
        if acceptor.read_tls(&mut input).ok()? == 0 {
            return None;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            // Its versions differ in whether the dot at the end of a name stays.
            let plain = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            return Some(Hello {
                server_name: hello.server_name().map(plain),
                alpn: hello.alpn().into_iter().flatten().map(text).collect(),
            });
        }
    }
}
