//! Logs, exec, attach, port-forward and dialling, as the server asks for them.
//!
//! Copies bytes between the client's streams and a container's. Never here: their wire protocols.
//! Made by `node`, given to the server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use futures::future::BoxFuture;
use sandbox_server::{
    Attachment, Dial, Duplex, ExecRequest, Kubelet, LogRequest, PodRef, Readable, StreamError, Writable,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;

use crate::keeper::wire::Place;
use crate::limits::COPY_BYTES;
use crate::link::{Link, LinkError, Streams};
use crate::pod::live::{Input, Live, Run};
use crate::pod::log::{Filter, Log, Progress, Reader, Stream};
use crate::terminal::Terminal;

/// The node's side of streams.
#[derive(Clone)]
pub(crate) struct Streaming {
    pub(crate) live: Live,
    pub(crate) link: Link,
}

impl From<LinkError> for StreamError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Gone => Self::NotFound(error.to_string()),
            LinkError::Refused(text) => Self::CannotStart(text),
            LinkError::Io(error) => Self::Io(error),
        }
    }
}

impl Streaming {
    fn running(&self, pod: &PodRef, container: &str) -> Result<Run, StreamError> {
        let runs = self.live.find(&pod.uid, container);
        let runs = runs.ok_or_else(|| StreamError::NotFound(format!("container {container} is not on this node")))?;
        runs.current.ok_or_else(|| {
            StreamError::BadRequest(format!("container \"{container}\" in pod \"{}\" is not running", pod.name))
        })
    }

    fn log(&self, pod: &PodRef, request: &LogRequest) -> Result<Readable, StreamError> {
        let container = &request.container;
        let runs = self.live.find(&pod.uid, container);
        let runs =
            runs.ok_or_else(|| StreamError::NotFound(format!("pod \"{}\" has no logs on this node", pod.name)))?;
        let found = if request.previous {
            if runs.logs.len() < 2 {
                return Err(StreamError::BadRequest(format!(
                    "previous terminated container \"{container}\" in pod \"{}\" not found",
                    pod.name
                )));
            }
            runs.logs.first()
        } else {
            runs.logs.last()
        };
        let Some((log, path)) = found else {
            return Err(StreamError::BadRequest(format!(
                "container \"{container}\" in pod \"{}\" is waiting to start: ContainerCreating",
                pod.name
            )));
        };
        let filter = Filter { timestamps: request.timestamps, tail_lines: request.tail_lines, since: request.since };
        let progress = log.as_ref().map(|log| *log.progress().borrow()).unwrap_or_default();
        let (reader, text) = Reader::open(path, filter)?;
        let follow = if request.follow && !request.previous { log.clone() } else { None };
        let (ours, theirs) = tokio::io::duplex(COPY_BYTES);
        let limit = request.limit_bytes.unwrap_or(u64::MAX);
        // Ends when the reader goes or the log ends; owned by the stream it feeds.
        tokio::spawn(async move {
            if let Err(error) = feed(ours, reader, text, follow, progress, limit).await {
                tracing::debug!(%error, "log reader gone");
            }
        });
        Ok(Box::pin(theirs))
    }
}

async fn feed(
    mut to: tokio::io::DuplexStream,
    mut reader: Reader,
    mut text: Vec<u8>,
    follow: Option<Arc<Log>>,
    mut at: Progress,
    mut limit: u64,
) -> io::Result<()> {
    loop {
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(text.len());
        to.write_all(text.get(..length).unwrap_or_default()).await?;
        limit -= length as u64;
        text.clear();
        let Some(log) = &follow else { return Ok(()) };
        if limit == 0 {
            return Ok(());
        }
        let mut progress = log.progress();
        let mut gone = [0];
        let now = tokio::select! {
            now = progress.wait_for(|now| *now != at) => match now { Ok(now) => *now, Err(_) => return Ok(()) },
            // The client has closed its end.
            _ = to.read(&mut gone) => return Ok(()),
        };
        if now.rotations == at.rotations {
            reader.more(&mut text)?;
        } else {
            reader.turn(&mut text)?;
        }
        at = now;
        if now.ended && text.is_empty() {
            return Ok(());
        }
        if now.ended {
            to.write_all(&text).await?;
            return Ok(());
        }
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, to: Option<Writable>) -> io::Result<()> {
    match to {
        Some(mut to) => {
            let mut buffer = vec![0; COPY_BYTES];
            loop {
                let length = from.read(&mut buffer).await?;
                if length == 0 {
                    return to.shutdown().await;
                }
                to.write_all(buffer.get(..length).unwrap_or_default()).await?;
                to.flush().await?;
            }
        }
        None => tokio::io::copy(&mut from, &mut tokio::io::sink()).await.map(drop),
    }
}

async fn copy_in(from: Option<Readable>, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let Some(mut from) = from else { return std::future::pending().await };
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// Passes sizes on until the client has no more.
async fn resize(terminal: &Terminal, mut sizes: tokio::sync::mpsc::Receiver<sandbox_server::TerminalSize>) {
    while let Some(size) = sizes.recv().await {
        if let Err(error) = terminal.resize(size.width, size.height) {
            tracing::debug!(%error, "terminal size");
        }
    }
    std::future::pending().await
}

async fn exec(this: Streaming, pod: PodRef, request: ExecRequest, streams: Attachment) -> Result<i32, StreamError> {
    let run = this.running(&pod, &request.container)?;
    let mut launched = run.runner.exec(request.command, request.tty, streams.stdin.is_some()).await?;
    // From here on: a client may go while its program is still being started.
    let guard = HangUp { link: this.link.clone(), process: Some(launched.process) };
    launched.begun().await?;
    let Attachment { stdin, stdout, stderr, resize: sizes } = streams;
    let output = async {
        match launched.streams {
            Streams::Pipes { stdin: input, stdout: out, stderr: errors } => {
                let typed = async {
                    if let Some(input) = input
                        && let Err(error) = copy_in(stdin, input).await
                    {
                        tracing::debug!(%error, "exec input");
                    }
                    std::future::pending::<()>().await;
                };
                let read = async { tokio::join!(copy(out, stdout), copy(errors, stderr)) };
                tokio::select! { () = typed => {}, _ = read => {} }
            }
            Streams::Terminal(terminal) => {
                let typed = async {
                    if let Err(error) = copy_in(stdin, terminal.clone()).await {
                        tracing::debug!(%error, "exec input");
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = typed => {}
                    () = resize(&terminal, sizes) => {}
                    _ = copy(terminal.clone(), stdout) => {}
                }
            }
        }
    };
    let (_, exit) = tokio::join!(output, launched.exit);
    guard.ended();
    exit.map(|exit| exit.code).map_err(|_| LinkError::Gone.into())
}

/// A client that goes takes its process along.
struct HangUp {
    link: Link,
    process: Option<u64>,
}

impl HangUp {
    fn ended(mut self) {
        self.process = None;
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let link = self.link.clone();
            // One message, then done.
            tokio::spawn(async move { link.signal(process, nix::sys::signal::Signal::SIGKILL).await });
        }
    }
}

async fn attach(this: Streaming, pod: PodRef, request: ExecRequest, streams: Attachment) -> Result<i32, StreamError> {
    let run = this.running(&pod, &request.container)?;
    let Attachment { stdin, stdout, stderr, resize: sizes } = streams;
    let mut output = run.output.subscribe();
    let mut exit = run.exit.clone();
    let once = run.stdin_once;
    let typed = async {
        let done = match (&run.input, stdin) {
            (Input::Terminal(terminal), Some(stdin)) => copy_in(Some(stdin), terminal.clone()).await,
            (Input::Pipe(pipe), Some(mut stdin)) => {
                let mut held = pipe.lock().await;
                let copied = match held.as_mut() {
                    Some(pipe) => tokio::io::copy(&mut stdin, pipe).await.map(drop),
                    None => Ok(()),
                };
                if once {
                    *held = None;
                }
                copied
            }
            (_, None) | (Input::None, Some(_)) => Ok(()),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "attached input");
        }
        std::future::pending::<()>().await;
    };
    let sized = async {
        if let Input::Terminal(terminal) = &run.input {
            resize(terminal, sizes).await;
        }
        std::future::pending::<()>().await;
    };
    let shown = async {
        let (mut stdout, mut stderr) = (stdout, stderr);
        loop {
            let (stream, piece) = match output.recv().await {
                Ok(found) => found,
                Err(RecvError::Lagged(lost)) => {
                    tracing::debug!(lost, "an attached client is too slow");
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            let to = if stream == Stream::Out { &mut stdout } else { &mut stderr };
            if let Some(to) = to
                && (to.write_all(&piece).await.is_err() || to.flush().await.is_err())
            {
                return;
            }
        }
    };
    // The run holds a sender too, so the end is told by the exit, after which what is queued is still shown. As in
    // Kubernetes, being attached to the end is success, whatever the program's own code: that is in the Pod's status.
    let ended = exit.wait_for(Option::is_some);
    let mut shown = std::pin::pin!(shown);
    tokio::select! {
        _ = ended => {}
        () = &mut shown => return Ok(0),
        () = typed => {}
        () = sized => {}
    }
    while futures::poll!(&mut shown).is_pending() && !run.output.is_empty() {
        tokio::task::yield_now().await;
    }
    Ok(0)
}

impl Kubelet for Streaming {
    fn logs(&self, pod: PodRef, request: LogRequest) -> BoxFuture<'static, Result<Readable, StreamError>> {
        let found = self.log(&pod, &request);
        Box::pin(async move { found })
    }

    fn exec(
        &self,
        pod: PodRef,
        request: ExecRequest,
        streams: Attachment,
    ) -> BoxFuture<'static, Result<i32, StreamError>> {
        Box::pin(exec(self.clone(), pod, request, streams))
    }

    fn attach(
        &self,
        pod: PodRef,
        request: ExecRequest,
        streams: Attachment,
    ) -> BoxFuture<'static, Result<i32, StreamError>> {
        Box::pin(attach(self.clone(), pod, request, streams))
    }

    fn port_forward(&self, pod: PodRef, port: u16) -> BoxFuture<'static, Result<Duplex, StreamError>> {
        let this = self.clone();
        Box::pin(async move {
            if !this.live.has(&pod.uid) {
                return Err(StreamError::NotFound(format!("pod \"{}\" is not on this node", pod.name)));
            }
            let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            let stream = this.link.connect(Place::Pod(pod.uid), to).await?;
            Ok(Box::pin(stream) as Duplex)
        })
    }
}

impl Dial for Streaming {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Duplex>> {
        let link = self.link.clone();
        Box::pin(async move {
            let SocketAddr::V4(address) = address else {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "the sandbox has IPv4 only"));
            };
            match link.connect(Place::Sandbox, address).await {
                Ok(stream) => Ok(Box::pin(stream) as Duplex),
                Err(LinkError::Io(error)) => Err(error),
                Err(error) => Err(io::Error::other(error)),
            }
        })
    }
}
