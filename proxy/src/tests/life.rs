//! The proxy's life: first configuration, changes under traffic, a pilot that stays away, the way to the end.
//!
//! Never here: signals and whole processes (`xtask/e2e`). Run by `cargo test`.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use api::spec::*;
use api_rt::{identity::Identity, ready::Readiness};
use bytes::Bytes;
use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    Client, Proxy, app, ask,
    bytes::pass,
    get, local,
    mesh::{Authority, REVIEWS, WEB, inbound, outbound, serve},
    nobody, ok, proxy,
    spec::to,
};
use crate::{
    control::Control,
    listen::{self, Sockets},
    worker::{Phase, Worker},
    xds::stream,
};

/// A worker that is controlled as in a whole process, and its readiness.
fn controlled() -> (Control, Rc<Worker>, Readiness) {
    let Proxy { worker, builder } = Proxy::new(Identity::new());
    let (sender, opened) = mpsc::unbounded_channel();
    tokio::task::spawn_local(listen::work(Rc::clone(&worker), opened));
    let ready = Readiness::new();
    let gate = ready.blocked_by("first configuration");
    let sockets = Sockets::new(vec![sender]);
    let (control, resolving) =
        Control::new(builder, Arc::clone(&worker.shared), sockets, gate, CancellationToken::new());
    tokio::task::spawn_local(resolving);
    (control, worker, ready)
}

/// An address with a port that is free now.
async fn free() -> SocketAddr {
    nobody().await
}

fn at(address: SocketAddr, mut spec: Spec) -> Spec {
    let listener = spec.listeners.remove("l").unwrap();
    spec.listeners.insert("l".into(), Arc::new(Listener { address, ..Listener::clone(&listener) }));
    spec
}

/// Follows a pilot that is not there.
async fn no_pilot(control: Control, worker: &Rc<Worker>) {
    let node = api_xds::discovery::Node::default();
    let pilot = stream::Pilot { address: nobody().await.to_string(), tls: false, name: String::new(), node };
    let stats = Arc::clone(&worker.shared.stats);
    tokio::task::spawn_local(stream::run(pilot, Identity::new(), control, stats, CancellationToken::new()));
}

#[test]
fn readiness_says_what_the_first_configuration_waits_for() {
    local(async {
        let (control, worker, ready) = controlled();
        assert_eq!(ready.waiting_for(), ["first configuration"]);
        no_pilot(control, &worker).await;
        while ready.waiting_for() == ["first configuration"] {
            tokio::task::yield_now().await;
        }
        let waiting = ready.waiting_for().join("");
        assert!(waiting.starts_with("first configuration: ") && waiting.contains("refused"), "{waiting}");
    });
}

#[test]
fn an_hour_without_pilot_fails_no_request() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        let app = app(|_| ok("x")).await;
        let (mut control, worker, ready) = controlled();
        let address = free().await;
        assert!(control.apply(&at(address, to(&[app]))).is_empty());
        assert!(ready.is_ready());
        no_pilot(control, &worker).await;
        let mut kept = Client::to(address).await;
        for minute in 0..60 {
            assert!(kept.ask(&get("/")).await.ends_with('x'), "minute {minute}, a kept connection");
            assert!(ask(address, &get("/")).await.ends_with('x'), "minute {minute}, a new connection");
            // Less than the time that the codec keeps an idle connection.
            pass(Duration::from_secs(59)).await;
            pass(Duration::from_secs(1)).await;
            if minute % 2 == 1 {
                kept = Client::to(address).await;
            }
        }
        assert!(ready.is_ready());
        assert_eq!(worker.shared.stats.xds_connected.get(), 0);
    }));
}

#[test]
fn a_moved_or_removed_listener_keeps_what_it_accepted() {
    local(async {
        let app = app(|_| ok("x")).await;
        let (mut control, worker, _ready) = controlled();
        let (first, second) = (free().await, free().await);
        assert!(control.apply(&at(first, to(&[app]))).is_empty());
        let mut early = Client::to(first).await;
        assert!(early.ask(&get("/")).await.ends_with('x'));
        assert!(control.apply(&at(second, to(&[app]))).is_empty());
        assert!(ask(second, &get("/")).await.ends_with('x'));
        assert!(early.ask(&get("/")).await.ends_with('x'));
        while TcpStream::connect(first).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let mut late = Client::to(second).await;
        assert!(late.ask(&get("/")).await.ends_with('x'));
        control.apply(&Spec::default());
        // The listener has gone: the request under way on it is answered, and the connection then ends.
        assert!(late.ask(&get("/")).await.contains("connection: close\r\n"));
        assert_eq!(late.rest().await, "");
        drop(early);
        assert_eq!(worker.shared.stats.listeners.get(), 0);
    });
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_breaks_none() {
    local(async {
        let authority = Authority::new();
        let app = app(ok).await;
        let identity = authority.identity(REVIEWS);
        let (_inner, inside) = serve(identity.clone(), &inbound(app, true, vec![])).await;
        let expects = |uri: &'static str| outbound(&[inside], &[uri], UpstreamVersion::Http1);
        let (_outer, address) = serve(authority.identity(WEB), &expects(REVIEWS)).await;
        let mut client = Client::to(address).await;
        assert!(client.ask(&get("/")).await.starts_with("HTTP/1.1 200 "));
        let other = "spiffe://cluster.local/ns/shop/sa/other";
        identity.certificate().put(Arc::unwrap_or_clone(authority.identity(other).certificate().get().unwrap()));
        // The pooled connection was made before, and stays.
        assert!(client.ask(&get("/")).await.starts_with("HTTP/1.1 200 "));
        let (_new, address) = serve(authority.identity(WEB), &expects(other)).await;
        assert!(ask(address, &get("/")).await.starts_with("HTTP/1.1 200 "));
    });
}

/// A client of HTTP/2 that sees each frame's meaning.
async fn client(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    sender
}

/// Asks on a new stream, and answers as the upstream; between both something happens.
async fn exchange(
    sender: &h2::client::SendRequest<Bytes>,
    upstream: &TcpListener,
    body: &str,
    between: impl AsyncFnOnce(),
) {
    let request = Request::get("http://a.test/").body(()).unwrap();
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, _) = ready.send_request(request, true).unwrap();
    let answering = async {
        let (mut socket, _) = upstream.accept().await.unwrap();
        let mut buf = [0; 1024];
        assert!(socket.read(&mut buf).await.unwrap() > 0);
        between().await;
        socket.write_all(ok(body).as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
    };
    let (answer, ()) = tokio::join!(answer, answering);
    assert_eq!(answer.unwrap().into_body().data().await.unwrap().unwrap(), body);
}

#[test]
fn draining_sends_goaway_and_ends_streams_under_way() {
    local(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut spec = to(&[upstream.local_addr().unwrap()]);
        let http1 = Cluster { http: UpstreamHttp::default(), ..Cluster::clone(&spec.clusters["c"]) };
        spec.clusters.insert("c".into(), Arc::new(http1));
        let (proxy, address) = proxy(&spec).await;
        let early = client(address).await;
        exchange(&early, &upstream, "late", async || {
            proxy.worker.shared.phase.send_replace(Phase::Draining);
            while early.clone().ready().await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Who has nowhere else to go is still served.
        exchange(&client(address).await, &upstream, "still", async || ()).await;
    });
}

#[test]
fn closing_ends_idle_connections_and_waits_for_the_last_request() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let slow = listener.local_addr().unwrap();
        let (proxy, address) = proxy(&to(&[slow])).await;
        let mut idle = Client::to(address).await;
        idle.send(&get("/")).await;
        let (mut upstream, _) = listener.accept().await.unwrap();
        let mut buf = [0; 1024];
        assert!(upstream.read(&mut buf).await.unwrap() > 0);
        upstream.write_all(ok("x").as_bytes()).await.unwrap();
        assert!(idle.reply().await.ends_with('x'));
        let mut busy = Client::to(address).await;
        busy.send(&get("/")).await;
        assert!(upstream.read(&mut buf).await.unwrap() > 0);
        proxy.worker.shared.phase.send_replace(Phase::Closing);
        assert_eq!(idle.rest().await, "");
        let worker = Rc::clone(&proxy.worker);
        let mut finished = tokio::task::spawn_local(async move { worker.finish().await });
        tokio::task::yield_now().await;
        assert!(!finished.is_finished());
        upstream.write_all(ok("last").as_bytes()).await.unwrap();
        let text = busy.rest().await;
        assert!(text.ends_with("last") && text.contains("connection: close\r\n"), "{text}");
        (&mut finished).await.unwrap();
    });
}

#[test]
fn upstream_connections_end_after_the_last_client() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut spec = to(&[listener.local_addr().unwrap()]);
        let http = UpstreamHttp { version: UpstreamVersion::Http2, ..UpstreamHttp::default() };
        spec.clusters.insert("c".into(), Arc::new(Cluster { http, ..Cluster::clone(&spec.clusters["c"]) }));
        let upstream = tokio::task::spawn_local(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(asked) = connection.accept().await {
                asked.unwrap().1.send_response(http::Response::new(()), true).unwrap();
            }
        });
        let (proxy, address) = proxy(&spec).await;
        assert!(ask(address, &get("/")).await.starts_with("HTTP/1.1 200 "));
        assert!(!upstream.is_finished());
        proxy.worker.finish().await;
        upstream.await.unwrap();
    });
}
