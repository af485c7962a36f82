//! One HTTP/2 connection to an upstream: its handshake, the task that drives it, and how much it may carry.
//!
//! A stream is counted from the moment that a request gets it until the request's lease ends, so that all streams together
//! never hold more than the connection has room for.
//! Never here: several connections (`pool`), exchanges (`http::h2::client`). Made by `open`.

use std::{
    cell::Cell,
    error::Error,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong, client::SendRequest};
use tokio::{sync::oneshot, time::Instant};

use super::{
    open::Open,
    send::{Broken, SendError, Target},
    tls::Carries,
};
use crate::{
    http::h2::{
        guard::{Guard, Guarded},
        meter::{Look, Meter, Side},
    },
    io::Io,
    limits::{
        H2_HEADER_LIST_BYTES_MAX, H2_LOOK, H2_MEMBER, H2_MESH, H2_PING, H2_RIDDEN, H2_RIDDEN_LIST_BYTES_MAX,
        H2_SEND_BUFFER_BYTES, H2_STRANGER, H2Room, HANDSHAKE_TIMEOUT,
    },
    worker::Worker,
};

/// An HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct Http2 {
    sender: SendRequest<Bytes>,
    pub(super) local: Option<SocketAddr>,
    room: &'static H2Room,
    /// Requests so far, and how many there were at the latest look for idle connections.
    used: Cell<u32>,
    looked: Cell<(u32, Instant)>,
    streams: Cell<u32>,
    /// It takes no more requests.
    over: Cell<bool>,
    /// Dropped with the connection: its task learns that nobody will ask for a stream any more.
    _asked: oneshot::Sender<()>,
}

impl Http2 {
    /// A stream for one more request, where the user's limit, the peer's and ours leave one.
    pub(super) fn stream(self: &Rc<Self>, most: u32) -> Option<(Stream, SendRequest<Bytes>)> {
        let mut sender = self.sender.clone();
        // After GOAWAY, or the connection's end.
        if let Poll::Ready(Err(_)) = sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            self.over.set(true);
            return None;
        }
        let peers = u32::try_from(sender.current_max_send_streams()).unwrap_or(u32::MAX);
        if self.streams.get() >= most.min(peers).min(self.room.streams).max(1) {
            return None;
        }
        self.used.set(self.used.get().saturating_add(1));
        self.streams.set(self.streams.get() + 1);
        Some((Stream(Rc::clone(self)), sender))
    }

    /// Whether it takes no more requests; `uses_max` 0: it does not wear out.
    pub(super) fn is_over(&self, uses_max: u32) -> bool {
        self.over.get() || (uses_max != 0 && self.used.get() >= uses_max)
    }

    /// For how long it has carried nothing, as far as looks from time to time can tell.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        let (used, since) = self.looked.get();
        if self.streams.get() > 0 || used != self.used.get() {
            self.looked.set((self.used.get(), now));
            return Duration::ZERO;
        }
        now.duration_since(since)
    }
}

/// One stream of a connection.
#[derive(Debug)]
pub(super) struct Stream(Rc<Http2>);

impl Stream {
    /// Our address on its connection.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.0.local
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
    }
}

/// Makes a connection speak HTTP/2.
pub(super) async fn handshake(
    worker: &Rc<Worker>,
    target: &Target<'_>,
    io: Io,
    local: Option<SocketAddr>,
    open: Open,
) -> Result<Rc<Http2>, SendError> {
    target.cluster.live.stats.http2_connections_total.add(1);
    let budget = if target.cluster.is_mesh() { &H2_MEMBER } else { &H2_STRANGER };
    let (room, head_bytes) = match target.carries {
        Carries::Ridden => (&H2_RIDDEN, H2_RIDDEN_LIST_BYTES_MAX),
        Carries::Http1 | Carries::Http2 | Carries::Bytes => (&H2_MESH, H2_HEADER_LIST_BYTES_MAX),
    };
    let (guard, guarded) = Guard::new(io, Meter::new(Side::Client, budget, Instant::now()));
    let broken = |source| SendError::Reset { reused: false, source, fields: None };
    let (sender, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(room.stream_bytes)
        .initial_connection_window_size(room.connection_bytes)
        .max_frame_size(room.frame_bytes)
        .max_header_list_size(head_bytes)
        .max_send_buffer_size(H2_SEND_BUFFER_BYTES)
        .handshake(guarded)
        .await
        .map_err(|source| broken(Broken::Http2(source)))?;
    let (asked, unasked) = oneshot::channel();
    // Servers that are no proxies may take pings amiss (gRPC's allow one in five minutes).
    let pings = if target.cluster.is_mesh() && target.tls.is_some() { connection.ping_pong() } else { None };
    let made = Rc::new(Http2 {
        sender,
        local,
        room,
        used: Cell::new(0),
        looked: Cell::new((0, Instant::now())),
        streams: Cell::new(0),
        over: Cell::new(false),
        _asked: asked,
    });
    let (stats, used) = (Arc::clone(&worker.shared.stats), Rc::downgrade(&made));
    let (told, is_told) = oneshot::channel();
    worker.spawn_connection(async move {
        let ended = drive(connection, &guard, alive(pings, used), unasked, told).await;
        drop(open);
        if let Err(error) = &ended {
            tracing::trace!(%error, "upstream connection ended");
        }
        let ended = ended.as_ref().copied().map_err(|error| error as &(dyn Error + 'static));
        guard.farewell(ended, &stats, "upstream").await;
    });
    // How many streams the peer takes is known before it is asked for one.
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, is_told).await {
        Ok(Ok(())) => Ok(made),
        Ok(Err(_)) | Err(_) => Err(broken(Broken::Untold)),
    }
}

/// Moves a connection's bytes until its end: the peer's, that of its last stream when nobody will ask for another, or that
/// of our patience. Tells when the peer has told its settings.
async fn drive(
    mut connection: h2::client::Connection<Guarded, Bytes>,
    guard: &Guard,
    alive: impl Future<Output = ()>,
    mut unasked: oneshot::Receiver<()>,
    told: oneshot::Sender<()>,
) -> Result<(), h2::Error> {
    let (mut told, mut asked) = (Some(told), true);
    let mut connection = poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        if let Some(told) = told.take_if(|_| guard.is_told())
            && told.send(()).is_err()
        {
            tracing::trace!("nobody waits for the upstream's settings any more");
        }
        polled
    });
    let mut alive = pin!(alive);
    let mut looks = tokio::time::interval(H2_LOOK);
    loop {
        tokio::select! {
            ended = &mut connection => return ended,
            // Looking again, it finds out whether it is still in use.
            _ = &mut unasked, if asked => asked = false,
            () = alive.as_mut() => return Ok(()),
            _ = looks.tick() => match guard.look() {
                Look::Over(_) => return Ok(()),
                Look::Busy | Look::Idle(_) => {}
            },
        }
    }
}

/// Waits until the peer does not answer a ping; it is asked while requests are under way.
async fn alive(pings: Option<PingPong>, connection: Weak<Http2>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    let (pause, patience) = H2_PING;
    loop {
        tokio::time::sleep(pause).await;
        if connection.upgrade().is_none_or(|connection| connection.streams.get() == 0) {
            continue;
        }
        // A connection that breaks tells it itself.
        if tokio::time::timeout(patience, pings.ping(Ping::opaque())).await.is_err() {
            return;
        }
    }
}
