//! Relays between loopback and the sandbox: NodePorts and LoadBalancer addresses.
//!
//! Each has a listener on the host and one inside; both lead to the Service. Never here: which Services there are.
//! Called by `services`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::keeper::wire::Place;
use crate::limits::RELAYED_MAX;
use crate::link::Link;

/// After `accept` fails (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listen here, lead there.
pub(crate) type Wanted = BTreeMap<SocketAddrV4, SocketAddrV4>;

/// A listener and its connections; they end with it.
struct Task(JoinHandle<()>);

impl Task {
    /// Ends it; its address is free when this returns.
    async fn end(mut self) {
        self.0.abort();
        if let Err(error) = (&mut self.0).await
            && error.is_panic()
        {
            tracing::error!(%error, "a relay failed");
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Running {
    to: SocketAddrV4,
    /// `None`: the host refused it last time.
    host: Option<Task>,
    inside: Option<Task>,
}

/// All running relays.
pub(crate) struct Relays {
    link: Link,
    running: BTreeMap<SocketAddrV4, Running>,
    places: Arc<Semaphore>,
    /// Addresses that the host refused, so that each is reported once.
    refused: BTreeSet<SocketAddrV4>,
}

/// The host would not let us listen.
#[derive(Debug)]
pub(crate) struct HostRefused {
    pub(crate) at: SocketAddrV4,
    pub(crate) error: io::Error,
}

impl Relays {
    pub(crate) fn new(link: Link) -> Self {
        let places = Arc::new(Semaphore::new(RELAYED_MAX));
        Self { link, running: BTreeMap::new(), places, refused: BTreeSet::new() }
    }

    /// Starts and stops relays until they are as wanted; tells what the host newly refused. What could not be had
    /// before is tried again: whoever had the port may be gone.
    pub(crate) async fn set(&mut self, wanted: &Wanted) -> Vec<HostRefused> {
        let over = self.running.iter().filter(|(at, running)| wanted.get(at) != Some(&running.to));
        let over: Vec<SocketAddrV4> = over.map(|(at, _)| *at).collect();
        for at in over {
            let tasks = self.running.remove(&at).map(|running| [running.host, running.inside]);
            for task in tasks.into_iter().flatten().flatten() {
                task.end().await;
            }
        }
        self.refused.retain(|at| wanted.contains_key(at));
        let mut refused = Vec::new();
        for (at, to) in wanted {
            let running = self.running.entry(*at).or_insert(Running { to: *to, host: None, inside: None });
            if running.host.is_none() {
                match listen_on_host(*at).await {
                    Ok(listener) => {
                        running.host = Some(relay(listener, self.link.clone(), *to, &self.places));
                        self.refused.remove(at);
                    }
                    Err(error) => {
                        if self.refused.insert(*at) {
                            refused.push(HostRefused { at: *at, error });
                        }
                    }
                }
            }
            if running.inside.is_none() {
                match self.link.listen(*at.ip(), at.port()).await {
                    Ok(listener) => running.inside = Some(relay(listener, self.link.clone(), *to, &self.places)),
                    Err(error) => tracing::warn!(%at, %error, "cannot listen inside the sandbox"),
                }
            }
        }
        refused
    }
}

fn relay(listener: TcpListener, link: Link, to: SocketAddrV4, places: &Arc<Semaphore>) -> Task {
    let carried = move |stream| {
        let link = link.clone();
        async move {
            if let Err(error) = carry(stream, &link, to).await {
                tracing::debug!(%to, %error, "relayed connection");
            }
        }
    };
    Task(tokio::spawn(serve(listener, Arc::clone(places), carried)))
}

/// Accepts connections and has each carried, for as long as there are places.
async fn serve<F, C>(listener: TcpListener, places: Arc<Semaphore>, carried: F)
where
    F: Fn(TcpStream) -> C,
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let carried = carried(stream);
                        connections.spawn(async move {
                            carried.await;
                            drop(place);
                        });
                    }
                    Err(_) => tracing::warn!(limit = RELAYED_MAX, "too many relayed connections; one refused"),
                },
                Err(error) => {
                    tracing::warn!(%error, "relay cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn listen_on_host(at: SocketAddrV4) -> io::Result<TcpListener> {
    debug_assert!(at.ip().is_loopback());
    TcpListener::bind(at).await
}

async fn carry(mut client: TcpStream, link: &Link, to: SocketAddrV4) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut service = link.connect(Place::Sandbox, to).await.map_err(io::Error::other)?;
    tokio::io::copy_bidirectional(&mut client, &mut service).await.map(drop)
}

/// The loopback address of a LoadBalancer: stable for its name, and another one where that is taken.
pub(crate) fn balancer_address(sandbox: &str, service: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let hash = |text: &str| {
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    };
    let start = hash(&format!("{sandbox}/{service}"));
    // 127.64.0.1 … 127.127.255.254: away from 127.0.0.0/16, which other programs use.
    (0..1024_u64).find_map(|step| {
        let [.., b, c, d] = start.wrapping_add(step.wrapping_mul(7919)).to_be_bytes();
        let address = Ipv4Addr::new(127, 64 | (b & 63), c, d.clamp(1, 254));
        (!taken.contains(&address)).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ended_relay_leaves_its_address_and_no_connection() {
        use tokio::io::AsyncReadExt as _;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (begun, mut begins) = tokio::sync::mpsc::channel(1);
        let carried = move |stream: TcpStream| {
            let begun = begun.clone();
            async move {
                begun.send(()).await.unwrap();
                std::future::pending::<()>().await;
                drop(stream);
            }
        };
        let task = Task(tokio::spawn(serve(listener, Arc::new(Semaphore::new(1)), carried)));
        let mut client = TcpStream::connect(at).await.unwrap();
        begins.recv().await.unwrap();
        task.end().await;
        TcpListener::bind(at).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[test]
    fn an_address_is_stable_and_loopback() {
        let first = balancer_address("a", "istio-system/gateway", &BTreeSet::new()).unwrap();
        assert_eq!(Some(first), balancer_address("a", "istio-system/gateway", &BTreeSet::new()));
        assert!(first.is_loopback());
    }

    #[test]
    fn a_taken_address_is_passed_over() {
        let first = balancer_address("a", "x/y", &BTreeSet::new()).unwrap();
        let second = balancer_address("a", "x/y", &BTreeSet::from([first])).unwrap();
        assert_ne!(first, second);
    }
}
