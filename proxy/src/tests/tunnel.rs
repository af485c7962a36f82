//! Connections that have changed their protocol: how they end, and what is counted of them.
//!
//! Never here: agreeing on the change (`exchange`, `http1`). Run by `cargo test`.

use std::time::Duration;

use api::spec::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Client, Proxy,
    bytes::{pass, paused},
    denied::lines,
    local, proxy,
    spec::{chain, cluster, forward, listener, route, server, spec},
};

fn log(name: &str) -> AccessLog {
    let file = std::env::temp_dir().join(format!("proxy-tunnel-{name}-{}", std::process::id()));
    let format = Some("%BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS%\n".into());
    AccessLog { path: file.to_string_lossy().into_owned(), format, json: false }
}

/// A client that has agreed on WebSocket with an upstream that echoes, and resets the connection where it hears `cut`.
async fn websocket(idle_timeout: Duration, log: &AccessLog) -> (Proxy, Client) {
    let waiting = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = waiting.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let (mut socket, _) = waiting.accept().await.unwrap();
        let mut buf = [0; 4096];
        let _head = socket.read(&mut buf).await.unwrap();
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        socket.write_all(agreed.as_bytes()).await.unwrap();
        while let Ok(count @ 1..) = socket.read(&mut buf).await {
            if buf.starts_with(b"cut") {
                socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            socket.write_all(&buf[..count]).await.unwrap();
        }
    });
    let routes = vec![route(Action::Forward(Box::new(forward("c"))))];
    let server = HttpServer { idle_timeout, access_log: Some(log.clone()), ..server(routes) };
    let spec = spec(listener(chain(Network::Http(Box::new(server)))), vec![cluster("c", &[upstream])]);
    let (proxy, address) = proxy(&spec).await;
    let mut client = Client::to(address).await;
    let reply = client.ask("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 101 "), "{reply}");
    client.send("ping").await;
    let mut buf = [0; 4];
    client.0.read_exact(&mut buf).await.unwrap();
    (proxy, client)
}

#[test]
fn bytes_of_a_websocket_count_however_it_ends() {
    local(async {
        let log = log("cut");
        let (proxy, mut client) = websocket(Duration::ZERO, &log).await;
        client.send("cut").await;
        let error = client.0.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "a cut stream is never one that ended");
        assert_eq!(lines(&proxy, &log).await, "7 4 -\n");
    });
}

#[test]
fn a_silent_websocket_ends_at_the_idle_limit() {
    paused(async {
        let log = log("silent");
        let (proxy, mut client) = websocket(Duration::from_secs(60), &log).await;
        pass(Duration::from_secs(59)).await;
        client.send("ping").await;
        client.0.read_exact(&mut [0; 4]).await.unwrap();
        pass(Duration::from_secs(59)).await;
        client.send("ping").await;
        client.0.read_exact(&mut [0; 4]).await.unwrap();
        pass(Duration::from_secs(61)).await;
        assert_eq!(client.rest().await, "");
        assert_eq!(lines(&proxy, &log).await, "12 12 SI\n");
    });
}
