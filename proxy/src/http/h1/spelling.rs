//! How a peer spelt the names of its fields, where it was not in lower case.
//!
//! HTTP/1 names have no case, yet applications exist that read one spelling only: what came as `X-Request-ID` leaves so.
//! Most of a map of names would say nothing, so only deviations are kept, one bit for each letter.
//! Never here: values. Made by `head` or `ride`, used by `write` and `ride`.

use http::{HeaderName, HeaderValue, header::HOST};

use crate::limits::{HEADERS_MAX, NAMES_BYTES_MAX};

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
        let start = out.len();
        out.extend_from_slice(name.as_str().as_bytes());
        let count = self.0.len();
        let found = (0..count).map(|step| (*next + step) % count).find(|at| self.0[*at].0 == *name);
        if let Some(at) = found {
            *next = at + 1;
            raise(&mut out[start..], self.0[at].1);
        }
    }

    /// All of it as one header's value; none: there is nothing to say. What is too much is left in lower case.
    pub(crate) fn text(&self) -> Option<HeaderValue> {
        match self.0.as_slice() {
            [] => return None,
            // All that most clients have to say.
            [(name, 1)] if *name == HOST => return Some(HeaderValue::from_static("Host")),
            _ => {}
        }
        let mut out = Vec::with_capacity(self.0.iter().map(|(name, _)| name.as_str().len() + 1).sum());
        for (name, capitals) in &self.0 {
            if out.len() + name.as_str().len() >= NAMES_BYTES_MAX {
                break;
            }
            if !out.is_empty() {
                out.push(b',');
            }
            let start = out.len();
            out.extend_from_slice(name.as_str().as_bytes());
            raise(&mut out[start..], *capitals);
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(out)).ok()
    }

    /// Reads what [`text`](Self::text) wrote.
    pub(crate) fn read(text: &HeaderValue) -> Self {
        let mut spelling = Self::default();
        for written in text.as_bytes().split(|b| *b == b',').take(HEADERS_MAX) {
            if let Ok(name) = HeaderName::from_bytes(written) {
                spelling.note(&name, written);
            }
        }
        spelling
    }
}

/// Makes capitals of the letters whose bits are set.
fn raise(name: &mut [u8], mut capitals: u128) {
    while capitals != 0 {
        let letter = usize::try_from(capitals.trailing_zeros()).unwrap_or(usize::MAX);
        if let Some(byte) = name.get_mut(letter) {
            byte.make_ascii_uppercase();
        }
        capitals &= capitals - 1;
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
        assert_eq!(Spelling::read(&spelling.text().unwrap()), spelling);
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

    #[test]
    fn what_is_carried_is_bounded_on_both_sides() {
        let mut spelling = Spelling::default();
        for at in 0..HEADERS_MAX {
            let written = format!("X-{at}-{}", "y".repeat(NAMES_BYTES_MAX / 10));
            spelling.note(&HeaderName::from_bytes(written.as_bytes()).unwrap(), written.as_bytes());
        }
        let text = spelling.text().unwrap();
        assert!(text.len() <= NAMES_BYTES_MAX && Spelling::read(&text).0.len() == 9, "{}", text.len());
        let many = HeaderValue::from_str(&(0..1000).map(|at| format!("X{at},")).collect::<String>()).unwrap();
        assert_eq!(Spelling::read(&many).0.len(), HEADERS_MAX);
        let none = HeaderValue::from_bytes(b"a b,,\xff,X:,lower").unwrap();
        assert_eq!(Spelling::read(&none), Spelling::default());
    }
}
