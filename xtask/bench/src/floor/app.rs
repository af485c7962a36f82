//! The application behind every proxy of a bench: answers that cost next to nothing.
//!
//! HTTP/1 `GET /N` gives N bytes; HTTP/2 gives back what was sent, with a gRPC status; the source sends bytes without end.
//! Never here: more of HTTP than proxies send it. Run by `floor::run`.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::hop::{Here, listen};

const BODY_BYTES_MAX: usize = 1024 * 1024;
const SOURCE_BYTES: usize = 256 * 1024;

/// Serves all three until ended from outside.
pub(super) async fn serve(http1: SocketAddr, http2: SocketAddr, source: SocketAddr) -> Result<()> {
    let (http1, http2, source) = (listen(http1)?, listen(http2)?, listen(source)?);
    loop {
        tokio::select! {
            accepted = http1.accept() => drop(tokio::task::spawn_local(answer(accepted?.0))),
            accepted = http2.accept() => drop(tokio::task::spawn_local(echo(accepted?.0))),
            accepted = source.accept() => drop(tokio::task::spawn_local(flow(accepted?.0))),
        }
    }
}

/// The reply to a head: its first line names the length of the body.
fn reply(head: &[u8]) -> Vec<u8> {
    let length = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.split(' ').nth(1)?.trim_start_matches('/').parse::<usize>().ok())
        .filter(|length| *length <= BODY_BYTES_MAX);
    match length {
        Some(length) => {
            let mut reply =
                format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n").into_bytes();
            reply.resize(reply.len() + length, b'x');
            reply
        }
        None => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
    }
}

async fn answer(mut stream: TcpStream) {
    let mut buf = BytesMut::with_capacity(8192);
    // Replies are the same for the same first line: made once a connection.
    let mut known: (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    if stream.set_nodelay(true).is_err() {
        return;
    }
    loop {
        while let Some(end) = buf.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = buf.split_to(end + 4);
            let line = head.as_ref().split(|byte| *byte == b'\r').next().unwrap_or_default();
            if known.0 != line {
                known = (line.to_vec(), reply(line));
            }
            if stream.write_all(&known.1).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut buf).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

async fn echo(stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::<Bytes>::new(body).with_trailers(async move { Some(Ok(trailers)) });
        let mut response = Response::new(body);
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok::<_, Infallible>(response)
    });
    let mut builder = http2::Builder::new(Here);
    builder.max_concurrent_streams(1024);
    let _ended = builder.serve_connection(TokioIo::new(stream), service).await.is_ok();
}

async fn flow(mut stream: TcpStream) {
    let bytes = vec![b'x'; SOURCE_BYTES];
    while stream.write_all(&bytes).await.is_ok() {}
}
