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

/// Restarts, and when the last container before the present ones ended.
#[derive(Default)]
struct Restarts<'p> {
    count: i64,
    last: &'p str,
}

impl<'p> Restarts<'p> {
    fn add(&mut self, status: &'p Value) {
        self.count += status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
        self.last = self.last.max(object::text(status, "/lastState/terminated/finishedAt"));
    }

    fn shown(&self) -> String {
        if self.count > 0 && !self.last.is_empty() {
            format!("{} ({} ago)", self.count, age::since(self.last))
        } else {
            self.count.to_string()
        }
    }
}

/// What the init containers have come to.
#[derive(Default)]
struct Init<'p> {
    ready: usize,
    all: Restarts<'p>,
    sidecars: Restarts<'p>,
    /// The first that the Pod still waits for.
    waits_for: Option<String>,
}

fn init(pod: &Value) -> Init<'_> {
    let containers = object::items(pod, "/spec/initContainers");
    let is_sidecar = |name: &str| {
        containers.iter().any(|container| object::text(container, "/name") == name && always_restarts(container))
    };
    let mut init = Init::default();
    for (index, status) in object::items(pod, "/status/initContainerStatuses").iter().enumerate() {
        init.all.add(status);
        let sidecar = is_sidecar(object::text(status, "/name"));
        if sidecar {
            init.sidecars.add(status);
        }
        if status.pointer("/state/terminated/exitCode").and_then(Value::as_i64) == Some(0) {
            continue;
        }
        if sidecar && flag(status, "started") {
            init.ready += usize::from(flag(status, "ready"));
            continue;
        }
        let waiting = object::text(status, "/state/waiting/reason");
        init.waits_for = Some(if let Some(text) = ended(status, "Init:") {
            text
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", containers.len())
        });
        break;
    }
    init
}

fn always_restarts(container: &Value) -> bool {
    object::text(container, "/restartPolicy") == "Always"
}

/// The reason that the Pod as a whole has.
fn own_reason(pod: &Value) -> String {
    let gated = object::items(pod, "/status/conditions").iter().any(|condition| {
        object::text(condition, "/type") == "PodScheduled" && object::text(condition, "/reason") == "SchedulingGated"
    });
    let (own, phase) = (object::text(pod, "/status/reason"), object::text(pod, "/status/phase"));
    let reason = if own.is_empty() { phase } else { own };
    (if gated { "SchedulingGated" } else { reason }).to_owned()
}

pub(super) fn summary(pod: &Value) -> Summary {
    let sidecars = object::items(pod, "/spec/initContainers").iter().filter(|init| always_restarts(init)).count();
    let total = object::items(pod, "/spec/containers").len() + sidecars;
    let Init { mut ready, all, sidecars, waits_for } = init(pod);
    let initialized = waits_for.is_none() || condition(pod, "Initialized").as_deref() == Some("True");
    let mut reason = waits_for.unwrap_or_else(|| own_reason(pod));
    let mut restarts = all;
    if initialized {
        restarts = sidecars;
        let mut running = false;
        for status in object::items(pod, "/status/containerStatuses").iter().rev() {
            restarts.add(status);
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
        if object::text(pod, "/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut reason);
        }
    }
    Summary { ready: format!("{ready}/{total}"), status: reason, restarts: restarts.shown() }
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
