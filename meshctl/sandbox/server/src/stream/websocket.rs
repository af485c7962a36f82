//! WebSockets: the handshake's answer, messages with a channel byte, and a plain byte stream over them.
//!
//! Never here: what the channels mean. Called by `exec` and `forward`.

use std::io;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use crate::limits::{COPY_BYTES, SOCKET_PIPE_BYTES};
use crate::reply::{Body, Refusal};

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether the request wants a WebSocket.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    headers
        .get(UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// The first of our protocols that the client offers.
pub(super) fn choose(headers: &HeaderMap, ours: &[&'static str]) -> Option<&'static str> {
    let offered: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    ours.iter().copied().find(|protocol| offered.contains(protocol))
}

/// The 101 that accepts the upgrade.
pub(super) fn accept(headers: &HeaderMap, protocol: &'static str) -> Result<Response<Body>, Refusal> {
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| Refusal::bad_request("missing Sec-WebSocket-Key"))?;
    let answer = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| Refusal::bad_request("bad Sec-WebSocket-Key"))?;
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let map = response.headers_mut();
    map.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    map.insert(UPGRADE, HeaderValue::from_static("websocket"));
    map.insert(SEC_WEBSOCKET_ACCEPT, answer);
    map.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(response)
}

pub(super) async fn socket(upgraded: Upgraded) -> Socket {
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await
}

/// A close frame that says all is well: clients take one without a code for a failure.
pub(super) fn close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// A byte stream whose bytes travel in binary messages; the future carries them.
pub(super) fn bytes_over(socket: Socket) -> (DuplexStream, impl Future<Output = io::Result<()>> + Send) {
    let (near, far) = tokio::io::duplex(SOCKET_PIPE_BYTES);
    let run = async move {
        let (mut sink, mut stream) = socket.split();
        let (mut reader, mut writer) = tokio::io::split(far);
        let inward = async {
            while let Some(message) = stream.next().await {
                match message.map_err(io::Error::other)? {
                    Message::Binary(bytes) => writer.write_all(&bytes).await?,
                    Message::Close(_) => break,
                    Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            }
            writer.shutdown().await
        };
        let outward = async {
            let mut buffer = vec![0; COPY_BYTES];
            loop {
                let size = reader.read(&mut buffer).await?;
                if size == 0 {
                    break;
                }
                let message = Message::Binary(Bytes::copy_from_slice(&buffer[..size]));
                sink.send(message).await.map_err(io::Error::other)?;
            }
            sink.send(close()).await.map_err(io::Error::other)
        };
        tokio::pin!(inward);
        tokio::pin!(outward);
        tokio::select! {
            done = &mut inward => done,
            done = &mut outward => done,
        }
    };
    (near, run)
}
