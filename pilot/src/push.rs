//! Gathers changes, has the mesh resolved, and publishes it.
//!
//! Changes are gathered until it is quiet for a moment; those of endpoints alone take a short lane. What is published
//! never changes; sessions compare for themselves.
//! Never here: Kubernetes, streams. Fed by `main` from a source, watched by `serve`, `status`, `webhook` and `debug`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::note::{Note, Notes, ObjectRef};
use api_kube::source::{Event, Source};
use api_mesh::{
    mesh::{self, Difference, Mesh},
    model::{Catalog, Change, ServiceId},
    object::Stored,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::Cache,
    limits::{CACHE_SWEEP, EVENTS_AT_ONCE, QUIET, QUIET_ENDPOINTS, QUIET_MAX},
    world::World,
};

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
enum Work {
    /// Take the addresses of these services anew.
    Endpoints(BTreeSet<ServiceId>, Instant),
    /// Resolve again.
    Everything(Instant),
}

/// Changes being gathered.
#[derive(Debug, Default)]
struct Gather {
    services: BTreeSet<ServiceId>,
    services_since: Option<Instant>,
    /// First and last change that needs everything.
    everything: Option<(Instant, Instant)>,
    /// Do not wait for quiet.
    hurry: bool,
}

impl Gather {
    fn saw(&mut self, change: Change, now: Instant) {
        match change {
            Change::Nothing => {}
            Change::Endpoints(services) => {
                self.services.extend(services);
                self.services_since.get_or_insert(now);
            }
            Change::Everything => {
                let first = self.everything.map_or(now, |(first, _)| first);
                self.everything = Some((first, now));
            }
        }
    }

    fn endpoints_due(&self) -> Option<Instant> {
        self.services_since.map(|since| since + QUIET_ENDPOINTS)
    }

    fn everything_due(&self) -> Option<Instant> {
        let quiet = |(first, last): (Instant, Instant)| (last + QUIET).min(first + QUIET_MAX);
        self.everything.map(|times| if self.hurry { times.0 } else { quiet(times) })
    }

    fn at_once(&mut self) {
        self.hurry = true;
    }

    fn due(&self) -> Option<Instant> {
        self.endpoints_due().into_iter().chain(self.everything_due()).min()
    }

    fn take(&mut self, now: Instant) -> Option<Work> {
        if let Some((first, _)) = self.everything
            && self.everything_due().is_some_and(|due| due <= now)
        {
            *self = Self::default(); // resolving takes endpoints anew as well
            return Some(Work::Everything(first));
        }
        let since = self.services_since.filter(|since| *since + QUIET_ENDPOINTS <= now)?;
        self.services_since = None;
        Some(Work::Endpoints(std::mem::take(&mut self.services), since))
    }
}

/// The newest snapshot; none before the source was read once.
pub(crate) type Published = watch::Receiver<Option<Arc<World>>>;

/// Gathers and publishes.
pub(crate) struct Push {
    catalog: Arc<Catalog>,
    gather: Gather,
    synced: bool,
    worlds: watch::Sender<Option<Arc<World>>>,
    notes: watch::Sender<Arc<Notes>>,
    /// Objects (and files) that cannot be read.
    broken: BTreeMap<ObjectRef, Note>,
    /// Objects whose stored status says something.
    carrying: watch::Sender<Arc<BTreeSet<ObjectRef>>>,
    cache: Arc<Cache>,
    swept: Instant,
}

impl Push {
    /// Nothing known yet.
    pub(crate) fn new(catalog: Catalog, cache: Arc<Cache>, now: Instant) -> Self {
        Self {
            catalog: Arc::new(catalog),
            gather: Gather::default(),
            synced: false,
            worlds: watch::Sender::new(None),
            notes: watch::Sender::new(Arc::default()),
            broken: BTreeMap::new(),
            carrying: watch::Sender::new(Arc::default()),
            cache,
            swept: now,
        }
    }

    /// Snapshots to come.
    pub(crate) fn worlds(&self) -> Published {
        self.worlds.subscribe()
    }

    /// What there is to say about objects, with each snapshot.
    pub(crate) fn notes(&self) -> watch::Receiver<Arc<Notes>> {
        self.notes.subscribe()
    }

    /// Objects whose stored status says something.
    pub(crate) fn carrying(&self) -> watch::Receiver<Arc<BTreeSet<ObjectRef>>> {
        self.carrying.subscribe()
    }

    /// Gathers and publishes until stopped, or until the source ends.
    pub(crate) async fn run(mut self, mut source: Source, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let due = self.gather.due().filter(|_| self.synced);
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                taken = source.next_many(&mut batch, EVENTS_AT_ONCE) => {
                    if taken == 0 {
                        break;
                    }
                    self.take_in(&mut batch, Instant::now());
                }
                () = wait => {}
            }
            let now = Instant::now();
            if !self.synced || self.gather.due().is_none_or(|due| due > now) {
                continue;
            }
            // Working it out takes a moment; other tasks go on meanwhile.
            let working = tokio::task::spawn_blocking(move || {
                self.publish_due(now);
                self
            });
            self = match working.await {
                Ok(push) => push,
                Err(error) => {
                    tracing::error!(%error, "resolving the mesh failed; proxies keep what they have");
                    return;
                }
            };
        }
    }

    /// Publishes what is due by now.
    pub(crate) fn publish_due(&mut self, now: Instant) {
        while self.synced
            && let Some(work) = self.gather.take(now)
        {
            self.publish(work, now);
        }
    }

    /// Takes events in.
    pub(crate) fn take_in(&mut self, batch: &mut Vec<Event>, now: Instant) {
        metrics::counter!("pilot_k8s_cfg_events").increment(batch.len() as u64);
        for event in batch.drain(..) {
            match event {
                Event::Apply(stored) => {
                    let object = stored.reference();
                    self.mended(&object, now);
                    self.carries(&stored, &object);
                    let change = Arc::make_mut(&mut self.catalog).apply(&stored);
                    self.gather.saw(change, now);
                }
                Event::Delete(object) => {
                    self.mended(&object, now);
                    self.carrying.send_if_modified(|all| Arc::make_mut(all).remove(&object));
                    let change = Arc::make_mut(&mut self.catalog).delete(&object);
                    self.gather.saw(change, now);
                }
                Event::Broken(problem) => {
                    tracing::warn!(place = ?problem.place.map(|place| place.to_string()), problem = %problem.note, "an object cannot be read");
                    self.broken.insert(problem.note.object.clone(), problem.note);
                    self.gather.saw(Change::Everything, now); // for its note
                }
                Event::Mended(object) => self.mended(&object, now),
                Event::Synced => {
                    // The source was read once: publish without waiting for quiet.
                    self.synced = true;
                    self.gather.saw(Change::Everything, now);
                    self.gather.at_once();
                }
            }
        }
    }

    fn mended(&mut self, object: &ObjectRef, now: Instant) {
        if self.broken.remove(object).is_some() {
            self.gather.saw(Change::Everything, now);
        }
    }

    fn carries(&self, stored: &Stored, object: &ObjectRef) {
        if !stored.kind().is_istio() {
            return;
        }
        let json = stored.to_json().unwrap_or_default();
        let says = json["status"]["validationMessages"].as_array().is_some_and(|messages| !messages.is_empty());
        self.carrying.send_if_modified(|all| match (says, all.contains(object)) {
            (true, false) => Arc::make_mut(all).insert(object.clone()),
            (false, true) => Arc::make_mut(all).remove(object),
            (true, true) | (false, false) => false,
        });
    }

    fn publish(&mut self, work: Work, now: Instant) {
        let started = Instant::now();
        let before = self.worlds.borrow().clone();
        let world = match (work, before) {
            (Work::Endpoints(services, since), Some(before)) => {
                let mesh = before.mesh.with_endpoints(&self.catalog, &services);
                // a new service account behind a service changes whom its cluster trusts
                let difference = if before.mesh.clusters_differ(&mesh, &services) {
                    Difference::between(&before.mesh, &mesh)
                } else {
                    Difference::of_endpoints(&before.mesh, &mesh, services)
                };
                before.then(mesh, Arc::clone(&before.catalog), since, difference)
            }
            (Work::Endpoints(_, since) | Work::Everything(since), before) => {
                let (mesh, mut notes): (Mesh, Notes) = mesh::resolve(&self.catalog);
                self.broken.values().for_each(|note| notes.push(note.clone()));
                self.notes.send_replace(Arc::new(notes));
                let catalog = Arc::clone(&self.catalog);
                match before {
                    Some(before) => {
                        let difference = Difference::between(&before.mesh, &mesh);
                        before.then(mesh, catalog, since, difference)
                    }
                    None => World::first(mesh, catalog, since),
                }
            }
        };
        let edition = world.edition;
        self.worlds.send_replace(Some(Arc::new(world)));
        metrics::counter!("pilot_push_triggers", "type" => "config").increment(1);
        metrics::histogram!("pilot_resolve_seconds").record(started.elapsed().as_secs_f64());
        if now >= self.swept + CACHE_SWEEP {
            self.cache.sweep();
            self.swept = now;
        }
        tracing::debug!(edition, took = ?started.elapsed(), "published the mesh");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn service(name: &str) -> ServiceId {
        ServiceId { host: name.into(), namespace: "default".into() }
    }

    fn endpoints(name: &str) -> Change {
        Change::Endpoints([service(name)].into())
    }

    fn ms(length: u64) -> Duration {
        Duration::from_millis(length)
    }

    #[test]
    fn a_change_waits_for_quiet() {
        let (mut gather, start) = (Gather::default(), Instant::now());
        gather.saw(Change::Everything, start);
        gather.saw(Change::Everything, start + ms(60));
        assert_eq!(gather.take(start + ms(100)), None);
        assert_eq!(gather.due(), Some(start + ms(160)));
        assert_eq!(gather.take(start + ms(160)), Some(Work::Everything(start)));
        assert_eq!(gather.due(), None);
    }

    #[test]
    fn changes_without_end_do_not_put_it_off_for_ever() {
        let (mut gather, start) = (Gather::default(), Instant::now());
        for step in 0..40 {
            gather.saw(Change::Everything, start + ms(50 * step));
        }
        assert_eq!(gather.due(), Some(start + QUIET_MAX));
    }

    #[test]
    fn endpoints_do_not_wait_for_quiet() {
        let (mut gather, start) = (Gather::default(), Instant::now());
        gather.saw(Change::Everything, start);
        gather.saw(endpoints("a"), start);
        gather.saw(endpoints("b"), start + ms(9));
        let wanted = [service("a"), service("b")].into();
        assert_eq!(gather.take(start + ms(10)), Some(Work::Endpoints(wanted, start)));
        assert_eq!(gather.due(), Some(start + ms(100)));
    }

    #[test]
    fn what_changes_nothing_is_no_work() {
        let mut gather = Gather::default();
        gather.saw(Change::Nothing, Instant::now());
        assert_eq!(gather.due(), None);
    }
}
