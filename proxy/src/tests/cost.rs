//! What a request costs, in allocations and bytes of state: held against a bare hop that does nothing.
//!
//! Both hops run in this process, each on a thread of its own, under one counting allocator; the bare hop is the very
//! one that the benches use as the floor.
//! Never here: time, which depends on the machine (`xtask/bench` has it). Run by `cargo test`.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
};

use api::spec::{
    AccessLog, Authorization, AuthorizationAction, AuthorizationClause, AuthorizationRule, Listener, Network,
    SourceTest, Spec, UpstreamVersion,
};
use rcgen::SanType;
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::sync::oneshot;

use super::{
    app,
    mesh::{Authority, REVIEWS, WEB, inbound, outbound, serve},
    ok,
};
use floor::{Inward, Outward};

#[path = "../../../xtask/bench/src/floor/hop.rs"]
#[allow(dead_code, unreachable_pub, reason = "the benches use more of it")]
mod floor;

/// Allocations a request that one hop of ours may need beyond the bare hop's.
const MORE_THAN_FLOOR_MAX: f64 = 8.0;
/// The future of one request, from its head to its reply.
const REQUEST_FUTURE_BYTES_MAX: usize = 8 * 1024;

const WARM: u64 = 300;
const ROUNDS: u32 = 5;
const COUNTED: u64 = 200;
/// Threads whose allocations are counted apart; the first is everyone else.
const SLOTS: usize = 5;

static COUNTS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each hop's thread.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count() {
    // A thread that is ending has no slot any more, and nobody asks.
    if let Ok(slot) = SLOT.try_with(Cell::get) {
        COUNTS[slot].fetch_add(1, Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator is")]
// SAFETY: every call is the system allocator's own, with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Something that serves on a thread of its own until dropped.
struct Serving {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.take();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}

/// Serves on a thread that counts into a slot; `begin` gives the address and what must live as long.
fn start<T>(slot: usize, begin: impl AsyncFnOnce() -> (T, SocketAddr) + Send + 'static) -> Serving {
    let (stop, stopped) = oneshot::channel::<()>();
    let (told, address) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tokio::task::LocalSet::new().run_until(async {
            let (kept, address) = begin().await;
            told.send(address).unwrap();
            SLOT.set(slot);
            assert!(stopped.await.is_err(), "only ever dropped");
            SLOT.set(0);
            drop(kept);
        }));
    });
    Serving { address: address.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
}

/// The bare hop.
fn bare(slot: usize, inward: Inward, outward: Outward, upstream: SocketAddr) -> Serving {
    start(slot, async move || {
        let listener = floor::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        (tokio::task::spawn_local(floor::serve(listener, inward, outward, upstream)), address)
    })
}

/// Mutual TLS of the bare hops.
fn bare_tls(authority: &Authority) -> (Inward, Outward) {
    let (chain, key) = authority.sign(SanType::DnsName("floor.test".try_into().unwrap()));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authority.roots.pem().as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = api_rt::tls::provider();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(&provider));
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(chain.clone(), key.clone_key())
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("floor.test").unwrap();
    (Inward::Tls(Arc::new(server).into()), Outward::Tls(Arc::new(client).into(), name))
}

/// Adds what a production listener has on: an access log.
fn logged(mut spec: Spec) -> Spec {
    for listener in spec.listeners.values_mut() {
        let listener: &mut Listener = Arc::make_mut(listener);
        for chain in &mut listener.chains {
            if let Network::Http(server) = &mut chain.network {
                server.access_log = Some(AccessLog { path: "/dev/null".into(), format: None, json: false });
            }
        }
    }
    spec
}

fn allow() -> Vec<Authorization> {
    let principals = SourceTest::Principals(vec!["cluster.local/ns/shop/sa/web".into()]);
    let from = vec![vec![AuthorizationClause::is(principals)]];
    let rule = AuthorizationRule { name: "r".into(), from, to: vec![], origin: None };
    vec![Authorization { action: AuthorizationAction::Allow, rules: vec![rule] }]
}

/// Requests, one after another on one connection.
fn ask(client: &mut TcpStream, times: u64) {
    let mut buf = [0; 4096];
    for _ in 0..times {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nuser-agent: test\r\naccept: */*\r\n\r\n").unwrap();
        let mut filled = 0;
        while !buf[..filled].ends_with(b"here") {
            let count = client.read(&mut buf[filled..]).unwrap();
            assert!(count > 0, "the connection ended");
            filled += count;
        }
        assert!(buf.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&buf[..filled]));
    }
}

/// Allocations a request in two slots: the least of some rounds, as timers of a slow machine count too.
fn counted(address: SocketAddr, slots: [usize; 2]) -> [f64; 2] {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    ask(&mut client, WARM);
    let mut least = [f64::MAX; 2];
    for _ in 0..ROUNDS {
        let before = slots.map(|slot| COUNTS[slot].load(Relaxed));
        ask(&mut client, COUNTED);
        for (least, (slot, before)) in least.iter_mut().zip(slots.into_iter().zip(before)) {
            *least = least.min((COUNTS[slot].load(Relaxed) - before) as f64 / COUNTED as f64);
        }
    }
    least
}

#[test]
fn a_hop_allocates_little_more_than_a_bare_one() {
    let authority = Authority::new();
    let app = start(0, async || ((), app(|_| ok("here")).await));

    let (inward, outward) = bare_tls(&authority);
    let inner = bare(2, inward, Outward::Http1, app.address);
    let outer = bare(1, Inward::Http1, outward, inner.address);
    let floor = counted(outer.address, [1, 2]);

    let (upstream, identity) = (app.address, authority.identity(REVIEWS));
    let inner = start(4, async move || serve(identity, &logged(inbound(upstream, true, allow()))).await);
    let (upstream, identity) = (inner.address, authority.identity(WEB));
    let spec = logged(outbound(&[upstream], &[REVIEWS], UpstreamVersion::Http2));
    let outer = start(3, async move || serve(identity, &spec).await);
    let ours = counted(outer.address, [3, 4]);

    println!("allocations a request: bare {floor:?}, ours {ours:?}");
    for (side, (floor, ours)) in ["calling", "serving"].into_iter().zip(floor.into_iter().zip(ours)) {
        assert!(ours <= floor + MORE_THAN_FLOOR_MAX, "{side} side: {ours} a request, a bare hop {floor}");
    }
}

/// The size of what a function returns, without calling it.
fn size_of_returned<A, B, R>(_: fn(A, B) -> R) -> usize {
    size_of::<R>()
}

#[test]
fn the_future_of_a_request_is_small() {
    let size = size_of_returned(crate::http::handle);
    println!("the future of a request: {size} bytes");
    assert!(size <= REQUEST_FUTURE_BYTES_MAX, "{size} bytes");
}
