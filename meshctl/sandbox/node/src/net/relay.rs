//! Relays between loopback and the sandbox: NodePorts and LoadBalancer addresses.
//!
//! Each has a listener on the host and one inside; both lead to the Service. Never here: which Services there are.
//! Called by `services`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::keeper::wire::Place;
use crate::link::Link;

/// The most relayed connections at once.
const CONNECTIONS_MAX: usize = 16_384;

/// Listen here, lead there.
pub(crate) type Wanted = BTreeMap<SocketAddrV4, SocketAddrV4>;

struct Running {
    to: SocketAddrV4,
    stop: CancellationToken,
}

/// All running relays.
pub(crate) struct Relays {
    link: Link,
    running: BTreeMap<SocketAddrV4, Running>,
    tasks: JoinSet<()>,
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
        Self {
            link,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            refused: BTreeSet::new(),
        }
    }

    /// Starts and stops relays until they are as wanted; tells what the host newly refused.
    pub(crate) async fn set(&mut self, wanted: &Wanted) -> Vec<HostRefused> {
        self.running.retain(|at, running| {
            let keep = wanted.get(at) == Some(&running.to);
            if !keep {
                running.stop.cancel();
            }
            keep
        });
        self.refused.retain(|at| wanted.contains_key(at));
        while self.tasks.try_join_next().is_some() {}
        let mut refused = Vec::new();
        for (at, to) in wanted {
            if self.running.contains_key(at) {
                continue;
            }
            let stop = CancellationToken::new();
            self.running.insert(*at, Running { to: *to, stop: stop.clone() });
            match listen_on_host(*at).await {
                Ok(listener) => self.spawn(listener, *to, &stop),
                Err(error) => {
                    if self.refused.insert(*at) {
                        refused.push(HostRefused { at: *at, error });
                    }
                }
            }
            match self.link.listen(*at.ip(), at.port()).await {
                Ok(listener) => self.spawn(listener, *to, &stop),
                Err(error) => tracing::warn!(%at, %error, "cannot listen inside the sandbox"),
            }
        }
        refused
    }

    fn spawn(&mut self, listener: TcpListener, to: SocketAddrV4, stop: &CancellationToken) {
        let (link, places, stop) = (self.link.clone(), Arc::clone(&self.places), stop.clone());
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                            Ok(place) => {
                                let link = link.clone();
                                connections.spawn(async move {
                                    if let Err(error) = carry(stream, &link, to).await {
                                        tracing::debug!(%to, %error, "relayed connection");
                                    }
                                    drop(place);
                                });
                            }
                            Err(_) => tracing::warn!(limit = CONNECTIONS_MAX, "too many relayed connections; one refused"),
                        },
                        Err(error) => {
                            tracing::warn!(%error, "relay cannot accept");
                            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        }
                    },
                }
            }
        });
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
