//! How large each ReplicaSet of a Deployment is to be.
//!
//! Never here: making or deleting sets. Called by the Deployment's steps.
//! Pure arithmetic over what the sets' status says.

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::json;

use super::{DESIRED, MAX_REPLICAS, Rollout, available, counted, size_of};
use crate::controllers::resource::Key;
use crate::controllers::write::Write;

/// Changes a set's size, with its event; none where it has it.
pub(super) fn resize(rollout: &Rollout<'_>, set: &ReplicaSet, size: i32) -> Option<Vec<Write>> {
    let known = size_of(set);
    let desired = rollout.replicas.to_string();
    let noted = set.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DESIRED));
    if known == size && (noted == Some(&desired) || known == 0) {
        return None;
    }
    let name = set.metadata.name.clone().unwrap_or_default();
    let patch = json!({
        "metadata": {
            "resourceVersion": set.metadata.resource_version,
            "annotations": { DESIRED: desired, MAX_REPLICAS: (rollout.replicas + rollout.max_surge()).to_string() },
        },
        "spec": { "replicas": size },
    });
    let mut writes = vec![Write::Merge { kind: "ReplicaSet", key: Key::of(set), part: "", patch }];
    if known != size {
        let way = if size > known { "up" } else { "down" };
        let text = format!("Scaled {way} replica set {name} from {known} to {size}");
        writes.push(Write::Event(rollout.report(text)));
    }
    Some(writes)
}

/// How large the new set may be now.
pub(super) fn size_of_new(rollout: &Rollout<'_>) -> i32 {
    let now = rollout.new.map_or(0, size_of);
    if !rollout.rolling() {
        return rollout.replicas;
    }
    let total: i32 = rollout.all().map(size_of).sum();
    let room = rollout.replicas.saturating_add(rollout.max_surge()).saturating_sub(total);
    now.saturating_add(room.max(0)).min(rollout.replicas).max(now.min(rollout.replicas))
}

/// Grows the new set as far as the surge allows, or shrinks it to what is asked.
pub(super) fn new_set(rollout: &Rollout<'_>) -> Vec<Write> {
    let Some(new) = rollout.new else { return Vec::new() };
    resize(rollout, new, size_of_new(rollout)).unwrap_or_default()
}

/// Shrinks old sets as far as availability allows; Pods that are not available go first.
pub(super) fn old_sets(rollout: &Rollout<'_>) -> Vec<Write> {
    let total: i32 = rollout.all().map(size_of).sum();
    let old_total: i32 = rollout.old.iter().map(|set| size_of(set)).sum();
    if old_total == 0 {
        return Vec::new();
    }
    let min_available = rollout.replicas - rollout.max_unavailable();
    let new_unavailable = rollout.new.map_or(0, |new| size_of(new) - available(new));
    let mut may_go = total - min_available - new_unavailable;
    if may_go <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = rollout.old.iter().map(|set| size_of(set)).collect();
    for (set, size) in rollout.old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available(set)).clamp(0, may_go);
        *size -= unhealthy;
        may_go -= unhealthy;
    }
    // What is available may go only as far as enough of it stays.
    let all_available: i32 = rollout.all().map(available).sum();
    let mut may_go = (all_available - min_available).max(0);
    for size in &mut sizes {
        let go = (*size).min(may_go);
        *size -= go;
        may_go -= go;
    }
    let sets = rollout.old.iter().zip(sizes);
    sets.filter_map(|(set, size)| if size == size_of(set) { None } else { resize(rollout, set, size) })
        .flatten()
        .collect()
}

/// Whether the Deployment's size was changed since the sets got theirs.
pub(super) fn was_asked(rollout: &Rollout<'_>) -> bool {
    let desired = rollout.replicas.to_string();
    rollout.all().filter(|set| size_of(set) > 0).any(|set| {
        let noted = set.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DESIRED));
        noted.is_some_and(|noted| *noted != desired)
    })
}

/// Spreads a change of the Deployment's size over its sets, by their share.
pub(super) fn to_deployment(rollout: &Rollout<'_>) -> Vec<Write> {
    let mut active: Vec<&ReplicaSet> = rollout.all().filter(|set| size_of(set) > 0).collect();
    if active.is_empty() {
        let latest = rollout.new.or(rollout.old.last().copied());
        return latest.and_then(|set| resize(rollout, set, rollout.replicas)).unwrap_or_default();
    }
    if let [only] = active.as_slice() {
        return resize(rollout, only, rollout.replicas).unwrap_or_default();
    }
    if let Some(new) = rollout.new.filter(|new| saturated(rollout, new)) {
        let old = rollout.old.iter().filter(|set| size_of(set) > 0 && !std::ptr::eq(**set, new));
        return old.filter_map(|set| resize(rollout, set, 0)).flatten().collect();
    }
    let allowed = if rollout.replicas > 0 { rollout.replicas + rollout.max_surge() } else { 0 };
    let total: i32 = active.iter().map(|set| size_of(set)).sum();
    let change = allowed - total;
    active.sort_by_key(|set| std::cmp::Reverse(size_of(set)));
    let mut left = change;
    let mut sizes = Vec::new();
    for set in &active {
        let part = i64::from(change) * i64::from(size_of(set)) / i64::from(total.max(1));
        let part = i32::try_from(part).unwrap_or(0);
        sizes.push((size_of(set) + part).max(0));
        left -= part;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + left).max(0);
    }
    active.iter().zip(sizes).filter_map(|(set, size)| resize(rollout, set, size)).flatten().collect()
}

fn saturated(rollout: &Rollout<'_>, set: &ReplicaSet) -> bool {
    size_of(set) == rollout.replicas
        && available(set) == rollout.replicas
        && counted(set, |status| status.replicas) == rollout.replicas
}
