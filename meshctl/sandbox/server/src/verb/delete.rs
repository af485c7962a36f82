//! Deleting objects: finalizers, grace periods, preconditions, collections.
//!
//! Never here: removing what an object owns (a controller does). Called by `server` and by evictions.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{Call, create, update};
use crate::admission::{self, Operation};
use crate::body;
use crate::core::Core;
use crate::kinds::Kind;
use crate::reply::{Body, Refusal, json_body};
use crate::request::Target;
use crate::selector::{Fields, Labels};
use crate::store::{Expect, WriteError};
use crate::{clock, convert, defaults, object};

/// What a client may say about a deletion.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    grace: Option<i64>,
    propagation: Option<String>,
    uid: Option<String>,
    revision: Option<String>,
    pub(crate) dry_run: bool,
}

impl Options {
    pub(crate) fn of(call: &Call) -> Result<Self, Refusal> {
        let mut options = Self {
            grace: call.query.filled("gracePeriodSeconds").map(seconds).transpose()?,
            propagation: call.query.filled("propagationPolicy").map(str::to_owned),
            dry_run: call.dry_run()?,
            ..Self::default()
        };
        if call.query.flag("orphanDependents") {
            options.propagation = Some("Orphan".to_owned());
        }
        if !call.body.is_empty() {
            let decoded = body::decode(body::format(&call.headers)?, &call.body).map_err(Refusal::bad_request)?;
            options.read(&decoded.value)?;
        }
        Ok(options)
    }

    pub(crate) fn read(&mut self, value: &Value) -> Result<(), Refusal> {
        if let Some(grace) = value.get("gracePeriodSeconds").and_then(Value::as_i64) {
            self.grace = Some(grace);
        }
        if let Some(policy) = value.get("propagationPolicy").and_then(Value::as_str) {
            self.propagation = Some(policy.to_owned());
        }
        if value.get("orphanDependents").and_then(Value::as_bool) == Some(true) {
            self.propagation = Some("Orphan".to_owned());
        }
        if let Some(policy) = self.propagation.as_deref()
            && !matches!(policy, "Background" | "Foreground" | "Orphan")
        {
            let cause = crate::reply::Cause::unsupported(
                "propagationPolicy",
                &policy.into(),
                &["Foreground", "Background", "Orphan", "nil"],
            );
            return Err(Refusal::invalid_as("DeleteOptions", "meta.k8s.io", "", &[cause]));
        }
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        self.uid = text("/preconditions/uid");
        self.revision = text("/preconditions/resourceVersion");
        match object::items(value, "/dryRun").first().and_then(Value::as_str) {
            None => {}
            Some("All") => self.dry_run = true,
            Some(other) => {
                let cause = crate::reply::Cause::unsupported("dryRun", &other.into(), &["All"]);
                return Err(Refusal::invalid_as("DeleteOptions", "meta.k8s.io", "", &[cause]));
            }
        }
        Ok(())
    }
}

fn seconds(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| Refusal::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
}

/// What became of the object.
pub(crate) enum Outcome {
    /// It is gone; this was its last state.
    Gone(Value),
    /// It is marked and waits for finalizers, or for the node.
    Waiting(Value),
}

pub(crate) async fn run(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let options = Options::of(call)?;
    let kind = &call.target.kind;
    match one(core, call, &call.target, &options).await? {
        Outcome::Waiting(value) => Ok(json_body(StatusCode::OK, &value)),
        Outcome::Gone(value) if returns_object(kind) => Ok(json_body(StatusCode::OK, &value)),
        Outcome::Gone(value) => {
            let mut details = Map::new();
            details.insert("name".to_owned(), object::name(&value).into());
            if !kind.group.is_empty() {
                details.insert("group".to_owned(), kind.group.clone().into());
            }
            details.insert("kind".to_owned(), kind.plural.clone().into());
            details.insert("uid".to_owned(), object::uid(&value).into());
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            Ok(json_body(StatusCode::OK, &status))
        }
    }
}

fn returns_object(kind: &Kind) -> bool {
    kind.group.is_empty()
        && matches!(
            kind.plural.as_str(),
            "pods"
                | "services"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "resourcequotas"
                | "podtemplates"
        )
}

pub(crate) async fn collection(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let options = Options::of(call)?;
    let kind = &call.target.kind;
    if !kind.namespaced && kind.is("", "namespaces") || kind.is("", "services") {
        return Err(Refusal::method_not_allowed());
    }
    let labels = Labels::parse(call.query.get("labelSelector").unwrap_or_default())?;
    let fields = Fields::parse(call.query.get("fieldSelector").unwrap_or_default(), kind)?;
    let namespace = kind.namespaced.then_some(call.target.namespace.as_str()).filter(|space| !space.is_empty());
    let (items, revision) = core.store.list(&kind.storage, namespace);
    let mut gone = Vec::new();
    for item in items {
        let value = convert::view(kind, &item);
        if !labels.matches_object(&value) || !fields.matches(&value) {
            continue;
        }
        let target = Target {
            namespace: item.namespace.to_string(),
            name: item.name.to_string(),
            verb: "delete",
            ..call.target.clone()
        };
        match one(core, call, &target, &options).await {
            Ok(Outcome::Gone(value) | Outcome::Waiting(value)) => gone.push(value),
            Err(refusal) if refusal.code == 404 => {}
            Err(refusal) => return Err(refusal),
        }
    }
    let list = json!({
        "kind": kind.list_kind, "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string()}, "items": gone,
    });
    Ok(json_body(StatusCode::OK, &list))
}

/// Deletes one object.
pub(crate) async fn one(core: &Core, call: &Call, target: &Target, options: &Options) -> Result<Outcome, Refusal> {
    let kind = &target.kind;
    loop {
        let item = core
            .store
            .get(&kind.storage, &target.namespace, &target.name)
            .ok_or_else(|| Refusal::not_found(kind, &target.name))?;
        let old = convert::view(kind, &item);
        preconditions(kind, &old, options)?;
        if kind.is("", "namespaces") && matches!(target.name.as_str(), "default" | "kube-system" | "kube-public") {
            return Err(Refusal::new(
                403,
                "Forbidden",
                format!("namespaces \"{}\" is forbidden: this namespace may not be deleted", target.name),
            ));
        }
        let mut asked = admission::Ask::for_target(call, target, Operation::Delete, options.dry_run);
        admission::validate_deletion(core, &mut asked, &old).await?;
        let Some(new) = marked(kind, &old, options) else {
            if options.dry_run {
                return Ok(Outcome::Gone(old));
            }
            match core.store.remove(&kind.storage, &target.namespace, &target.name, item.revision).await {
                Ok(_) => {
                    after_removal(core, kind, &old).await;
                    return Ok(Outcome::Gone(old));
                }
                Err(WriteError::Modified) => continue,
                Err(error) => return Err(create::refuse(kind, &target.name, &error)),
            }
        };
        if options.dry_run || new == old {
            return Ok(Outcome::Waiting(new));
        }
        let mut stored = new;
        convert::to_storage(kind, &mut stored);
        let served = core.registry.served();
        create::arrange_stored(served.stored_at(&kind.storage).map_or(&**kind, |storage| storage), kind, &mut stored);
        let expect = Expect::Revision(item.revision);
        match core.store.put(&kind.storage, &target.namespace, &target.name, expect, stored).await {
            Ok(item) => return Ok(Outcome::Waiting(convert::view(kind, &item))),
            Err(WriteError::Modified) => {}
            Err(error) => return Err(create::refuse(kind, &target.name, &error)),
        }
    }
}

/// What must follow a removal.
pub(crate) async fn after_removal(core: &Core, kind: &Kind, value: &Value) {
    if kind.is("", "services") {
        core.allocator.release(value, None);
    }
    create::after_write(core, kind);
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        // Its objects go with it: a definition of the same name made later begins empty.
        let resource = object::name(value);
        let gone =
            core.store.list(resource, None).0.into_iter().map(|item| async move {
                core.store.remove(resource, &item.namespace, &item.name, item.revision).await
            });
        for error in futures::future::join_all(gone).await.into_iter().filter_map(Result::err) {
            tracing::warn!(resource, %error, "an object of a deleted definition stays");
        }
    }
}

fn preconditions(kind: &Kind, old: &Value, options: &Options) -> Result<(), Refusal> {
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != object::uid(old)) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(old));
        return Err(Refusal::conflict(kind, object::name(old), &why));
    }
    let revision = object::text(old, "/metadata/resourceVersion");
    if let Some(wanted) = options.revision.as_deref().filter(|wanted| *wanted != revision) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {revision}"
        );
        return Err(Refusal::conflict(kind, object::name(old), &why));
    }
    Ok(())
}

/// The object marked for deletion, or `None` when it may go at once.
fn marked(kind: &Kind, old: &Value, options: &Options) -> Option<Value> {
    let mut new = old.clone();
    let grace = grace(kind, old, options);
    let metadata = object::metadata(&mut new);
    let mut finalizers: Vec<Value> = metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    match options.propagation.as_deref() {
        Some("Foreground") => add(&mut finalizers, "foregroundDeletion", "orphan"),
        Some("Orphan") => add(&mut finalizers, "orphan", "foregroundDeletion"),
        _ => {}
    }
    let held =
        !finalizers.is_empty() || kind.is("", "namespaces") && !object::items(old, "/spec/finalizers").is_empty();
    if !held && grace == 0 {
        return None;
    }
    if held && !finalizers.is_empty() {
        metadata.insert("finalizers".to_owned(), finalizers.into());
    }
    let already = metadata.get("deletionTimestamp").is_some_and(Value::is_string);
    let earlier = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    if !already || grace < earlier {
        let until = clock::now().checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or_else(|_| clock::now());
        metadata.insert("deletionTimestamp".to_owned(), clock::seconds(until).into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        if !already && defaults::has_generation(kind) {
            let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0) + 1;
            metadata.insert("generation".to_owned(), generation.into());
        }
    }
    if kind.is("", "namespaces") {
        object::member(&mut new, "status").insert("phase".to_owned(), "Terminating".into());
    }
    Some(new)
}

fn add(finalizers: &mut Vec<Value>, name: &str, instead_of: &str) {
    finalizers.retain(|finalizer| finalizer.as_str() != Some(instead_of));
    if !finalizers.iter().any(|finalizer| finalizer.as_str() == Some(name)) {
        finalizers.push(name.into());
    }
}

/// Only Pods that a node runs have a grace period.
fn grace(kind: &Kind, old: &Value, options: &Options) -> i64 {
    if !kind.is("", "pods") {
        return 0;
    }
    let asked = options.grace.or_else(|| old.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64));
    let idle = object::text(old, "/spec/nodeName").is_empty()
        || matches!(object::text(old, "/status/phase"), "Succeeded" | "Failed");
    if idle { 0 } else { asked.unwrap_or(30).max(0) }
}

/// `POST …/pods/NAME/eviction`.
pub(crate) async fn evict(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let decoded = body::decode(body::format(&call.headers)?, &call.body).map_err(Refusal::bad_request)?;
    let mut options = Options { dry_run: call.dry_run()?, ..Options::default() };
    if let Some(inner) = decoded.value.get("deleteOptions") {
        options.read(inner)?;
    }
    let item = update::stored(core, call)?;
    if blocked_by_budget(core, &item.value()) {
        let mut refusal =
            Refusal::new(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
        refusal.retry_after = Some(10);
        return Err(refusal);
    }
    one(core, call, &call.target, &options).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Ok(json_body(StatusCode::CREATED, &status))
}

/// A budget that allows no more disruption stands in the way of a running Pod.
fn blocked_by_budget(core: &Core, pod: &Value) -> bool {
    if matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed" | "Pending") || is_ending(pod) {
        return false;
    }
    let (budgets, _) = core.store.list("poddisruptionbudgets.policy", Some(object::namespace(pod)));
    budgets.iter().any(|budget| {
        let budget = budget.value();
        let selector = budget.pointer("/spec/selector").cloned().unwrap_or_default();
        let labels = Labels::from_object(&selector);
        if selector.is_null() || !labels.matches_object(pod) {
            return false;
        }
        let pods: Vec<Value> =
            core.store.list("pods", Some(object::namespace(pod))).0.iter().map(|item| item.value()).collect();
        let chosen: Vec<&Value> = pods.iter().filter(|pod| labels.matches_object(pod)).collect();
        let healthy = chosen.iter().filter(|pod| is_ready(pod) && !is_ending(pod)).count();
        let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
        let all = i64::try_from(chosen.len()).unwrap_or(i64::MAX);
        let wanted = match (budget.pointer("/spec/minAvailable"), budget.pointer("/spec/maxUnavailable")) {
            (Some(least), _) => share(least, all),
            (None, Some(most)) => all - share(most, all),
            (None, None) => 0,
        };
        // A Pod that is not ready is no loss while enough others are.
        healthy - i64::from(is_ready(pod)) < wanted
    })
}

fn is_ready(pod: &Value) -> bool {
    object::items(pod, "/status/conditions")
        .iter()
        .any(|condition| object::text(condition, "/type") == "Ready" && object::text(condition, "/status") == "True")
}

/// A Pod that is being deleted counts for no budget, though it may still answer.
fn is_ending(pod: &Value) -> bool {
    !object::text(pod, "/metadata/deletionTimestamp").is_empty()
}

/// A number, or a percentage of all, rounded up.
fn share(value: &Value, all: i64) -> i64 {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
    percent.map_or_else(|| value.as_i64().unwrap_or(0), |percent| (all * percent + 99) / 100)
}
