//! HTTP/2 and gRPC unary clients: a number of streams on each of a few connections, as fast as answers come.
//!
//! Never here: HTTP/1. Called by `load`.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::LocalSet};

use super::Done;
use crate::floor::Here;

/// A message of 59 bytes after the five of its frame.
const MESSAGE: [u8; 64] = {
    let mut message = [b'x'; 64];
    (message[0], message[1], message[2], message[3], message[4]) = (0, 0, 0, 0, 59);
    message
};

type Sender = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> Result<Sender> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = Builder::new(Here).handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn ask(sender: &mut Sender, grpc: bool) -> Result<()> {
    let (method, path, body) = if grpc {
        (Method::POST, "/bench.Echo/Unary", Bytes::from_static(&MESSAGE))
    } else {
        (Method::GET, "/64", Bytes::new())
    };
    let uri = format!("http://reviews{path}");
    let mut request = Request::builder().method(method).uri(uri).body(Full::new(body))?;
    if grpc {
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let response = sender.send_request(request).await?;
    ensure!(response.status() == 200, "{}", response.status());
    let body = response.into_body().collect().await?;
    if grpc {
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
        ensure!(status.is_some_and(|status| status == "0"), "no grpc-status of 0");
    }
    ensure!(body.to_bytes().len() == 64, "another body");
    Ok(())
}

fn local<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(task))
}

/// One request.
pub(super) fn probe(address: SocketAddr, grpc: bool) -> Result<()> {
    local(async {
        let asked = async { ask(&mut connect(address).await?, grpc).await };
        tokio::time::timeout(Duration::from_secs(2), asked).await?
    })
}

/// As many requests as it can.
#[expect(clippy::disallowed_methods, reason = "a load client takes the time")]
pub(super) fn run(
    address: SocketAddr,
    connections: usize,
    streams: usize,
    grpc: bool,
    length: Duration,
) -> Result<Done> {
    local(async {
        let began = Instant::now();
        let results = Rc::new(std::cell::RefCell::new((Vec::new(), 0_u64)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let sender = connect(address).await?;
            for _ in 0..streams {
                let (mut sender, results) = (sender.clone(), Rc::clone(&results));
                tasks.spawn_local(async move {
                    while began.elapsed() < length {
                        let from = Instant::now();
                        let asked = ask(&mut sender, grpc).await;
                        let mut results = results.borrow_mut();
                        match asked {
                            Ok(()) => results.0.push(u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX)),
                            Err(_) => {
                                results.1 += 1;
                                return;
                            }
                        }
                    }
                });
            }
        }
        while tasks.join_next().await.is_some() {}
        let (latencies, failed) = results.take();
        Ok(Done::of(latencies, began.elapsed(), failed))
    })
}
