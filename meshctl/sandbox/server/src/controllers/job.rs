//! Jobs: Pods that run until enough of them have succeeded.
//!
//! Counts successes and failures, waits longer after each failure, ends at its limits, goes after its time to live.
//! Never here: indexed completion and failure policies. Called by `work`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::event::{About, Report};
use super::pods;
use super::resource::{Key, Resource};
use super::work::Outcome;
use super::write::{CreateReport, Policy, Write};

const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(600);

/// What is to be written for a Job, given its Pods.
pub(crate) fn reconcile(job: &Job, own: &[Arc<Pod>], now: Timestamp) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(spec) = &job.spec else { return outcome };
    let before = job.status.clone().unwrap_or_default();
    if finished(&before).is_some() {
        expire(job, spec, &before, now, &mut outcome);
        return outcome;
    }
    let now = whole_seconds(now);
    let tally = Tally::of(own);
    let mut status = JobStatus {
        succeeded: some(tally.succeeded),
        failed: some(tally.failed.len()),
        active: some(tally.active.len()),
        ready: Some(count(tally.active.iter().filter(|pod| pods::ready(pod)).count())),
        terminating: Some(count(tally.terminating)),
        ..before.clone()
    };
    let suspended = spec.suspend == Some(true);
    if suspended {
        status.start_time = None;
    } else {
        status.start_time.get_or_insert(Time(now));
    }
    let end = end_of(spec, &status, &tally, now, &mut outcome);
    if job.metadata.deletion_timestamp.is_none() {
        if end.is_some() || suspended {
            outcome.writes.extend(tally.active.iter().filter_map(|pod| delete(job, pod)));
        } else {
            outcome.writes.extend(start(job, spec, &tally, now, &mut outcome.again_after));
        }
    }
    if let Some(end) = end
        && (tally.active.is_empty() || end.kind == "Complete")
    {
        finish(job, &end, &mut status, now, &mut outcome);
    }
    if job.status.as_ref() != Some(&status)
        && let Ok(object) = serde_json::to_value(Job { status: Some(status), ..job.clone() })
    {
        outcome.writes.push(Write::Replace { part: "status", object });
    }
    outcome
}

struct Tally<'a> {
    active: Vec<&'a Pod>,
    succeeded: usize,
    failed: Vec<&'a Pod>,
    terminating: usize,
    restarts: i32,
}

impl<'a> Tally<'a> {
    fn of(own: &'a [Arc<Pod>]) -> Self {
        let mut tally = Self { active: Vec::new(), succeeded: 0, failed: Vec::new(), terminating: 0, restarts: 0 };
        for pod in own {
            match pods::phase(pod) {
                "Succeeded" => tally.succeeded += 1,
                "Failed" => tally.failed.push(pod),
                _ if pod.metadata.deletion_timestamp.is_some() => tally.terminating += 1,
                _ => tally.active.push(pod),
            }
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            tally.restarts += statuses.into_iter().flatten().map(|container| container.restart_count).sum::<i32>();
        }
        tally
    }
}

/// How a Job ends.
struct End {
    kind: &'static str,
    reason: &'static str,
    message: &'static str,
}

fn end_of(spec: &JobSpec, status: &JobStatus, tally: &Tally<'_>, now: Timestamp, outcome: &mut Outcome) -> Option<End> {
    let failed = |reason, message| Some(End { kind: "Failed", reason, message });
    let limit = usize::try_from(spec.backoff_limit.unwrap_or(6)).unwrap_or(0);
    let restarts = usize::try_from(tally.restarts).unwrap_or(0);
    let restarted_in_place =
        spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref()) == Some("OnFailure");
    if tally.failed.len() > limit || (restarted_in_place && restarts > limit && !tally.active.is_empty()) {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if let (Some(deadline), Some(started)) = (spec.active_deadline_seconds, &status.start_time) {
        match left(started.0, deadline, now) {
            Some(left) => outcome.again(left),
            None => return failed("DeadlineExceeded", "Job was active longer than specified deadline"),
        }
    }
    let enough = match spec.completions {
        Some(completions) => tally.succeeded >= usize::try_from(completions).unwrap_or(0),
        None => tally.succeeded > 0 && tally.active.is_empty(),
    };
    enough.then_some(End {
        kind: "Complete",
        reason: "CompletionsReached",
        message: "Reached expected number of succeeded pods",
    })
}

fn start(job: &Job, spec: &JobSpec, tally: &Tally<'_>, now: Timestamp, again: &mut Option<Duration>) -> Vec<Write> {
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let wanted = match spec.completions {
        Some(completions) => usize::try_from(completions).unwrap_or(0).saturating_sub(tally.succeeded).min(parallelism),
        None if tally.succeeded > 0 => tally.active.len(), // one success: no new ones
        None => parallelism,
    };
    if tally.active.len() > wanted {
        let mut active = tally.active.clone();
        active.sort_by_key(|pod| pods::give_up_order(pod));
        return active.iter().take(tally.active.len() - wanted).filter_map(|pod| delete(job, pod)).collect();
    }
    let missing = wanted - tally.active.len();
    if missing == 0 {
        return Vec::new();
    }
    if let Some(wait) = back_off(tally, now) {
        *again = Some(again.map_or(wait, |known| known.min(wait)));
        return Vec::new();
    }
    let key = Key::of(job);
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let labels = [
        ("job-name", key.name.as_str()),
        ("batch.kubernetes.io/job-name", key.name.as_str()),
        ("controller-uid", uid.as_str()),
        ("batch.kubernetes.io/controller-uid", uid.as_str()),
    ];
    let owner = pods::owned_by("batch/v1", "Job", &job.metadata);
    let object = pods::from_template(&spec.template, &key.namespace, &format!("{}-", key.name), &owner, &labels);
    let made = report(job, false, "SuccessfulCreate", "Created pod: {}".to_owned());
    vec![Write::Create { object, report: Some(CreateReport { made, failed: Some("FailedCreate") }) }; missing]
}

/// The pause after failures that is still to be kept.
fn back_off(tally: &Tally<'_>, now: Timestamp) -> Option<Duration> {
    let last = tally.failed.iter().filter_map(|pod| ended_at(pod)).max()?;
    let doublings = u32::try_from(tally.failed.len().saturating_sub(1)).unwrap_or(u32::MAX).min(6);
    let pause = FIRST_BACK_OFF.saturating_mul(1 << doublings).min(LONGEST_BACK_OFF);
    left(last, i64::try_from(pause.as_secs()).unwrap_or(i64::MAX), now)
}

fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ends = statuses.iter().filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|time| time.0).max()
}

fn finish(job: &Job, end: &End, status: &mut JobStatus, now: Timestamp, outcome: &mut Outcome) {
    let (kind, reason, message) = (end.kind, end.reason, end.message);
    let condition = |kind: &str| JobCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let before = if kind == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
    status.conditions.get_or_insert_default().extend([condition(before), condition(kind)]);
    status.active = None;
    status.ready = Some(0);
    if kind == "Complete" {
        status.completion_time = Some(Time(now));
        outcome.writes.push(Write::Event(report(job, false, "Completed", "Job completed".to_owned())));
    } else {
        outcome.writes.push(Write::Event(report(job, true, reason, message.to_owned())));
    }
}

/// The condition that ended it.
fn finished(status: &JobStatus) -> Option<&JobCondition> {
    let conditions = status.conditions.as_ref()?;
    conditions.iter().find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))
}

fn expire(job: &Job, spec: &JobSpec, status: &JobStatus, now: Timestamp, outcome: &mut Outcome) {
    let Some(keep) = spec.ttl_seconds_after_finished else { return };
    let ended = finished(status).and_then(|condition| condition.last_transition_time.as_ref());
    let Some(ended) = ended else { return };
    match left(ended.0, i64::from(keep), now) {
        Some(left) => outcome.again(left),
        None => {
            let Some(resource) = Resource::builtin("Job").map(Arc::new) else { return };
            let uid = job.metadata.uid.clone().unwrap_or_default();
            let policy = Policy::Foreground;
            outcome.writes.push(Write::Delete { resource, key: Key::of(job), uid, policy, report: None });
        }
    }
}

fn delete(job: &Job, pod: &Pod) -> Option<Write> {
    let key = Key::of(pod);
    let report = report(job, false, "SuccessfulDelete", format!("Deleted pod: {}", key.name));
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let resource = Resource::builtin("Pod").map(Arc::new)?;
    Some(Write::Delete { resource, key, uid, policy: Policy::Background, report: Some(report) })
}

fn report(job: &Job, warning: bool, reason: &'static str, message: String) -> Report {
    Report {
        about: About::new("batch/v1", "Job", &job.metadata),
        warning,
        reason,
        message,
        component: "job-controller",
    }
}

/// What is left of so many seconds since then; none where nothing is.
fn left(since: Timestamp, seconds: i64, now: Timestamp) -> Option<Duration> {
    let left = SignedDuration::from_secs(seconds) - now.duration_since(since);
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn some(number: usize) -> Option<i32> {
    (number > 0).then(|| count(number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::wildcard_enum_match_arm, clippy::needless_pass_by_value, reason = "short cases read better")]

    use serde_json::{Value, from_value, json};

    use super::super::replica_set::{made_and_deleted, stored_status};
    use super::*;

    fn job(spec: Value, status: Value) -> Job {
        let mut spec = spec;
        spec["template"] = json!({ "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] } });
        from_value(
            json!({ "metadata": { "name": "once", "namespace": "shop", "uid": "j" }, "spec": spec, "status": status }),
        )
        .unwrap()
    }

    fn pod(name: &str, phase: &str) -> Arc<Pod> {
        let ended = json!([{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 1, "finishedAt": "1970-01-01T00:00:00Z" } },
        }]);
        Arc::new(
            from_value(json!({
                "metadata": { "name": name, "namespace": "shop", "uid": name },
                "status": { "phase": phase, "containerStatuses": ended },
            }))
            .unwrap(),
        )
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn ends_as(writes: &[Write]) -> Option<String> {
        let status = stored_status(writes)?;
        let last = status.get("conditions")?.as_array()?.last()?;
        Some(last["type"].as_str()?.to_owned())
    }

    #[test]
    fn as_many_run_at_once_as_may() {
        let spec = json!({ "completions": 5, "parallelism": 2 });
        let outcome = reconcile(&job(spec.clone(), json!({})), &[], at(0));
        assert_eq!(made_and_deleted(&outcome.writes).0, 2);
        let done = [pod("a", "Succeeded"), pod("b", "Succeeded"), pod("c", "Succeeded"), pod("d", "Succeeded")];
        assert_eq!(made_and_deleted(&reconcile(&job(spec, json!({})), &done, at(0)).writes).0, 1);
    }

    #[test]
    fn enough_successes_complete_it() {
        let outcome = reconcile(&job(json!({ "completions": 1 }), json!({})), &[pod("a", "Succeeded")], at(9));
        assert_eq!(ends_as(&outcome.writes).as_deref(), Some("Complete"));
        assert_eq!(stored_status(&outcome.writes).unwrap()["completionTime"], "1970-01-01T00:00:09Z");
    }

    #[test]
    fn failures_are_waited_out_and_counted() {
        let spec = json!({ "completions": 1, "backoffLimit": 1 });
        let outcome = reconcile(&job(spec.clone(), json!({})), &[pod("a", "Failed")], at(3));
        assert_eq!(made_and_deleted(&outcome.writes).0, 0);
        assert_eq!(outcome.again_after, Some(Duration::from_secs(7)));
        let outcome = reconcile(&job(spec.clone(), json!({})), &[pod("a", "Failed")], at(10));
        assert_eq!(made_and_deleted(&outcome.writes).0, 1);
        let outcome = reconcile(&job(spec, json!({})), &[pod("a", "Failed"), pod("b", "Failed")], at(99));
        assert_eq!(ends_as(&outcome.writes).as_deref(), Some("Failed"));
    }

    #[test]
    fn a_deadline_ends_it() {
        let spec = json!({ "activeDeadlineSeconds": 30 });
        let status = json!({ "startTime": "1970-01-01T00:00:00Z" });
        let early = reconcile(&job(spec.clone(), status.clone()), &[pod("a", "Running")], at(10));
        assert_eq!(early.again_after, Some(Duration::from_secs(20)));
        let late = reconcile(&job(spec, status), &[pod("a", "Running")], at(30));
        assert_eq!(made_and_deleted(&late.writes), (0, vec!["a".to_owned()]));
    }

    #[test]
    fn a_finished_one_goes_after_its_time_to_live() {
        let ended = json!({ "conditions": [{ "type": "Complete", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z" }] });
        let spec = json!({ "ttlSecondsAfterFinished": 60 });
        assert_eq!(
            reconcile(&job(spec.clone(), ended.clone()), &[], at(20)).again_after,
            Some(Duration::from_secs(40))
        );
        assert_eq!(made_and_deleted(&reconcile(&job(spec, ended), &[], at(60)).writes).1, ["once"]);
    }
}
