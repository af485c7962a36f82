//! A gateway: a proxy that stands alone, without capture (`inject.istio.io/templates: gateway`).
//!
//! Never here: what it shares with sidecars. Called by `pod`.

use serde_json::json;

use super::{
    pod::{Added, Making},
    sidecar,
};

/// The gateway of a Pod.
pub(super) fn make(making: &Making<'_>) -> Added {
    let mut container = sidecar::proxy(making, "router");
    let uid = making.config.proxy_uid;
    container["securityContext"] = json!({ "runAsGroup": uid, "runAsUser": uid });
    // So that an ordinary user may bind 80 and 443.
    let sysctls = json!({ "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }] });
    Added { proxy: container, init: None, volumes: sidecar::volumes(making), security: Some(sysctls) }
}
