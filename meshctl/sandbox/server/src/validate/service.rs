//! Services.
//!
//! Never here: allocation. Called by `validate`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{meta, pod};
use crate::object;
use crate::reply::Cause;

pub(super) fn check(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let kind = object::text(new, "/spec/type");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        let allowed = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
        causes.push(Cause::unsupported("spec.type", &kind.into(), &allowed));
    }
    if object::items(new, "/spec/ports").is_empty()
        && object::text(new, "/spec/clusterIP") != "None"
        && kind != "ExternalName"
    {
        causes.push(Cause::required("spec.ports", ""));
    }
    address(new, old, kind, causes);
    ports(new, kind, causes);
    meta::labels(new.pointer("/spec/selector"), "spec.selector", causes);
    let affinity = object::text(new, "/spec/sessionAffinity");
    if !matches!(affinity, "None" | "ClientIP") {
        causes.push(Cause::unsupported("spec.sessionAffinity", &affinity.into(), &["ClientIP", "None"]));
    }
    outside(new, causes);
}

/// The ClusterIP, as the type wants it and as it was.
fn address(new: &Value, old: Option<&Value>, kind: &str, causes: &mut Vec<Cause>) {
    let address = object::text(new, "/spec/clusterIP");
    if kind == "ExternalName" {
        let name = object::text(new, "/spec/externalName").trim_end_matches('.');
        if name.is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        } else if let Some(why) = meta::subdomain(name) {
            causes.push(Cause::invalid("spec.externalName", &name.into(), why));
        }
        if !address.is_empty() && address != "None" {
            causes.push(Cause::forbidden("spec.clusterIPs", "may not be set for ExternalName services"));
        }
    }
    if address == "None" && matches!(kind, "NodePort" | "LoadBalancer") {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &"None".into(),
            format!("may not be set to 'None' for {kind} services"),
        ));
    }
    if let Some(old) = old {
        let before = object::text(old, "/spec/clusterIP");
        let was = object::text(old, "/spec/type");
        if kind != "ExternalName" && was != "ExternalName" && !before.is_empty() && before != address {
            causes.push(Cause::invalid("spec.clusterIPs[0]", &address.into(), "may not change once set"));
        }
    }
}

fn ports(new: &Value, kind: &str, causes: &mut Vec<Cause>) {
    let ports = object::items(new, "/spec/ports");
    let (mut names, mut pairs) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{index}]");
        let name = object::text(port, "/name");
        if name.is_empty() {
            if ports.len() > 1 {
                causes.push(Cause::required(format!("{at}.name"), ""));
            }
        } else if let Some(why) = meta::label(name) {
            causes.push(Cause::invalid(format!("{at}.name"), &name.into(), why));
        } else if !names.insert(name) {
            causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
        }
        pod::number(port.get("port"), &format!("{at}.port"), causes);
        let protocol = object::text(port, "/protocol");
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            causes.push(Cause::unsupported(format!("{at}.protocol"), &protocol.into(), &["SCTP", "TCP", "UDP"]));
        }
        if let Some(target) = port.get("targetPort").filter(|target| target.is_number()) {
            pod::number(Some(target), &format!("{at}.targetPort"), causes);
        }
        let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
        if !pairs.insert((protocol, number)) {
            causes.push(Cause::duplicate(at.clone(), port));
        }
        if kind == "ClusterIP" && port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
            causes.push(Cause::forbidden(format!("{at}.nodePort"), "may not be used when `type` is 'ClusterIP'"));
        }
    }
}

/// Addresses of others, and families that there are not.
fn outside(new: &Value, causes: &mut Vec<Cause>) {
    for (index, external) in object::items(new, "/spec/externalIPs").iter().enumerate() {
        let text = external.as_str().unwrap_or_default();
        if text.parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.push(Cause::invalid(format!("spec.externalIPs[{index}]"), external, detail));
        }
    }
    if object::items(new, "/spec/ipFamilies").iter().any(|family| family == "IPv6") {
        let shown = "IPv6".into();
        let detail = "not configured on this cluster";
        causes.push(Cause::invalid("spec.ipFamilies[0]", &shown, detail));
    }
    if object::text(new, "/spec/ipFamilyPolicy") == "RequireDualStack" {
        let shown = "RequireDualStack".into();
        causes.push(Cause::invalid(
            "spec.ipFamilyPolicy",
            &shown,
            "this cluster is not configured for dual-stack services",
        ));
    }
}
