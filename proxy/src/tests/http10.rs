//! HTTP/1.0 where it is served: how replies are framed for a client that knows no chunks, and how connections go on.
//!
//! Never here: refusing it (`http1`). Run by `cargo test`.

use std::{net::SocketAddr, sync::Arc};

use api::spec::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    Client, Proxy, app, ask,
    http1::{all, recorder},
    local,
    mesh::{Authority, REVIEWS, WEB, inbound, outbound, serve},
    ok, proxy,
    ride::{connections, ours},
    spec::{chain, cluster, forward, listener, route, server, spec},
};

/// A proxy that serves HTTP/1.0, in front of an application.
async fn old(app: SocketAddr) -> (Proxy, SocketAddr) {
    let routes = vec![route(Action::Forward(Box::new(forward("c"))))];
    let served = HttpServer { http10: true, ..server(routes) };
    proxy(&spec(listener(chain(Network::Http(Box::new(served)))), vec![cluster("c", &[app])])).await
}

#[test]
fn the_connection_ends_unless_the_client_asks_for_more() {
    local(async {
        let (app, seen) = recorder("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        let (_proxy, address) = old(app).await;
        let reply = all(address, b"GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
        assert!(reply.contains("connection: close\r\n") && reply.ends_with("\r\n\r\nhi"), "{reply}");
        assert!(seen.take().starts_with("GET / HTTP/1.1\r\n"));
        let mut client = Client::to(address).await;
        for _ in 0..2 {
            let reply = client.ask("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
            assert!(reply.contains("connection: keep-alive\r\n") && reply.ends_with("hi"), "{reply}");
        }
        assert!(ask(address, "GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    });
}

#[test]
fn chunks_and_interim_replies_are_not_for_it() {
    local(async {
        let (app, _) = recorder(
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
        let (_proxy, address) = old(app).await;
        let reply = all(address, b"GET / HTTP/1.0\r\nhost: a\r\nte: trailers\r\nconnection: keep-alive\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\nhello"), "{reply}");
        assert!(reply.contains("connection: close\r\n") && !reply.contains("chunked"), "{reply}");
    });
}

#[test]
fn a_reply_that_breaks_off_does_not_end_as_a_whole_one() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buf = [0; 4096];
            assert!(socket.read(&mut buf).await.unwrap() > 0);
            socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await.unwrap();
        });
        let (_proxy, address) = old(app).await;
        let mut client = Client::to(address).await;
        client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
        let error = client.0.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn newer_clients_are_served_as_ever() {
    local(async {
        let (_proxy, address) = old(app(|_| ok("hi")).await).await;
        let mut client = Client::to(address).await;
        for _ in 0..2 {
            let reply = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert!(reply.ends_with("hi") && !reply.contains("connection"), "{reply}");
        }
    });
}

#[test]
fn it_rides_between_proxies_that_serve_it() {
    local(async {
        let (app, seen) =
            recorder("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
        let authority = Authority::new();
        let (_inner, inside) = serve(authority.identity(REVIEWS), &serving(ours(inbound(app, true, vec![])))).await;
        let out = serving(ours(outbound(&[inside], &[REVIEWS], UpstreamVersion::Http1)));
        let (outer, address) = serve(authority.identity(WEB), &out).await;
        let reply = all(address, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\nhello"), "{reply}");
        assert!(seen.take().starts_with("GET / HTTP/1.1\r\nHost: a\r\n"));
        assert_eq!(connections(&outer), (1, 1));
    });
}

/// The same, serving HTTP/1.0.
fn serving(mut spec: Spec) -> Spec {
    for listener in spec.listeners.values_mut() {
        for chain in &mut Arc::make_mut(listener).chains {
            if let Network::Http(server) = &mut chain.network {
                server.http10 = true;
            }
        }
    }
    spec
}
