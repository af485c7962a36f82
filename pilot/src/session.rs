//! One client's ADS conversation as a pure state machine: what it asked for, what it has, what it is told next.
//!
//! Both protocols (state of the world and delta) share one memory: names and versions. Replies come in an order that
//! leaves no gap: clusters, their endpoints, then what refers to them, and removals of what was referred to at the end.
//! Never here: I/O, clocks, building of resources. Driven by `serve`, one for each stream; read by `debug`.

mod held;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    num::NonZeroU64,
    sync::Arc,
};

use api::spec::ResourceKind;
use api_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Frame};
use tokio::time::Instant;

use crate::limits::WARMING_LIMIT;
pub(crate) use held::VERSION_BITS;
use watch::{Findings, Watch};
pub(crate) use watch::{Overfull, Watched};

/// A resource with its version, encoded once for all clients of one dialect.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    /// Hash of the message, of [`VERSION_BITS`]: equal versions mean equal bytes.
    pub(crate) version: NonZeroU64,
    /// The bytes for both protocols.
    pub(crate) frame: Frame,
}

/// What a client may be told at this moment.
pub(crate) trait Offer {
    /// Number of the snapshot behind it, for people to read.
    fn edition(&self) -> u64;
    /// Names of all resources of a type.
    fn names(&self, kind: ResourceKind) -> Vec<Arc<str>>;
    /// The shared text of a name, where there is such a resource.
    fn known(&self, kind: ResourceKind, name: &str) -> Option<Arc<str>>;
    /// A resource.
    fn encoded(&self, kind: ResourceKind, name: &str) -> Option<Arc<Encoded>>;
    /// The last bytes of a resource that is no more, where they are still at hand.
    fn last_known(&self, kind: ResourceKind, name: &str) -> Option<Arc<Encoded>>;
}

/// Which of the two protocols a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// State of the world.
    Whole,
    /// Delta.
    Delta,
}

/// Names, by type.
pub(crate) type Names = BTreeMap<ResourceKind, BTreeSet<Arc<str>>>;

/// What a request meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It asks for something, or for something else.
    Asked(ResourceKind),
    /// It took the last response.
    Took(ResourceKind),
    /// It refused a response and keeps what it had.
    Refused(ResourceKind, String),
    /// It answers a response that is not the last one; ignored.
    Stale(ResourceKind),
    /// It asks for a type that is not served; ignored.
    Unknown(String),
}

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is being told something.
    Busy,
    /// It has taken everything that it asked for so far; it may ask for more.
    Waiting,
    /// It has taken everything, routes included.
    Configured,
}

/// One response.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Type of its resources.
    pub(crate) kind: ResourceKind,
    nonce: u64,
    edition: u64,
    resources: Vec<Arc<Encoded>>,
    removed: Vec<Arc<str>>,
}

impl Reply {
    /// Number of resources.
    pub(crate) fn len(&self) -> usize {
        self.resources.len()
    }

    /// Bytes of its resources.
    pub(crate) fn bytes(&self) -> usize {
        self.resources.iter().map(|encoded| encoded.frame.delta.len()).sum()
    }

    /// The response as a message of the state-of-the-world protocol.
    pub(crate) fn whole(self) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: self.edition.to_string(),
            resources: self.resources.iter().map(|encoded| encoded.frame.any.clone()).collect(),
            type_url: api_xds::type_url(self.kind).to_owned(),
            nonce: self.nonce.to_string(),
            control_plane: None,
        }
    }

    /// The response as a message of the delta protocol.
    pub(crate) fn delta(self) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            system_version_info: self.edition.to_string(),
            resources: self.resources.iter().map(|encoded| encoded.frame.delta.clone()).collect(),
            type_url: api_xds::type_url(self.kind).to_owned(),
            nonce: self.nonce.to_string(),
            removed_resources: self.removed.iter().map(|name| name.to_string()).collect(),
            control_plane: None,
        }
    }
}

enum Step {
    Tell(ResourceKind),
    Warm,
    Remove(ResourceKind),
}

/// The order that leaves no gap: nothing is referred to before it is there, nothing goes while it is referred to.
const ORDER: [Step; 10] = [
    Step::Tell(ResourceKind::Cluster),
    Step::Tell(ResourceKind::Endpoints),
    Step::Tell(ResourceKind::Secret),
    Step::Warm,
    Step::Tell(ResourceKind::Listener),
    Step::Tell(ResourceKind::Routes),
    Step::Tell(ResourceKind::VirtualHost),
    Step::Remove(ResourceKind::Cluster),
    Step::Remove(ResourceKind::Endpoints),
    Step::Remove(ResourceKind::Routes),
];

/// Clusters that the client was told of and whose endpoints it has not asked for yet.
#[derive(Debug)]
struct Warming {
    clusters: HashSet<Arc<str>>,
    until: Instant,
}

/// One client's conversation.
#[derive(Debug)]
pub(crate) struct Session {
    protocol: Protocol,
    watches: BTreeMap<ResourceKind, Watch>,
    nonce: u64,
    warming: Option<Warming>,
}

impl Session {
    /// A conversation that has not begun.
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self { protocol, watches: BTreeMap::new(), nonce: 0, warming: None }
    }

    /// The client sent a delta request.
    ///
    /// # Errors
    /// It asks for too much.
    pub(crate) fn hear_delta(
        &mut self,
        request: &DeltaDiscoveryRequest,
        offer: &impl Offer,
    ) -> Result<Heard, Overfull> {
        let Some(kind) = api_xds::kind(&request.type_url) else {
            return Ok(Heard::Unknown(request.type_url.clone()));
        };
        let first = !self.watches.contains_key(&kind);
        let watch = self.watches.entry(kind).or_default();
        let asked = watch.subscribe(kind, first, request, offer)?;
        let answered = self.answered(kind, &request.response_nonce, request.error_detail.as_ref().map(|e| &e.message));
        Ok(match answered {
            Heard::Took(_) | Heard::Stale(_) if asked => Heard::Asked(kind),
            Heard::Took(_) | Heard::Stale(_) | Heard::Asked(_) | Heard::Refused(..) | Heard::Unknown(_) => answered,
        })
    }

    /// The client sent a state-of-the-world request.
    ///
    /// # Errors
    /// It asks for too much.
    pub(crate) fn hear_whole(&mut self, request: &DiscoveryRequest, offer: &impl Offer) -> Result<Heard, Overfull> {
        let Some(kind) = api_xds::kind(&request.type_url) else {
            return Ok(Heard::Unknown(request.type_url.clone()));
        };
        // A nonce of another stream says nothing here: the client has come back and is told everything.
        let fresh = request.response_nonce.is_empty() || !self.watches.contains_key(&kind);
        let watch = self.watches.entry(kind).or_default();
        if !fresh && request.response_nonce != watch.nonce.to_string() {
            return Ok(Heard::Stale(kind));
        }
        if fresh {
            *watch = Watch::default();
        }
        let asked = watch.ask(kind, fresh, &request.resource_names, offer)?;
        let answered = self.answered(kind, &request.response_nonce, request.error_detail.as_ref().map(|e| &e.message));
        Ok(match answered {
            Heard::Took(_) | Heard::Stale(_) if asked => Heard::Asked(kind),
            Heard::Took(_) | Heard::Stale(_) | Heard::Asked(_) | Heard::Refused(..) | Heard::Unknown(_) => answered,
        })
    }

    fn answered(&mut self, kind: ResourceKind, nonce: &str, refusal: Option<&String>) -> Heard {
        let Some(watch) = self.watches.get_mut(&kind) else { return Heard::Stale(kind) };
        if nonce.is_empty() {
            return Heard::Asked(kind);
        }
        match nonce.parse::<u64>() {
            Ok(nonce) if nonce <= watch.nonce && nonce > watch.answered => {
                watch.answered = nonce;
                watch.refusal = refusal.cloned();
                refusal.map_or(Heard::Took(kind), |text| Heard::Refused(kind, text.clone()))
            }
            Ok(_) | Err(_) => Heard::Stale(kind),
        }
    }

    /// What the client may be told has changed, under these names.
    pub(crate) fn changed(&mut self, names: &Names) {
        for (kind, names) in names {
            if let Some(watch) = self.watches.get_mut(kind) {
                watch.look_at(names);
            }
        }
    }

    /// Whether there is much to look at before the next response.
    pub(crate) fn much(&self) -> bool {
        self.watches.values().any(Watch::much)
    }

    /// How far the client has come.
    pub(crate) fn progress(&self) -> Progress {
        let told = |kind: &ResourceKind| self.watches.get(kind).is_some_and(|watch| watch.answered > 0);
        if self.warming.is_some() || !self.watches.values().all(Watch::settled) {
            Progress::Busy
        } else if [ResourceKind::Listener, ResourceKind::Routes].iter().all(told) {
            Progress::Configured
        } else {
            Progress::Waiting
        }
    }

    /// The next response that is due, if any; to be called until there is none.
    pub(crate) fn next(&mut self, offer: &impl Offer, now: Instant) -> Option<Reply> {
        for step in &ORDER {
            match *step {
                Step::Tell(kind) => {
                    if let Some(reply) = self.tell(kind, offer, now) {
                        return Some(reply);
                    }
                }
                Step::Warm => {
                    if self.warming.as_ref().is_some_and(|warming| now < warming.until) {
                        return None;
                    }
                    self.warming = None;
                }
                Step::Remove(kind) => {
                    if let Some(reply) = self.remove(kind, offer) {
                        return Some(reply);
                    }
                }
            }
        }
        None
    }

    /// When [`Session::next`] may have more to say although nothing happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.warming.as_ref().map(|warming| warming.until)
    }

    /// How each type that was asked for stands.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (ResourceKind, Watched)> + '_ {
        self.watches.iter().map(|(kind, watch)| (*kind, watch.watched()))
    }

    fn tell(&mut self, kind: ResourceKind, offer: &impl Offer, now: Instant) -> Option<Reply> {
        let watch = self.watches.get_mut(&kind)?;
        let findings = match self.protocol {
            Protocol::Delta => watch.changes(kind, offer)?,
            Protocol::Whole => watch.state(kind, offer)?,
        };
        match kind {
            ResourceKind::Cluster => self.warm(&findings, offer, now),
            ResourceKind::Endpoints => self.warmed(&findings),
            ResourceKind::Listener | ResourceKind::Routes | ResourceKind::VirtualHost | ResourceKind::Secret => {}
        }
        Some(self.reply(kind, offer, findings))
    }

    fn remove(&mut self, kind: ResourceKind, offer: &impl Offer) -> Option<Reply> {
        let watch = self.watches.get_mut(&kind)?;
        let findings = match self.protocol {
            Protocol::Delta => watch.removals(kind, offer)?,
            Protocol::Whole => watch.state_after_removals(kind, offer)?,
        };
        Some(self.reply(kind, offer, findings))
    }

    /// A cluster that changes is warmed anew by its client, which then wants its endpoints again, changed or not; and it
    /// is not there for routes before it has them.
    fn warm(&mut self, findings: &Findings, offer: &impl Offer, now: Instant) {
        let Some(endpoints) = self.watches.get_mut(&ResourceKind::Endpoints) else { return };
        let mut unasked = HashSet::new();
        for name in findings.new.iter().chain(&findings.changed) {
            if offer.known(ResourceKind::Endpoints, name).is_none() {
                continue; // not a cluster whose endpoints are asked for
            }
            if endpoints.wants(name) {
                endpoints.send_again(name);
            } else {
                unasked.insert(Arc::clone(name));
            }
        }
        if !unasked.is_empty() {
            let warming =
                self.warming.get_or_insert_with(|| Warming { clusters: HashSet::new(), until: now + WARMING_LIMIT });
            warming.clusters.extend(unasked);
        }
    }

    fn warmed(&mut self, findings: &Findings) {
        let Some(warming) = &mut self.warming else { return };
        for name in findings.new.iter().chain(&findings.changed).chain(&findings.removed) {
            warming.clusters.remove(name);
        }
        if warming.clusters.is_empty() {
            self.warming = None;
        }
    }

    fn reply(&mut self, kind: ResourceKind, offer: &impl Offer, findings: Findings) -> Reply {
        self.nonce += 1;
        if let Some(watch) = self.watches.get_mut(&kind) {
            watch.nonce = self.nonce;
            watch.edition = offer.edition();
        }
        Reply {
            kind,
            nonce: self.nonce,
            edition: offer.edition(),
            resources: findings.resources,
            removed: findings.removed,
        }
    }
}
