//! What is measured: shapes of traffic, and who is put side by side in each.
//!
//! Never here: how it is measured. Read by `data` and `rig`.

use std::net::SocketAddr;

/// What is spoken on one side of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// HTTP/1 in the clear.
    Http1,
    /// HTTP/2 in the clear.
    Http2,
    /// Mutual TLS.
    Tls,
    /// Bytes without meaning.
    Bytes,
}

/// One hop of a proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    /// What the hop takes.
    pub(super) inward: Side,
    /// What the hop sends.
    pub(super) outward: Side,
    /// Where it takes it.
    pub(super) listen: SocketAddr,
    /// Where it sends it.
    pub(super) upstream: SocketAddr,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Our proxy, with everything on.
    Ours,
    /// Envoy, with the router filter only.
    Envoy,
    /// hyper and rustls, with nothing.
    Floor,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
}

impl Peer {
    /// As tables and `--peer` name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ferromesh",
            Self::Envoy => "envoy",
            Self::Floor => "floor",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }
}

/// How much more than Bookinfo our proxy's tables hold.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    /// Path rules of the virtual host that is asked; the one that matches is the last.
    pub(super) routes: usize,
    /// Services beside Bookinfo's.
    pub(super) hosts: usize,
    /// Authorization rules at the serving side beside the one that lets the caller in.
    pub(super) rules: usize,
}

/// One that is measured in a shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contender {
    /// Who.
    pub(super) peer: Peer,
    /// With tables of this size.
    pub(super) size: Size,
}

/// The way from load to application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Client → proxy → application, HTTP/1 in the clear.
    One,
    /// Client → proxy → mutual TLS → proxy → application; what the client and the application speak.
    Two(Side, Side),
    /// Client → mutual TLS → proxy → application.
    Serving,
    /// Client → proxy → application, bytes.
    Bytes,
}

/// What the client does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Load {
    /// As many HTTP/1 requests as it can, by wrk.
    Wrk {
        /// Connections at once.
        connections: usize,
        /// Body of a reply.
        bytes: usize,
    },
    /// A fixed number of HTTP/1 requests a second.
    Paced {
        /// Requests a second.
        rate: u32,
        /// Connections that share them.
        connections: u32,
    },
    /// As many HTTP/2 requests as it can.
    Http2 {
        /// Connections.
        connections: usize,
        /// Requests at once on each.
        streams: usize,
        /// gRPC calls with 64 bytes each way; else GET.
        grpc: bool,
    },
    /// Reads bytes.
    Bytes {
        /// Connections at once.
        connections: usize,
    },
    /// New connections, each with a full handshake and one request.
    Handshakes {
        /// At once.
        at_once: usize,
    },
    /// Connections that have done one request and stay.
    Idle {
        /// How many.
        connections: usize,
    },
}

/// One shape.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// For `--only`.
    pub(super) name: &'static str,
    /// In words.
    pub(super) what: &'static str,
    /// The way.
    pub(super) layout: Layout,
    /// The load.
    pub(super) load: Load,
    /// Side by side.
    pub(super) contenders: Vec<Contender>,
}

fn peers(peers: &[Peer]) -> Vec<Contender> {
    peers.iter().map(|&peer| Contender { peer, size: Size::default() }).collect()
}

fn sizes(sizes: &[Size]) -> Vec<Contender> {
    sizes.iter().map(|&size| Contender { peer: Peer::Ours, size }).collect()
}

fn shape(name: &'static str, what: &'static str, layout: Layout, load: Load, contenders: Vec<Contender>) -> Shape {
    Shape { name, what, layout, load, contenders }
}

fn wrk(connections: usize) -> Load {
    Load::Wrk { connections, bytes: 64 }
}

/// HTTP/1 in and out.
const TWO: Layout = Layout::Two(Side::Http1, Side::Http1);

/// All shapes, in the order of the report.
pub(super) fn all() -> Vec<Shape> {
    let mut all = side_by_side();
    all.extend(by_size());
    all
}

/// Ours and its peers, with Bookinfo's tables.
fn side_by_side() -> Vec<Shape> {
    use Peer::{Envoy, Floor, Haproxy, Nginx, Ours};
    let everyone = || peers(&[Ours, Envoy, Haproxy, Nginx, Floor]);
    let meshed = || peers(&[Ours, Envoy, Floor]);
    vec![
        shape("one-hop", "one hop, HTTP/1 in the clear, 64 B, 32 connections", Layout::One, wrk(32), everyone()),
        shape("two-hops-1", "two hops, mTLS, 64 B, 1 connection", TWO, wrk(1), meshed()),
        shape("two-hops-32", "two hops, mTLS, 64 B, 32 connections", TWO, wrk(32), meshed()),
        shape("two-hops-256", "two hops, mTLS, 64 B, 256 connections", TWO, wrk(256), meshed()),
        shape(
            "paced",
            "two hops, mTLS, 64 B, 1,000 requests/s over 16 connections",
            TWO,
            Load::Paced { rate: 1000, connections: 16 },
            meshed(),
        ),
        shape(
            "bodies",
            "two hops, mTLS, 64 KiB, 32 connections",
            TWO,
            Load::Wrk { connections: 32, bytes: 64 * 1024 },
            meshed(),
        ),
        shape(
            "http2",
            "two hops, mTLS, HTTP/2 in, HTTP/1 application, 64 B, 4 × 8 streams",
            Layout::Two(Side::Http2, Side::Http1),
            Load::Http2 { connections: 4, streams: 8, grpc: false },
            meshed(),
        ),
        shape(
            "grpc",
            "two hops, mTLS, gRPC unary, 64 B each way, 4 × 8 streams",
            Layout::Two(Side::Http2, Side::Http2),
            Load::Http2 { connections: 4, streams: 8, grpc: true },
            meshed(),
        ),
        shape(
            "tcp",
            "one hop, bytes through, 4 connections",
            Layout::Bytes,
            Load::Bytes { connections: 4 },
            peers(&[Ours, Envoy, Haproxy, Floor]),
        ),
        shape(
            "handshakes",
            "new connections: mTLS handshake, one request, close; 16 at once",
            Layout::Serving,
            Load::Handshakes { at_once: 16 },
            meshed(),
        ),
        shape(
            "idle",
            "one hop, 2,000 idle keep-alive connections",
            Layout::One,
            Load::Idle { connections: 2000 },
            everyone(),
        ),
    ]
}

/// Ours alone, with larger and larger tables.
fn by_size() -> Vec<Shape> {
    let routes = |routes| Size { routes, ..Size::default() };
    let hosts = |hosts| Size { hosts, ..Size::default() };
    let rules = |rules| Size { rules, ..Size::default() };
    vec![
        shape(
            "routes",
            "one hop, path rules of the virtual host, the last one matches",
            Layout::One,
            wrk(32),
            sizes(&[routes(10), routes(100), routes(1000), routes(10_000)]),
        ),
        shape(
            "services",
            "one hop, services in the table",
            Layout::One,
            wrk(32),
            sizes(&[hosts(10), hosts(1000), hosts(10_000)]),
        ),
        shape(
            "rules",
            "two hops, mTLS, authorization rules at the serving side, the last one matches",
            TWO,
            wrk(32),
            sizes(&[rules(0), rules(10), rules(1000)]),
        ),
    ]
}

impl Contender {
    /// As tables name it.
    pub(super) fn name(&self) -> String {
        let Size { routes, hosts, rules } = self.size;
        let name = self.peer.name();
        match (routes, hosts, rules) {
            (0, 0, 0) => name.to_owned(),
            (0, 0, rules) => format!("{name}, {rules} rules"),
            (0, hosts, _) => format!("{name}, {hosts} services"),
            (routes, _, _) => format!("{name}, {routes} routes"),
        }
    }
}

impl Shape {
    /// Whether the load is gRPC.
    pub(super) fn grpc(&self) -> bool {
        matches!(self.load, Load::Http2 { grpc: true, .. })
    }
}
