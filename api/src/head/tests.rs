//! What heads read as, and which are refused.
//!
//! Paths in each normalization, hosts, methods, headers. Never here: framing. Run by `cargo test`.

use super::*;

fn path(raw: &str, mode: PathNormalization) -> Result<String, HeadError> {
    let headers = HeaderMap::new();
    let target = Target { scheme: Scheme::Http, authority: "a", path: raw };
    Head::read(&Method::GET, target, &headers, mode).map(|head| head.path().to_owned())
}

fn check(raw: &str, none: &str, base: &str, merge: &str, decode: &str) {
    use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
    for (mode, want) in [(None, none), (Base, base), (MergeSlashes, merge), (DecodeAndMergeSlashes, decode)] {
        assert_eq!(path(raw, mode).as_deref(), Ok(want), "{raw} {mode:?}");
    }
}

#[test]
fn plain_paths_stay() {
    for plain in ["/", "/a", "/a/", "/a/b.c", "/a;x=1/b;y=2", "/.well-known/x", "/a..b", "/a/...", "/Admin"] {
        check(plain, plain, plain, plain, plain);
    }
}

#[test]
fn dot_segments_go() {
    check("/info/../private", "/info/../private", "/private", "/private", "/private");
    check("/a/./b", "/a/./b", "/a/b", "/a/b", "/a/b");
    check("/../../x", "/../../x", "/x", "/x", "/x");
    check("/a/..", "/a/..", "/", "/", "/");
    check("/a/b/.", "/a/b/.", "/a/b/", "/a/b/", "/a/b/");
    check("/a/%2e%2E/b", "/a/%2e%2E/b", "/b", "/b", "/b");
}

#[test]
fn dot_segments_with_parameters_go_too() {
    check("/pub/..;/admin", "/pub/..;/admin", "/admin", "/admin", "/admin");
    check("/pub/.;a=b/../admin", "/pub/.;a=b/../admin", "/admin", "/admin", "/admin");
}

#[test]
fn slashes_merge_only_where_asked() {
    check("//admin", "//admin", "//admin", "/admin", "/admin");
    check("/a//b///", "/a//b///", "/a//b///", "/a/b/", "/a/b/");
    check("/a\\b", "/a\\b", "/a/b", "/a/b", "/a/b");
    check("/%2Fadmin", "/%2Fadmin", "/%2Fadmin", "/%2Fadmin", "/admin");
    check("/a%5cb", "/a%5cb", "/a%5cb", "/a%5cb", "/a/b");
}

#[test]
fn unreserved_escapes_are_decoded_once() {
    check("/%61dmin", "/%61dmin", "/admin", "/admin", "/admin");
    check("/%252e%252e/a", "/%252e%252e/a", "/%252e%252e/a", "/%252e%252e/a", "/%252e%252e/a");
    check("/%c0%ae/a%2", "/%c0%ae/a%2", "/%c0%ae/a%2", "/%c0%ae/a%2", "/%c0%ae/a%2");
    check("/é%41", "/é%41", "/éA", "/éA", "/éA");
}

#[test]
fn normalizing_twice_changes_nothing() {
    for raw in ["/a/../b//c\\..\\d", "/%2e%2e/x", "/a/%2f/../b", "//", "/a//..//b", "/..;x/./"] {
        for mode in [PathNormalization::Base, PathNormalization::MergeSlashes, PathNormalization::DecodeAndMergeSlashes]
        {
            let once = path(raw, mode).unwrap();
            assert_eq!(path(&once, mode).unwrap(), once, "{raw} {mode:?}");
        }
    }
}

#[test]
fn what_could_be_read_two_ways_is_refused() {
    for raw in ["", "x", "http://a/", "*", "/a b", "/a\0", "/admin%00", "/a\u{7f}", "/a\r\nb"] {
        assert!(path(raw, PathNormalization::None).is_err(), "{raw:?}");
    }
}

#[test]
fn fragments_and_queries_are_no_part_of_the_path() {
    assert_eq!(path("/user/profile#s", PathNormalization::Base).unwrap(), "/user/profile");
    assert_eq!(path("/a?x/../b", PathNormalization::Base).unwrap(), "/a");
    assert_eq!(path("/a#?x", PathNormalization::Base).unwrap(), "/a");
}

fn host(raw: &str) -> Result<(String, String, Option<u16>), HeadError> {
    let headers = HeaderMap::new();
    let target = Target { scheme: Scheme::Http, authority: raw, path: "/" };
    Head::read(&Method::GET, target, &headers, PathNormalization::Base)
        .map(|head| (head.authority().to_owned(), head.host().to_owned(), head.port()))
}

#[test]
fn hosts_are_told_apart_from_ports() {
    let ok = |authority: &str, host: &str, port| Ok((authority.to_owned(), host.to_owned(), port));
    assert_eq!(host("reviews"), ok("reviews", "reviews", None));
    assert_eq!(host("Secret.COM:8080"), ok("secret.com:8080", "secret.com", Some(8080)));
    assert_eq!(host("secret.com.:80"), ok("secret.com:80", "secret.com", Some(80)));
    assert_eq!(host("[::1]:80"), ok("[::1]:80", "[::1]", Some(80)));
    assert_eq!(host("10.0.0.1"), ok("10.0.0.1", "10.0.0.1", None));
}

#[test]
fn what_is_no_host_is_refused() {
    let long = "a".repeat(256);
    let all = ["", ".", "a/b", "a b", "u@a", "a,b", ":80", "a:", "a:0", "a:99999", "a:+1", "a:80:80", "[::1", &long];
    for raw in all.into_iter().chain(["[::1]x", "[::1%25eth0]", "[a]", "é.com"]) {
        assert!(host(raw).is_err(), "{raw}");
    }
}

#[test]
fn methods_are_those_of_the_registry() {
    let check = |text: &str| {
        let (method, headers) = (Method::from_bytes(text.as_bytes()).unwrap(), HeaderMap::new());
        let target = Target { scheme: Scheme::Http, authority: "a", path: "/" };
        Head::read(&method, target, &headers, PathNormalization::Base).map(drop)
    };
    for known in ["GET", "PATCH", "PROPFIND", "M-SEARCH", "QUERY"] {
        assert_eq!(check(known), Ok(()), "{known}");
    }
    for unknown in ["FOO", "get", "GETT", "PRI", "G"] {
        assert_eq!(check(unknown), Err(HeadError::Method), "{unknown}");
    }
}

#[test]
fn the_first_value_of_a_parameter_counts_and_headers_join() {
    let mut headers = HeaderMap::new();
    headers.append("x", HeaderValue::from_static("a"));
    headers.append("x", HeaderValue::from_static("b"));
    headers.append("cookie", HeaderValue::from_static("c=1"));
    headers.append("cookie", HeaderValue::from_static("d=2"));
    let target = Target { scheme: Scheme::Https, authority: "a", path: "/p?k=1&k=2&flag&e=" };
    let head = Head::read(&Method::GET, target, &headers, PathNormalization::Base).unwrap();
    assert_eq!(head.parameter("k"), Some("1"));
    assert_eq!(head.parameter("flag"), Some(""));
    assert_eq!(head.parameter("e"), Some(""));
    assert_eq!(head.parameter("none"), None);
    assert_eq!(head.header("x").as_deref(), Some(&b"a,b"[..]));
    assert_eq!(head.header("cookie").as_deref(), Some(&b"c=1; d=2"[..]));
    assert_eq!(head.header(":path").as_deref(), Some(&b"/p?k=1&k=2&flag&e="[..]));
    assert_eq!(head.header(":scheme").as_deref(), Some(&b"https"[..]));
}
