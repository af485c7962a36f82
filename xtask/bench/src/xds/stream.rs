//! One stream: connects, asks in its manner, acknowledges, and comes back with what it has when it is cut.
//!
//! Reads names and versions only. Every stream tells the board when it is configured and when it sees an awaited change.
//! Never here: what is measured (`run`). One task each.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use api::spec::{Node, ProxyKind};
use api_xds::{TYPE_URL_CLUSTER, TYPE_URL_ENDPOINTS, TYPE_URL_LISTENER, TYPE_URL_ROUTES, TYPE_URL_VIRTUAL_HOST, node};
use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use super::{Manner, change::Awaited, mesh, wire};

/// HTTP/2 windows of an Envoy that subscribes by its default cluster.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 24 * 1024 * 1024;
/// How long a cut stream waits before it comes again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

const TYPES: [&str; 5] =
    [TYPE_URL_CLUSTER, TYPE_URL_ENDPOINTS, TYPE_URL_LISTENER, TYPE_URL_ROUTES, TYPE_URL_VIRTUAL_HOST];
const CLUSTERS: usize = 0;
const ENDPOINTS: usize = 1;
const LISTENERS: usize = 2;
const ROUTES: usize = 3;
const HOSTS: usize = 4;

/// What all streams share: names seen, and what they tell of themselves.
#[derive(Debug, Default)]
pub(crate) struct Board {
    ids: RefCell<HashMap<Rc<str>, u32>>,
    names: RefCell<Vec<Rc<str>>>,
    /// When each stream had everything.
    pub(crate) configured: RefCell<Vec<Instant>>,
    /// Bytes of all messages received.
    pub(crate) bytes: Cell<u64>,
    /// Streams that ended although nobody stopped pilot.
    pub(crate) cut: Cell<usize>,
    /// Connections that came to nothing while pilot was there.
    pub(crate) refused: Cell<usize>,
    /// Streams that are open.
    pub(crate) open: Cell<usize>,
    /// True: pilot is being restarted, and streams end.
    pub(crate) restarting: Cell<bool>,
    /// The change that streams watch for.
    pub(crate) awaited: RefCell<Option<Awaited>>,
}

impl Board {
    fn id(&self, name: &str) -> u32 {
        if let Some(id) = self.ids.borrow().get(name) {
            return *id;
        }
        let name: Rc<str> = name.into();
        let mut names = self.names.borrow_mut();
        let id = u32::try_from(names.len()).unwrap_or(u32::MAX);
        names.push(Rc::clone(&name));
        self.ids.borrow_mut().insert(name, id);
        id
    }

    fn name(&self, id: u32) -> String {
        let names = self.names.borrow();
        usize::try_from(id).ok().and_then(|at| names.get(at)).map(|name| name.to_string()).unwrap_or_default()
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures")]
fn now() -> Instant {
    Instant::now()
}

/// One type as a stream holds it.
#[derive(Debug, Default)]
struct Held {
    /// Version by name.
    versions: HashMap<u32, u64>,
    /// Names asked for.
    names: HashSet<u32>,
    /// Names asked for and not answered yet.
    awaited: HashSet<u32>,
    asked: bool,
    answered: bool,
}

/// One stream's memory; it outlives connections.
pub(crate) struct Client {
    manner: Manner,
    node: Node,
    board: Rc<Board>,
    held: [Held; 5],
    configured: bool,
    /// Responses to be answered once everything is there.
    unanswered: Vec<(usize, String)>,
}

fn node_of(index: usize, manner: Manner) -> Node {
    let (app, namespace) = mesh::service(index % mesh::SERVICES);
    let name = format!("{app}-{index}");
    let low = |shift: usize| u8::try_from(index >> shift & 0xff).unwrap_or_default();
    let address = IpAddr::from(Ipv4Addr::new(10, 200, low(8), low(0)));
    Node {
        kind: ProxyKind::Sidecar,
        id: format!("sidecar~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        name,
        service_account: "default".to_owned(),
        address,
        labels: [("app".to_owned(), app.clone()), ("version".to_owned(), "v1".to_owned())].into(),
        domain: "cluster.local".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        workload: app,
        namespace,
        on_demand_hosts: manner == Manner::Ours,
        ours: manner == Manner::Ours,
        proxyless: false,
        proxy_header: false,
    }
}

/// The route table behind a listener, by the names that our mesh gives: `0.0.0.0_80` reads requests by `80`.
fn table_of(listener: &str) -> Option<&str> {
    listener.strip_prefix("0.0.0.0_")
}

impl Client {
    pub(crate) fn new(index: usize, manner: Manner, board: &Rc<Board>) -> Self {
        Self {
            manner,
            node: node_of(index, manner),
            board: Rc::clone(board),
            held: Default::default(),
            configured: false,
            unanswered: Vec::new(),
        }
    }

    /// Keeps a stream open for ever.
    pub(crate) async fn run(mut self, address: SocketAddr) {
        loop {
            let (open, restarting) = (Cell::new(false), self.board.restarting.get());
            let ended = self.follow(address, &open).await;
            if !restarting && !self.board.restarting.get() {
                let count = if open.get() { &self.board.cut } else { &self.board.refused };
                count.set(count.get() + 1);
                if let Err(error) = ended {
                    eprintln!("{}: {error:#}", self.node.id);
                }
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn follow(&mut self, address: SocketAddr, opened: &Cell<bool>) -> Result<()> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake::<_, Bytes>(socket)
            .await?;
        let conversation = async {
            let request = http::Request::post(format!("http://{address}{}", wire::PATH))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())?;
            let (response, mut asks) = sender.ready().await?.send_request(request, false)?;
            for ask in self.open() {
                asks.send_data(wire::request(ask), false)?;
            }
            let response = response.await?;
            if response.status() != http::StatusCode::OK || response.headers().contains_key("grpc-status") {
                bail!("refused: {:?}", response.headers());
            }
            let open = Open::on(&self.board);
            opened.set(true);
            let mut body = response.into_body();
            let mut buffer = BytesMut::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk?;
                body.flow_control().release_capacity(chunk.len())?;
                buffer.extend_from_slice(&chunk);
                while let Some(message) = wire::message(&mut buffer) {
                    for ask in self.hear(&message) {
                        asks.send_data(wire::request(ask), false)?;
                    }
                }
            }
            drop(open);
            let trailers = body.trailers().await?.context("no trailers")?;
            bail!("ended: {trailers:?}")
        };
        tokio::select! {
            ended = connection => Ok(ended?),
            ended = conversation => ended,
        }
    }

    fn ask(&mut self, kind: usize, subscribe: Vec<String>) -> wire::Ask {
        let held = &mut self.held[kind];
        let ids: Vec<u32> = subscribe.iter().map(|name| self.board.id(name)).collect();
        if subscribe.iter().all(|name| name != "*") {
            held.names.extend(ids.iter().copied());
            held.awaited.extend(ids);
        }
        held.asked = true;
        wire::Ask { type_url: TYPES[kind], subscribe, ..wire::Ask::default() }
    }

    /// The first requests of a connection.
    fn open(&mut self) -> Vec<wire::Ask> {
        self.unanswered.clear();
        let mut asks = Vec::new();
        if self.held[CLUSTERS].answered {
            // come back: everything asked for so far, with the versions held
            for (kind, held) in self.held.iter_mut().enumerate().filter(|(_, held)| held.asked) {
                let wildcard = kind == CLUSTERS || kind == LISTENERS;
                let names = held.names.iter().map(|id| self.board.name(*id)).collect();
                asks.push(wire::Ask {
                    type_url: TYPES[kind],
                    subscribe: if wildcard { vec!["*".to_owned()] } else { names },
                    held: held.versions.iter().map(|(id, v)| (self.board.name(*id), format!("{v:x}"))).collect(),
                    ..wire::Ask::default()
                });
            }
        } else {
            asks.push(self.ask(CLUSTERS, vec!["*".to_owned()]));
            if self.manner == Manner::Ours {
                asks.push(self.ask(LISTENERS, vec!["*".to_owned()]));
            }
        }
        if let Some(first) = asks.first_mut() {
            first.node = Some(node::write(&self.node, "bench"));
        }
        asks
    }

    /// Takes a response; what to say to it.
    fn hear(&mut self, message: &[u8]) -> Vec<wire::Ask> {
        let response = wire::response(message);
        let Some(kind) = TYPES.iter().position(|url| *url == response.type_url) else { return Vec::new() };
        let board = Rc::clone(&self.board);
        board.bytes.set(board.bytes.get() + message.len() as u64);
        if let Some(awaited) = &mut *board.awaited.borrow_mut() {
            awaited.see(TYPES[kind], &response.resources, message.len(), now());
        }
        let held = &mut self.held[kind];
        held.answered = true;
        for (name, version) in &response.resources {
            let id = board.id(name);
            held.versions.insert(id, u64::from_str_radix(version, 16).unwrap_or_default());
            held.awaited.remove(&id);
            if kind == HOSTS
                && let Some((table, _)) = name.split_once('/')
            {
                held.awaited.remove(&board.id(table));
            }
        }
        for name in &response.removed {
            let id = board.id(name);
            held.versions.remove(&id);
            held.awaited.remove(&id);
        }
        let mut asks = self.follow_up(kind, &response);
        self.unanswered.push((kind, response.nonce.to_owned()));
        if self.manner == Manner::Envoy || self.held.iter().all(|held| held.awaited.is_empty()) {
            let answers = self.unanswered.drain(..);
            asks.extend(answers.map(|(kind, nonce)| wire::Ask {
                type_url: TYPES[kind],
                nonce,
                ..wire::Ask::default()
            }));
        }
        if !self.configured && self.complete() {
            self.configured = true;
            board.configured.borrow_mut().push(now());
        }
        asks
    }

    /// What a response makes a client ask for next.
    fn follow_up(&mut self, kind: usize, response: &wire::Response<'_>) -> Vec<wire::Ask> {
        let fresh = |held: &Held, names: Vec<&str>| -> Vec<String> {
            let new = names.into_iter().filter(|name| !held.names.contains(&self.board.id(name)));
            new.map(str::to_owned).collect()
        };
        let names = response.resources.iter().map(|(name, _)| *name);
        let (next, wanted) = match kind {
            CLUSTERS => {
                let eds = names.filter(|name| name.starts_with("outbound|")).collect();
                (ENDPOINTS, fresh(&self.held[ENDPOINTS], eds))
            }
            LISTENERS => (ROUTES, fresh(&self.held[ROUTES], names.filter_map(table_of).collect())),
            ROUTES if self.manner == Manner::Ours => (HOSTS, fresh(&self.held[HOSTS], names.collect())),
            _ => (kind, Vec::new()),
        };
        let mut asks = Vec::new();
        if !wanted.is_empty() {
            asks.push(self.ask(next, wanted));
        }
        let warm = self.held[ENDPOINTS].answered && self.held[ENDPOINTS].awaited.is_empty();
        if self.manner == Manner::Envoy && warm && !self.held[LISTENERS].asked {
            asks.push(self.ask(LISTENERS, vec!["*".to_owned()]));
        }
        asks
    }

    fn complete(&self) -> bool {
        let needed = if self.manner == Manner::Ours { HOSTS } else { ROUTES };
        self.held[..=needed].iter().all(|held| held.answered && held.awaited.is_empty())
    }
}

/// Counts a stream as open while it lives.
struct Open(Rc<Board>);

impl Open {
    fn on(board: &Rc<Board>) -> Self {
        board.open.set(board.open.get() + 1);
        Self(Rc::clone(board))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}
