//! A Pod's quality of service class, from what its containers ask for.
//!
//! Never here: holding them to it. Called by `status`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};

pub(super) fn class(mains: &[Container], inits: &[&Container]) -> &'static str {
    let resources: Vec<_> = mains
        .iter()
        .chain(inits.iter().copied())
        .map(|container| container.resources.clone().unwrap_or_default())
        .collect();
    let none = |resources: &ResourceRequirements| {
        resources.limits.as_ref().is_none_or(BTreeMap::is_empty)
            && resources.requests.as_ref().is_none_or(BTreeMap::is_empty)
    };
    let full = |resources: &ResourceRequirements| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = resources.limits.as_ref().and_then(|limits| limits.get(*name));
            let request = resources.requests.as_ref().and_then(|requests| requests.get(*name));
            limit.is_some() && (request.is_none() || request == limit)
        })
    };
    if resources.iter().all(none) {
        "BestEffort"
    } else if resources.iter().all(full) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
