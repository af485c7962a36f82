//! READY, STATUS and RESTARTS of Pods.
//!
//! Never here: other columns. Called by `rows`.

use serde_json::Value;

use super::age;
use crate::object;

pub(super) struct Summary {
    pub(super) ready: String,
    pub(super) status: String,
    pub(super) restarts: String,
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool) == Some(true)
}

fn condition(pod: &Value, name: &str) -> Option<String> {
    object::items(pod, "/status/conditions")
        .iter()
        .find(|condition| object::text(condition, "/type") == name)
        .map(|condition| object::text(condition, "/status").to_owned())
}

fn ended(status: &Value, prefix: &str) -> Option<String> {
    let terminated = status.pointer("/state/terminated")?;
    let reason = object::text(terminated, "/reason");
    if !reason.is_empty() {
        return Some(format!("{prefix}{reason}"));
    }
    let number = |name: &str| terminated.get(name).and_then(Value::as_i64).unwrap_or(0);
    Some(match number("signal") {
        0 => format!("{prefix}ExitCode:{}", number("exitCode")),
        signal => format!("{prefix}Signal:{signal}"),
    })
}

pub(super) fn summary(pod: &Value) -> Summary {
    let init = object::items(pod, "/spec/initContainers");
    let is_sidecar = |name: &str| {
        init.iter().any(|container| {
            object::text(container, "/name") == name && object::text(container, "/restartPolicy") == "Always"
        })
    };
    let sidecars = init.iter().filter(|container| object::text(container, "/restartPolicy") == "Always").count();
    let total = object::items(pod, "/spec/containers").len() + sidecars;
    let phase = object::text(pod, "/status/phase");
    let own = object::text(pod, "/status/reason");
    let mut reason = if own.is_empty() { phase.to_owned() } else { own.to_owned() };
    if object::items(pod, "/status/conditions").iter().any(|condition| {
        object::text(condition, "/type") == "PodScheduled" && object::text(condition, "/reason") == "SchedulingGated"
    }) {
        "SchedulingGated".clone_into(&mut reason);
    }
    let mut ready = 0;
    let (mut restarts, mut sidecar_restarts) = (0, 0);
    let (mut last, mut sidecar_last) = (String::new(), String::new());
    let later = |mine: &mut String, status: &Value| {
        let finished = object::text(status, "/lastState/terminated/finishedAt");
        if finished > mine.as_str() {
            finished.clone_into(mine);
        }
    };
    let mut initializing = false;
    for (index, status) in object::items(pod, "/status/initContainerStatuses").iter().enumerate() {
        let count = status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
        restarts += count;
        later(&mut last, status);
        let sidecar = is_sidecar(object::text(status, "/name"));
        if sidecar {
            sidecar_restarts += count;
            later(&mut sidecar_last, status);
        }
        let exit = status.pointer("/state/terminated/exitCode").and_then(Value::as_i64);
        let waiting = object::text(status, "/state/waiting/reason");
        if exit == Some(0) {
            continue;
        }
        if sidecar && flag(status, "started") {
            if flag(status, "ready") {
                ready += 1;
            }
            continue;
        }
        reason = if let Some(text) = ended(status, "Init:") {
            text
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init.len())
        };
        initializing = true;
        break;
    }
    if !initializing || condition(pod, "Initialized").as_deref() == Some("True") {
        restarts = sidecar_restarts;
        last = sidecar_last;
        let mut running = false;
        for status in object::items(pod, "/status/containerStatuses").iter().rev() {
            restarts += status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
            later(&mut last, status);
            let waiting = object::text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut reason);
            } else if let Some(text) = ended(status, "") {
                reason = text;
            } else if flag(status, "ready") && status.pointer("/state/running").is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let is_ready = condition(pod, "Ready").as_deref() == Some("True");
            (if is_ready { "Running" } else { "NotReady" }).clone_into(&mut reason);
        }
    }
    if !object::text(pod, "/metadata/deletionTimestamp").is_empty() {
        if own == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut reason);
        }
    }
    let restarts = if restarts > 0 && !last.is_empty() {
        format!("{restarts} ({} ago)", age::since(&last))
    } else {
        restarts.to_string()
    };
    Summary { ready: format!("{ready}/{total}"), status: reason, restarts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(pod: &Value, ready: &str, status: &str, restarts: &str) {
        let summary = summary(pod);
        assert_eq!(
            (summary.ready.as_str(), summary.status.as_str(), summary.restarts.as_str()),
            (ready, status, restarts)
        );
    }

    #[test]
    fn summaries() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        check(&json!({"spec": spec, "status": {"phase": "Pending"}}), "0/2", "Pending", "0");
        check(
            &json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}}),
            "0/2",
            "Init:0/2",
            "0",
        );
        check(
            &json!({"spec": spec, "status": {"phase": "Running",
                "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
                "containerStatuses": [{"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}}}]}}),
            "2/2",
            "Running",
            "2",
        );
        check(
            &json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running",
                "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
            "0/1",
            "CrashLoopBackOff",
            "0",
        );
        check(
            &json!({"metadata": {"deletionTimestamp": "x"}, "spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running"}}),
            "0/1",
            "Terminating",
            "0",
        );
    }
}
