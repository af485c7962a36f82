//! What clients and users are told when something goes wrong: the same whether a request rides or not.
//!
//! Never here: what goes well (`ride`). Run by `cargo test`.

use std::{net::SocketAddr, rc::Rc};

use api::spec::UpstreamVersion;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::{
    Proxy, local,
    mesh::{Authority, REVIEWS, WEB, inbound, outbound, serve},
    nobody,
    ride::{connections, ours},
};

/// An application that answers every request with these bytes and closes; with a part of a reply, when its client has it.
async fn closing(answer: &'static str, came: Rc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buf = [0; 4096];
            assert!(socket.read(&mut buf).await.is_ok());
            drop(socket.write_all(answer.as_bytes()).await);
            if answer.contains("part") {
                came.notified().await;
            }
        }
    });
    address
}

/// The series of requests that a proxy has counted, with their flags and codes.
fn counted(proxy: &Proxy) -> Vec<String> {
    let all = proxy.metrics();
    all.lines().filter(|line| line.starts_with("istio_requests_total")).map(str::to_owned).collect()
}

/// What the client reads, and what both proxies count.
async fn told(app: SocketAddr, came: &Notify, rides: bool) -> (String, Vec<String>, Vec<String>) {
    let authority = Authority::new();
    let both = |spec| if rides { ours(spec) } else { spec };
    let (inner, inside) = serve(authority.identity(REVIEWS), &both(inbound(app, true, vec![]))).await;
    let out = both(outbound(&[inside], &[REVIEWS], UpstreamVersion::Http1));
    let (outer, address) = serve(authority.identity(WEB), &out).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = Vec::new();
    // A reply that is cut may end with a reset.
    while let Ok(1..) = socket.read_buf(&mut text).await {
        if text.windows(4).any(|piece| piece == b"part") {
            came.notify_one();
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.split_inclusive("\r\n").filter(|line| {
        let line = line.to_ascii_lowercase();
        !line.starts_with("date:") && !line.starts_with("x-envoy-upstream-service-time:")
    });
    assert_eq!(connections(&outer).1 > 0, rides);
    // The reply's end is counted when its connection has ended at both sides.
    while counted(&outer).is_empty() || counted(&inner).is_empty() {
        tokio::task::yield_now().await;
    }
    (lines.collect(), counted(&outer), counted(&inner))
}

fn check(answer: Option<&'static str>, flags: &str) {
    local(async {
        let came = Rc::new(Notify::new());
        let app = match answer {
            Some(answer) => closing(answer, Rc::clone(&came)).await,
            None => nobody().await,
        };
        let (plain, ridden) = (told(app, &came, false).await, told(app, &came, true).await);
        assert_eq!(ridden, plain, "{answer:?}");
        let expected = format!("response_flags=\"{flags}\"");
        assert!(plain.2.iter().all(|series| series.contains(&expected)), "{:?}", plain.2);
    });
}

#[test]
fn no_application() {
    check(None, "UF");
}

#[test]
fn an_application_that_closes_before_its_reply() {
    check(Some(""), "UC");
}

#[test]
fn an_application_that_closes_in_its_reply() {
    check(Some("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart"), "UC");
    check(Some("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n"), "UC");
}

#[test]
fn an_application_that_speaks_something_else() {
    check(Some("SSH-2.0-x\r\n\r\n"), "UPE");
}

#[test]
fn an_application_that_fails_properly_or_says_little() {
    check(Some("HTTP/1.1 500 No\r\nx-a: b\r\ncontent-length: 4\r\n\r\nsigh"), "-");
    check(Some("HTTP/1.1 204 None\r\n\r\n"), "-");
    check(Some("HTTP/1.1 200 OK\r\n\r\nuntil it closes"), "-");
}
