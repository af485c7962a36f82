//! Peers that stop in the middle, or leave: what is given up for them, and when.
//!
//! Never here: slow heads and bodies of HTTP/1 alone (`http::h1`), floods of HTTP/2 (`h2`). Run by `cargo test`.

use std::{net::SocketAddr, time::Duration};

use api::{name::Percent, spec::*};
use bytes::Bytes;
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{
    Client, app, ask, get,
    h2::{paused, raw, serving},
    local, ok, proxy,
    spec::{cluster, forward, http, route},
};
use crate::{
    http::codec,
    limits::{FLUSH_TIMEOUT, H2_LOOK, HEAD_TIMEOUT},
};

const SECOND: Duration = Duration::from_secs(1);

/// Everything to one cluster, as this changes both.
fn to(upstream: SocketAddr, change: impl FnOnce(&mut Forward, &mut Cluster)) -> Spec {
    let (mut forward, mut cluster) = (forward("c"), cluster("c", &[upstream]));
    change(&mut forward, &mut cluster);
    http(vec![route(Action::Forward(Box::new(forward)))], vec![cluster])
}

fn of_http2(_: &mut Forward, cluster: &mut Cluster) {
    cluster.http.version = UpstreamVersion::Http2;
}

type Asked = (Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

/// An upstream of HTTP/2 that does this with each request, one after the other.
async fn upstream<F: Future<Output = ()> + 'static>(act: impl Fn(Asked) -> F + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok(asked)) = connection.accept().await {
            tokio::task::spawn_local(act(asked));
        }
    });
    address
}

/// All of a body, and whether it ended as one.
async fn body(stream: &mut h2::RecvStream) -> (String, bool) {
    let mut text = String::new();
    while let Some(piece) = stream.data().await {
        let Ok(piece) = piece else { return (text, false) };
        stream.flow_control().release_capacity(piece.len()).unwrap();
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    (text, true)
}

#[test]
fn a_client_that_leaves_after_its_body_ends_the_stream_upstream() {
    local(async {
        let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let upstream = upstream(move |(request, mut respond)| {
            let told = told.clone();
            async move {
                told.send(body(&mut request.into_body()).await.0).unwrap();
                std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
                told.send("reset".into()).unwrap();
            }
        })
        .await;
        let (proxy, address) = proxy(&to(upstream, of_http2)).await;
        let mut client = Client::to(address).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
        assert_eq!(hears.recv().await.unwrap(), "hello");
        socket2::SockRef::from(&client.0).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(hears.recv().await.unwrap(), "reset");
        while proxy.worker.shared.stats.downstream_requests.get() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(proxy.metrics().contains("response_flags=\"DC\""), "{}", proxy.metrics());
    });
}

#[test]
fn a_client_that_leaves_before_its_body_is_wanted_is_noticed() {
    local(async {
        let fault = Fault { delay: Some((SECOND * 3600, Percent::ALL)), abort: None };
        let delayed = Route { fault: Some(fault), ..route(Action::Forward(Box::new(forward("c")))) };
        let (proxy, address) = proxy(&http(vec![delayed], vec![cluster("c", &[])])).await;
        let mut client = Client::to(address).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
        let requests = &proxy.worker.shared.stats.downstream_requests;
        while requests.get() == 0 {
            tokio::task::yield_now().await;
        }
        socket2::SockRef::from(&client.0).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        while requests.get() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_body_whose_reply_came_early_has_no_holes() {
    local(async {
        let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let upstream = upstream(move |(request, mut respond)| {
            let told = told.clone();
            async move {
                respond.send_response(Response::new(()), true).unwrap();
                told.send(body(&mut request.into_body()).await).unwrap();
            }
        })
        .await;
        let (_proxy, address) = proxy(&to(upstream, of_http2)).await;
        for (head, rest) in [("content-length: 6", "def"), ("transfer-encoding: chunked", "3\r\ndef\r\n0\r\n\r\n")] {
            let mut client = Client::to(address).await;
            let begun = if head.starts_with('c') { "abc" } else { "3\r\nabc\r\n" };
            let reply = client.ask(&format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n{begun}")).await;
            assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
            client.send(rest).await;
            assert!(client.ask(&get("/")).await.starts_with("HTTP/1.1 200 "));
            let mut bodies = [hears.recv().await.unwrap(), hears.recv().await.unwrap()];
            bodies.sort();
            assert_eq!(bodies, [(String::new(), true), ("abc".into(), false)], "{head}");
        }
    });
}

/// A client that asks for much and reads nothing, until its request is over: after how long, and the flag it is counted with.
async fn check_unread(timeout: Option<Duration>, after: Duration, flag: &str) {
    let body: &'static str = "x".repeat(2 * 1024 * 1024).leak();
    let app = app(move |_| ok(body)).await;
    let proxy = serving(&to(app, |forward, _| forward.timeout = timeout));
    let (conn, io, mut far) = proxy.connection();
    let began = Instant::now();
    proxy.worker.spawn(async move {
        let ended = codec::serve_http1(conn, io, Duration::ZERO).await;
        tracing::debug!(?ended, "served");
    });
    far.write_all(get("/").as_bytes()).await.unwrap();
    let requests = &proxy.worker.shared.stats.downstream_requests;
    tokio::time::sleep(after - SECOND).await;
    assert_eq!(requests.get(), 1);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(requests.get(), 0);
    assert!(proxy.metrics().contains(&format!("response_flags=\"{flag}\"")), "{}", proxy.metrics());
    let mut came = Vec::new();
    far.read_to_end(&mut came).await.unwrap();
    assert!(came.starts_with(b"HTTP/1.1 200 ") && came.len() < body.len(), "{}", came.len());
    assert!(began.elapsed() < after + SECOND * 10);
}

#[test]
fn a_client_that_reads_nothing_is_given_up() {
    paused(check_unread(None, FLUSH_TIMEOUT, "SI"));
}

#[test]
fn the_time_of_a_route_runs_while_the_client_reads_nothing() {
    paused(check_unread(Some(SECOND * 7), SECOND * 7, "UT"));
}

#[test]
fn a_stream_that_ends_makes_room_for_who_waits() {
    local(async {
        let upstream = upstream(|(_, mut respond)| async move {
            tokio::task::yield_now().await;
            respond.send_response(Response::new(()), true).unwrap();
        })
        .await;
        let one = |forward: &mut Forward, cluster: &mut Cluster| {
            of_http2(forward, cluster);
            (cluster.breakers.connections, cluster.http.max_concurrent_streams) = (1, 1);
        };
        let (_proxy, address) = proxy(&to(upstream, one)).await;
        let asked = (0..4).map(|_| async { assert!(ask(address, &get("/")).await.starts_with("HTTP/1.1 200 ")) });
        futures::future::join_all(asked).await;
    });
}

#[test]
fn an_upstream_that_does_not_end_a_head_is_given_up() {
    paused(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (mut socket, _): (TcpStream, _) = listener.accept().await.unwrap();
            let mut buf = [0; 4096];
            let begun = raw::frame(raw::HEADERS, 0, 1, &raw::block(&[(":status", "200")]));
            assert!(socket.read(&mut buf).await.unwrap() > 0);
            socket.write_all(&[raw::frame(raw::SETTINGS, 0, 0, &[]), begun].concat()).await.unwrap();
            while let Ok(1..) = socket.read(&mut buf).await {}
        });
        let (_proxy, address) = proxy(&to(address, of_http2)).await;
        let began = Instant::now();
        let reply = ask(address, &get("/")).await;
        assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
        let most = HEAD_TIMEOUT + H2_LOOK * 2;
        assert!((HEAD_TIMEOUT..=most).contains(&began.elapsed()), "{:?}", began.elapsed());
    });
}
