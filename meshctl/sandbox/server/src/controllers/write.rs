//! What a controller wants changed, and how it is asked of the server.
//!
//! Answers go straight into the picture of the cluster, so that the next reconcile knows them before any watch tells.
//! Never here: why something is written. Made by the reconcile functions, carried out for `work`.

use std::sync::Arc;

use futures::StreamExt;
use http::Request;
use serde_json::{Value, json};

use super::event::{Recorder, Report};
use super::resource::{Key, Resource, text, version_number};
use super::world::World;
use crate::limits::CREATES_AT_ONCE;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    /// Makes an object; the report says how that went.
    Create { object: Value, report: Option<CreateReport> },
    /// Merges into an object; with `part`, into that part of it.
    Merge { kind: &'static str, key: Key, part: &'static str, patch: Value },
    /// Merges into an object of a kind known by its URLs only.
    MergeInto { resource: Arc<Resource>, key: Key, patch: Value },
    /// Replaces an object as a whole, or a part of it.
    Replace { part: &'static str, object: Value },
    /// Deletes an object, if it still is the one meant.
    Delete { resource: Arc<Resource>, key: Key, uid: String, policy: Policy, report: Option<Report> },
    /// Deletes an object, if it still is as it was when this was decided: its owners may have changed since.
    Collect { resource: Arc<Resource>, key: Key, uid: String, version: u64, policy: Policy },
    /// Makes a part of an object, such as a Pod's binding.
    CreatePart { kind: &'static str, key: Key, part: &'static str, object: Value },
    /// Tells whoever describes the object.
    Event(Report),
}

/// What becomes of dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Background,
    Foreground,
    Orphan,
}

impl Policy {
    const fn name(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// What is told about an object's being made, on its owner.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CreateReport {
    /// The event where it went well; `{}` in its text is the new object's name.
    pub(crate) made: Report,
    /// The reason where it did not; none: nothing is told.
    pub(crate) failed: Option<&'static str>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("could not {verb} {what}")]
    Refused { verb: &'static str, what: String, source: Box<kube::Error> },
    #[error("no URL is known for kind {0}")]
    NoSuchKind(String),
    #[error("could not build the request for {what}")]
    Unsayable { what: String, source: http::Error },
}

impl WriteError {
    /// Status code of the server's answer.
    pub(crate) fn code(&self) -> Option<u16> {
        let Self::Refused { source, .. } = self else { return None };
        let kube::Error::Api(status) = &**source else { return None };
        Some(status.code)
    }
}

/// Carries changes out.
#[derive(Clone)]
pub(crate) struct Writer {
    client: kube::Client,
    world: Arc<World>,
    recorder: Recorder,
}

impl Writer {
    pub(crate) fn new(client: kube::Client, world: Arc<World>, recorder: Recorder) -> Self {
        Self { client, world, recorder }
    }

    /// Makes all changes in order (objects that follow each other are made at once); stops at the first that fails.
    pub(crate) async fn all(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let mut creates = Vec::new();
        for write in writes {
            if matches!(write, Write::Create { .. }) {
                creates.push(write);
                continue;
            }
            self.at_once(std::mem::take(&mut creates)).await?;
            self.one(write).await?;
        }
        self.at_once(creates).await
    }

    async fn at_once(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let mut made =
            futures::stream::iter(writes.into_iter().map(|write| self.one(write))).buffer_unordered(CREATES_AT_ONCE);
        let mut first_error = Ok(());
        while let Some(result) = made.next().await {
            if first_error.is_ok() {
                first_error = result;
            }
        }
        first_error
    }

    async fn one(&self, write: Write) -> Result<(), WriteError> {
        match write {
            Write::Event(report) => {
                self.recorder.record(report);
                Ok(())
            }
            Write::Create { object, report } => self.create(&object, report).await,
            Write::Merge { kind, key, part, patch } => {
                let resource = builtin(kind)?;
                let content = "application/merge-patch+json";
                let answer = self.ask("patch", "PATCH", &resource.object(&key, part), content, &patch).await?;
                self.absorb(&resource, answer);
                Ok(())
            }
            Write::MergeInto { resource, key, patch } => {
                let content = "application/merge-patch+json";
                match self.ask("patch", "PATCH", &resource.object(&key, ""), content, &patch).await {
                    Ok(answer) => self.absorb(&resource, answer),
                    Err(error) if error.code() == Some(404) => {}
                    Err(error) => return Err(error),
                }
                Ok(())
            }
            Write::Replace { part, object } => {
                let resource = builtin(text(&object, "/kind"))?;
                let key = Key::new(text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
                let answer = self.ask("update", "PUT", &resource.object(&key, part), JSON, &object).await?;
                self.absorb(&resource, answer);
                Ok(())
            }
            Write::Delete { resource, key, uid, policy, report } => {
                match self.delete(&resource, &key, &uid, &json!({ "uid": uid }), policy).await {
                    Ok(()) => {
                        if let Some(report) = report {
                            self.recorder.record(report);
                        }
                        Ok(())
                    }
                    // Gone, or another of that name.
                    Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Write::Collect { resource, key, uid, version, policy } => {
                let only = json!({ "uid": uid, "resourceVersion": version.to_string() });
                match self.delete(&resource, &key, &uid, &only, policy).await {
                    Err(error) if error.code() == Some(404) => Ok(()),
                    done => done,
                }
            }
            Write::CreatePart { kind, key, part, object } => {
                let url = builtin(kind)?.object(&key, part);
                self.ask("create", "POST", &url, JSON, &object).await.map(drop)
            }
        }
    }

    async fn delete(
        &self,
        resource: &Resource,
        key: &Key,
        uid: &str,
        preconditions: &Value,
        policy: Policy,
    ) -> Result<(), WriteError> {
        let options = json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy.name(),
            "preconditions": preconditions,
        });
        let answer = self.ask("delete", "DELETE", &resource.object(key, ""), JSON, &options).await?;
        // The object as it is now, where it waits for someone; else only "Success".
        if text(&answer, "/kind") == resource.kind {
            self.absorb(resource, answer);
        } else {
            self.world.forget(resource, key, uid);
        }
        Ok(())
    }

    async fn create(&self, object: &Value, report: Option<CreateReport>) -> Result<(), WriteError> {
        let resource = builtin(text(object, "/kind"))?;
        let url = resource.collection(text(object, "/metadata/namespace"));
        match self.ask("create", "POST", &url, JSON, object).await {
            Ok(answer) => {
                if let Some(mut report) = report {
                    report.made.message = report.made.message.replace("{}", text(&answer, "/metadata/name"));
                    self.recorder.record(report.made);
                }
                self.absorb(&resource, answer);
                Ok(())
            }
            Err(error) => {
                if let (Some(CreateReport { mut made, failed: Some(reason) }), WriteError::Refused { source, .. }) =
                    (report, &error)
                {
                    made.reason = reason;
                    made.warning = true;
                    made.message = format!("Error creating: {}", said(source));
                    self.recorder.record(made);
                }
                Err(error)
            }
        }
    }

    /// Whether the object with that uid is there.
    pub(crate) async fn exists(&self, resource: &Resource, key: &Key, uid: &str) -> Result<bool, WriteError> {
        match self.ask("get", "GET", &resource.object(key, ""), JSON, &Value::Null).await {
            Ok(object) => Ok(text(&object, "/metadata/uid") == uid),
            Err(error) if error.code() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a namespace has any object of a kind; a kind that is not served has none.
    pub(crate) async fn any_within(&self, resource: &Resource, namespace: &str) -> Result<bool, WriteError> {
        let url = format!("{}?limit=1", resource.collection(namespace));
        match self.ask("list", "GET", &url, JSON, &Value::Null).await {
            Ok(list) => Ok(list.get("items").and_then(Value::as_array).is_some_and(|items| !items.is_empty())),
            Err(error) if error.code() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn absorb(&self, resource: &Resource, object: Value) {
        if version_number(Some(text(&object, "/metadata/resourceVersion"))) > 0 {
            self.world.apply(&Arc::new(resource.clone()), object);
        }
    }

    async fn ask(
        &self,
        verb: &'static str,
        method: &str,
        url: &str,
        content: &str,
        body: &Value,
    ) -> Result<Value, WriteError> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(http::header::CONTENT_TYPE, content)
            .header(http::header::ACCEPT, JSON)
            .header(http::header::USER_AGENT, "kube-controller-manager")
            .body(bytes)
            .map_err(|source| WriteError::Unsayable { what: url.to_owned(), source })?;
        self.client.request(request).await.map_err(|source| WriteError::Refused {
            verb,
            what: url.to_owned(),
            source: Box::new(source),
        })
    }
}

const JSON: &str = "application/json";

fn builtin(kind: &str) -> Result<Resource, WriteError> {
    Resource::builtin(kind).ok_or_else(|| WriteError::NoSuchKind(kind.to_owned()))
}

/// What the server said, or why it could not be asked.
fn said(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error { status.message.clone() } else { error.to_string() }
}
