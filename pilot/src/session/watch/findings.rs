//! What is to be sent of one type: what the client has, compared with what there is.
//!
//! Never here: what was asked for. Part of [`super`], called by `session`.

use std::{collections::BTreeSet, mem, sync::Arc};

use api::spec::ResourceKind;

use super::{
    super::{Encoded, Offer},
    Look, Watch, goes_last, has_wildcard, table_of,
};

/// What is to be sent.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) resources: Vec<Arc<Encoded>>,
    /// Names the client did not have.
    pub(crate) new: Vec<Arc<str>>,
    /// Names the client has in another version, or wants again.
    pub(crate) changed: Vec<Arc<str>>,
    pub(crate) removed: Vec<Arc<str>>,
}

impl Watch {
    /// Names to compare, in order.
    fn candidates(&mut self, kind: ResourceKind, offer: &impl Offer) -> Vec<Arc<str>> {
        match mem::take(&mut self.look) {
            Look::Nowhere => Vec::new(),
            Look::At(names) => names.into_iter().filter(|name| self.concerns(name)).collect(),
            Look::Everywhere => {
                let mut names = if self.wildcard {
                    offer.names(kind)
                } else if self.tables.is_empty() {
                    Vec::new()
                } else {
                    offer.names(kind).into_iter().filter(|name| self.concerns(name)).collect()
                };
                names.extend(self.entries.iter().map(|(name, _)| Arc::clone(name)));
                names.sort_unstable();
                names.dedup();
                names
            }
        }
    }

    /// Compares what the client has with what there is, and notes it as sent.
    fn compare(&mut self, kind: ResourceKind, offer: &impl Offer) -> Findings {
        let mut findings = Findings::default();
        let everywhere = matches!(self.look, Look::Everywhere);
        for name in self.candidates(kind, offer) {
            let Some(encoded) = offer.encoded(kind, &name) else {
                let Some(entry) = self.entries.get_mut(&name) else { continue };
                let (has, again) = (entry.has().is_some(), entry.again());
                entry.send_again(false);
                if has && goes_last(kind) {
                    self.going.insert(name);
                } else if has || again {
                    self.forget(&name);
                    findings.removed.push(name);
                }
                continue;
            };
            self.going.remove(&name);
            let entry = self.entries.entry(&name, || Arc::clone(&name));
            let (had, again) = (entry.has(), entry.again());
            entry.send_again(false);
            entry.put(Some(encoded.version));
            match had {
                None => findings.new.push(name),
                Some(version) if version != encoded.version || again => findings.changed.push(name),
                Some(_) => continue,
            }
            findings.resources.push(encoded);
        }
        for table in mem::take(&mut self.unanswered) {
            let of_table = |name: &str| table_of(name) == Some(&table);
            if !self.entries.iter().any(|(name, entry)| entry.has().is_some() && of_table(name)) {
                findings.removed.push(table); // it has no hosts
            }
        }
        if everywhere {
            self.entries.shrink();
        }
        findings
    }

    fn forget(&mut self, name: &Arc<str>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.put(None);
        if !entry.asked() {
            self.entries.remove(name);
        }
    }

    pub(super) fn at_rest(&self) -> bool {
        matches!(self.look, Look::Nowhere) && !self.owed
    }

    /// Delta: what was added or changed, and the removals that need not wait.
    pub(crate) fn changes(&mut self, kind: ResourceKind, offer: &impl Offer) -> Option<Findings> {
        if self.at_rest() {
            return None;
        }
        let findings = self.compare(kind, offer);
        let owed = mem::take(&mut self.owed);
        (owed || !findings.resources.is_empty() || !findings.removed.is_empty()).then_some(findings)
    }

    /// Delta: the removals that had to wait.
    pub(crate) fn removals(&mut self, kind: ResourceKind, offer: &impl Offer) -> Option<Findings> {
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
    pub(crate) fn state(&mut self, kind: ResourceKind, offer: &impl Offer) -> Option<Findings> {
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
    pub(crate) fn state_after_removals(&mut self, kind: ResourceKind, offer: &impl Offer) -> Option<Findings> {
        let removed = self.removals(kind, offer)?;
        has_wildcard(kind).then(|| Findings { resources: self.all(kind, offer), ..removed })
    }

    fn all(&self, kind: ResourceKind, offer: &impl Offer) -> Vec<Arc<Encoded>> {
        let had = self.entries.iter().filter(|(_, entry)| entry.has().is_some());
        had.filter_map(|(name, _)| offer.encoded(kind, name)).collect()
    }
}
