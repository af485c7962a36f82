//! HTTP/1 towards applications: replies that are malformed, broken off, early or unasked.
//!
//! Never here: the reader alone (`http::h1::tests`), clients (`http1`). Run by `cargo test`.

use std::{cell::RefCell, rc::Rc};

use api::spec::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    Client, get,
    http1::{all, recorder},
    local, ok, proxy,
    spec::{cluster, forward, http, route, to},
};

#[test]
fn a_reply_that_nobody_asked_for_is_nobodys() {
    local(async {
        let connections = Rc::new(RefCell::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        let counted = Rc::clone(&connections);
        tokio::task::spawn_local(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                *counted.borrow_mut() += 1;
                let mut buf = [0; 4096];
                assert!(socket.read(&mut buf).await.unwrap() > 0);
                socket.write_all([ok("mine"), ok("poison")].concat().as_bytes()).await.unwrap();
                // The connection stays open for as long as the proxy wants it.
                tokio::task::spawn_local(async move { while let Ok(1..) = socket.read(&mut buf).await {} });
            }
        });
        let (_, address) = proxy(&to(&[upstream])).await;
        let mut client = Client::to(address).await;
        for _ in 0..3 {
            assert!(client.ask(&get("/")).await.ends_with("mine"));
        }
        assert_eq!(*connections.borrow(), 3);
    });
}

#[test]
fn a_malformed_reply_is_told_as_one() {
    local(async {
        let many: &'static str = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100).leak();
        for bad in [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi",
            "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            many,
        ] {
            let (upstream, _) = recorder(bad).await;
            let action = Action::Forward(Box::new(forward("c")));
            let (proxy, address) = proxy(&http(vec![route(action)], vec![cluster("c", &[upstream])])).await;
            let reply = Client::to(address).await.ask(&get("/")).await;
            assert!(
                reply.contains("HTTP/1.1 502 ") && reply.ends_with("reset reason: protocol error"),
                "{bad:?}: {reply}"
            );
            assert!(proxy.metrics().contains("response_flags=\"UPE\""), "{}", proxy.metrics());
        }
    });
}

#[test]
fn a_reply_that_breaks_off_is_not_taken_for_a_whole_one() {
    local(async {
        for cut in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz",
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let upstream = listener.local_addr().unwrap();
            tokio::task::spawn_local(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut buf = [0; 4096];
                assert!(socket.read(&mut buf).await.unwrap() > 0);
                socket.write_all(cut.as_bytes()).await.unwrap();
            });
            let (_, address) = proxy(&to(&[upstream])).await;
            let mut client = Client::to(address).await;
            client.send(&get("/")).await;
            let text = client.rest().await;
            assert!(text.contains("hello") && !text.ends_with("0\r\n\r\n"), "{text}");
        }
    });
}

#[test]
fn interim_replies_pass_but_the_one_that_is_for_us() {
    local(async {
        let (upstream, _) = recorder(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nx-envoy-peer-metadata-id: me\r\nx-ferromesh-names: LINK\r\n\r\nHTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\ncontent-length: 4\r\n\r\ndone",
        )
        .await;
        let (_, address) = proxy(&to(&[upstream])).await;
        let text = all(address, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"), "{text}");
        assert!(!text.to_ascii_lowercase().contains("x-hop"), "{text}");
    });
}

#[test]
fn a_request_whose_connection_broke_is_asked_again_whole() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let mut buf = [0; 4096];
            // The second request on the first connection gets no reply; on the next connection it is shown.
            let (mut socket, _) = listener.accept().await.unwrap();
            assert!(socket.read(&mut buf).await.unwrap() > 0);
            socket.write_all(ok("first").as_bytes()).await.unwrap();
            assert!(socket.read(&mut buf).await.unwrap() > 0);
            drop(socket);
            let (mut socket, _) = listener.accept().await.unwrap();
            let count = socket.read(&mut buf).await.unwrap();
            socket.write_all(ok(&String::from_utf8_lossy(&buf[..count])).as_bytes()).await.unwrap();
            assert_eq!(socket.read(&mut buf).await.unwrap_or(0), 0);
        });
        let action = Action::Forward(Box::new(forward("c")));
        let (_, address) = proxy(&http(vec![route(action)], vec![cluster("c", &[upstream])])).await;
        let mut client = Client::to(address).await;
        assert!(client.ask(&get("/")).await.ends_with("first"));
        let reply = client.ask("GET /again HTTP/1.1\r\nhost: a.test\r\nX-Mine: 1\r\n\r\n").await;
        assert!(reply.contains("GET /again HTTP/1.1\r\nhost: a.test\r\nX-Mine: 1\r\n"), "{reply}");
    });
}
