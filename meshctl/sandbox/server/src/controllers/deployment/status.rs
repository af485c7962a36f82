//! A Deployment's status: numbers, and the conditions that `kubectl rollout status` waits for.
//!
//! Never here: sizes. Called at the end of each step.
//! Written only where it differs, so that it never causes itself.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Rollout, available, counted, size_of, with_status};
use crate::controllers::work::Outcome;
use crate::controllers::write::Write;

const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

pub(super) fn update(rollout: &Rollout<'_>, now: Timestamp, outcome: &mut Outcome) {
    let before = rollout.deployment.status.clone().unwrap_or_default();
    let mut status = numbers(rollout);
    status.conditions = before.conditions.clone();
    available_condition(rollout, &mut status, now);
    progressing_condition(rollout, &before, &mut status, now, outcome);
    if status != before
        && let Some(object) = with_status(rollout.deployment, &status)
    {
        outcome.writes.push(Write::Replace { part: "status", object });
    }
}

fn numbers(rollout: &Rollout<'_>) -> DeploymentStatus {
    let sum = |number: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        rollout.all().map(|set| counted(set, number)).sum()
    };
    let some = |number: i32| (number > 0).then_some(number);
    let (wanted, available) = (rollout.all().map(size_of).sum::<i32>(), rollout.all().map(available).sum::<i32>());
    let collisions = rollout.deployment.status.as_ref().and_then(|status| status.collision_count);
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(sum(|status| status.replicas)),
        updated_replicas: some(rollout.new.map_or(0, |new| counted(new, |status| status.replicas))),
        ready_replicas: some(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some(wanted.max(rollout.replicas) - available),
        collision_count: if rollout.collided { Some(collisions.unwrap_or(0) + 1) } else { collisions },
        terminating_replicas: None,
        conditions: None,
    }
}

/// Whether everything runs the new template and nothing else does.
pub(super) fn complete(rollout: &Rollout<'_>) -> bool {
    let status = numbers(rollout);
    rollout.new.is_some()
        && status.updated_replicas.unwrap_or(0) == rollout.replicas
        && status.replicas.unwrap_or(0) == rollout.replicas
        && status.available_replicas.unwrap_or(0) == rollout.replicas
}

fn available_condition(rollout: &Rollout<'_>, status: &mut DeploymentStatus, now: Timestamp) {
    let enough = status.available_replicas.unwrap_or(0) >= rollout.replicas - rollout.max_unavailable();
    let (holds, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(status, condition("Available", holds, reason, message.to_owned(), now), false);
}

fn progressing_condition(
    rollout: &Rollout<'_>,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    now: Timestamp,
    outcome: &mut Outcome,
) {
    let Some(deadline) = rollout.spec.progress_deadline_seconds else { return };
    let progressing =
        |holds: &str, reason: &str, message: String| condition("Progressing", holds, reason, message, now);
    if rollout.spec.paused == Some(true) {
        return set(status, progressing("Unknown", "DeploymentPaused", "Deployment is paused".to_owned()), false);
    }
    if let Some(name) = &rollout.making {
        let message = format!("Created new replica set \"{name}\"");
        return set(status, progressing("True", "NewReplicaSetCreated", message), true);
    }
    let current = find(before, "Progressing").cloned();
    let about = match rollout.new.and_then(|new| new.metadata.name.as_deref()) {
        Some(name) => format!("ReplicaSet \"{name}\""),
        None => format!("Deployment \"{}\"", rollout.key.name),
    };
    if current.as_ref().is_some_and(|current| current.reason.as_deref() == Some("DeploymentPaused")) {
        let message = "Deployment is resumed".to_owned();
        set(status, progressing("Unknown", "DeploymentResumed", message), true);
    }
    let done_before = current.as_ref().is_some_and(|current| current.reason.as_deref() == Some(COMPLETE));
    if done_before && status.replicas == status.updated_replicas {
        return;
    }
    if complete(rollout) {
        return set(status, progressing("True", COMPLETE, format!("{about} has successfully progressed.")), false);
    }
    let outdated = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    let moved = status.updated_replicas.unwrap_or(0) > before.updated_replicas.unwrap_or(0)
        || outdated(status) < outdated(before)
        || status.ready_replicas.unwrap_or(0) > before.ready_replicas.unwrap_or(0)
        || status.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0);
    if moved || current.is_none() || done_before {
        return set(status, progressing("True", "ReplicaSetUpdated", format!("{about} is progressing.")), moved);
    }
    let timed_out = current.as_ref().is_some_and(|current| current.reason.as_deref() == Some(TIMED_OUT));
    let since = current.and_then(|current| current.last_update_time).map_or(now, |time| time.0);
    let left = SignedDuration::from_secs(i64::from(deadline)) - now.duration_since(since);
    if timed_out {
        return;
    }
    match std::time::Duration::try_from(left) {
        Ok(left) if !left.is_zero() => outcome.again(left),
        _ => set(status, progressing("False", TIMED_OUT, format!("{about} has timed out progressing.")), false),
    }
}

fn condition(kind: &str, holds: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    let time = Timestamp::from_second(now.as_second()).unwrap_or(now);
    DeploymentCondition {
        type_: kind.to_owned(),
        status: holds.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(time)),
        last_transition_time: Some(Time(time)),
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Puts a condition in place of the one of its kind; the same one is kept as it was, unless it is news (`touch`).
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition, touch: bool) {
    let conditions = status.conditions.get_or_insert_default();
    if let Some(known) = conditions.iter_mut().find(|known| known.type_ == condition.type_) {
        if known.status == condition.status {
            condition.last_transition_time = known.last_transition_time.clone();
            if known.reason == condition.reason && !touch {
                condition.last_update_time = known.last_update_time.clone();
                condition.message = known.message.clone();
            }
        }
        *known = condition;
    } else {
        conditions.push(condition);
    }
}
