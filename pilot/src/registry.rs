//! Who is connected, and how each stands: what `debug` shows.
//!
//! An entry lives as long as its stream holds the ticket.
//! Never here: configuration. Written by `serve`, read by `debug`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use api::{
    name::SpiffeId,
    spec::{Node, ResourceKind},
};

use crate::{
    limits::STREAMS_MAX,
    rights::Right,
    session::{Protocol, Watched},
};

/// One connected client.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Number of the stream.
    pub(crate) stream: u64,
    /// Who it says it is, checked against its identity.
    pub(crate) node: Node,
    /// Identity it proved.
    pub(crate) identity: Option<SpiffeId>,
    /// Version of its program.
    pub(crate) version: String,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// The protocol it speaks.
    pub(crate) protocol: Protocol,
    /// When it came.
    pub(crate) since: SystemTime,
    /// Whether it may be sent certificates.
    pub(crate) right: Right,
    /// How each type stands.
    pub(crate) watched: BTreeMap<ResourceKind, Watched>,
}

/// All connected clients.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next: AtomicU64,
    open: AtomicU64,
    clients: Mutex<BTreeMap<u64, Client>>,
}

impl Registry {
    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a stream in; none: there are too many.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Ticket> {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let ticket = Ticket { of: Arc::clone(self), stream: self.next.fetch_add(1, Ordering::Relaxed) };
        metrics::gauge!("pilot_xds").increment(1.0);
        (open <= STREAMS_MAX as u64).then_some(ticket) // a ticket that is dropped gives its place back
    }

    /// Everyone, in the order they came.
    pub(crate) fn all(&self) -> Vec<Client> {
        self.clients().values().cloned().collect()
    }

    /// The newest stream of a node id, or of `NAME.NAMESPACE`.
    pub(crate) fn find(&self, proxy: &str) -> Option<Client> {
        let is = |node: &Node| node.id == proxy || format!("{}.{}", node.name, node.namespace) == proxy;
        self.clients().values().rev().find(|client| is(&client.node)).cloned()
    }
}

/// A stream's place.
#[derive(Debug)]
pub(crate) struct Ticket {
    of: Arc<Registry>,
    stream: u64,
}

impl Ticket {
    /// Number of the stream.
    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    /// The client has said who it is.
    pub(crate) fn introduce(&self, client: Client) {
        self.of.clients().insert(self.stream, client);
    }

    /// Whether it may be sent certificates now.
    pub(crate) fn permit(&self, right: Right) {
        if let Some(client) = self.of.clients().get_mut(&self.stream) {
            client.right = right;
        }
    }

    /// How its types stand now.
    pub(crate) fn update(&self, watched: impl Iterator<Item = (ResourceKind, Watched)>) {
        if let Some(client) = self.of.clients().get_mut(&self.stream) {
            client.watched = watched.collect();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.of.clients().remove(&self.stream);
        self.of.open.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("pilot_xds").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_limit_to_streams_and_a_place_is_given_back() {
        let registry = Arc::new(Registry::default());
        let mut tickets: Vec<Ticket> = std::iter::from_fn(|| registry.enter()).collect();
        assert_eq!(tickets.len(), STREAMS_MAX);
        assert!(registry.enter().is_none());
        tickets.pop();
        assert!(registry.enter().is_some());
    }
}
