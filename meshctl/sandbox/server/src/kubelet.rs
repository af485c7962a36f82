//! What the server asks of the node, and of the sandbox's network.
//!
//! [`Kubelet`] gives logs and streams of a running Pod; [`Dial`] connects to an address that only exists inside the
//! sandbox (webhooks). Never here: an implementation, the wire protocols of the streams (see `stream`).
//! Implemented by `sandbox-node`; called by `stream` and `admission`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Bytes that come.
pub type Readable = Pin<Box<dyn AsyncRead + Send>>;
/// Bytes that go.
pub type Writable = Pin<Box<dyn AsyncWrite + Send>>;

/// A connection: both directions.
pub trait Both: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Both for T {}

/// A connection: both directions.
pub type Duplex = Pin<Box<dyn Both>>;

/// Which Pod is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a Pod of the same name made later is another one.
    pub uid: String,
}

/// What `kubectl logs` asks; the container is always named by the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogRequest {
    /// The container.
    pub container: String,
    /// Go on until the container ends.
    pub follow: bool,
    /// The run before the present one.
    pub previous: bool,
    /// Put the time before each line (RFC 3339, nanoseconds).
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines written since this moment (seconds since 1970).
    pub since: Option<i64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Which program to run in a container, or (without a command) to attach to its main process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// The container.
    pub container: String,
    /// Program and arguments; empty for attach.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
}

/// Width and height of the client's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The client's ends of the streams of an exec or attach. With a terminal there is no `stderr`.
pub struct Attachment {
    /// What the client types; its end is the program's end of input.
    pub stdin: Option<Readable>,
    /// Where the program's output goes.
    pub stdout: Option<Writable>,
    /// Where its errors go.
    pub stderr: Option<Writable>,
    /// New sizes of the client's terminal.
    pub resize: mpsc::Receiver<TerminalSize>,
}

/// Why the node could not give a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The Pod or container is not (or no longer) here.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense now (container not started, no previous run, …); the text goes to the client.
    #[error("{0}")]
    BadRequest(String),
    /// The program could not be started; the text goes to the client.
    #[error("{0}")]
    CannotStart(String),
    /// Connecting or copying failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The node's side of logs, exec, attach and port-forward.
pub trait Kubelet: Send + Sync + 'static {
    /// The lines of a container's log, as bytes. With `follow` the stream ends when the container does.
    fn logs(&self, pod: PodRef, request: LogRequest) -> BoxFuture<'static, Result<Readable, StreamError>>;
    /// Runs a program in the container until it ends; gives its exit code (128 + signal when killed).
    /// Dropping the future means that the client has gone.
    fn exec(
        &self,
        pod: PodRef,
        request: ExecRequest,
        streams: Attachment,
    ) -> BoxFuture<'static, Result<i32, StreamError>>;
    /// Connects the client to the container's main process until that ends; gives its exit code.
    fn attach(
        &self,
        pod: PodRef,
        request: ExecRequest,
        streams: Attachment,
    ) -> BoxFuture<'static, Result<i32, StreamError>>;
    /// Connects to a port on the Pod's own 127.0.0.1.
    fn port_forward(&self, pod: PodRef, port: u16) -> BoxFuture<'static, Result<Duplex, StreamError>>;
}

/// Connects to an address inside the sandbox's network (a Pod's or a Service's ClusterIP).
pub trait Dial: Send + Sync + 'static {
    /// Opens a TCP connection.
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Duplex>>;
}
