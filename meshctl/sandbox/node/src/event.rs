//! Events that people read in `kubectl describe`: written in order, repeated ones counted.
//!
//! Callers only queue; one task writes. Never here: when something is worth an event.
//! Called by everything that happens to Pods, and by the network.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::limits::{EVENTS_REMEMBERED_MAX, EVENTS_WAITING_MAX};

/// Good news or bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Tone {
    Normal,
    Warning,
}

impl Tone {
    fn text(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Said {
    namespace: String,
    uid: String,
    field: Option<String>,
    reason: String,
    text: String,
}

#[derive(Debug)]
struct Entry {
    said: Said,
    about: ObjectReference,
    tone: Tone,
    at: Timestamp,
}

/// Where events are put. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Entry>,
    client: Client,
    node: Arc<str>,
}

impl Events {
    /// A queue, and the task that writes it.
    pub(crate) fn new(client: Client, node: &str) -> (Self, JoinHandle<()>) {
        let (queue, entries) = mpsc::channel(EVENTS_WAITING_MAX);
        let task = tokio::spawn(write_all(client.clone(), node.to_owned(), entries));
        (Self { queue, client, node: node.into() }, task)
    }

    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Says something about an object.
    pub(crate) fn say(&self, about: &ObjectReference, tone: Tone, reason: &str, text: &str) {
        let said = Said {
            namespace: about.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            uid: about.uid.clone().unwrap_or_default(),
            field: about.field_path.clone(),
            reason: reason.to_owned(),
            text: text.to_owned(),
        };
        let entry = Entry { said, about: about.clone(), tone, at: Timestamp::now() };
        if let Err(error) = self.queue.try_send(entry) {
            tracing::warn!(%error, reason, text, "an event was dropped");
        }
    }

    /// Says something about a Service.
    pub(crate) async fn service(&self, key: &(String, String), reason: &str, text: &str) {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &key.0);
        let uid = services.get_metadata_opt(&key.1).await.ok().flatten().and_then(|found| found.metadata.uid);
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(key.0.clone()),
            name: Some(key.1.clone()),
            uid,
            ..ObjectReference::default()
        };
        self.say(&about, Tone::Warning, reason, text);
    }
}

async fn write_all(client: Client, node: String, mut entries: mpsc::Receiver<Entry>) {
    let mut written: HashMap<Said, (String, i32)> = HashMap::new();
    while let Some(entry) = entries.recv().await {
        if written.len() >= EVENTS_REMEMBERED_MAX {
            written.clear();
        }
        let events: Api<Event> = Api::namespaced(client.clone(), &entry.said.namespace);
        if let Some((name, count)) = written.get_mut(&entry.said) {
            *count += 1;
            let patch = json!({"count": *count, "lastTimestamp": Time(entry.at)});
            match events.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => continue,
                // It has been removed meanwhile: write it anew.
                Err(error) => tracing::debug!(%error, "event"),
            }
        }
        let name = format!("{}.{:x}", entry.about.name.clone().unwrap_or_default(), entry.at.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(entry.said.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: entry.about,
            reason: Some(entry.said.reason.clone()),
            message: Some(entry.said.text.clone()),
            type_: Some(entry.tone.text().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(entry.at)),
            last_timestamp: Some(Time(entry.at)),
            source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node.clone()) }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(node.clone()),
            ..Event::default()
        };
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => {
                written.insert(entry.said, (name, 1));
            }
            // A namespace that is going away takes no more events.
            Err(error) => tracing::debug!(%error, "event"),
        }
    }
}
