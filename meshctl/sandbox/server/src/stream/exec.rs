//! exec and attach: a client's streams connected to a program in a container.
//!
//! Over WebSocket (`v5`, `v4.channel.k8s.io`) or SPDY/3.1. Never here: running the program (see `Kubelet`).
//! Called by `dispatch`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::Response;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::sessions::Upgrade;
use super::spdy::{self, Frames, Incoming};
use super::websocket::{self, Socket};
use crate::core::Core;
use crate::limits::{CLOSE_TIMEOUT, COPY_BYTES, PROGRAM_PIPE_BYTES, SIZES_WAITING_MAX, STREAMS_TIMEOUT};
use crate::reply::{Body, Refusal};
use crate::verb::Call;
use crate::{Attachment, ExecRequest, Kubelet, PodRef, StreamError, TerminalSize};

/// What is to be run, and with which streams.
struct Plan {
    kubelet: Arc<dyn Kubelet>,
    pod: PodRef,
    request: ExecRequest,
    attach: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// Our ends of the program's streams.
struct Ends {
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    resize: mpsc::Sender<TerminalSize>,
}

impl Plan {
    fn pipes(&self) -> (Attachment, Ends) {
        let pipe = |wanted: bool| {
            let (near, far) = tokio::io::duplex(PROGRAM_PIPE_BYTES);
            wanted.then_some((near, far)).unzip()
        };
        let (stdin_near, stdin_far) = pipe(self.stdin);
        let (stdout_near, stdout_far) = pipe(self.stdout);
        let (stderr_near, stderr_far) = pipe(self.stderr);
        let (resize, sizes) = mpsc::channel(SIZES_WAITING_MAX);
        let streams = Attachment {
            stdin: stdin_far.map(|end| Box::pin(end) as _),
            stdout: stdout_far.map(|end| Box::pin(end) as _),
            stderr: stderr_far.map(|end| Box::pin(end) as _),
            resize: sizes,
        };
        (streams, Ends { stdin: stdin_near, stdout: stdout_near, stderr: stderr_near, resize })
    }

    async fn run(&self, streams: Attachment) -> Value {
        let (pod, request) = (self.pod.clone(), self.request.clone());
        let code = if self.attach {
            self.kubelet.attach(pod, request, streams).await
        } else {
            self.kubelet.exec(pod, request, streams).await
        };
        outcome(code)
    }
}

/// The status that ends a session.
fn outcome(code: Result<i32, StreamError>) -> Value {
    match code {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with exit code {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("error executing command in container: {error}"),
        }),
    }
}

pub(crate) fn run(core: &Core, call: &Call, upgrade: Option<Upgrade>) -> Result<Response<Body>, Refusal> {
    let (pod, value) = super::pod(core, call)?;
    let container = super::container(call, &value)?;
    let attach = call.target.subresource == "attach";
    let tty = call.query.flag("tty");
    let plan = Plan {
        kubelet: core.kubelet().ok_or_else(super::no_node)?,
        pod,
        request: ExecRequest { container, command: if attach { Vec::new() } else { call.query.all("command") }, tty },
        attach,
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr") && !tty,
    };
    if !attach && plan.request.command.is_empty() {
        return Err(Refusal::bad_request("you must specify at least one command"));
    }
    if !plan.stdin && !plan.stdout && !plan.stderr {
        return Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let Some(upgrade) = upgrade else { return Err(Refusal::bad_request("Upgrade request required")) };
    if websocket::wanted(&call.headers) {
        let ours = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
        let protocol = websocket::choose(&call.headers, &ours)
            .ok_or_else(|| Refusal::bad_request("no supported WebSocket protocol was offered"))?;
        let response = websocket::accept(&call.headers, protocol)?;
        upgrade.carry(move |upgraded| async move { over_websocket(plan, websocket::socket(upgraded).await).await });
        return Ok(response);
    }
    let response = super::forward::accept_spdy(&call.headers, "v4.channel.k8s.io", "x-stream-protocol-version")?;
    upgrade.carry(move |upgraded| async move {
        if let Err(error) = over_spdy(plan, TokioIo::new(upgraded)).await {
            tracing::debug!(%error, "exec session failed");
        }
    });
    Ok(response)
}

fn size(bytes: &[u8]) -> Option<TerminalSize> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let number = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
    Some(TerminalSize { width: number("Width")?, height: number("Height")? })
}

async fn over_websocket(plan: Plan, socket: Socket) {
    let (sink, stream) = socket.split();
    let sink = Arc::new(tokio::sync::Mutex::new(sink));
    let (streams, ends) = plan.pipes();
    let inward = from_client(stream, ends.stdin, ends.resize);
    let session = async {
        let (status, ..) =
            tokio::join!(plan.run(streams), to_client(&sink, 1, ends.stdout), to_client(&sink, 2, ends.stderr));
        let mut sink = sink.lock().await;
        sink.send(channel(3, status.to_string().as_bytes())).await.ok();
        sink.send(websocket::close()).await.ok();
        sink.flush().await.ok();
    };
    tokio::pin!(inward);
    tokio::pin!(session);
    tokio::select! {
        () = &mut session => {}
        // The client has gone: dropping the session tells the program's side.
        () = &mut inward => {}
    }
}

fn channel(number: u8, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.put_u8(number);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

async fn to_client(
    sink: &tokio::sync::Mutex<SplitSink<Socket, Message>>,
    number: u8,
    end: Option<DuplexStream>,
) -> io::Result<()> {
    let Some(mut end) = end else { return Ok(()) };
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let size = end.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        sink.lock().await.send(channel(number, &buffer[..size])).await.map_err(io::Error::other)?;
    }
}

/// Ends when the client closes the connection.
async fn from_client(
    mut stream: SplitStream<Socket>,
    mut stdin: Option<DuplexStream>,
    resize: mpsc::Sender<TerminalSize>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        match bytes.split_first() {
            Some((0, data)) => {
                if let Some(end) = &mut stdin
                    && end.write_all(data).await.is_err()
                {
                    // The program no longer reads.
                    stdin = None;
                }
            }
            Some((4, data)) => {
                if let Some(size) = size(data) {
                    resize.send(size).await.ok();
                }
            }
            Some((255, [0])) => stdin = None,
            _ => {}
        }
    }
}

async fn over_spdy(plan: Plan, socket: TokioIo<hyper::upgrade::Upgraded>) -> io::Result<()> {
    let (opened, frames, run) = spdy::start(socket);
    let session = session(plan, opened, frames);
    tokio::pin!(run);
    tokio::pin!(session);
    tokio::select! {
        done = &mut session => done,
        done = &mut run => done,
    }
}

/// The streams that the client must open, by kind.
async fn streams(plan: &Plan, opened: &mut mpsc::Receiver<Incoming>) -> io::Result<HashMap<String, Incoming>> {
    let mut wanted = vec!["error"];
    for (name, is) in
        [("stdin", plan.stdin), ("stdout", plan.stdout), ("stderr", plan.stderr), ("resize", plan.request.tty)]
    {
        if is {
            wanted.push(name);
        }
    }
    let mut streams: HashMap<String, Incoming> = HashMap::new();
    while wanted.iter().any(|name| !streams.contains_key(*name)) {
        let Some(stream) = opened.recv().await else { return Err(io::Error::from(io::ErrorKind::BrokenPipe)) };
        let kind = stream.headers.get("streamtype").cloned().unwrap_or_default();
        if wanted.contains(&kind.as_str()) {
            streams.insert(kind, stream);
        }
    }
    Ok(streams)
}

async fn session(plan: Plan, mut opened: mpsc::Receiver<Incoming>, frames: Frames) -> io::Result<()> {
    let streams = tokio::time::timeout(STREAMS_TIMEOUT, streams(&plan, &mut opened)).await;
    let mut streams = streams.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (attachment, ends) = plan.pipes();
    let id = |name: &str| streams.get(name).map_or(0, |stream| stream.id);
    let (error, stdout, stderr) = (id("error"), id("stdout"), id("stderr"));
    let stdin = streams.remove("stdin");
    let resize = streams.remove("resize");
    let inward = async {
        if let (Some(mut stream), Some(mut end)) = (stdin, ends.stdin) {
            while let Some(bytes) = stream.data.recv().await {
                if end.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let sizes = async {
        let mut stream = resize;
        while let Some(bytes) = match &mut stream {
            Some(stream) => stream.data.recv().await,
            None => None,
        } {
            if let Some(size) = size(&bytes) {
                ends.resize.send(size).await.ok();
            }
        }
        std::future::pending::<()>().await;
    };
    let work = async {
        let (status, ..) =
            tokio::join!(plan.run(attachment), pump(&frames, stdout, ends.stdout), pump(&frames, stderr, ends.stderr));
        frames.data(error, status.to_string().as_bytes(), true).await
    };
    tokio::pin!(inward);
    tokio::pin!(sizes);
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        () = &mut inward => Ok(()),
        () = &mut sizes => Ok(()),
    };
    // The client closes when it has read the status; until then the connection stays.
    let wait = async { while opened.recv().await.is_some() {} };
    tokio::time::timeout(CLOSE_TIMEOUT, wait).await.ok();
    done
}

async fn pump(frames: &Frames, id: u32, end: Option<DuplexStream>) -> io::Result<()> {
    let Some(mut end) = end else { return Ok(()) };
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let size = end.read(&mut buffer).await?;
        if size == 0 {
            return frames.data(id, &[], true).await;
        }
        frames.data(id, &buffer[..size], false).await?;
    }
}
