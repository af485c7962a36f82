//! Deployments and what becomes of them: scale, rollout, describe, wait, expose, delete, events.
//!
//! Never here: one Pod (see `pods`). Called by the suite `kubectl`.

use anyhow::{Result, ensure};
use e2e::{kubectl::Kubectl, sandbox::until};

use super::{LIMIT, WEB, has, sleeper};

pub(super) fn scale(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    has(&k.ok(&["scale", "deploy", "web", "--replicas=2"])?, "scaled")?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    ensure!(k.ok(&["get", "pods", "-l", "app=web", "-o", "name"])?.lines().count() == 2);
    k.ok(&["scale", "deploy", "web", "--replicas=0"])?;
    until("no Pods", LIMIT, || {
        ensure!(k.ok(&["get", "pods", "-l", "app=web", "-o", "name"])?.is_empty());
        Ok(())
    })
}

pub(super) fn rollout(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    has(&k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?, "successfully rolled out")?;
    k.ok(&["rollout", "restart", "deploy/web"])?;
    has(&k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?, "successfully rolled out")?;
    has(&k.ok(&["rollout", "history", "deploy/web"])?, "2")?;
    has(&k.ok(&["rollout", "undo", "deploy/web"])?, "rolled back")?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    let restarted = k.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.metadata.annotations}"])?;
    ensure!(!restarted.contains("restartedAt"), "{restarted}");
    Ok(())
}

pub(super) fn describe(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    let pod = k.ok(&["describe", "pods", "-l", "app=web"])?;
    for part in ["Controlled By:", "Readiness:", "Started", "helloworld"] {
        has(&pod, part)?;
    }
    has(&k.ok(&["describe", "deploy", "web"])?, "NewReplicaSetAvailable")?;
    has(&k.ok(&["describe", "namespaces", "default"])?, "Status:")?;
    has(&k.ok(&["describe", "nodes"])?, "Allocatable")?;
    has(&k.ok(&["describe", "svc", "kubernetes", "-n", "default"])?, "ClusterIP")
}

pub(super) fn wait(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    has(&k.ok(&["wait", "--for=condition=Available", "deploy/web", "--timeout=60s"])?, "condition met")?;
    has(&k.fails(&["wait", "--for=condition=Nothing", "deploy/web", "--timeout=1s"])?, "timed out")?;
    let pod = k.ok(&["get", "pods", "-l", "app=web", "-o", "name"])?;
    k.ok(&["delete", pod.trim(), "--wait=false"])?;
    k.ok(&["wait", "--for=delete", pod.trim(), "--timeout=60s"]).map(drop)
}

pub(super) fn expose(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    has(&k.ok(&["expose", "deploy", "web", "--port=80", "--target-port=5000"])?, "exposed")?;
    sleeper(k)?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    until("the Service answers", LIMIT, || {
        has(&k.ok(&["exec", "sleeper", "--", "curl", "-s", "-m", "5", "http://web/hello"])?, "Hello version")
    })
}

pub(super) fn delete_with_cascade_modes(k: &Kubectl, _: &str) -> Result<()> {
    let pods = || k.ok(&["get", "pods", "-l", "app=web", "-o", "name"]);
    k.apply(WEB)?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    k.ok(&["delete", "deploy", "web", "--cascade=orphan"])?;
    ensure!(pods()?.lines().count() == 1, "orphans stay");
    k.ok(&["delete", "rs", "-l", "app=web", "--cascade=foreground"])?;
    until("no Pods", LIMIT, || {
        ensure!(pods()?.is_empty());
        Ok(())
    })?;
    k.apply(WEB)?;
    k.ok(&["delete", "deploy", "web"])?;
    until("no Pods", LIMIT, || {
        ensure!(pods()?.is_empty());
        Ok(())
    })
}

pub(super) fn events(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    let events = k.ok(&["get", "events"])?;
    for part in ["Scheduled", "Started", "ScalingReplicaSet", "SuccessfulCreate"] {
        has(&events, part)?;
    }
    Ok(())
}

pub(super) fn unknown_image(k: &Kubectl, _: &str) -> Result<()> {
    k.ok(&["run", "odd", "--image=registry.example.com/nobody/knows:1"])?;
    until("the reason is told", LIMIT, || {
        let reason =
            k.ok(&["get", "pod", "odd", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}"])?;
        ensure!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}");
        Ok(())
    })?;
    has(&k.ok(&["get", "events"])?, "registry.example.com/nobody/knows:1")
}
