//! One type's subscription: what was asked for, what the client has, and what is to be looked at again.
//!
//! Never here: the order between types, or nonces of a stream. Used by `session`.

mod findings;

use std::{
    collections::{BTreeSet, HashSet},
    num::NonZeroU64,
    sync::Arc,
};

use api::spec::{HostName, ResourceKind};
use api_xds::discovery::DeltaDiscoveryRequest;

use super::{
    Offer,
    held::{Entry, Held, VERSION_BITS},
};
use crate::limits::{MUCH_NAMES, NAMES_MAX};
pub(super) use findings::Findings;

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

#[derive(Debug, Default)]
enum Look {
    #[default]
    Nowhere,
    At(BTreeSet<Arc<str>>),
    Everywhere,
}

impl Look {
    fn at(&mut self, name: Arc<str>) {
        match self {
            Self::Everywhere => {}
            Self::At(names) => drop(names.insert(name)),
            Self::Nowhere => *self = Self::At(BTreeSet::from([name])),
        }
    }
}

/// One type's subscription.
#[derive(Debug, Default)]
pub(super) struct Watch {
    wildcard: bool,
    /// Route tables whose virtual hosts are all asked for.
    tables: BTreeSet<Arc<str>>,
    /// Those of them that have not been answered yet.
    unanswered: BTreeSet<Arc<str>>,
    entries: Held,
    look: Look,
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

/// The route table whose hosts a name stands for, all of them: Envoy asks so for virtual hosts.
fn table_of_all(kind: ResourceKind, name: &str) -> Option<&str> {
    (kind == ResourceKind::VirtualHost && HostName::read(name).is_none()).then_some(name)
}

/// The route table that a virtual host's name speaks of.
fn table_of(name: &str) -> Option<&str> {
    HostName::read(name).map(|name| name.table)
}

/// A version as a client gives it back; one that is none of ours is different from all of ours.
fn given_back(version: &str) -> Option<NonZeroU64> {
    let ours = u64::from_str_radix(version, 16).ok().filter(|version| *version < VERSION_BITS);
    NonZeroU64::new(ours.unwrap_or(VERSION_BITS))
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

    /// Whether everything asked for has been looked at and the last response was answered.
    pub(super) fn settled(&self) -> bool {
        self.at_rest() && self.answered == self.nonce
    }

    /// Whether there is much to look at.
    pub(super) fn much(&self) -> bool {
        match &self.look {
            Look::Nowhere => false,
            Look::At(names) => names.len() >= MUCH_NAMES,
            Look::Everywhere => {
                !self.resumed && (self.wildcard || !self.tables.is_empty() || self.entries.len() >= MUCH_NAMES)
            }
        }
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.entries.get(name).is_some_and(Entry::asked)
    }

    /// Whether a name is asked for, or the client has it.
    fn concerns(&self, name: &str) -> bool {
        let of_table = || table_of(name).is_some_and(|table| self.tables.contains(table));
        self.wildcard || self.entries.get(name).is_some() || !self.tables.is_empty() && of_table()
    }

    pub(super) fn send_again(&mut self, name: &Arc<str>) {
        self.entries.entry(name, || Arc::clone(name)).send_again(true);
        self.look.at(Arc::clone(name));
    }

    pub(super) fn look_at_all(&mut self) {
        self.look = Look::Everywhere;
    }

    pub(super) fn look_at(&mut self, names: &BTreeSet<Arc<str>>) {
        if matches!(self.look, Look::Everywhere) {
            return;
        }
        for name in names {
            if self.concerns(name) {
                self.look.at(Arc::clone(name));
            }
        }
    }

    fn ask_for(&mut self, kind: ResourceKind, name: &str, offer: &impl Offer) -> Result<(), Overfull> {
        if self.entries.len() >= NAMES_MAX && self.entries.get(name).is_none() {
            return Err(Overfull);
        }
        let shared = || offer.known(kind, name).unwrap_or_else(|| Arc::from(name));
        self.entries.entry(name, shared).ask(true);
        Ok(())
    }

    /// Asks for a name that is to be answered in any case.
    fn ask_anew(&mut self, kind: ResourceKind, name: &str, offer: &impl Offer) -> Result<(), Overfull> {
        self.ask_for(kind, name, offer)?;
        if let Some(entry) = self.entries.get_mut(name) {
            entry.send_again(true);
        }
        if !matches!(self.look, Look::Everywhere) {
            self.look.at(offer.known(kind, name).unwrap_or_else(|| Arc::from(name)));
        }
        Ok(())
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
            let named: HashSet<&str> = wanted.iter().map(String::as_str).collect();
            if request.initial_resource_versions.len() > NAMES_MAX {
                return Err(Overfull);
            }
            self.entries.extend(request.initial_resource_versions.iter().map(|(name, version)| {
                let mut entry = Entry::default();
                entry.ask(named.contains(name.as_str()));
                entry.put(given_back(version));
                (offer.known(kind, name).unwrap_or_else(|| Arc::from(name.as_str())), entry)
            }));
        }
        for name in wanted {
            if name == EVERYTHING {
                self.wildcard = true;
                self.look_at_all();
            } else if first && request.initial_resource_versions.contains_key(name) {
                // noted already
            } else if let Some(table) = table_of_all(kind, name) {
                if self.tables.len() >= NAMES_MAX && !self.tables.contains(table) {
                    return Err(Overfull);
                }
                let table: Arc<str> = table.into();
                self.unanswered.insert(Arc::clone(&table));
                self.tables.insert(table);
                self.look_at_all();
            } else {
                self.ask_anew(kind, name, offer)?;
            }
        }
        for name in &request.resource_names_unsubscribe {
            if name == EVERYTHING {
                self.wildcard = false;
                self.entries.retain(|_, entry| entry.asked());
            } else if let Some(table) = table_of_all(kind, name) {
                self.tables.remove(table);
                self.unanswered.remove(table);
                self.entries.retain(|name, entry| entry.asked() || table_of(name) != Some(table));
            } else if self.wildcard {
                if let Some(entry) = self.entries.get_mut(name) {
                    entry.ask(false);
                }
            } else {
                self.entries.remove(name);
                self.going.remove(name.as_str());
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
            if self.entries.get(name).is_none_or(|entry| !entry.asked()) {
                different = true;
                self.ask_anew(kind, name, offer)?;
            }
        }
        let wildcard = self.wildcard;
        self.entries.retain(|name, entry| {
            if entry.asked() && !named.contains(&**name) {
                entry.ask(false);
                different |= has_wildcard(kind);
            }
            entry.asked() || wildcard
        });
        if different && has_wildcard(kind) {
            self.owed = true;
            self.look_at_all();
        }
        Ok(different)
    }
}
