//! Services: defaults, ClusterIPs and NodePorts.
//!
//! Never here: which addresses are free (see `allocate`). Called by `defaults` and by create and update.

use serde_json::{Value, json};

use super::each;
use crate::allocate::AllocateError;
use crate::core::Core;
use crate::kinds::Kind;
use crate::object::{self, fill_text};
use crate::reply::{Cause, Refusal};

pub(super) fn fill(value: &mut Value) {
    let spec = object::member(value, "spec");
    fill_text(spec, "type", "ClusterIP");
    fill_text(spec, "sessionAffinity", "None");
    if spec.get("sessionAffinity").and_then(Value::as_str) == Some("ClientIP") {
        let config = object::object(spec.entry("sessionAffinityConfig").or_insert_with(|| json!({})));
        let client = object::object(config.entry("clientIP").or_insert_with(|| json!({})));
        object::fill(client, "timeoutSeconds", 10_800);
    }
    each(spec, "ports", |port| {
        fill_text(port, "protocol", "TCP");
        let target = port.get("targetPort");
        if target.is_none_or(|target| target.is_null() || *target == 0 || *target == "")
            && let Some(number) = port.get("port").cloned()
        {
            port.insert("targetPort".to_owned(), number);
        }
    });
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "NodePort" || kind == "LoadBalancer" {
        fill_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        object::fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    if kind != "ExternalName" {
        fill_text(spec, "internalTrafficPolicy", "Cluster");
        if let Some(first) = spec.get("clusterIPs").and_then(|list| list.get(0)).cloned() {
            object::fill(spec, "clusterIP", first);
        }
        if let Some(address) = spec.get("clusterIP").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            let list = json!([address]);
            spec.insert("clusterIPs".to_owned(), list);
        }
        // A headless Service without selector may have addresses of any family; this cluster has one.
        object::fill(spec, "ipFamilies", json!(["IPv4"]));
        fill_text(spec, "ipFamilyPolicy", "SingleStack");
    }
}

/// Keeps addresses and ports that the new version does not name; drops those its type no longer has.
pub(super) fn on_update(old: &Value, new: &mut Value) {
    let kind = object::text(new, "/spec/type").to_owned();
    let old_address = object::text(old, "/spec/clusterIP").to_owned();
    let spec = object::member(new, "spec");
    if kind == "ExternalName" {
        if object::text(old, "/spec/type") != "ExternalName" {
            for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
                object::take(spec, name);
            }
        }
    } else if spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().is_empty() && !old_address.is_empty() {
        spec.insert("clusterIP".to_owned(), old_address.clone().into());
        spec.insert("clusterIPs".to_owned(), json!([old_address]));
    }
    if matches!(kind.as_str(), "ClusterIP" | "ExternalName") && object::text(old, "/spec/type") != kind {
        each(spec, "ports", |port| {
            object::take(port, "nodePort");
        });
        for name in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts", "healthCheckNodePort"] {
            object::take(spec, name);
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        let before: Vec<Value> = object::items(old, "/spec/ports").to_vec();
        each(spec, "ports", |port| {
            if port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) != 0 {
                return;
            }
            let same = before
                .iter()
                .find(|other| other.get("port") == port.get("port") && other.get("protocol") == port.get("protocol"));
            if let Some(number) = same.and_then(|other| other.get("nodePort")).cloned() {
                port.insert("nodePort".to_owned(), number);
            }
        });
    }
}

/// Gives the Service its ClusterIP and NodePorts; returns what must be released if the write fails.
pub(crate) fn allocate(
    core: &Core,
    kind: &Kind,
    value: &mut Value,
    old: Option<&Value>,
) -> Result<Option<Value>, Refusal> {
    if !kind.is("", "services") {
        return Ok(None);
    }
    let name = object::name(value).to_owned();
    let mut taken = json!({"spec": {"ports": []}});
    let result = take(core, value, old, &mut taken);
    match result {
        Ok(()) => Ok(Some(taken)),
        Err(cause) => {
            core.allocator.release(&taken, old);
            Err(Refusal::invalid(kind, &name, &[cause]))
        }
    }
}

fn take(core: &Core, value: &mut Value, old: Option<&Value>, taken: &mut Value) -> Result<(), Cause> {
    let kind = object::text(value, "/spec/type").to_owned();
    let had = |pointer: &str| old.map(|old| object::text(old, pointer).to_owned()).unwrap_or_default();
    let address = object::text(value, "/spec/clusterIP").to_owned();
    if kind != "ExternalName" && address != "None" && (address.is_empty() || address != had("/spec/clusterIP")) {
        let wanted = (!address.is_empty()).then_some(address.as_str());
        let given = core.allocator.address(wanted).map_err(|error| match error {
            AllocateError::AddressesFull => {
                let mut cause = Cause::invalid("spec.clusterIPs", &Value::Null, error.to_string());
                cause.message = format!("Internal error: {error}");
                cause
            }
            AllocateError::AddressTaken(_)
            | AllocateError::AddressOutside(..)
            | AllocateError::PortTaken(_)
            | AllocateError::PortOutside(..)
            | AllocateError::PortsFull => Cause::invalid("spec.clusterIPs", &json!([address]), error.to_string()),
        })?;
        object::member(taken, "spec").insert("clusterIP".to_owned(), given.to_string().into());
        let spec = object::member(value, "spec");
        spec.insert("clusterIP".to_owned(), given.to_string().into());
        spec.insert("clusterIPs".to_owned(), json!([given.to_string()]));
    }
    let wants_ports = kind == "NodePort"
        || kind == "LoadBalancer"
            && value.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false);
    if !wants_ports {
        return Ok(());
    }
    let before: Vec<u64> = old
        .map(|old| object::items(old, "/spec/ports"))
        .unwrap_or_default()
        .iter()
        .filter_map(|port| port.get("nodePort")?.as_u64())
        .collect();
    let mut given: Vec<(Value, u64)> = Vec::new();
    let ports = object::member(value, "spec").get_mut("ports").and_then(Value::as_array_mut);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        let map = object::object(port);
        let wanted = map.get("nodePort").and_then(Value::as_u64).unwrap_or(0);
        let number = map.get("port").cloned().unwrap_or_default();
        // One NodePort may serve TCP and UDP of the same port.
        let shared = given.iter().find(|(port, node)| *port == number && (wanted == 0 || wanted == *node));
        if let Some((_, node)) = shared {
            map.insert("nodePort".to_owned(), (*node).into());
            continue;
        }
        if wanted != 0 && before.contains(&wanted) {
            given.push((number, wanted));
            continue;
        }
        let asked = u16::try_from(wanted).ok().filter(|port| *port != 0);
        let node = core.allocator.port(asked).map_err(|error| {
            Cause::invalid(format!("spec.ports[{index}].nodePort"), &wanted.into(), error.to_string())
        })?;
        map.insert("nodePort".to_owned(), node.into());
        given.push((number, node.into()));
        if let Some(Value::Array(list)) = taken.pointer_mut("/spec/ports") {
            list.push(json!({"nodePort": node}));
        }
    }
    Ok(())
}
