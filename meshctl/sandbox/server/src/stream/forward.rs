//! port-forward: connections of the client carried to ports of a Pod.
//!
//! SPDY/3.1 (plain, or tunnelled in a WebSocket), or WebSocket channels. Never here: connecting (see `Kubelet`).
//! Called by `dispatch`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::sessions::Upgrade;
use super::spdy::{self, Frames, Incoming, Reset};
use super::websocket::{self, Socket};
use crate::core::Core;
use crate::limits::{COPY_BYTES, FORWARDED_MAX, FORWARDED_MESSAGES_MAX, PAIR_TIMEOUT, STALL_TIMEOUT};
use crate::object;
use crate::reply::{Body, Refusal};
use crate::verb::Call;
use crate::{Duplex, Kubelet, PodRef};

#[derive(Clone)]
struct Source {
    kubelet: Arc<dyn Kubelet>,
    pod: PodRef,
}

impl Source {
    async fn connect(&self, port: u16) -> Result<Duplex, String> {
        self.kubelet.port_forward(self.pod.clone(), port).await.map_err(|error| {
            format!("error forwarding port {port} to pod {}, uid : failed to connect: {error}", self.pod.uid)
        })
    }
}

/// The 101 of a SPDY upgrade; the client must offer the protocol if it offers any.
pub(super) fn accept_spdy(
    headers: &HeaderMap,
    protocol: &'static str,
    header: &'static str,
) -> Result<Response<Body>, Refusal> {
    let wants = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !wants.eq_ignore_ascii_case("SPDY/3.1") {
        return Err(Refusal::bad_request("unable to upgrade: missing upgrade headers in request"));
    }
    let offered: Vec<&str> = headers
        .get_all(header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if !offered.is_empty() && !offered.contains(&protocol) {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts [{protocol}]"
        );
        return Err(Refusal::new(403, "Forbidden", text));
    }
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let map = response.headers_mut();
    map.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    map.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    map.insert(HeaderName::from_static(header), HeaderValue::from_static(protocol));
    Ok(response)
}

pub(crate) fn run(core: &Core, call: &Call, upgrade: Option<Upgrade>) -> Result<Response<Body>, Refusal> {
    let (pod, value) = super::pod(core, call)?;
    let phase = object::text(&value, "/status/phase");
    if phase != "Running" {
        return Err(Refusal::bad_request(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let source = Source { kubelet: core.kubelet().ok_or_else(super::no_node)?, pod };
    let Some(upgrade) = upgrade else { return Err(Refusal::bad_request("Upgrade request required")) };
    if !websocket::wanted(&call.headers) {
        let response = accept_spdy(&call.headers, "portforward.k8s.io", "x-stream-protocol-version")?;
        upgrade.carry(move |upgraded| async move { report(over_spdy(source, TokioIo::new(upgraded)).await) });
        return Ok(response);
    }
    let ours = ["SPDY/3.1+portforward.k8s.io", "v5.channel.k8s.io", "v4.channel.k8s.io"];
    let protocol = websocket::choose(&call.headers, &ours)
        .ok_or_else(|| Refusal::bad_request("no supported WebSocket protocol was offered"))?;
    let named = call.query.all("ports");
    let ports: Vec<u16> = named
        .iter()
        .flat_map(|text| text.split(','))
        .map(port)
        .collect::<Result<_, _>>()
        .map_err(Refusal::bad_request)?;
    let tunnel = protocol == ours[0];
    if !tunnel && (ports.is_empty() || ports.len() > FORWARDED_MAX / 2) {
        return Err(Refusal::bad_request("query parameter \"ports\" is required"));
    }
    let response = websocket::accept(&call.headers, protocol)?;
    upgrade.carry(move |upgraded| async move {
        let socket = websocket::socket(upgraded).await;
        if tunnel {
            let (stream, carry) = websocket::bytes_over(socket);
            let (session, carried) = tokio::join!(over_spdy(source, stream), carry);
            report(session.and(carried));
        } else {
            report(over_channels(source, socket, &ports).await);
        }
    });
    Ok(response)
}

/// A port as clients write it, or what is wrong with it in the real server's words.
fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("unable to parse {text:?} as a port")),
    }
}

fn report(done: io::Result<()>) {
    if let Err(error) = done {
        tracing::debug!(%error, "port-forward ended");
    }
}

/// Streams come in pairs of one `requestid`: error and data.
async fn over_spdy<S>(source: Source, socket: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (opened, frames, run) = spdy::start(socket);
    let session = connections(source, opened, frames);
    tokio::pin!(run);
    tokio::pin!(session);
    tokio::select! {
        done = &mut session => done,
        done = &mut run => done,
    }
}

async fn connections(source: Source, mut opened: mpsc::Receiver<Incoming>, frames: Frames) -> io::Result<()> {
    // Where the second stream of a connection is to be brought to the first.
    let mut waiting: HashMap<String, oneshot::Sender<Incoming>> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = opened.recv() => {
                let Some(stream) = stream else { return Ok(()) };
                let id = stream.headers.get("requestid").cloned().unwrap_or_default();
                let stream = match waiting.remove(&id) {
                    None => stream,
                    Some(first) => match first.send(stream) {
                        Ok(()) => continue,
                        // The first has been given up meanwhile.
                        Err(stream) => stream,
                    },
                };
                if connections.len() >= FORWARDED_MAX {
                    frames.reset(stream.id, Reset::Refused).await?;
                    continue;
                }
                waiting.retain(|_, first| !first.is_closed());
                let (second, comes) = oneshot::channel();
                waiting.insert(id, second);
                connections.spawn(connection(source.clone(), frames.clone(), stream, comes));
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(%error, "a forwarded connection's task failed");
                }
            }
        }
    }
}

/// One connection, from its first stream on.
async fn connection(source: Source, frames: Frames, first: Incoming, second: oneshot::Receiver<Incoming>) {
    let id = first.id;
    let done = match tokio::time::timeout(PAIR_TIMEOUT, second).await {
        Ok(Ok(second)) => {
            let is_error = second.headers.get("streamtype").is_some_and(|kind| kind == "error");
            let (error, data) = if is_error { (second, first) } else { (first, second) };
            pair(&source, &frames, error.id, data).await
        }
        Ok(Err(_)) | Err(_) => frames.reset(id, Reset::Cancelled).await,
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a forwarded connection ended with its client");
    }
}

async fn pair(source: &Source, frames: &Frames, error: u32, mut data: Incoming) -> io::Result<()> {
    let named = data.headers.get("port").map(String::as_str).unwrap_or_default();
    let connected = match port(named) {
        Ok(port) => source.connect(port).await,
        Err(text) => Err(text),
    };
    let connection = match connected {
        Ok(connection) => connection,
        Err(text) => {
            frames.data(error, text.as_bytes(), true).await?;
            return frames.data(data.id, &[], true).await;
        }
    };
    let id = data.id;
    let (mut reader, mut writer) = tokio::io::split(connection);
    let inward = async {
        while let Some(bytes) = data.data.recv().await {
            match write(&mut writer, &bytes, &data).await {
                Written::All => {}
                Written::Closed => break,
                Written::Stalled => return,
            }
        }
        writer.shutdown().await.ok();
        // The Pod's end decides: a client that has finished sending still waits for the answer.
        std::future::pending::<()>().await;
    };
    let outward = async {
        let mut buffer = vec![0; COPY_BYTES];
        while let Ok(size) = reader.read(&mut buffer).await {
            if size == 0 {
                break;
            }
            frames.data(id, &buffer[..size], false).await?;
        }
        frames.data(id, &[], true).await?;
        frames.data(error, &[], true).await
    };
    tokio::pin!(inward);
    tokio::pin!(outward);
    tokio::select! {
        done = &mut outward => done,
        () = &mut inward => {
            tracing::info!(pod = source.pod.name, "a forwarded connection is reset: its Pod reads nothing and others wait");
            // Not told on the error stream: `kubectl` gives up all connections for a word there.
            frames.data(error, &[], true).await?;
            frames.reset(id, Reset::Cancelled).await
        }
    }
}

enum Written {
    All,
    /// The Pod has closed its side.
    Closed,
    /// It does not read, and others wait for that.
    Stalled,
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], from: &Incoming) -> Written {
    let write = to.write_all(bytes);
    tokio::pin!(write);
    loop {
        tokio::select! {
            done = &mut write => return if done.is_ok() { Written::All } else { Written::Closed },
            () = tokio::time::sleep(STALL_TIMEOUT) => if from.holds_up_others() { return Written::Stalled },
        }
    }
}

/// Port i: channel 2i carries data, 2i+1 errors; the server first names the port on each.
async fn over_channels(source: Source, socket: Socket, ports: &[u16]) -> io::Result<()> {
    let (mut sink, mut stream) = socket.split();
    let (out, mut queue) = mpsc::channel::<Message>(FORWARDED_MESSAGES_MAX);
    let mut inputs = Vec::new();
    let mut connections = JoinSet::new();
    for (index, port) in ports.iter().enumerate() {
        let channel = u8::try_from(index * 2).unwrap_or(u8::MAX);
        for number in [channel, channel.saturating_add(1)] {
            let [low, high] = port.to_le_bytes();
            sink.send(Message::Binary(Bytes::from(vec![number, low, high]))).await.map_err(io::Error::other)?;
        }
        let (input, bytes) = mpsc::channel::<Bytes>(FORWARDED_MESSAGES_MAX);
        inputs.push(input);
        connections.spawn(one_channel(source.clone(), *port, channel, bytes, out.clone()));
    }
    drop(out);
    let outward = async {
        while let Some(message) = queue.recv().await {
            sink.send(message).await.map_err(io::Error::other)?;
        }
        sink.send(websocket::close()).await.map_err(io::Error::other)
    };
    let inward = async {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(bytes) => {
                    if let Some((255, [number])) = bytes.split_first() {
                        // The client has no more to send on this channel.
                        if let Some(input) = inputs.get_mut(usize::from(number / 2)) {
                            *input = mpsc::channel(1).0;
                        }
                        continue;
                    }
                    let number = bytes.first().copied().unwrap_or(u8::MAX);
                    if number % 2 == 0
                        && let Some(input) = inputs.get(usize::from(number / 2))
                    {
                        input.send(bytes.slice(1..)).await.ok();
                    }
                }
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(())
    };
    tokio::pin!(outward);
    tokio::pin!(inward);
    tokio::select! {
        done = &mut outward => done,
        done = &mut inward => done,
    }
}

async fn one_channel(
    source: Source,
    port: u16,
    channel: u8,
    mut input: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Message>,
) {
    let message = |number: u8, bytes: &[u8]| {
        let mut all = Vec::with_capacity(bytes.len() + 1);
        all.push(number);
        all.extend_from_slice(bytes);
        Message::Binary(Bytes::from(all))
    };
    let connection = match source.connect(port).await {
        Ok(connection) => connection,
        Err(text) => {
            out.send(message(channel.saturating_add(1), text.as_bytes())).await.ok();
            return;
        }
    };
    let (mut reader, mut writer) = tokio::io::split(connection);
    let inward = async {
        while let Some(bytes) = input.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        writer.shutdown().await.ok();
        std::future::pending::<()>().await;
    };
    let outward = async {
        let mut buffer = vec![0; COPY_BYTES];
        while let Ok(size) = reader.read(&mut buffer).await {
            if size == 0 || out.send(message(channel, &buffer[..size])).await.is_err() {
                break;
            }
        }
    };
    tokio::pin!(inward);
    tokio::pin!(outward);
    tokio::select! {
        () = &mut inward => {}
        () = &mut outward => {}
    }
}

#[cfg(test)]
mod tests;
