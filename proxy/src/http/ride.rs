//! How a message of HTTP/1 rides HTTP/2 between two of our proxies, and comes off it as it was.
//!
//! Its head stays what it is; protocol and spelling of names, for which HTTP/2 has no place, go in two headers of our own.
//! They are read only on connections whose two ends agreed to (`spec::PRIVATE_ALPN`); everywhere else the gate and `reply`
//! take them away.
//! Never here: connections, other headers. Called by `codec` and `upstream::send`.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, request::Parts};

use super::h1::spelling::Spelling;

/// The protocol that the request is of; a request without it is of HTTP/2.
pub(crate) const PROTOCOL: HeaderName = HeaderName::from_static("x-ferromesh-protocol");
/// Names of headers that are not all lower-case, separated by commas.
pub(crate) const NAMES: HeaderName = HeaderName::from_static("x-ferromesh-names");

const HTTP_1_1: HeaderValue = HeaderValue::from_static("HTTP/1.1");
const HTTP_1_0: HeaderValue = HeaderValue::from_static("HTTP/1.0");

/// Marks a request of HTTP/1. Its target stays a path and its host a header: they are what the client sent (RFC 9113,
/// 8.3.1 leaves `:authority` to targets that had one).
pub(crate) fn mount<B>(request: &mut Request<B>, spelling: &Spelling) {
    let protocol = if request.version() == Version::HTTP_10 { HTTP_1_0 } else { HTTP_1_1 };
    request.headers_mut().insert(PROTOCOL, protocol);
    mount_names(request.headers_mut(), spelling.text());
}

/// Puts the spelling of names beside them.
pub(crate) fn mount_names(headers: &mut HeaderMap, names: Option<HeaderValue>) {
    match names {
        Some(names) => drop(headers.insert(NAMES, names)),
        None => drop(headers.remove(NAMES)),
    }
}

/// Makes what came on a connection of ours a request of HTTP/1 again, where it was one.
pub(crate) fn take_off(parts: &mut Parts) -> Spelling {
    let spelling = take_names(&mut parts.headers);
    match parts.headers.remove(PROTOCOL) {
        Some(protocol) if protocol == HTTP_1_1 => parts.version = Version::HTTP_11,
        Some(protocol) if protocol == HTTP_1_0 => parts.version = Version::HTTP_10,
        Some(_) | None => {}
    }
    spelling
}

/// Takes the spelling of names from beside them.
pub(crate) fn take_names(headers: &mut HeaderMap) -> Spelling {
    headers.remove(NAMES).map_or_else(Spelling::default, |names| Spelling::read(&names))
}

/// Takes away what is not to be believed.
pub(crate) fn strip(headers: &mut HeaderMap) {
    headers.remove(PROTOCOL);
    headers.remove(NAMES);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, names: &[&str], carried: Option<&str>) {
        let mut spelling = Spelling::default();
        let mut request = Request::new(());
        *request.version_mut() = version;
        for name in names {
            spelling.note(&HeaderName::from_bytes(name.as_bytes()).unwrap(), name.as_bytes());
        }
        request.headers_mut().insert("x-other", HeaderValue::from_static("1"));
        mount(&mut request, &spelling);
        assert_eq!(request.headers().get(NAMES).map(|names| names.to_str().unwrap()), carried);
        *request.version_mut() = Version::HTTP_2;
        let mut parts = request.into_parts().0;
        assert_eq!((take_off(&mut parts), parts.version, parts.headers.len()), (spelling, version, 1));
    }

    #[test]
    fn a_request_comes_off_as_it_was() {
        check(Version::HTTP_11, &[], None);
        check(Version::HTTP_11, &["host", "accept"], None);
        check(Version::HTTP_11, &["Host"], Some("Host"));
        check(Version::HTTP_11, &["Host", "accept", "X-Request-ID"], Some("Host,X-Request-ID"));
        check(Version::HTTP_10, &["X-rEqUest"], Some("X-rEqUest"));
    }

    #[test]
    fn what_is_not_marked_is_of_http_2() {
        for protocol in [None, Some("HTTP/2"), Some("HTTP/0.9"), Some("")] {
            let mut request = Request::new(());
            *request.version_mut() = Version::HTTP_2;
            if let Some(protocol) = protocol {
                request.headers_mut().insert(PROTOCOL, protocol.parse().unwrap());
            }
            let mut parts = request.into_parts().0;
            take_off(&mut parts);
            assert!(parts.version == Version::HTTP_2 && parts.headers.is_empty(), "{protocol:?}");
        }
    }
}
