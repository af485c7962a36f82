//! Watching a collection: one JSON line an event.
//!
//! A selector turns changes into ADDED, MODIFIED and DELETED as the object begins or ceases to match. Never here: the
//! history (see `store`). Called by `server`.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Call;
use super::read::{self, Selection};
use crate::core::Core;
use crate::form::{Form, Rows};
use crate::kinds::Kind;
use crate::limits::{BOOKMARK_EVERY, WATCH_EVENTS_WAITING_MAX, WATCH_SECONDS};
use crate::reply::{Body, Cause, Refusal};
use crate::store::{Change, Item, Seen, Watch};
use crate::{convert, object};

struct Session {
    kind: std::sync::Arc<Kind>,
    form: Form,
    rows: Rows,
    selection: Selection,
    bookmarks: bool,
    out: mpsc::Sender<Bytes>,
}

/// The client has gone.
struct Gone;

pub(crate) fn run(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let kind = &call.target.kind;
    let form = Form::of(&call.headers)?;
    let selection = Selection::of(call)?;
    let initial = initial_events(call)?;
    let wanted = call.query.filled("resourceVersion").filter(|text| *text != "0");
    let bookmarks = call.query.flag("allowWatchBookmarks");
    // Without a revision all present objects come first. Of a revision in the future nothing is said until then.
    let (first, after) = match (wanted, initial) {
        (Some(text), None | Some(false)) => {
            let after: u64 = text.parse().map_err(|_| {
                Refusal::bad_request(format!(
                    "Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
                ))
            })?;
            (None, after)
        }
        (wanted, Some(true)) => {
            read::revision(core, wanted)?;
            let (items, revision) = core.store.list(&kind.storage, selection.namespace());
            (Some(items), revision)
        }
        (None, _) => {
            let (items, revision) = core.store.list(&kind.storage, selection.namespace());
            (if initial == Some(false) { None } else { Some(items) }, revision)
        }
    };
    let lifetime = match call.query.filled("timeoutSeconds").and_then(|text| text.parse::<u64>().ok()) {
        Some(0) | None => rand::rng().random_range(WATCH_SECONDS..2 * WATCH_SECONDS),
        Some(seconds) => seconds,
    };
    let deadline = Instant::now() + Duration::from_secs(lifetime);
    let watch = core.store.watch(&kind.storage, after);
    let (out, queue) = mpsc::channel(WATCH_EVENTS_WAITING_MAX);
    let session = Session {
        kind: std::sync::Arc::clone(kind),
        rows: form.rows(kind, &call.query)?,
        form,
        selection,
        bookmarks,
        out,
    };
    let end_mark = (initial == Some(true)).then_some(after);
    // The task ends when the body is dropped: sending fails then, at the latest at the next bookmark tick.
    let task = tokio::spawn(session.run(watch, first, end_mark, deadline));
    let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
    let guard = AbortOnDrop(task);
    let stream = stream.map(move |bytes| {
        let _owner = &guard;
        Ok::<_, Infallible>(Frame::data(bytes))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn initial_events(call: &Call) -> Result<Option<bool>, Refusal> {
    if call.query.filled("sendInitialEvents").is_none() {
        if call.query.filled("resourceVersionMatch").is_some() {
            let cause = Cause::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
            return Err(Refusal::invalid_as("ListOptions", "meta.k8s.io", "", &[cause]));
        }
        return Ok(None);
    }
    if call.query.filled("resourceVersionMatch") != Some("NotOlderThan") {
        let cause = Cause::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
        return Err(Refusal::invalid_as("ListOptions", "meta.k8s.io", "", &[cause]));
    }
    let on = call.query.flag("sendInitialEvents");
    if on && !call.query.flag("allowWatchBookmarks") {
        let cause =
            Cause::forbidden("allowWatchBookmarks", "sendInitialEvents requires setting allowWatchBookmarks to true");
        return Err(Refusal::invalid_as("ListOptions", "meta.k8s.io", "", &[cause]));
    }
    Ok(Some(on))
}

impl Session {
    async fn run(
        mut self,
        mut watch: Watch,
        first: Option<Vec<std::sync::Arc<Item>>>,
        end_mark: Option<u64>,
        deadline: Instant,
    ) {
        let talk = async {
            for item in first.unwrap_or_default() {
                if self.selection.matches(&item) {
                    self.event("ADDED", &item, None).await?;
                }
            }
            if let Some(revision) = end_mark {
                self.bookmark(revision, true).await?;
            }
            // By the clock, not by how long nothing happened: changes that no selector lets through are no rest.
            let mut due = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
            loop {
                let (seen, mark) = tokio::select! {
                    seen = watch.next() => (seen, false),
                    _ = due.tick() => (watch.now(), self.bookmarks),
                };
                match seen {
                    Seen::Changes(changes, revision) => {
                        for change in &changes {
                            self.change(change).await?;
                        }
                        if mark {
                            self.bookmark(revision, false).await?;
                        }
                    }
                    Seen::TooOld { wanted, current } => {
                        let refusal =
                            Refusal::new(410, "Expired", format!("too old resource version: {wanted} ({current})"));
                        self.send(&json!({"type": "ERROR", "object": refusal.status()})).await?;
                        return Err::<(), Gone>(Gone);
                    }
                }
            }
        };
        // Both ends are clean: the client asks again.
        tokio::time::timeout_at(deadline, talk).await.ok();
    }

    async fn send(&self, event: &Value) -> Result<(), Gone> {
        let mut line = event.to_string();
        line.push('\n');
        self.out.send(Bytes::from(line)).await.map_err(|_| Gone)
    }

    async fn change(&mut self, change: &Change) -> Result<(), Gone> {
        let was = change.old.as_ref().filter(|item| self.selection.matches(item));
        let is = change.new.as_ref().filter(|item| self.selection.matches(item));
        match (was, is) {
            (None, Some(item)) => self.event("ADDED", item, None).await,
            (Some(_), Some(item)) => self.event("MODIFIED", item, None).await,
            (Some(item), None) => self.event("DELETED", item, Some(change.revision)).await,
            (None, None) => Ok(()),
        }
    }

    async fn event(&mut self, kind: &str, item: &Item, revision: Option<u64>) -> Result<(), Gone> {
        if self.form.is_plain() && revision.is_none() {
            let json = convert::view_bytes(&self.kind, item);
            let mut line = Vec::with_capacity(json.len() + 40);
            line.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
            line.extend_from_slice(&json);
            line.extend_from_slice(b"}\n");
            return self.out.send(Bytes::from(line)).await.map_err(|_| Gone);
        }
        let mut value = convert::view(&self.kind, item);
        if let Some(revision) = revision {
            object::metadata(&mut value).insert("resourceVersion".to_owned(), revision.to_string().into());
        }
        let shown = self.rows.event(&self.form, &self.kind, &value);
        self.send(&json!({"type": kind, "object": shown})).await
    }

    async fn bookmark(&mut self, revision: u64, initial: bool) -> Result<(), Gone> {
        let mut value = json!({
            "kind": self.kind.kind, "apiVersion": self.kind.api_version(),
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if initial {
            object::metadata(&mut value).insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": "true"}));
        }
        let shown = self.rows.event(&self.form, &self.kind, &value);
        self.send(&json!({"type": "BOOKMARK", "object": shown})).await
    }
}
