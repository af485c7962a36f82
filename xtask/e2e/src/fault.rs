//! A proxy that spoils connections: it delays, slows, cuts, ends, stalls, resets or swallows what passes, each way apart.
//!
//! Every fault it does is counted, so that a test can tell that it happened. It runs on a thread of its own in a host.
//! Never here: what must hold when it does. Called by suites.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::netns::Wire;

/// Largest piece that is passed on at a time.
const PIECE_BYTES: usize = 16 * 1024;
/// Most connections at once.
const CONNECTIONS_MAX: usize = 4096;

/// What happens at a byte of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// This way ends cleanly; the other goes on.
    HalfClose,
    /// The connection ends cleanly, both ways.
    Close,
    /// Both sides are reset.
    Reset,
    /// Nothing is read any more: whoever sends is stopped by what is full.
    Stall,
    /// All that comes is taken and passed to nobody.
    Swallow,
}

/// What is done to one way of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Way {
    /// Each piece arrives so much later.
    pub delay: Duration,
    /// Bytes a second; none: as fast as it goes.
    pub rate: Option<u32>,
    /// After so many bytes this happens.
    pub cut: Option<(u64, Cut)>,
}

/// What is done to connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// From the client.
    pub up: Way,
    /// To the client.
    pub down: Way,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    cuts: AtomicU64,
}

/// The proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    counts: Arc<Counts>,
    plan: watch::Sender<Plan>,
    stop: CancellationToken,
}

impl FaultProxy {
    /// Listens in a host, and passes connections on to `to` without a fault.
    ///
    /// # Errors
    /// It cannot listen there.
    pub fn start(wire: &Wire, host: &str, listen: SocketAddr, to: SocketAddr) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let (plan, plans) = watch::channel(Plan::default());
        let stop = CancellationToken::new();
        let (told, ready) = mpsc::channel();
        let (counting, stopped) = (Arc::clone(&counts), stop.clone());
        // The thread ends with the token; whatever it says after it listens has nobody to hear it.
        drop(wire.thread(host, move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let listener = TcpListener::bind(listen).await;
                let (listener, said) = match listener {
                    Ok(listener) => (Some(listener), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                told.send(said).context("nobody waits")?;
                if let Some(listener) = listener {
                    stopped.run_until_cancelled(serve(listener, to, plans, counting)).await;
                }
                Ok(())
            })
        })?);
        ready.recv().context("the fault proxy ended")?.context("the fault proxy cannot listen")?;
        Ok(Self { counts, plan, stop })
    }

    /// What is done from now on. Connections that are open end, so that none keeps what it began with.
    pub fn set(&self, plan: Plan) {
        self.plan.send_replace(plan);
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Relaxed)
    }

    /// Cuts of any kind so far.
    pub fn cuts(&self) -> u64 {
        self.counts.cuts.load(Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, plans: watch::Receiver<Plan>, counts: Arc<Counts>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = open.join_next() => {}
            accepted = listener.accept(), if open.len() < CONNECTIONS_MAX => {
                let Ok((client, _)) = accepted else { continue };
                counts.connections.fetch_add(1, Relaxed);
                let (plans, counts) = (plans.clone(), Arc::clone(&counts));
                open.spawn(async move {
                    if let Err(error) = connection(client, to, plans, &counts).await {
                        eprintln!("  fault proxy: {error:#}");
                    }
                });
            }
        }
    }
}

async fn connection(
    client: TcpStream,
    to: SocketAddr,
    mut plans: watch::Receiver<Plan>,
    counts: &Counts,
) -> Result<()> {
    let plan = *plans.borrow_and_update();
    let upstream = TcpStream::connect(to).await.with_context(|| format!("could not reach {to}"))?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let ((mut client_read, mut client_write), (mut upstream_read, mut upstream_write)) =
        (client.into_split(), upstream.into_split());
    let up = pass(&mut client_read, &mut upstream_write, plan.up, counts);
    let down = pass(&mut upstream_read, &mut client_write, plan.down, counts);
    let both = async { tokio::try_join!(up, down) };
    let ended = tokio::select! {
        ended = both => ended.map(drop),
        // An error means that the proxy ends.
        _ = plans.changed() => Err(End::Close),
    };
    if ended == Err(End::Reset) {
        for socket in [client_read.as_ref(), upstream_read.as_ref()] {
            rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
        }
    }
    Ok(())
}

/// How both ways of a connection end at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Close,
    Reset,
}

/// Passes one way on until it ends cleanly, or both do.
async fn pass(
    from: &mut tcp::OwnedReadHalf,
    to: &mut tcp::OwnedWriteHalf,
    way: Way,
    counts: &Counts,
) -> Result<(), End> {
    let mut passed = 0;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        if let Some((_, cut)) = way.cut.filter(|(at, _)| passed >= *at) {
            counts.cuts.fetch_add(1, Relaxed);
            return act(cut, from, to).await;
        }
        let left = way.cut.map_or(u64::MAX, |(at, _)| at - passed);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let count = from.read(piece.get_mut(..most).unwrap_or_default()).await.map_err(|_| End::Reset)?;
        if count == 0 {
            return to.shutdown().await.map_err(|_| End::Reset);
        }
        tokio::time::sleep(way.delay).await;
        if let Some(rate) = way.rate {
            let seconds = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / f64::from(rate.max(1));
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
        to.write_all(piece.get(..count).unwrap_or_default()).await.map_err(|_| End::Reset)?;
        passed += count as u64;
    }
}

async fn act(cut: Cut, from: &mut tcp::OwnedReadHalf, to: &mut tcp::OwnedWriteHalf) -> Result<(), End> {
    match cut {
        Cut::HalfClose => to.shutdown().await.map_err(|_| End::Reset),
        Cut::Close => Err(End::Close),
        Cut::Reset => Err(End::Reset),
        Cut::Stall => std::future::pending().await,
        Cut::Swallow => {
            let mut nowhere = tokio::io::sink();
            tokio::io::copy(from, &mut nowhere).await.map_err(|_| End::Reset)?;
            std::future::pending().await
        }
    }
}
