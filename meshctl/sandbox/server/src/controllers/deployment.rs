//! Deployments: one ReplicaSet for each template, sizes moved from the old to the new.
//!
//! Rolling or at once, with revisions, history, and the status that `kubectl rollout` reads.
//! Never here: Pods (ReplicaSets make them), reading or writing. Called by `work`.

mod scale;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::event::{About, Report};
use super::pods::{self, HASH_LABEL};
use super::resource::{Key, Resource};
use super::work::Outcome;
use super::write::{CreateReport, Policy, Write};

const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const COMPONENT: &str = "deployment-controller";
/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAX_REPLICAS];

/// What is to be written for a Deployment, given the ReplicaSets of its namespace and the Pods of those it owns.
pub(crate) fn reconcile(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(spec) = &deployment.spec else { return outcome };
    let mut rollout = Rollout::new(deployment, spec, sets);
    if deployment.metadata.deletion_timestamp.is_none() {
        outcome.writes.extend(adopt(deployment, spec, sets));
        outcome.writes.extend(rollout.step(pods));
    }
    status::update(&rollout, now, &mut outcome);
    outcome
}

/// A Deployment with its ReplicaSets, told apart.
struct Rollout<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    key: Key,
    replicas: i32,
    /// The set with the Deployment's own template.
    new: Option<&'a ReplicaSet>,
    /// The others that it owns, oldest first.
    old: Vec<&'a ReplicaSet>,
    /// Names that ReplicaSets of the namespace have.
    names: Vec<&'a str>,
    /// A new set is being made under this name.
    making: Option<String>,
    collided: bool,
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Deployment, spec: &'a DeploymentSpec, sets: &'a [Arc<ReplicaSet>]) -> Self {
        let uid = deployment.metadata.uid.as_deref();
        let owned_by_it = |set: &&ReplicaSet| {
            set.metadata.deletion_timestamp.is_none()
                && pods::controller(&set.metadata).is_some_and(|owner| Some(owner.uid.as_str()) == uid)
        };
        let mut owned: Vec<&ReplicaSet> = sets.iter().map(|set| &**set).filter(owned_by_it).collect();
        owned.sort_by_key(|set| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), &set.metadata.name));
        let own_template = without_hash(&spec.template);
        let at = owned.iter().position(|set| {
            let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            template.is_some_and(|template| without_hash(template) == own_template)
        });
        let new = at.map(|at| owned.remove(at));
        Self {
            deployment,
            spec,
            key: Key::of(deployment),
            replicas: spec.replicas.unwrap_or(1),
            new,
            old: owned,
            names: sets.iter().filter_map(|set| set.metadata.name.as_deref()).collect(),
            making: None,
            collided: false,
        }
    }

    /// All sets, the new one last.
    fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> + Clone + use<'a, '_> {
        self.old.iter().copied().chain(self.new)
    }

    fn rolling(&self) -> bool {
        self.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
    }

    fn max_surge(&self) -> i32 {
        if !self.rolling() {
            return 0;
        }
        let rolling = self.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), self.replicas, true)
    }

    /// How many may be missing; at least one where no more may be made.
    fn max_unavailable(&self) -> i32 {
        if !self.rolling() {
            return 0;
        }
        let rolling = self.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let share = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), self.replicas, false);
        if share == 0 && self.max_surge() == 0 { 1 } else { share.min(self.replicas.max(1)) }
    }

    /// The next changes.
    fn step(&mut self, pods: &[Arc<Pod>]) -> Vec<Write> {
        if self.spec.paused == Some(true) {
            return scale::to_deployment(self);
        }
        if scale::was_asked(self) {
            return scale::to_deployment(self);
        }
        let mut writes = Vec::new();
        if self.rolling() {
            writes.extend(self.ensure_new());
            let up = scale::new_set(self);
            if up.is_empty() && self.making.is_none() && !self.collided {
                writes.extend(scale::old_sets(self));
            }
            writes.extend(up);
        } else {
            let down: Vec<Write> = self.old.iter().filter_map(|set| scale::resize(self, set, 0)).flatten().collect();
            let uids: Vec<_> = self.old.iter().filter_map(|set| set.metadata.uid.as_deref()).collect();
            let still_run = pods
                .iter()
                .filter(|pod| !pods::ended(pod))
                .any(|pod| pods::controller(&pod.metadata).is_some_and(|owner| uids.contains(&owner.uid.as_str())));
            if down.is_empty() && !still_run {
                writes.extend(self.ensure_new());
                writes.extend(scale::new_set(self));
            }
            writes.extend(down);
        }
        if status::complete(self) {
            writes.extend(self.forget_old());
        }
        writes
    }

    /// Makes the new set, or gives the one that is there its revision and annotations.
    fn ensure_new(&mut self) -> Vec<Write> {
        let revision = self.old.iter().map(|set| revision_of(set)).max().unwrap_or(0) + 1;
        let Some(new) = self.new else { return self.make_new(revision) };
        let known = new.metadata.annotations.clone().unwrap_or_default();
        let mut annotations = self.annotations(self.replicas);
        let had = revision_of(new);
        let revision = if had < revision {
            if had > 0 {
                let history = known.get(REVISION_HISTORY).map_or(String::new(), |history| format!("{history},"));
                annotations.insert(REVISION_HISTORY.to_owned(), format!("{history}{had}"));
            }
            revision
        } else {
            had
        };
        annotations.insert(REVISION.to_owned(), revision.to_string());
        let mut writes = Vec::new();
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let same_min_ready = new.spec.as_ref().is_some_and(|spec| spec.min_ready_seconds.unwrap_or(0) == min_ready);
        annotations.retain(|name, value| known.get(name) != Some(value));
        annotations.remove(DESIRED); // set together with the size
        annotations.remove(MAX_REPLICAS);
        if !annotations.is_empty() || !same_min_ready {
            writes.push(Write::Merge {
                kind: "ReplicaSet",
                key: Key::of(new),
                part: "",
                patch: json!({ "metadata": { "annotations": annotations }, "spec": { "minReadySeconds": min_ready } }),
            });
        }
        writes.extend(self.note_revision(revision));
        writes
    }

    fn make_new(&mut self, revision: i64) -> Vec<Write> {
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let hash = pods::hash(&without_hash(&self.spec.template), collisions);
        let name = format!("{}-{hash}", self.key.name);
        if self.names.contains(&name.as_str()) {
            self.collided = true; // the status counts it, which gives another name
            return Vec::new();
        }
        let size = scale::size_of_new(self);
        let mut annotations = self.annotations(self.replicas);
        annotations.insert(REVISION.to_owned(), revision.to_string());
        let mut template = without_hash(&self.spec.template);
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash);
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": self.key.namespace,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [pods::owned_by("apps/v1", "Deployment", &self.deployment.metadata)],
            },
            "spec": {
                "replicas": size,
                "minReadySeconds": self.spec.min_ready_seconds.unwrap_or(0),
                "selector": selector,
                "template": template,
            },
        });
        let report = (size > 0).then(|| CreateReport {
            made: self.report(format!("Scaled up replica set {name} from 0 to {size}")),
            failed: Some("ReplicaSetCreateError"),
        });
        self.making = Some(name);
        let mut writes = vec![Write::Create { object, report }];
        writes.extend(self.note_revision(revision));
        writes
    }

    /// The Deployment carries the revision it is at.
    fn note_revision(&self, revision: i64) -> Option<Write> {
        let revision = revision.to_string();
        let known = self.deployment.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
        (known != Some(&revision)).then(|| Write::Merge {
            kind: "Deployment",
            key: self.key.clone(),
            part: "",
            patch: json!({ "metadata": { "annotations": { REVISION: revision } } }),
        })
    }

    /// Annotations of a set of this Deployment.
    fn annotations(&self, desired: i32) -> BTreeMap<String, String> {
        let mut annotations = self.deployment.metadata.annotations.clone().unwrap_or_default();
        annotations.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
        annotations.insert(DESIRED.to_owned(), desired.to_string());
        annotations.insert(MAX_REPLICAS.to_owned(), (desired + self.max_surge()).to_string());
        annotations
    }

    /// Empty old sets beyond the history's limit go.
    fn forget_old(&self) -> Vec<Write> {
        let keep = usize::try_from(self.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let mut empty: Vec<_> =
            self.old.iter().filter(|set| size_of(set) == 0 && counted(set, |s| s.replicas) == 0).collect();
        empty.sort_by_key(|set| revision_of(set));
        let too_many = empty.len().saturating_sub(keep);
        let Some(resource) = Resource::builtin("ReplicaSet").map(Arc::new) else { return Vec::new() };
        let delete = |set: &&&ReplicaSet| Write::Delete {
            resource: resource.clone(),
            key: Key::of(**set),
            uid: set.metadata.uid.clone().unwrap_or_default(),
            policy: Policy::Background,
            report: None,
        };
        empty.iter().take(too_many).map(delete).collect()
    }

    fn report(&self, message: String) -> Report {
        Report {
            about: About::new("apps/v1", "Deployment", &self.deployment.metadata),
            warning: false,
            reason: "ScalingReplicaSet",
            message,
            component: COMPONENT,
        }
    }
}

/// Sets without an owner that match the selector become the Deployment's.
fn adopt(deployment: &Deployment, spec: &DeploymentSpec, sets: &[Arc<ReplicaSet>]) -> Vec<Write> {
    let orphans = sets.iter().filter(|set| {
        set.metadata.deletion_timestamp.is_none()
            && pods::controller(&set.metadata).is_none()
            && pods::selects(&spec.selector, set.metadata.labels.as_ref())
    });
    let owner = pods::owned_by("apps/v1", "Deployment", &deployment.metadata);
    orphans.map(|set| take_over("ReplicaSet", &set.metadata, Key::of(&**set), &owner)).collect()
}

/// Makes an object somebody's.
pub(crate) fn take_over(
    kind: &'static str,
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    key: Key,
    owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
) -> Write {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.push(owner.clone());
    let patch = json!({ "metadata": { "resourceVersion": meta.resource_version, "ownerReferences": owners } });
    Write::Merge { kind, key, part: "", patch }
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    template
}

fn revision_of(set: &ReplicaSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(REVISION)?.parse().ok()).unwrap_or(0)
}

fn size_of(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// A number of a set's status; 0 while it has none.
fn counted(set: &ReplicaSet, number: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32) -> i32 {
    set.status.as_ref().map_or(0, number)
}

fn available(set: &ReplicaSet) -> i32 {
    counted(set, |status| status.available_replicas.unwrap_or(0))
}

/// A number, or a share of a total; 25 % where nothing is said.
fn share(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let percent = |percent: i32| {
        let exact = i64::from(total) * i64::from(percent);
        let whole = if up { (exact + 99).div_euclid(100) } else { exact.div_euclid(100) };
        i32::try_from(whole).unwrap_or(i32::MAX)
    };
    match value {
        None => percent(25),
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            text.strip_suffix('%').and_then(|number| number.trim().parse().ok()).map_or(0, percent)
        }
    }
}

/// The object with another status.
fn with_status<T: serde::Serialize>(object: &Deployment, status: &T) -> Option<Value> {
    let mut value = serde_json::to_value(object).ok()?;
    value.as_object_mut()?.insert("status".to_owned(), serde_json::to_value(status).ok()?);
    Some(value)
}

#[cfg(test)]
mod tests;
