//! One type's subscription: what was asked for, what the client has, and what is to be looked at again.
//!
//! Never here: the order between types, or nonces of a stream. Used by `session`.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map},
    mem,
    num::NonZeroU64,
    sync::Arc,
};

use api::spec::ResourceKind;
use api_xds::discovery::DeltaDiscoveryRequest;

use super::{Encoded, Offer};
use crate::limits::NAMES_MAX;

const EVERYTHING: &str = "*";

/// The client asks for more names than one may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("more than {NAMES_MAX} names of one type were asked for")]
pub(crate) struct Overfull;

/// How a subscription stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Snapshot that the last response was made from, or that the client came back to; none: nothing was sent.
    pub(crate) edition: Option<u64>,
    /// Nonce of the last response.
    pub(crate) sent: u64,
    /// Nonce of the last response that was answered.
    pub(crate) answered: u64,
    /// Why the last answered response was refused.
    pub(crate) refusal: Option<String>,
    /// Names that it has or asks for.
    pub(crate) names: usize,
}

/// What is to be sent.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) resources: Vec<Arc<Encoded>>,
    /// Names the client did not have.
    pub(super) new: Vec<Arc<str>>,
    /// Names the client has in another version, or wants again.
    pub(super) changed: Vec<Arc<str>>,
    pub(super) removed: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
enum Look {
    #[default]
    Nowhere,
    At(BTreeSet<Arc<str>>),
    Everywhere,
}

#[derive(Debug, Default)]
struct Entry {
    /// Asked for by name.
    asked: bool,
    /// The version that the client was last sent.
    has: Option<NonZeroU64>,
}

/// One type's subscription.
#[derive(Debug, Default)]
pub(super) struct Watch {
    wildcard: bool,
    entries: HashMap<Arc<str>, Entry>,
    look: Look,
    /// To be sent even if the client has them, or said to be absent.
    again: BTreeSet<Arc<str>>,
    /// Gone from the mesh; the client is told at the end of the push.
    going: BTreeSet<Arc<str>>,
    /// The client waits for an answer, if only an empty one.
    owed: bool,
    /// The client came back with what it has.
    resumed: bool,
    pub(super) nonce: u64,
    pub(super) answered: u64,
    pub(super) edition: u64,
    pub(super) refusal: Option<String>,
}

/// Types that a request without names asks everything of.
fn has_wildcard(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::Cluster | ResourceKind::Listener)
}

/// Types whose removal is told last, because others may refer to them.
fn goes_last(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::Cluster | ResourceKind::Endpoints | ResourceKind::Routes)
}

impl Watch {
    pub(super) fn watched(&self) -> Watched {
        Watched {
            edition: (self.nonce > 0 || self.resumed).then_some(self.edition),
            sent: self.nonce,
            answered: self.answered,
            refusal: self.refusal.clone(),
            names: self.entries.len(),
        }
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.entries.get(name).is_some_and(|entry| entry.asked)
    }

    pub(super) fn send_again(&mut self, name: &Arc<str>) {
        self.again.insert(Arc::clone(name));
    }

    pub(super) fn look_at_all(&mut self) {
        self.look = Look::Everywhere;
    }

    pub(super) fn look_at(&mut self, names: &BTreeSet<Arc<str>>) {
        let entries = &self.entries;
        let wildcard = self.wildcard;
        let wanted = names.iter().filter(|name| wildcard || entries.contains_key(*name)).cloned();
        match &mut self.look {
            Look::Everywhere => {}
            Look::At(known) => known.extend(wanted),
            Look::Nowhere => {
                let wanted: BTreeSet<Arc<str>> = wanted.collect();
                if !wanted.is_empty() {
                    self.look = Look::At(wanted);
                }
            }
        }
    }

    fn ask_for(&mut self, kind: ResourceKind, name: &str, offer: &impl Offer) -> Result<&mut Entry, Overfull> {
        if self.entries.len() >= NAMES_MAX && !self.entries.contains_key(name) {
            return Err(Overfull);
        }
        let name = offer.known(kind, name).unwrap_or_else(|| Arc::from(name));
        let entry = self.entries.entry(name).or_default();
        entry.asked = true;
        Ok(entry)
    }

    /// Delta: takes names in and out; true: something is asked for.
    pub(super) fn subscribe(
        &mut self,
        kind: ResourceKind,
        first: bool,
        request: &DeltaDiscoveryRequest,
        offer: &impl Offer,
    ) -> Result<bool, Overfull> {
        let wanted = &request.resource_names_subscribe;
        if first {
            let everything = wanted.iter().any(|name| name == EVERYTHING);
            self.wildcard = everything || (has_wildcard(kind) && wanted.is_empty());
            self.look_at_all();
            self.resumed = !request.initial_resource_versions.is_empty();
            self.owed = !self.resumed;
            self.edition = offer.edition();
            for (name, version) in &request.initial_resource_versions {
                let asked = wanted.contains(name);
                let entry = self.ask_for(kind, name, offer)?;
                entry.asked = asked;
                // A version that is none of ours is different from all of ours.
                entry.has = u64::from_str_radix(version, 16).ok().and_then(NonZeroU64::new).or(Some(NonZeroU64::MAX));
            }
        }
        for name in wanted {
            if name == EVERYTHING {
                self.wildcard = true;
                self.look_at_all();
                continue;
            }
            self.ask_for(kind, name, offer)?;
            if !(first && request.initial_resource_versions.contains_key(name)) {
                self.again.insert(offer.known(kind, name).unwrap_or_else(|| Arc::from(name.as_str())));
            }
        }
        for name in &request.resource_names_unsubscribe {
            if name == EVERYTHING {
                self.wildcard = false;
                self.entries.retain(|_, entry| entry.asked);
            } else if self.wildcard {
                if let Some(entry) = self.entries.get_mut(name.as_str()) {
                    entry.asked = false;
                }
            } else {
                self.entries.remove(name.as_str());
                self.going.remove(name.as_str());
                self.again.remove(name.as_str());
            }
        }
        Ok(first || !wanted.is_empty() || !request.resource_names_unsubscribe.is_empty())
    }

    /// State of the world: the names are all that is asked for; true: they are others than before.
    pub(super) fn ask(
        &mut self,
        kind: ResourceKind,
        fresh: bool,
        names: &[String],
        offer: &impl Offer,
    ) -> Result<bool, Overfull> {
        if fresh {
            self.owed = true;
            self.look_at_all();
        }
        let everything = names.iter().any(|name| name == EVERYTHING);
        let was_everything = self.wildcard;
        self.wildcard = everything || (has_wildcard(kind) && names.is_empty() && (fresh || self.wildcard));
        let named: HashSet<&str> = names.iter().map(String::as_str).filter(|name| *name != EVERYTHING).collect();
        let mut different = fresh || self.wildcard != was_everything;
        for name in &named {
            if self.entries.get(*name).is_none_or(|entry| !entry.asked) {
                different = true;
                self.ask_for(kind, name, offer)?;
                self.again.insert(offer.known(kind, name).unwrap_or_else(|| Arc::from(*name)));
            }
        }
        let wildcard = self.wildcard;
        self.entries.retain(|name, entry| {
            if entry.asked && !named.contains(&**name) {
                entry.asked = false;
                different |= has_wildcard(kind);
            }
            entry.asked || wildcard
        });
        if different && has_wildcard(kind) {
            self.owed = true;
            self.look_at_all();
        }
        Ok(different)
    }

    fn candidates(&mut self, kind: ResourceKind, offer: &impl Offer) -> BTreeSet<Arc<str>> {
        let mut names = match mem::take(&mut self.look) {
            Look::Nowhere => BTreeSet::new(),
            Look::At(names) => names,
            Look::Everywhere => {
                let mut names: BTreeSet<Arc<str>> = self.entries.keys().cloned().collect();
                if self.wildcard {
                    names.extend(offer.names(kind));
                }
                names
            }
        };
        names.extend(self.again.iter().cloned());
        names.retain(|name| self.wildcard || self.entries.contains_key(name));
        names
    }

    /// Compares what the client has with what there is, and notes it as sent.
    fn compare(&mut self, kind: ResourceKind, offer: &impl Offer) -> Findings {
        let mut findings = Findings::default();
        for name in self.candidates(kind, offer) {
            let again = self.again.remove(&name);
            let Some(encoded) = offer.encoded(kind, &name) else {
                let has = self.entries.get(&name).is_some_and(|entry| entry.has.is_some());
                if has && goes_last(kind) {
                    self.going.insert(name);
                } else if has || again {
                    self.forget(&name);
                    findings.removed.push(name);
                }
                continue;
            };
            self.going.remove(&name);
            let entry = match self.entries.entry(Arc::clone(&name)) {
                hash_map::Entry::Occupied(entry) => entry.into_mut(),
                hash_map::Entry::Vacant(entry) => entry.insert(Entry::default()),
            };
            match entry.has.replace(encoded.version) {
                None => findings.new.push(name),
                Some(version) if version != encoded.version || again => findings.changed.push(name),
                Some(_) => continue,
            }
            findings.resources.push(encoded);
        }
        findings
    }

    fn forget(&mut self, name: &Arc<str>) {
        if let hash_map::Entry::Occupied(mut entry) = self.entries.entry(Arc::clone(name)) {
            entry.get_mut().has = None;
            if !entry.get().asked {
                entry.remove();
            }
        }
    }

    fn at_rest(&self) -> bool {
        matches!(self.look, Look::Nowhere) && self.again.is_empty() && !self.owed
    }

    /// Delta: what was added or changed, and the removals that need not wait.
    pub(super) fn changes(&mut self, kind: ResourceKind, offer: &impl Offer) -> Option<Findings> {
        if self.at_rest() {
            return None;
        }
        let findings = self.compare(kind, offer);
        let owed = mem::take(&mut self.owed);
        (owed || !findings.resources.is_empty() || !findings.removed.is_empty()).then_some(findings)
    }

    /// Delta: the removals that had to wait.
    pub(super) fn removals(&mut self, kind: ResourceKind, offer: &impl Offer) -> Option<Findings> {
        if self.going.is_empty() {
            return None;
        }
        let mut findings = Findings::default();
        for name in mem::take(&mut self.going) {
            if offer.known(kind, &name).is_some() {
                self.look_at(&BTreeSet::from([name])); // back before it was gone
            } else {
                self.forget(&name);
                findings.removed.push(name);
            }
        }
        (!findings.removed.is_empty()).then_some(findings)
    }

    /// State of the world: everything asked for where the type wants that and something differs, else what differs.
    pub(super) fn state(&mut self, kind: ResourceKind, offer: &impl Offer) -> Option<Findings> {
        if self.at_rest() {
            return None;
        }
        let mut findings = self.compare(kind, offer);
        let owed = mem::take(&mut self.owed);
        if !has_wildcard(kind) {
            for name in mem::take(&mut self.going) {
                self.forget(&name);
            }
            findings.removed.clear();
            return (owed || !findings.resources.is_empty()).then_some(findings);
        }
        if !owed && findings.resources.is_empty() && findings.removed.is_empty() {
            return None;
        }
        findings.resources = self.all(kind, offer);
        // What is going stays until routes have left it, where its bytes are still at hand.
        findings.resources.extend(self.going.iter().filter_map(|name| offer.last_known(kind, name)));
        Some(findings)
    }

    /// State of the world: everything asked for, without what has gone.
    pub(super) fn state_after_removals(&mut self, kind: ResourceKind, offer: &impl Offer) -> Option<Findings> {
        let removed = self.removals(kind, offer)?;
        has_wildcard(kind).then(|| Findings { resources: self.all(kind, offer), ..removed })
    }

    fn all(&self, kind: ResourceKind, offer: &impl Offer) -> Vec<Arc<Encoded>> {
        let mut names: Vec<&Arc<str>> =
            self.entries.iter().filter(|(_, entry)| entry.has.is_some()).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.into_iter().filter_map(|name| offer.encoded(kind, name)).collect()
    }
}
