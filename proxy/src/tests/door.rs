//! The front door on HTTP/1: what is refused before anything decides, and what the application sees of the rest.
//!
//! The same rows on HTTP/2 are in `h2::rows`. Never here: how messages are framed (the codec's own tests). Run by
//! `cargo test`.

use std::{cell::RefCell, rc::Rc};

use api::spec::{Action, Direction, HttpServer, Listener, Network, PathNormalization};

use super::{
    Client, app, ask, get,
    h2::paused,
    local, ok, proxy,
    spec::{chain, cluster, forward, http, listener, route, server, spec, to},
};
use crate::{
    limits::OVERLOAD_IDLE,
    overload::{self, Memory, Monitor, Unreadable},
};

/// The status of a request that nobody but the door answers.
fn check(request: &str, status: u16) {
    local(async {
        let (_, address) = proxy(&http(vec![route(Action::Reply { status: 200, body: String::new() })], vec![])).await;
        let reply = ask(address, request).await;
        let told = reply.get(9..12).and_then(|status| status.parse().ok());
        assert_eq!(told, Some(status), "{request:?}: {reply}");
    });
}

/// A request for `/` with this `host` header, or none.
fn host(lines: &str, status: u16) {
    check(&format!("GET / HTTP/1.1\r\n{lines}\r\n"), status);
}

fn target(target: &str, status: u16) {
    check(&format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n\r\n"), status);
}

fn header(line: &str, status: u16) {
    host(&format!("host: a.test\r\n{line}\r\n"), status);
}

#[test]
fn a_host_is_one_host() {
    host("", 400);
    host("host: a\r\nhost: a\r\n", 400);
    host("host: a\r\nhost: b\r\n", 400);
    host("host:\r\n", 400);
    host("host: a/b\r\n", 400);
    host("host: a b\r\n", 400);
    host("host: a,b\r\n", 400);
    host("host: u@a\r\n", 400);
    host("host: a:0\r\n", 400);
    host("host: a:99999\r\n", 400);
    host("host: [::1%25eth0]\r\n", 400);
    host(&format!("host: {}\r\n", "a".repeat(256)), 400);
    host("host: a.\r\n", 200);
    host("host: [::1]:80\r\n", 200);
}

#[test]
fn a_target_is_a_path_or_a_url_of_http() {
    target("ftp://a.test/x", 400);
    target("x", 400);
    target("a.test:80", 400);
    target("*", 400);
    target("/x%00", 400);
    target("http://u@a.test/", 400);
    target("http://b.test/", 200);
    target("HTTP://b.test/", 200);
    target("/x#y", 200);
    target(&format!("/{}", "x".repeat(33 * 1024)), 414);
    // Not refused: there is only no route for it.
    check("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", 404);
    check("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", 405);
}

#[test]
fn versions_and_methods_are_known() {
    check("GET / HTTP/1.0\r\nhost: a\r\n\r\n", 426);
    check("GET / HTTP/1.0\r\n\r\n", 426);
    check("FOO / HTTP/1.1\r\nhost: a\r\n\r\n", 400);
    check("get / HTTP/1.1\r\nhost: a\r\n\r\n", 400);
    check("PROPFIND / HTTP/1.1\r\nhost: a\r\n\r\n", 200);
}

#[test]
fn expectations_are_known() {
    header("expect: 200-ok", 417);
    header("expect: 100-Continue", 200);
}

#[test]
fn heads_have_a_size() {
    let lines = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    host(&format!("host: a\r\n{}", lines(99)), 200);
    host(&format!("host: a\r\n{}", lines(100)), 431);
    host(&format!("host: a\r\nx: {}\r\n", "x".repeat(59 * 1024)), 200);
    host(&format!("host: a\r\nx: {}\r\n", "x".repeat(61 * 1024)), 431);
    host(&format!("host: a\r\nx: {}\r\n", "x".repeat(100 * 1024)), 431);
}

/// What the application sees of a request through this server.
fn seen(server: HttpServer, request: &str, look: impl Fn(&str)) {
    local(async {
        let direction = if server.edge { Direction::Gateway } else { Direction::Outbound };
        let app = app(ok).await;
        let listener = Listener { direction, ..listener(chain(Network::Http(Box::new(server)))) };
        let (_, address) = proxy(&spec(listener, vec![cluster("c", &[app])])).await;
        let reply = ask(address, request).await;
        let (_, seen) = reply.split_once("\r\n\r\n").unwrap();
        look(&seen.to_ascii_lowercase());
    });
}

fn forwarding() -> HttpServer {
    server(vec![route(Action::Forward(Box::new(forward("c"))))])
}

fn edge() -> HttpServer {
    HttpServer { edge: true, ..forwarding() }
}

#[test]
fn the_application_sees_one_authority() {
    let absolute = "GET http://evil.test/x HTTP/1.1\r\nhost: good.test\r\n\r\n";
    seen(forwarding(), absolute, |text| {
        assert!(text.starts_with("get /x http/1.1\r\n") && text.contains("host: evil.test\r\n"), "{text}");
        assert!(!text.contains("good.test"), "{text}");
    });
}

#[test]
fn the_application_sees_the_path_that_was_decided_on() {
    let path = |normalize, path: &str, want: &str| {
        let server = HttpServer { normalize, ..forwarding() };
        seen(server, &get(path), |text| {
            assert!(text.starts_with(&format!("get {want} http/1.1\r\n")), "{path}: {text}")
        });
    };
    path(PathNormalization::Base, "/x#y", "/x");
    path(PathNormalization::Base, "/a/../x", "/x");
    path(PathNormalization::Base, "/a/%2e%2e/x?q=..", "/x?q=..");
    path(PathNormalization::Base, "/../../x", "/x");
    path(PathNormalization::Base, "/a\\x", "/a/x");
    path(PathNormalization::Base, "/pub/..;/admin", "/admin");
    path(PathNormalization::None, "/a/../x", "/a/../x");
    path(PathNormalization::MergeSlashes, "//a", "/a");
    path(PathNormalization::DecodeAndMergeSlashes, "/a%2fb", "/a/b");
}

#[test]
fn hop_by_hop_headers_end_here() {
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, x-hop\r\nconnection: http2-settings, authorization\r\n\
        upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nkeep-alive: 1\r\nproxy-connection: close\r\nte: gzip\r\n\
        authorization: kept\r\n\r\n";
    seen(forwarding(), request, |text| {
        for gone in ["upgrade", "http2-settings", "keep-alive", "proxy-connection", "te: "] {
            assert!(!text.contains(&format!("\r\n{gone}")), "{gone} in {text}");
        }
        assert!(text.contains("authorization: kept\r\n"), "{text}");
    });
}

#[test]
fn bytes_above_ascii_pass_as_they_are() {
    header("x: \u{80}\u{ff}", 200);
}

const CLAIMS: &str = "GET / HTTP/1.1\r\nhost: a\r\nx-envoy-original-path: /claimed\r\nx-envoy-internal: claimed\r\n\
    x-envoy-retry-on: claimed\r\nx-envoy-upstream-rq-timeout-ms: 1\r\nx-envoy-decorator-operation: claimed\r\n\
    x-envoy-peer-metadata: claimed\r\nx-forwarded-client-cert: claimed\r\nx-envoy-attempt-count: 9\r\n\
    x-ferromesh-not-delivered: claimed\r\nx-forwarded-proto: claimed\r\nx-forwarded-for: 1.1.1.1\r\n\
    x-forwarded-for: 2.2.2.2\r\n\r\n";

#[test]
fn a_client_from_outside_says_nothing_for_the_mesh() {
    seen(edge(), CLAIMS, |text| {
        assert!(!text.contains("claimed") && !text.contains("rq-timeout"), "{text}");
        assert!(text.contains("x-forwarded-for: 1.1.1.1,2.2.2.2,127.0.0.1\r\n"), "{text}");
        assert!(
            text.contains("x-forwarded-proto: http\r\n") && text.contains("x-envoy-attempt-count: 1\r\n"),
            "{text}"
        );
    });
    let twin = "GET / HTTP/1.1\r\nhost: a\r\nx_forwarded_client_cert: claimed\r\n\r\n";
    seen(edge(), twin, |text| assert!(!text.contains("claimed"), "{text}"));
}

#[test]
fn a_client_inside_may_steer_its_own_requests_only() {
    seen(forwarding(), CLAIMS, |text| {
        for gone in ["x-envoy-original-path", "x-envoy-peer-metadata", "x-forwarded-client-cert", "x-ferromesh"] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        assert!(
            text.contains("x-envoy-retry-on: claimed\r\n") && text.contains("x-envoy-attempt-count: 1\r\n"),
            "{text}"
        );
    });
}

/// Memory as a test says it is, in percent; more than 100: it cannot be read.
#[derive(Clone, Default)]
struct Said(Rc<RefCell<u64>>);

impl Monitor for Said {
    fn read(&mut self) -> Result<Memory, Unreadable> {
        let used = Some(*self.0.borrow()).filter(|percent| *percent <= 100).ok_or(Unreadable::NotSaid)?;
        Ok(Memory { used, limit: 100 })
    }

    fn shrink(&mut self) {}
}

#[test]
fn where_memory_is_short_load_is_shed_in_steps_and_comes_back() {
    local(async {
        let app = app(|_| ok("here")).await;
        let (proxy, address) = proxy(&to(&[app])).await;
        let shared = std::sync::Arc::clone(&proxy.worker.shared);
        let mut memory = Said::default();
        let mut at = |percent| {
            *memory.0.borrow_mut() = percent;
            overload::look(&shared, &mut memory);
        };
        at(90);
        let mut kept = Client::to(address).await;
        assert!(!kept.ask(&get("/")).await.contains("connection: close"));
        at(93);
        let parting = kept.ask(&get("/")).await;
        assert!(parting.contains("connection: close\r\n") && parting.ends_with("here"), "{parting}");
        at(96);
        let refused = ask(address, &get("/")).await;
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.ends_with("\r\n\r\noverload"), "{refused}");
        assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
        at(101);
        assert!(ask(address, &get("/")).await.ends_with("\r\n\r\noverload"), "the step stays");
        at(99);
        assert_eq!(Client::to(address).await.rest().await, "");
        at(50);
        assert!(ask(address, &get("/")).await.ends_with("here"));
        let mut counted = Vec::new();
        shared.stats.each(|name, value| {
            if name.contains("overload") || name.starts_with("server.") {
                counted.push((name.to_owned(), value));
            }
        });
        let counted: Vec<(&str, u64)> = counted.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(
            counted,
            [
                ("listener.downstream_cx_overload_reject", 1),
                ("http.downstream_rq_overload_close", 2),
                ("overload.step", 0),
                ("server.memory_allocated", 50),
                ("server.memory_limit", 100),
            ]
        );
    });
}

#[test]
fn where_memory_is_short_idle_connections_end_soon() {
    paused(async {
        let app = app(|_| ok("here")).await;
        let (proxy, address) = proxy(&to(&[app])).await;
        let (shared, mut memory) = (std::sync::Arc::clone(&proxy.worker.shared), Said::default());
        let mut client = Client::to(address).await;
        assert!(client.ask(&get("/")).await.ends_with("here"));
        // For as long as it likes.
        tokio::time::sleep(OVERLOAD_IDLE * 100).await;
        assert!(client.ask(&get("/")).await.ends_with("here"));
        *memory.0.borrow_mut() = 86;
        overload::look(&shared, &mut memory);
        let began = tokio::time::Instant::now();
        assert_eq!(client.rest().await, "");
        assert_eq!(began.elapsed(), OVERLOAD_IDLE);
    });
}
