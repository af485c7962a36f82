//! Writes notes into the status of the objects they are about.
//!
//! One replica writes (Lease); a status is written when its notes change, at a bounded rate, the newest only.
//! Never here: notes of its own. Run by `main` where there is an API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use api::note::{Note, Notes, ObjectRef, Severity};
use api_kube::client::is_not_found;
use api_mesh::object::Kind;
use api_rt::clock::Clock;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::limits::{STATUS_RETRY, STATUS_WRITES_PER_SECOND};

/// What is said about each object.
pub(crate) type Saying = BTreeMap<ObjectRef, Vec<Note>>;

/// Istio's own objects that there is something to say about.
fn by_object(notes: &Notes) -> Saying {
    let mut saying = Saying::new();
    for note in notes {
        if kind_of(&note.object).is_some() && note.severity != Severity::Info {
            saying.entry(note.object.clone()).or_default().push(note.clone());
        }
    }
    saying
}

fn kind_of(object: &ObjectRef) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.is_istio() && kind.name() == object.kind)
}

fn resource(kind: Kind) -> ApiResource {
    ApiResource {
        group: kind.group().to_owned(),
        version: kind.versions().first().copied().unwrap_or_default().to_owned(),
        api_version: kind.api_version(),
        kind: kind.name().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

/// The status that says these notes.
fn status(notes: &[Note], now: &str) -> Value {
    let good = notes.iter().all(|note| note.severity != Severity::Error);
    let text =
        |note: &Note| if note.path.is_empty() { note.text.clone() } else { format!("{}: {}", note.path, note.text) };
    let texts: Vec<String> = notes.iter().map(text).collect();
    let messages: Vec<Value> = notes
        .iter()
        .map(|note| {
            let level = if note.severity == Severity::Error { "ERROR" } else { "WARNING" };
            json!({ "level": level, "type": { "code": note.code.as_deref().unwrap_or("IST0000"), "name": text(note) } })
        })
        .collect();
    let mut condition = json!({
        "type": "Reconciled",
        "status": if good { "True" } else { "False" },
        "reason": if good { "Accepted" } else { "Invalid" },
        "lastTransitionTime": now,
    });
    if !texts.is_empty() {
        condition["message"] = Value::from(texts.join("; "));
    }
    json!({ "status": {
        "conditions": [condition],
        "validationMessages": if messages.is_empty() { Value::Null } else { Value::Array(messages) },
    }})
}

async fn write(client: &Client, object: &ObjectRef, notes: &[Note], now: &str) -> Result<(), kube::Error> {
    let Some(kind) = kind_of(object) else { return Ok(()) };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &object.namespace, &resource(kind));
    let patch = Patch::Merge(status(notes, now));
    match api.patch_status(&object.name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()), // gone meanwhile, or the kind is not installed
        Err(error) => Err(error),
    }
}

/// What must be written, given what is said now and what was written.
fn differing(now: &Saying, written: &Saying, carrying: &BTreeSet<ObjectRef>) -> Vec<ObjectRef> {
    let changed = now.iter().filter(|(object, notes)| written.get(*object) != Some(notes)).map(|(object, _)| object);
    let silent = |object: &&ObjectRef| !now.contains_key(*object);
    let cleared = written.keys().filter(|object| written.get(*object).is_some_and(|notes| !notes.is_empty()));
    let stale = carrying.iter().filter(|object| !written.contains_key(*object));
    let mut objects: Vec<ObjectRef> = changed.chain(cleared.chain(stale).filter(silent)).cloned().collect();
    objects.sort();
    objects.dedup();
    objects
}

/// What the writer watches.
pub(crate) struct Reports {
    /// Notes of the newest snapshot.
    pub(crate) notes: watch::Receiver<Arc<Notes>>,
    /// Objects whose stored status says something.
    pub(crate) carrying: watch::Receiver<Arc<BTreeSet<ObjectRef>>>,
    /// Whether this replica writes.
    pub(crate) leads: watch::Receiver<bool>,
}

/// Writes until stopped.
pub(crate) async fn run(client: Client, mut reports: Reports, clock: Clock, stop: CancellationToken) {
    let pause = Duration::from_secs(1) / STATUS_WRITES_PER_SECOND;
    let write_all = async {
        let mut written = Saying::new();
        loop {
            if reports.leads.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            let now = by_object(&reports.notes.borrow_and_update().clone());
            let carrying = Arc::clone(&reports.carrying.borrow_and_update());
            let next = differing(&now, &written, &carrying).into_iter().next();
            let Some(object) = next else {
                tokio::select! {
                    changed = reports.notes.changed() => if changed.is_err() { return },
                    changed = reports.carrying.changed() => if changed.is_err() { return },
                    changed = reports.leads.changed() => {
                        if changed.is_err() { return }
                        // Another leader may write meanwhile; what was written is unknown then.
                        if !*reports.leads.borrow_and_update() { written.clear(); }
                    }
                }
                continue;
            };
            let notes = now.get(&object).cloned().unwrap_or_default();
            let time = jiff::Timestamp::try_from(clock.now()).map(|now| now.to_string()).unwrap_or_default();
            match write(&client, &object, &notes, &time).await {
                Ok(()) => tracing::info!(%object, notes = notes.len(), "status written"),
                // Refused: trying again would be refused again.
                Err(error @ kube::Error::Api(_)) => tracing::warn!(%object, %error, "the status was not taken"),
                Err(error) => {
                    tracing::warn!(%object, %error, "the status could not be written; it is tried again");
                    clock.sleep(STATUS_RETRY).await;
                    continue;
                }
            }
            written.insert(object, notes);
            clock.sleep(pause).await;
        }
    };
    stop.run_until_cancelled(write_all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> ObjectRef {
        ObjectRef::new("VirtualService", "shop", name)
    }

    fn saying(names: &[(&str, &str)]) -> Saying {
        let mut notes = Notes::new();
        names.iter().for_each(|(name, text)| notes.warn(&object(name), "spec", *text));
        by_object(&notes)
    }

    #[test]
    fn only_what_changed_is_written() {
        let none = BTreeSet::new();
        let (first, second) = (saying(&[("a", "x"), ("b", "y")]), saying(&[("a", "x"), ("b", "z")]));
        assert_eq!(differing(&first, &Saying::new(), &none), [object("a"), object("b")]);
        assert_eq!(differing(&second, &first, &none), [object("b")]);
        assert_eq!(differing(&saying(&[]), &first, &none), [object("a"), object("b")]);
        assert_eq!(differing(&saying(&[]), &BTreeMap::from([(object("a"), Vec::new())]), &none), []);
    }

    #[test]
    fn what_an_earlier_leader_said_is_taken_back() {
        let carrying = BTreeSet::from([object("a"), object("b")]);
        let now = saying(&[("a", "x")]);
        assert_eq!(differing(&now, &Saying::new(), &carrying), [object("a"), object("b")]);
    }

    #[test]
    fn an_error_makes_the_object_not_reconciled() {
        let mut notes = Notes::new();
        notes.error(&object("a"), "spec.hosts", "is empty");
        let status = status(&notes.into_vec(), "now");
        assert_eq!(status["status"]["conditions"][0]["status"], "False");
        assert_eq!(status["status"]["conditions"][0]["message"], "spec.hosts: is empty");
        assert_eq!(status["status"]["validationMessages"][0]["level"], "ERROR");
    }
}
