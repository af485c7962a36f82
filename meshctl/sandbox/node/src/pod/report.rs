//! Writes a Pod's status, and takes the Pod out of the API at its end.
//!
//! Never here: what the status is (see `status`). Called by `worker`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::board::Board;
use super::kit::Kit;
use super::status;

const RETRY: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Changes that come together are written together.
const GATHER: Duration = Duration::from_millis(5);

/// Keeps the status in the API as the board says.
pub(super) async fn write_status(kit: Arc<Kit>, board: Arc<Board>) {
    let mut changes = board.changes();
    let mut last = None;
    loop {
        let (pod, cells, around) = board.look();
        let now = status::compute(&pod, &cells, &around, Timestamp::now());
        if last.as_ref() != Some(&now) {
            if write(&kit, &board, &pod, &now).await {
                last = Some(now);
            } else {
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(GATHER).await;
        changes.borrow_and_update();
    }
}

/// Writes it now.
pub(super) async fn write_once(kit: &Kit, board: &Board) {
    let (pod, cells, around) = board.look();
    let now = status::compute(&pod, &cells, &around, Timestamp::now());
    write(kit, board, &pod, &now).await;
}

/// True: written, or there is nothing left to write to.
async fn write(kit: &Kit, board: &Board, pod: &Pod, now: &k8s_openapi::api::core::v1::PodStatus) -> bool {
    let pods: Api<Pod> = Api::namespaced(kit.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut value = json!(now);
    for field in ["reason", "message", "podIP", "podIPs"] {
        if value.get(field).is_none() {
            value[field] = serde_json::Value::Null;
        }
    }
    let patch = json!({"metadata": {"uid": board.uid()}, "status": value});
    match pods.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => true,
        // Gone, or another Pod of the same name.
        Err(kube::Error::Api(answer)) if [404, 409, 422].contains(&answer.code) => true,
        Err(error) => {
            tracing::warn!(pod = board.title(), %error, "status not written");
            false
        }
    }
}

/// Takes the object out of the API once nothing of it runs, and its logs from the disk. A webhook may stand in the way
/// for a while: nobody else would ever ask again.
pub(super) async fn remove(kit: &Kit, pod: &Pod) {
    let pods: Api<Pod> = Api::namespaced(kit.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let mut wait = RETRY;
    loop {
        match pods.delete(name, &params).await {
            Ok(_) => break,
            // Gone, or another Pod of the same name.
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => break,
            Err(error) => tracing::warn!(pod = name, %error, "deleted Pod not removed yet"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LONGEST);
    }
    let folder = kit.log_folder(pod);
    if let Err(error) = std::fs::remove_dir_all(&folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "logs not removed");
    }
}
