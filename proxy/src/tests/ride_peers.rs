//! Who may ride, and on how many connections: peers that are ours, peers that are not, and those that claim to be.
//!
//! Never here: what rides (`ride`). Run by `cargo test`.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc};

use api::spec::*;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    Client, SOON, app, ask, get,
    http1::recorder,
    local,
    mesh::{Authority, REVIEWS, WEB, inbound, outbound, serve},
    ok,
    ride::{Pair, connections, mirror, ok_of_path, ours},
};
use crate::{
    upstream::{
        connect::{Options, connect},
        live::Place,
        tls::Carries,
    },
    worker::{Here, Phase},
};

#[test]
fn the_first_of_many_requests_opens_the_connection_for_all() {
    local(async {
        let app = app(ok_of_path).await;
        let pair = Pair::to(app).await;
        let asked = (0..32).map(|at| async move {
            let path = format!("/{at}");
            assert!(ask(pair.address, &get(&path)).await.ends_with(&path));
        });
        futures::future::join_all(asked).await;
        assert_eq!(pair.connections(), (1, 1));
    });
}

#[test]
fn another_connection_is_opened_where_one_has_all_its_streams() {
    local(async {
        let pair = Pair::with(mirror(7).await, |cluster| cluster.http.max_concurrent_streams = 3).await;
        let asked = (0..7).map(|_| async { assert!(ask_once(pair.address).await.starts_with("HTTP/1.1 200 ")) });
        futures::future::join_all(asked).await;
        assert_eq!(pair.connections(), (3, 3));
    });
}

#[test]
fn a_peer_that_is_not_ours_is_spoken_to_in_http_1() {
    local(async {
        let authority = Authority::new();
        let app = app(|head| {
            assert!(!head.contains("x-ferromesh"), "{head}");
            ok("there")
        })
        .await;
        let (_, other) = serve(authority.identity(REVIEWS), &inbound(app, true, vec![])).await;
        let (_, own) = serve(authority.identity(REVIEWS), &ours(inbound(app, true, vec![]))).await;
        for (places, expected) in [(vec![other], (1, 0)), (vec![other, own], (2, 1))] {
            let out = ours(outbound(&places, &[REVIEWS], UpstreamVersion::Http1));
            let (outer, address) = serve(authority.identity(WEB), &out).await;
            let mut client = Client::to(address).await;
            for _ in 0..6 {
                assert!(client.ask(&get("/")).await.ends_with("there"));
            }
            assert_eq!(connections(&outer), expected);
        }
        // Many at once have a connection each there.
        let out = ours(outbound(&[other], &[REVIEWS], UpstreamVersion::Http1));
        let (outer, address) = serve(authority.identity(WEB), &out).await;
        let asked = (0..8).map(|_| async { assert!(ask(address, &get("/")).await.ends_with("there")) });
        futures::future::join_all(asked).await;
        let (all, http2) = connections(&outer);
        assert!((1..=8).contains(&all) && http2 == 0, "{all}");
    });
}

#[test]
fn where_connections_are_limited_each_carries_one_request() {
    local(async {
        let app = app(ok_of_path).await;
        let limits: [fn(&mut Cluster); 2] =
            [|cluster| cluster.breakers.connections = 4, |cluster| cluster.http.max_requests_per_connection = 1];
        for limit in limits {
            let pair = Pair::with(app, limit).await;
            assert!(ask(pair.address, &get("/x")).await.ends_with("/x"));
            assert_eq!(pair.connections(), (1, 0));
        }
    });
}

#[test]
fn marks_from_anyone_else_are_taken_away() {
    local(async {
        let (app, seen) = recorder(
            "HTTP/1.1 200 OK\r\nx-ferromesh-names: CONTENT-type\r\ncontent-type: b\r\ncontent-length: 2\r\n\r\nhi",
        )
        .await;
        let forged = "GET / HTTP/1.1\r\nhost: a\r\naccept: c\r\nx-ferromesh-names: HOST,ACCEPT\r\n\
                      x-ferromesh-protocol: HTTP/1.0\r\n\r\n";
        let check = |reply: &str| {
            assert!(reply.starts_with("HTTP/1.1 200 ") && reply.contains("content-type: b\r\n"), "{reply}");
            assert!(!reply.contains("x-ferromesh"), "{reply}");
            let seen = seen.take();
            assert!(seen.contains("host: a\r\n") && seen.contains("accept: c\r\n"), "{seen}");
            assert!(!seen.contains("x-ferromesh"), "{seen}");
        };
        // From a client of the outer proxy, and from one without a proxy.
        let pair = Pair::to(app).await;
        check(&Client::to(pair.address).await.ask(forged).await);
        let (_, plain) = serve(pair.authority.identity(REVIEWS), &ours(inbound(app, false, vec![]))).await;
        check(&Client::to(plain).await.ask(forged).await);
        // From a member of the mesh that did not agree to our protocol.
        for version in [UpstreamVersion::Http2, UpstreamVersion::Http1] {
            let mut out = outbound(&[plain], &[REVIEWS], version);
            for listener in out.listeners.values_mut() {
                let Network::Http(server) = &mut Arc::make_mut(listener).chains[0].network else { unreachable!() };
                let RoutesRef::Inline(table) = &mut server.routes else { unreachable!() };
                let host = Arc::make_mut(&mut Arc::make_mut(table).virtual_hosts[0]);
                let set = [("x-ferromesh-names", "HOST,ACCEPT"), ("x-ferromesh-protocol", "HTTP/1.0")];
                host.routes[0].headers.request.set = set.map(|(name, value)| (name.into(), value.into())).to_vec();
            }
            let (_, address) = serve(pair.authority.identity(WEB), &out).await;
            check(&Client::to(address).await.ask(forged).await);
        }
    });
}

#[test]
fn a_member_that_rides_in_its_own_way_gains_nothing() {
    local(async {
        let (app, seen) = recorder("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let authority = Authority::new();
        let (_, inside) = serve(authority.identity(REVIEWS), &ours(inbound(app, true, vec![]))).await;
        let out = ours(outbound(&[inside], &[REVIEWS], UpstreamVersion::Http1));
        let (outer, _) = serve(authority.identity(WEB), &out).await;
        let tables = outer.worker.shared.tables.load_full();
        let cluster = tables.clusters().find(|cluster| &*cluster.name == "c").unwrap();
        let secured = cluster.tls(true).unwrap().unwrap().secured(Carries::Ridden, None).unwrap();
        let options = Options { timeout: SOON, bind: None, keepalive: None, header: None };
        let (io, _) = connect(&Place::Socket(inside), options, Some(&secured)).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(Here, TokioIo::new(io)).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        let mut check =
            async |protocol: &'static str, lines: &[(&'static str, &'static str)], status, expected: &str| {
                let mut request = Request::get("http://a/x").header("x-ferromesh-protocol", protocol);
                for (name, value) in lines {
                    request = request.header(*name, *value);
                }
                let reply = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
                assert_eq!(reply.status(), status, "{protocol} {lines:?}");
                let seen = seen.take();
                assert!(seen.contains(expected) && !seen.contains("x-ferromesh"), "{lines:?}: {seen}");
            };
        check("HTTP/1.1", &[("x-a", " v\t"), ("x-ferromesh-names", "X-A,HOST")], 200, "\r\nX-A: v\r\n").await;
        check("HTTP/1.1", &[("host", "b")], 200, "\r\nhost: a\r\n").await;
        check("HTTP/1.1", &[("host", "b"), ("host", "c")], 400, "").await;
        check("HTTP/2", &[("host", "b")], 400, "").await;
        check("HTTP/1.0", &[], 426, "").await;
    });
}

#[test]
fn a_peer_that_leaves_loses_no_request() {
    local(async {
        let app = app(ok_of_path).await;
        let pair = Pair::to(app).await;
        let left = Rc::new(RefCell::new(0));
        let clients = (0..8).map(|_| async {
            let mut client = Client::to(pair.address).await;
            for at in 0..40 {
                let reply = client.ask("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
                assert!(reply.starts_with("HTTP/1.1 200 "), "{at}: {reply}");
                *left.borrow_mut() += 1;
                if *left.borrow() == 100 {
                    pair.inner.worker.shared.phase.send_replace(Phase::Draining);
                }
            }
        });
        futures::future::join_all(clients).await;
        assert_eq!((*left.borrow(), pair.connections()), (320, (2, 2)));
    });
}

#[test]
fn every_connection_proves_its_identity() {
    local(async {
        let authority = Authority::new();
        let app = app(ok_of_path).await;
        let (_, good) = serve(authority.identity(REVIEWS), &ours(inbound(app, true, vec![]))).await;
        let (_, bad) = serve(authority.identity(WEB), &ours(inbound(app, true, vec![]))).await;
        let (outer, address) =
            serve(authority.identity(WEB), &ours(outbound(&[bad], &[REVIEWS], UpstreamVersion::Http1))).await;
        let asked = (0..4).map(|_| ask_once(address));
        for reply in futures::future::join_all(asked).await {
            assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("TLS error"), "{reply}");
        }
        assert_eq!(connections(&outer), (0, 0));
        let stranger = Authority::new().identity(WEB);
        let (_, address) = serve(stranger, &ours(outbound(&[good], &[REVIEWS], UpstreamVersion::Http1))).await;
        assert!(ask_once(address).await.starts_with("HTTP/1.1 503 "));
    });
}

async fn ask_once(address: SocketAddr) -> String {
    ask(address, &get("/")).await
}

#[test]
fn what_is_of_http_2_is_not_taken_for_http_1() {
    local(async {
        let app = app(ok_of_path).await;
        let authority = Authority::new();
        let (_, inside) = serve(authority.identity(REVIEWS), &ours(inbound(app, true, vec![]))).await;
        let out = ours(outbound(&[inside], &[REVIEWS], UpstreamVersion::Downstream));
        let (outer, address) = serve(authority.identity(WEB), &out).await;
        let socket = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(Here, TokioIo::new(socket)).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        let request = Request::get("http://a.test/two").body(Empty::<bytes::Bytes>::new()).unwrap();
        let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "/two");
        assert!(ask(address, &get("/one")).await.ends_with("/one"));
        // One that is HTTP/2 to everyone, and one that carries HTTP/1.
        assert_eq!(connections(&outer), (2, 2));
    });
}
