//! One worker's upstream connections, by endpoint and by what protects and rides on them.
//!
//! HTTP/1 connections are used one at a time, the latest first, so that those no longer needed grow old and are closed;
//! HTTP/2 connections carry many requests, the first that has room the next one. One sweep a worker closes what has been
//! idle for too long.
//! Never here: choosing an endpoint, or what to do when none can be reached. Called by `send`.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use api::spec::ProxyVersion;
use bytes::Bytes;
use h2::client::SendRequest;
use hashbrown::HashMap;
use tokio::time::Instant;

use super::{
    http2::{Http2, Stream},
    live::LiveEndpoint,
    open::Open,
    tls::{Carries, Tls},
};
use crate::{
    http::h1::wire::Shared,
    limits::{H2_CONNECTIONS_MAX, H2_SPARE_IDLE, IDLE_CONNECTIONS_MAX, IDLE_H1_MAX, IDLE_SWEEP},
    proxy_header::Ends,
    worker::Worker,
};

/// What connections are alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The endpoint.
    pub(crate) endpoint: u64,
    /// The TLS settings; 0: none.
    pub(crate) tls: u64,
    pub(crate) carries: Carries,
    /// The server name, where it comes from the request.
    pub(crate) server_name: Option<Rc<str>>,
    /// The PROXY header that the connection began with: it is one client's.
    pub(crate) header: Option<(ProxyVersion, Ends)>,
}

/// An HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(super) wire: Shared,
    pub(super) local: Option<SocketAddr>,
    pub(super) used: u32,
    pub(super) idle_since: Instant,
    pub(super) _open: Open,
}

/// A connection for a request.
#[derive(Debug)]
pub(super) enum Connection {
    Http1(Http1),
    Http2(Stream, SendRequest<Bytes>),
}

/// What connections to a host turn out to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// Nobody has asked.
    Unknown,
    Http1,
    Http2,
}

/// How long and how often connections to a host are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wear {
    pub(crate) idle_timeout: Duration,
    /// 0: no limit.
    pub(crate) uses_max: u32,
    pub(crate) streams_max: u32,
}

/// The connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Host {
    endpoint: Arc<LiveEndpoint>,
    /// The TLS settings, as long as a table has them.
    tls: Option<Weak<Tls>>,
    pub(super) wear: Cell<Wear>,
    http1: RefCell<Vec<Http1>>,
    http2: RefCell<Vec<Rc<Http2>>>,
    /// What the latest connection spoke.
    pub(super) speaks: Cell<Speaks>,
    /// Held by whoever opens a connection that may carry the requests of others, so that they wait for it instead of
    /// opening their own.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Connections that could not be made.
    pub(super) failures: Cell<u32>,
}

impl Host {
    /// A connection that takes one more request.
    pub(super) fn find(&self) -> Option<Connection> {
        self.find_http2().or_else(|| self.take_http1().map(Connection::Http1))
    }

    /// An idle HTTP/1 connection that is still open.
    fn take_http1(&self) -> Option<Http1> {
        let mut idle = self.http1.borrow_mut();
        // The others are looked at by the sweep.
        while let Some(connection) = idle.pop() {
            if connection.wire.borrow_mut().is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// A stream of the first HTTP/2 connection that has one: so those no longer needed fall idle.
    fn find_http2(&self) -> Option<Connection> {
        let mut open = self.http2.borrow_mut();
        if open.is_empty() {
            return None;
        }
        let wear = self.wear.get();
        // What takes no more ends when its last stream does.
        open.retain(|connection| !connection.is_over(wear.uses_max));
        let (stream, sender) = open.iter().find_map(|connection| connection.stream(wear.streams_max))?;
        Some(Connection::Http2(stream, sender))
    }

    /// Keeps a new connection; its first stream.
    pub(super) fn add_http2(&self, connection: Rc<Http2>) -> Option<Connection> {
        let first = connection.stream(self.wear.get().streams_max);
        self.http2.borrow_mut().push(connection);
        first.map(|(stream, sender)| Connection::Http2(stream, sender))
    }

    /// Whether no other connection may be opened beside those that there are.
    pub(super) fn is_full(&self) -> bool {
        self.http2.borrow().len() >= H2_CONNECTIONS_MAX
    }

    /// Takes a connection back that has carried its exchange to the end.
    pub(super) fn give_back(&self, mut connection: Http1) {
        let wear = self.wear.get();
        let worn = wear.uses_max != 0 && connection.used >= wear.uses_max;
        if !worn && connection.wire.borrow().is_reusable() {
            connection.wire.borrow_mut().rest();
            connection.idle_since = Instant::now();
            let mut idle = self.http1.borrow_mut();
            if idle.len() < IDLE_CONNECTIONS_MAX {
                idle.push(connection);
            }
        }
    }

    /// Closes what has been idle for too long, and what nobody can choose any more; whether anything is left.
    fn sweep(&self, now: Instant) -> bool {
        let timeout = self.wear.get().idle_timeout;
        let superseded = self.tls.as_ref().is_some_and(|tls| tls.strong_count() == 0);
        let gone = superseded || self.endpoint.gone.is_cancelled();
        let limit = |most: Option<Duration>| match (timeout.is_zero(), most) {
            _ if gone => Duration::ZERO,
            (true, None) => Duration::MAX,
            (true, Some(most)) => most,
            (false, None) => timeout,
            (false, Some(most)) => timeout.min(most),
        };
        let (h1, h2) = (limit(Some(IDLE_H1_MAX)), limit(None));
        let mut idle = self.http1.borrow_mut();
        idle.retain(|c| c.wire.borrow_mut().is_quiet() && now.duration_since(c.idle_since) < h1);
        let mut open = self.http2.borrow_mut();
        let mut kept = 0;
        open.retain(|c| {
            let limit = if kept == 0 { h2 } else { h2.min(H2_SPARE_IDLE) };
            let idle = c.idle(now);
            let keeps = !c.is_over(0) && (idle.is_zero() || idle < limit);
            kept += usize::from(keeps);
            keeps
        });
        !idle.is_empty() || !open.is_empty()
    }
}

/// One worker's upstream connections.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    hosts: RefCell<HashMap<Key, Rc<Host>, foldhash::fast::RandomState>>,
}

impl Pools {
    /// The connections of a kind.
    pub(super) fn host(&self, key: &Key, endpoint: &Arc<LiveEndpoint>, tls: Option<&Arc<Tls>>, wear: Wear) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        if let Some(found) = hosts.get(key) {
            found.wear.set(wear);
            return Rc::clone(found);
        }
        let made = Rc::new(Host {
            endpoint: Arc::clone(endpoint),
            tls: tls.map(Arc::downgrade),
            wear: Cell::new(wear),
            http1: RefCell::default(),
            http2: RefCell::default(),
            speaks: Cell::new(match key.carries {
                Carries::Http2 => Speaks::Http2,
                Carries::Ridden => Speaks::Unknown,
                Carries::Http1 | Carries::Bytes => Speaks::Http1,
            }),
            opening: tokio::sync::Mutex::new(()),
            failures: Cell::new(0),
        });
        hosts.insert(key.clone(), Rc::clone(&made));
        made
    }

    /// Closes all that nobody uses.
    pub(crate) fn let_go(&self) {
        self.hosts.borrow_mut().clear();
    }

    /// Closes what has been idle for too long at this time.
    pub(crate) fn sweep(&self, now: Instant) {
        // A host that someone holds is in use, even when it has no idle connection.
        self.hosts.borrow_mut().retain(|_, host| host.sweep(now) || Rc::strong_count(host) > 1);
    }
}

/// Closes idle connections, again and again.
pub(crate) async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(IDLE_SWEEP).await;
        worker.pools.sweep(Instant::now());
    }
}
