//! The data plane on loopback: whole exchanges between a client, one or two proxies and an application.
//!
//! Each test says what is configured in a few words, sends bytes, and looks at the bytes that come back; ports are the
//! system's choice, nothing waits for luck. Never here: namespaces, pilot or citadel (`xtask/e2e` has them).

mod bytes;
mod clock;
pub(crate) mod corpus;
mod cost;
mod denied;
mod door;
mod exchange;
pub(crate) mod h2;
mod http1;
mod http10;
mod http1_upstream;
mod life;
mod mesh;
mod mirror;
mod pages;
mod ride;
mod ride_peers;
mod ride_told;
mod room;
mod slow;
mod spec;
mod tunnel;
mod unwritten;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use api::spec::Spec;
use api_rt::{clock::Clock, identity::Identity};
use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    access::writer::Writer,
    listen,
    metrics::{Metrics, Party, proxy::ProxyStats},
    overload::Overload,
    table::{Builder, Fault, Resolved, Tables, secrets::SecretStore},
    upstream::live::Live,
    worker::{Own, Phase, Shared, Worker},
};

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(10);

/// A proxy with one worker, on this thread.
struct Proxy {
    worker: Rc<Worker>,
    builder: Builder,
}

impl Proxy {
    fn new(identity: Identity) -> Self {
        Self::by(identity, Clock::system())
    }

    fn by(identity: Identity, clock: Clock) -> Self {
        let stats = Arc::new(ProxyStats::default());
        let metrics = Arc::new(Metrics::default());
        let party = metrics.party(&Party { workload: "own".into(), ..Party::default() });
        let shared = Arc::new(Shared {
            tables: ArcSwap::from_pointee(Tables::default()),
            stats: Arc::clone(&stats),
            metrics: Arc::clone(&metrics),
            log: Writer::start(stats).unwrap(),
            clock,
            identity: identity.clone(),
            own: Own {
                name: "own".into(),
                party,
                metadata_id: HeaderValue::from_static("own"),
                metadata: HeaderValue::from_static(""),
            },
            phase: watch::Sender::new(Phase::Serving),
            overload: Overload::new(u64::MAX),
            epoch: tokio::time::Instant::now(),
        });
        let builder = Builder { identity, metrics, live: Arc::new(Live::default()), secrets: SecretStore::default() };
        Self { worker: Worker::new(shared, 7), builder }
    }

    /// Serves with this spec from now on.
    fn apply(&mut self, spec: &Spec) -> Vec<Fault> {
        let shared = &self.worker.shared;
        let (tables, faults) = self.builder.build(spec, &Resolved::new(), &shared.tables.load());
        shared.tables.store(Arc::new(tables));
        faults
    }

    /// Accepts for a listener of the table.
    async fn listen(&self, name: &str) -> SocketAddr {
        self.listen_on(name, TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// Accepts on a socket for a listener of the table.
    fn listen_on(&self, name: &str, listener: TcpListener) -> SocketAddr {
        let address = listener.local_addr().unwrap();
        let (worker, name): (_, Arc<str>) = (Rc::clone(&self.worker), name.into());
        tokio::task::spawn_local(async move {
            loop {
                let (stream, remote) = listener.accept().await.unwrap();
                listen::begin(&worker, &name, stream, remote);
            }
        });
        address
    }

    fn metrics(&self) -> String {
        let mut out = String::new();
        self.worker.shared.metrics.print(&mut out);
        out
    }
}

/// A proxy without identity that serves one spec.
async fn proxy(spec: &Spec) -> (Proxy, SocketAddr) {
    let mut proxy = Proxy::new(Identity::new());
    let faults = proxy.apply(spec);
    assert!(faults.is_empty(), "{faults:?}");
    let address = proxy.listen(&spec.listeners.values().next().unwrap().name).await;
    (proxy, address)
}

/// Runs a test where tasks may stay on this thread.
fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let set = tokio::task::LocalSet::new();
    runtime.block_on(set.run_until(async {
        tokio::time::timeout(SOON, test).await.expect("the test takes too long");
    }));
}

/// A client's connection.
struct Client(TcpStream);

impl Client {
    async fn to(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one reply: its head and the body that `content-length` announces.
    async fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let mut buf = [0; 4096];
            let count = self.0.read(&mut buf).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&buf[..count]));
            let length = text.to_ascii_lowercase();
            let length =
                length.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            if let Some((_, body)) = text.split_once("\r\n\r\n")
                && body.len() >= length.unwrap_or(0)
            {
                return text;
            }
            assert!(count > 0, "the connection ended after {text:?}");
        }
    }

    async fn ask(&mut self, text: &str) -> String {
        self.send(text).await;
        self.reply().await
    }

    async fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).await.unwrap();
        text
    }
}

/// One exchange on a connection of its own.
async fn ask(address: SocketAddr, text: &str) -> String {
    Client::to(address).await.ask(text).await
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n")
}

/// An application that answers every request with `answer(request head)`, and keeps connections.
async fn app(answer: impl Fn(&str) -> String + 'static) -> SocketAddr {
    app_for(usize::MAX, answer).await
}

/// An application that closes a connection after so many answers.
async fn app_for(uses: usize, answer: impl Fn(&str) -> String + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Rc::new(answer);
    tokio::task::spawn_local(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let answer = Rc::clone(&answer);
            tokio::task::spawn_local(async move {
                for _ in 0..uses {
                    let mut text = String::new();
                    let head = loop {
                        let mut buf = [0; 4096];
                        let count = socket.read(&mut buf).await.unwrap_or(0);
                        if count == 0 {
                            return;
                        }
                        text.push_str(&String::from_utf8_lossy(&buf[..count]));
                        let body: usize = text
                            .to_ascii_lowercase()
                            .split("content-length: ")
                            .nth(1)
                            .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
                            .unwrap_or(0);
                        let chunked = text.to_ascii_lowercase().contains("transfer-encoding: chunked");
                        match text.split_once("\r\n\r\n") {
                            Some((_, rest)) if chunked && rest.ends_with("0\r\n\r\n") => break text.clone(),
                            Some((_, rest)) if !chunked && rest.len() >= body => break text.clone(),
                            _ => {}
                        }
                    };
                    socket.write_all(answer(&head).as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// An address that refuses connections.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
