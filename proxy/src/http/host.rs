//! The host that a connection asked for last, in both the forms in which it is passed on.
//!
//! Most connections ask for one host again and again; it is checked and copied when it changes.
//! Never here: which host is right. Held by `Conn`; used by `gate` and `attempt`.

use std::cell::RefCell;

use http::{HeaderValue, uri::Authority};

/// A host as HTTP/2 has it, and as HTTP/1 has it.
#[derive(Debug)]
struct Host {
    authority: Authority,
    value: HeaderValue,
}

/// The last host of a connection.
#[derive(Debug, Default)]
pub(crate) struct LastHost(RefCell<Option<Host>>);

impl LastHost {
    fn of<T>(&self, text: &str, form: impl FnOnce(&Host) -> T) -> Option<T> {
        let mut last = self.0.borrow_mut();
        // Exactly as written: an authority equals one in another case.
        if last.as_ref().is_none_or(|host| host.authority.as_str() != text) {
            let (authority, value) = (text.parse().ok()?, HeaderValue::from_str(text).ok()?);
            *last = Some(Host { authority, value });
        }
        last.as_ref().map(form)
    }

    /// A host as HTTP/2 has it; none: it is no authority.
    pub(crate) fn authority(&self, text: &str) -> Option<Authority> {
        self.of(text, |host| host.authority.clone())
    }

    /// A host as HTTP/1 has it; none: it is no authority.
    pub(crate) fn value(&self, text: &str) -> Option<HeaderValue> {
        self.of(text, |host| host.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_is_told_as_it_was_written() {
        let last = LastHost::default();
        for text in ["a.test", "A.test", "a.test:80", "a.test:80", "[::1]:80"] {
            assert_eq!(last.authority(text).unwrap().as_str(), text);
            assert_eq!(last.value(text).unwrap(), text);
        }
        assert_eq!(last.value("no host"), None);
        assert_eq!(last.value("[::1]:80").unwrap(), "[::1]:80");
    }
}
