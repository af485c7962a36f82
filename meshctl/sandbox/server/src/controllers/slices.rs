//! EndpointSlices: how endpoints are laid out in objects of limited size.
//!
//! An endpoint stays in the slice it is in, so that a change touches one slice. Never here: which endpoints there are.
//! Called by `endpoints`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::resource::{Key, Resource};
use super::world::SERVICE_LABEL;
use super::write::{Policy, Write};
use crate::limits::SLICE_ENDPOINTS_MAX;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Who makes slices; each touches only its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    /// From Pods.
    Endpoints,
    /// From Endpoints that a user wrote.
    Mirror,
}

impl Manager {
    const fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "endpointslice-controller.k8s.io",
            Self::Mirror => "endpointslicemirroring-controller.k8s.io",
        }
    }

    /// Whether it made that slice.
    pub(crate) fn made(self, slice: &EndpointSlice) -> bool {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|name| name == self.name())
    }
}

/// Endpoints with the same ports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What is to be written so that the slices hold these groups; with no endpoints at all, one empty slice says so.
pub(crate) fn fill(
    service: &Key,
    manager: Manager,
    owner: &OwnerReference,
    more_labels: &BTreeMap<String, String>,
    mut groups: Vec<Group>,
    known: &[Arc<EndpointSlice>],
) -> Vec<Write> {
    if groups.is_empty() {
        groups.push(Group::default());
    }
    let mut labels = more_labels.clone();
    labels.insert(SERVICE_LABEL.to_owned(), service.name.clone());
    labels.insert(MANAGED_BY.to_owned(), manager.name().to_owned());
    let mut left: Vec<&EndpointSlice> = known
        .iter()
        .map(|slice| &**slice)
        .filter(|slice| manager.made(slice) && slice.metadata.deletion_timestamp.is_none())
        .collect();
    left.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut writes = Vec::new();
    let mut unplaced = Vec::new();
    for group in groups {
        let family = family_of(&group);
        let (mut same, other): (Vec<_>, Vec<_>) = left.into_iter().partition(|slice| {
            slice.address_type == family && slice.ports.as_deref().unwrap_or_default() == group.ports
        });
        left = other;
        let mut rest: BTreeMap<String, Endpoint> =
            group.endpoints.into_iter().map(|endpoint| (address(&endpoint), endpoint)).collect();
        let mut kept: Vec<Vec<Endpoint>> = same
            .iter()
            .map(|slice| slice.endpoints.iter().filter_map(|endpoint| rest.remove(&address(endpoint))).collect())
            .collect();
        for endpoints in &mut kept {
            while endpoints.len() < SLICE_ENDPOINTS_MAX
                && let Some((_, endpoint)) = rest.pop_first()
            {
                endpoints.push(endpoint);
            }
        }
        // Slices that became empty go, unless the group is empty as a whole: then one stays and says so.
        let mut any = !rest.is_empty() || kept.iter().any(|endpoints| !endpoints.is_empty());
        let was_there = !same.is_empty();
        for (slice, endpoints) in same.drain(..).zip(kept) {
            if endpoints.is_empty() && any {
                writes.extend(delete(slice));
            } else {
                any = true;
                writes.extend(update(slice, &labels, &group.ports, endpoints));
            }
        }
        let mut rest: Vec<Endpoint> = rest.into_values().collect();
        while !rest.is_empty() || !was_there && !any {
            let more = rest.split_off(rest.len().min(SLICE_ENDPOINTS_MAX));
            unplaced.push((family, group.ports.clone(), std::mem::replace(&mut rest, more)));
            any = true;
        }
    }
    // Slices of ports that nobody has any more are used again before new ones are made.
    for (family, ports, endpoints) in unplaced {
        match left.iter().position(|slice| slice.address_type == family) {
            Some(at) => writes.extend(update(left.remove(at), &labels, &ports, endpoints)),
            None => writes.push(create(service, owner, &labels, family, &ports, &endpoints)),
        }
    }
    writes.extend(left.into_iter().filter_map(delete));
    writes
}

fn family_of(group: &Group) -> &'static str {
    let first = group.endpoints.first().map(address).unwrap_or_default();
    if first.contains(':') { "IPv6" } else { "IPv4" }
}

fn address(endpoint: &Endpoint) -> String {
    endpoint.addresses.first().cloned().unwrap_or_default()
}

fn update(
    slice: &EndpointSlice,
    labels: &BTreeMap<String, String>,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) -> Option<Write> {
    let mut wanted = slice.clone();
    wanted.endpoints = endpoints;
    wanted.ports = Some(ports.to_vec());
    wanted.metadata.labels = Some(labels.clone());
    let same_ports = slice.ports.as_deref().unwrap_or_default() == ports;
    if wanted.endpoints == slice.endpoints && same_ports && wanted.metadata.labels == slice.metadata.labels {
        return None;
    }
    serde_json::to_value(wanted).ok().map(|object| Write::Replace { part: "", object })
}

fn create(
    service: &Key,
    owner: &OwnerReference,
    labels: &BTreeMap<String, String>,
    family: &str,
    ports: &[EndpointPort],
    endpoints: &[Endpoint],
) -> Write {
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", service.name),
            "namespace": service.namespace,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "addressType": family,
        "ports": ports,
        "endpoints": endpoints,
    });
    Write::Create { object, report: None }
}

/// Deletes a slice.
pub(crate) fn delete(slice: &EndpointSlice) -> Option<Write> {
    Some(Write::Delete {
        resource: Resource::builtin("EndpointSlice").map(Arc::new)?,
        key: Key::of(slice),
        uid: slice.metadata.uid.clone().unwrap_or_default(),
        policy: Policy::Background,
        report: None,
    })
}
