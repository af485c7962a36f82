//! The daemon's end of the keeper's socket: asks, waits, and routes what comes back.
//!
//! Hands out sockets made inside, starts processes with their streams, tells their ends. Never here: Pods.
//! Called by everything in this crate that touches the sandbox.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::keeper::birth::Keeper;
use crate::keeper::sys;
use crate::keeper::wire::{
    Ask, Command, Exec, Exit, Facts, Person, Place, Request, Say, SocketKind, Start, Target, receive, send,
};
use crate::limits::{COMPLAINT_BYTES_MAX, SOCKETS_AHEAD};
use crate::terminal::Terminal;

/// Why the keeper did not do it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It has ended, and with it the sandbox.
    #[error("the sandbox has ended")]
    Gone,
    /// It tried and failed.
    #[error("{0}")]
    Refused(String),
    /// The socket, a pipe or a file failed here.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<nix::errno::Errno> for LinkError {
    fn from(error: nix::errno::Errno) -> Self {
        Self::Io(error.into())
    }
}

type Answer = Result<Vec<OwnedFd>, LinkError>;

/// A handle on the keeper. Clones share it.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    socket: AsyncFd<OwnedFd>,
    facts: Facts,
    next: AtomicU64,
    answers: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    exits: Mutex<HashMap<u64, oneshot::Sender<Exit>>>,
    ahead: Mutex<Vec<OwnedFd>>,
    gone: CancellationToken,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that was asked for.
pub(crate) struct Launched {
    pub(crate) process: u64,
    pub(crate) exit: oneshot::Receiver<Exit>,
    pub(crate) streams: Streams,
    complaint: pipe::Receiver,
}

/// Its standard streams, this side.
pub(crate) enum Streams {
    Pipes { stdin: Option<pipe::Sender>, stdout: pipe::Receiver, stderr: pipe::Receiver },
    Terminal(Terminal),
}

impl Launched {
    /// Waits until the program runs; the text says why it does not.
    pub(crate) async fn begun(&mut self) -> Result<(), LinkError> {
        let mut text = String::new();
        (&mut self.complaint).take(COMPLAINT_BYTES_MAX).read_to_string(&mut text).await?;
        if text.is_empty() { Ok(()) } else { Err(LinkError::Refused(text)) }
    }
}

/// The child's ends of a process's streams, and ours.
struct Ends {
    theirs: Vec<OwnedFd>,
    complaint: pipe::Receiver,
    ours: Ours,
}

enum Ours {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

fn ends(terminal: bool, stdin: bool) -> Result<Ends, LinkError> {
    let (complaint, complain) = pipe2(OFlag::O_CLOEXEC)?;
    let complaint = pipe::Receiver::from_owned_fd(complaint)?;
    if terminal {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        return Ok(Ends { theirs: vec![complain, theirs], complaint, ours: Ours::Terminal(ours) });
    }
    let (stdin_read, stdin_write) = if stdin {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        (read, Some(write))
    } else {
        (OwnedFd::from(std::fs::File::open("/dev/null")?), None)
    };
    let (stdout, stdout_write) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, stderr_write) = pipe2(OFlag::O_CLOEXEC)?;
    let theirs = vec![complain, stdin_read, stdout_write, stderr_write];
    Ok(Ends { theirs, complaint, ours: Ours::Pipes { stdin: stdin_write, stdout, stderr } })
}

impl Ours {
    async fn open(self) -> Result<Streams, LinkError> {
        match self {
            Self::Pipes { stdin, stdout, stderr } => Ok(Streams::Pipes {
                stdin: stdin.map(pipe::Sender::from_owned_fd).transpose()?,
                stdout: pipe::Receiver::from_owned_fd(stdout)?,
                stderr: pipe::Receiver::from_owned_fd(stderr)?,
            }),
            Self::Terminal(socket) => {
                nonblocking(&socket)?;
                let socket = sys::watched(socket)?;
                loop {
                    let mut ready = socket.readable().await?;
                    match ready.try_io(|socket| receive::<String>(socket.get_ref())) {
                        Ok(found) => {
                            let master = found?.and_then(|(_, fds)| fds.into_iter().next());
                            return Ok(Streams::Terminal(Terminal::new(master.ok_or_else(no_terminal)?)?));
                        }
                        Err(_would_block) => {}
                    }
                }
            }
        }
    }
}

fn no_terminal() -> LinkError {
    LinkError::Refused("the process ended before it had a terminal".to_owned())
}

fn nonblocking(fd: impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Link {
    /// Takes over the keeper's socket; the task reads it until the keeper ends. Needs a tokio runtime.
    pub fn new(keeper: Keeper) -> io::Result<(Self, JoinHandle<()>)> {
        nonblocking(&keeper.socket)?;
        let inner = Arc::new(Inner {
            socket: sys::watched(keeper.socket)?,
            facts: keeper.facts,
            next: AtomicU64::new(1),
            answers: Mutex::default(),
            exits: Mutex::default(),
            ahead: Mutex::default(),
            gone: CancellationToken::new(),
        });
        let reader = tokio::spawn(Arc::clone(&inner).read());
        Ok((Self { inner }, reader))
    }

    /// Cancelled when the keeper has ended.
    pub fn gone(&self) -> CancellationToken {
        self.inner.gone.clone()
    }

    pub(crate) fn facts(&self) -> Facts {
        self.inner.facts
    }

    fn number(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask(&self, request: Request, fds: Vec<OwnedFd>) -> Answer {
        let id = self.number();
        let (sender, answer) = oneshot::channel();
        locked(&self.inner.answers).insert(id, sender);
        let sent = self.send(&Ask { id, request }, &fds).await;
        drop(fds);
        if let Err(error) = sent {
            locked(&self.inner.answers).remove(&id);
            return Err(error.into());
        }
        answer.await.unwrap_or(Err(LinkError::Gone))
    }

    async fn send(&self, ask: &Ask, fds: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        loop {
            let mut ready = self.inner.socket.writable().await?;
            match ready.try_io(|socket| send(socket.get_ref(), ask, &fds)) {
                Ok(sent) => return sent,
                Err(_would_block) => {}
            }
        }
    }

    /// Starts a container's first process. `trees` go with [`Start::programs`].
    pub(crate) async fn start(
        &self,
        mut start: Start,
        stdin: bool,
        trees: Vec<OwnedFd>,
    ) -> Result<Launched, LinkError> {
        let ends = ends(start.command.terminal, stdin)?;
        start.process = self.number();
        let process = start.process;
        self.launch(process, Request::Start(Box::new(start)), ends, trees).await
    }

    /// Starts an extra process.
    pub(crate) async fn exec(&self, target: Target, command: Command, stdin: bool) -> Result<Launched, LinkError> {
        let ends = ends(command.terminal, stdin)?;
        let process = self.number();
        self.launch(process, Request::Exec(Box::new(Exec { process, target, command })), ends, Vec::new()).await
    }

    async fn launch(
        &self,
        process: u64,
        request: Request,
        ends: Ends,
        trees: Vec<OwnedFd>,
    ) -> Result<Launched, LinkError> {
        let (sender, exit) = oneshot::channel();
        locked(&self.inner.exits).insert(process, sender);
        let mut fds = ends.theirs;
        fds.extend(trees);
        if let Err(error) = self.ask(request, fds).await {
            locked(&self.inner.exits).remove(&process);
            return Err(error);
        }
        let mut complaint = ends.complaint;
        let streams = match ends.ours.open().await {
            Ok(streams) => streams,
            Err(error) => {
                let mut text = String::new();
                (&mut complaint).take(COMPLAINT_BYTES_MAX).read_to_string(&mut text).await?;
                return Err(if text.is_empty() { error } else { LinkError::Refused(text) });
            }
        };
        Ok(Launched { process, exit, streams, complaint })
    }

    /// Sends a signal; a process that has ended is no failure.
    pub(crate) async fn signal(&self, process: u64, signal: nix::sys::signal::Signal) {
        if let Err(error) = self.ask(Request::Signal { process, signal: signal as i32 }, Vec::new()).await {
            tracing::debug!(process, %signal, %error, "signal not delivered");
        }
    }

    /// Runs a program of the machine within the sandbox's own network, with `input`; its errors as text.
    pub(crate) async fn run(&self, argv: &[&str], input: &[u8]) -> Result<(), LinkError> {
        use tokio::io::AsyncWriteExt;
        let command = Command {
            argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())],
            directory: "/".to_owned(),
            person: Person {
                uid: 0,
                gid: 0,
                groups: Vec::new(),
                bounding: vec!["CAP_NET_ADMIN".to_owned(), "CAP_NET_RAW".to_owned()],
                ambient: Vec::new(),
                no_new_privileges: true,
            },
            terminal: false,
        };
        let mut launched = self.exec(Target::Sandbox, command, true).await?;
        launched.begun().await?;
        let Streams::Pipes { stdin: Some(mut stdin), mut stdout, mut stderr } = launched.streams else {
            return Err(LinkError::Gone);
        };
        let write = async {
            let written = stdin.write_all(input).await;
            drop(stdin);
            written
        };
        let (mut out, mut errors) = (Vec::new(), String::new());
        let (written, _, _) = tokio::join!(write, stdout.read_to_end(&mut out), stderr.read_to_string(&mut errors));
        let exit = launched.exit.await.map_err(|_| LinkError::Gone)?;
        if exit.code != 0 {
            return Err(LinkError::Refused(format!("{}: {}", argv.join(" "), errors.trim())));
        }
        Ok(written?)
    }

    async fn sockets(&self, place: Place, kind: SocketKind, count: usize) -> Answer {
        self.ask(Request::Sockets { place, kind, count }, Vec::new()).await
    }

    async fn socket(&self, place: Place, kind: SocketKind) -> Result<OwnedFd, LinkError> {
        let found = self.sockets(place, kind, 1).await?;
        found.into_iter().next().ok_or_else(|| LinkError::Refused("no socket came".to_owned()))
    }

    /// Connects from within the sandbox's network, or from within a Pod's.
    pub(crate) async fn connect(&self, place: Place, to: SocketAddrV4) -> Result<TcpStream, LinkError> {
        let socket = match place {
            Place::Sandbox => self.outgoing().await?,
            Place::Pod(_) => self.socket(place, SocketKind::Tcp).await?,
        };
        let stream = TcpSocket::from_std_stream(std::net::TcpStream::from(socket)).connect(SocketAddr::V4(to)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn outgoing(&self) -> Result<OwnedFd, LinkError> {
        if let Some(socket) = locked(&self.inner.ahead).pop() {
            return Ok(socket);
        }
        let mut fresh = self.sockets(Place::Sandbox, SocketKind::Tcp, SOCKETS_AHEAD).await?;
        let socket = fresh.pop().ok_or_else(|| LinkError::Refused("no socket came".to_owned()))?;
        let mut ahead = locked(&self.inner.ahead);
        if ahead.len() < SOCKETS_AHEAD {
            ahead.extend(fresh);
        }
        Ok(socket)
    }

    /// A listener within the sandbox's network.
    pub async fn listen(&self, address: Ipv4Addr, port: u16) -> Result<TcpListener, LinkError> {
        let socket = self.socket(Place::Sandbox, SocketKind::TcpListener(address, port)).await?;
        Ok(TcpListener::from_std(std::net::TcpListener::from(socket))?)
    }

    /// A datagram socket within the sandbox's network.
    pub(crate) async fn datagrams(&self, address: Ipv4Addr, port: u16) -> Result<UdpSocket, LinkError> {
        let socket = self.socket(Place::Sandbox, SocketKind::Udp(address, port)).await?;
        Ok(UdpSocket::from_std(std::net::UdpSocket::from(socket))?)
    }
}

impl Inner {
    async fn read(self: Arc<Self>) {
        if let Err(error) = self.read_all().await {
            tracing::error!(%error, "the keeper's socket failed");
        }
        self.gone.cancel();
        locked(&self.answers).clear();
        locked(&self.exits).clear();
    }

    async fn read_all(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let message = match ready.try_io(|socket| receive::<Say>(socket.get_ref())) {
                Ok(message) => message?,
                Err(_would_block) => continue,
            };
            match message {
                None => return Ok(()),
                Some((Say::Reply { id, result }, fds)) => {
                    if let Some(waiting) = locked(&self.answers).remove(&id) {
                        // Whoever asked may have been cancelled.
                        waiting.send(result.map(|()| fds).map_err(LinkError::Refused)).ok();
                    }
                }
                Some((Say::Exited { process, exit }, _)) => {
                    if let Some(waiting) = locked(&self.exits).remove(&process) {
                        waiting.send(exit).ok();
                    }
                }
                Some((Say::Hello(_), _)) => {}
            }
        }
    }
}
