//! Events: what `kubectl describe` shows of an object's life.
//!
//! The same event again raises a count instead of making another object. Written by a task of its own, so that telling
//! never holds up doing; when more is told than can be written, the rest is dropped. Never here: what is worth telling.
//! Called by `write`.

use std::collections::VecDeque;
use std::future::Future;

use http::Request;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::resource::{Key, Resource};
use crate::limits::{EVENTS_REMEMBERED_MAX, EVENTS_WAITING_MAX};

/// Something to tell about an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    pub(crate) about: About,
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) component: &'static str,
}

/// The object an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) version: String,
}

impl About {
    pub(crate) fn new(api_version: &'static str, kind: &'static str, meta: &ObjectMeta) -> Self {
        Self {
            api_version,
            kind,
            key: Key::of_meta(meta),
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// Takes reports; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<Report>);

impl Recorder {
    pub(crate) fn record(&self, report: Report) {
        if self.0.try_send(report).is_err() {
            tracing::debug!("an event was dropped: too many are waiting to be written");
        }
    }
}

/// A recorder, and the task that writes what it is given.
pub(crate) fn recorder(client: kube::Client) -> (Recorder, impl Future<Output = ()> + Send) {
    let (sender, mut reports) = mpsc::channel::<Report>(EVENTS_WAITING_MAX);
    let writing = async move {
        let mut known = VecDeque::new();
        while let Some(report) = reports.recv().await {
            if let Err(error) = write(&client, &report, &mut known, Timestamp::now()).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "an event was not written");
            }
        }
    };
    (Recorder(sender), writing)
}

struct Known {
    uid: String,
    reason: &'static str,
    message: String,
    name: String,
    count: u32,
}

async fn write(
    client: &kube::Client,
    report: &Report,
    known: &mut VecDeque<Known>,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let Some(resource) = Resource::builtin("Event") else { return Ok(()) };
    let namespace = if report.about.key.namespace.is_empty() { "default" } else { &report.about.key.namespace };
    let same = |k: &Known| k.uid == report.about.uid && k.reason == report.reason && k.message == report.message;
    if let Some(earlier) = known.iter_mut().find(|k| same(k)) {
        earlier.count = earlier.count.saturating_add(1);
        let patch = json!({ "count": earlier.count, "lastTimestamp": seconds(now) });
        let url = resource.object(&Key::new(namespace, earlier.name.clone()), "");
        match ask(client, "PATCH", &url, "application/merge-patch+json", &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other,
        }
        known.retain(|k| !same(k)); // it expired: told anew
    }
    let name = format!("{}.{:x}", report.about.key.name, now.as_nanosecond());
    let url = resource.collection(namespace);
    ask(client, "POST", &url, "application/json", &event(report, namespace, &name, now)).await?;
    if known.len() >= EVENTS_REMEMBERED_MAX {
        known.pop_front();
    }
    let About { uid, .. } = report.about.clone();
    known.push_back(Known { uid, reason: report.reason, message: report.message.clone(), name, count: 1 });
    Ok(())
}

async fn ask(client: &kube::Client, method: &str, url: &str, content: &str, body: &Value) -> Result<(), kube::Error> {
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(http::header::CONTENT_TYPE, content)
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}

/// Times in objects have whole seconds.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn event(report: &Report, namespace: &str, name: &str, now: Timestamp) -> Value {
    let Report { about, warning, reason, message, component } = report;
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": namespace },
        "involvedObject": {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.key.name,
            "namespace": about.key.namespace,
            "uid": about.uid,
            "resourceVersion": about.version,
        },
        "type": if *warning { "Warning" } else { "Normal" },
        "reason": reason,
        "message": message,
        "source": { "component": component },
        "reportingComponent": component,
        "firstTimestamp": seconds(now),
        "lastTimestamp": seconds(now),
        "count": 1,
    })
}
