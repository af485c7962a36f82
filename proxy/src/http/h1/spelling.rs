//! How a peer spelt the names of its fields, where it was not in lower case.
//!
//! HTTP/1 names have no case, yet applications exist that read one spelling only: what came as `X-Request-ID` leaves so.
//! Most of a map of names would say nothing, so only deviations are kept, one bit for each letter.
//! Never here: values. Made by `head`, used by `write`.

use http::HeaderName;

/// Letters of a name whose case is kept; those after them are written in lower case.
const LETTERS: usize = 128;

/// The names that were not in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spelling(Vec<(HeaderName, u128)>);

impl Spelling {
    /// Notes how a name was written; the first way counts.
    pub(crate) fn note(&mut self, name: &HeaderName, written: &[u8]) {
        let mut capitals = 0;
        for (at, byte) in written.iter().take(LETTERS).enumerate() {
            capitals |= u128::from(byte.is_ascii_uppercase()) << at;
        }
        if capitals != 0 && !self.0.iter().any(|(known, _)| known == name) {
            self.0.push((name.clone(), capitals));
        }
    }

    /// Writes a name as it was spelt. `next` is where the search begins: names mostly leave in the order they came.
    pub(crate) fn put(&self, name: &HeaderName, next: &mut usize, out: &mut Vec<u8>) {
        let text = name.as_str().as_bytes();
        let start = out.len();
        out.extend_from_slice(text);
        let count = self.0.len();
        let found = (0..count).map(|step| (*next + step) % count).find(|at| self.0[*at].0 == *name);
        if let Some(at) = found {
            *next = at + 1;
            let mut capitals = self.0[at].1;
            while capitals != 0 {
                let letter = usize::try_from(capitals.trailing_zeros()).unwrap_or(usize::MAX);
                if let Some(byte) = out.get_mut(start.saturating_add(letter)) {
                    byte.make_ascii_uppercase();
                }
                capitals &= capitals - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: &str) {
        let name = HeaderName::from_bytes(written.as_bytes()).unwrap();
        let mut spelling = Spelling::default();
        spelling.note(&HeaderName::from_static("x-other"), b"X-Other");
        spelling.note(&name, written.as_bytes());
        let mut out = Vec::new();
        spelling.put(&name, &mut 0, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn names_leave_as_they_came() {
        check("host", "host");
        check("Host", "Host");
        check("X-Request-ID", "X-Request-ID");
        check("sec-websocket-KEY", "sec-websocket-KEY");
        let long = ["X", &"y".repeat(126), "ZZ"].concat();
        check(&long, &["X", &"y".repeat(126), "Zz"].concat());
    }
}
