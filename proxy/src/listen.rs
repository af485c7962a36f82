//! Listening sockets: one for each worker and listener, kept in step with the table.
//!
//! The control thread binds (so that a port in use is told to pilot) and hands a socket to every worker; the kernel
//! spreads connections over them. A changed listener keeps its sockets; a removed one stops to accept, and what it has
//! accepted ends in its own time.
//! Never here: what becomes of a connection (`serve`). Driven by `control`.

pub(crate) mod detect;
#[cfg(test)]
pub(crate) mod laws;
pub(crate) mod original;
pub(crate) mod serve;
pub(crate) mod sniff;

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
};

use api::spec::ResourceKind;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::{ACCEPT_PAUSE, LISTEN_BACKLOG},
    overload::Full,
    table::{Fault, Tables},
    worker::{Phase, Worker},
};

/// A socket for a worker.
#[derive(Debug)]
pub(crate) struct Opened {
    listener: Arc<str>,
    socket: StdListener,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Open {
    address: SocketAddr,
    stop: CancellationToken,
}

/// All listening sockets of the data plane.
#[derive(Debug)]
pub(crate) struct Sockets {
    workers: Vec<mpsc::UnboundedSender<Opened>>,
    open: HashMap<String, Open>,
}

/// Binds a socket that others may share.
pub(crate) fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

impl Sockets {
    pub(crate) fn new(workers: Vec<mpsc::UnboundedSender<Opened>>) -> Self {
        Self { workers, open: HashMap::new() }
    }

    /// Opens what the table names and closes what it does not; tells which could not be opened.
    pub(crate) fn keep_step(&mut self, tables: &Tables) -> Vec<Fault> {
        let mut faults = Vec::new();
        for listener in tables.table.listeners().map(|listener| &listener.spec).filter(|spec| spec.bind) {
            let same = self.open.get(&listener.name).is_some_and(|open| open.address == listener.address);
            if same {
                continue;
            }
            match self.open_one(&listener.name, listener.address) {
                Ok(opened) => {
                    tracing::info!(listener = %listener.name, address = %listener.address, "listening");
                    if let Some(old) = self.open.insert(listener.name.clone(), opened) {
                        old.stop.cancel();
                    }
                }
                Err(error) => {
                    tracing::warn!(listener = %listener.name, address = %listener.address, %error, "could not listen");
                    let reason = format!("could not listen on {}: {error}", listener.address);
                    faults.push((ResourceKind::Listener, listener.name.clone(), reason));
                }
            }
        }
        self.open.retain(|name, open| {
            let kept = tables.table.listener(name).is_some_and(|listener| listener.spec.bind);
            if !kept {
                tracing::info!(listener = %name, "no longer listening");
                open.stop.cancel();
            }
            kept
        });
        faults
    }

    fn open_one(&self, name: &str, address: SocketAddr) -> io::Result<Open> {
        let sockets = self.workers.iter().map(|_| bind(address)).collect::<io::Result<Vec<_>>>()?;
        let stop = CancellationToken::new();
        let listener: Arc<str> = name.into();
        for (worker, socket) in self.workers.iter().zip(sockets) {
            let opened = Opened { listener: Arc::clone(&listener), socket, stop: stop.clone() };
            if worker.send(opened).is_err() {
                return Err(io::Error::other("a worker has ended"));
            }
        }
        Ok(Open { address, stop })
    }
}

/// Takes the sockets of one worker and accepts on each, until the process closes.
pub(crate) async fn work(worker: Rc<Worker>, mut opened: mpsc::UnboundedReceiver<Opened>) {
    let mut phase = worker.shared.phase.subscribe();
    loop {
        tokio::select! {
            next = opened.recv() => match next {
                Some(next) => {
                    let accepting = Rc::clone(&worker);
                    worker.spawn(accept(accepting, next));
                }
                None => break,
            },
            // An error means that the process ends, too.
            _ = phase.wait_for(|phase| *phase >= Phase::Closing) => break,
        }
    }
}

async fn accept(worker: Rc<Worker>, opened: Opened) {
    let Opened { listener: name, socket, stop } = opened;
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(listener = %name, %error, "could not accept on a socket"),
    };
    let mut phase = worker.shared.phase.subscribe();
    let closing = async move {
        // An error means that the process ends, too.
        let _ended = phase.wait_for(|phase| *phase >= Phase::Closing).await.is_ok();
    };
    tokio::pin!(closing);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = &mut closing => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => begin(&worker, &name, stream, remote),
            Err(error) => {
                tracing::debug!(listener = %name, %error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // What waits in the queue would be reset with the socket.
    while let Some(Ok((stream, remote))) = futures::FutureExt::now_or_never(listener.accept()) {
        begin(&worker, &name, stream, remote);
    }
}

/// Serves a connection, where there is room for it.
pub(crate) fn begin(worker: &Rc<Worker>, name: &Arc<str>, stream: tokio::net::TcpStream, remote: SocketAddr) {
    let stats = &worker.shared.stats;
    match worker.shared.overload.room(stats.downstream_connections.get()) {
        Ok(()) => {}
        Err(Full::Connections) => return stats.connections_overflow.add(1),
        Err(Full::Memory) => return stats.connections_shed.add(1),
    }
    worker.spawn(serve::serve(Rc::clone(worker), Arc::clone(name), stream, remote));
}
