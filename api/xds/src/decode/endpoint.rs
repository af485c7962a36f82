//! Endpoints, subscribed to or inside a cluster.
//!
//! Never here: which of them is chosen. Called by `decode` and `cluster`.

use api::spec::{Endpoint, Endpoints, Health, Locality, Workload};
use envoy_types::pb::envoy::config::{
    core::v3::{HealthStatus, Metadata},
    endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier},
};

use super::{DecodeError, In, read};
use crate::names;

pub(super) fn endpoints(input: &mut In<'_>, raw: &ClusterLoadAssignment) -> Result<Endpoints, DecodeError> {
    if raw.cluster_name.is_empty() {
        return Err(input.invalid("cluster_name", "missing"));
    }
    Ok(Endpoints { cluster: raw.cluster_name.clone(), localities: localities(input, "", raw)? })
}

pub(super) fn localities(
    input: &mut In<'_>,
    path: &str,
    raw: &ClusterLoadAssignment,
) -> Result<Vec<Locality>, DecodeError> {
    if let Some(policy) = &raw.policy {
        input.ignore(!policy.drop_overloads.is_empty(), path, "policy.drop_overloads");
        input.ignore(policy.endpoint_stale_after.is_some(), path, "policy.endpoint_stale_after");
    }
    let places = raw.endpoints.iter().enumerate();
    places.map(|(index, place)| locality(input, &format!("{path}endpoints[{index}]."), place)).collect()
}

fn locality(input: &mut In<'_>, path: &str, raw: &LocalityLbEndpoints) -> Result<Locality, DecodeError> {
    if raw.lb_config.is_some() {
        return Err(input.invalid(format!("{path}lb_config"), "endpoints elsewhere are not subscribed to"));
    }
    let known = raw.locality.as_ref();
    let endpoints = raw.lb_endpoints.iter().enumerate();
    Ok(Locality {
        region: known.map(|locality| locality.region.clone()).unwrap_or_default(),
        zone: known.map(|locality| locality.zone.clone()).unwrap_or_default(),
        sub_zone: known.map(|locality| locality.sub_zone.clone()).unwrap_or_default(),
        priority: raw.priority,
        weight: read::number(raw.load_balancing_weight.as_ref(), 0),
        endpoints: endpoints
            .map(|(index, endpoint)| lb_endpoint(input, &format!("{path}lb_endpoints[{index}]."), endpoint))
            .collect::<Result<_, _>>()?,
    })
}

fn lb_endpoint(input: &mut In<'_>, path: &str, raw: &LbEndpoint) -> Result<Endpoint, DecodeError> {
    let endpoint = match &raw.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) | None => {
            return Err(input.invalid(format!("{path}endpoint"), "only endpoints given in place are served"));
        }
    };
    input.ignore(!endpoint.additional_addresses.is_empty(), path, "endpoint.additional_addresses");
    let health = match HealthStatus::try_from(raw.health_status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded) => Health::Healthy,
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Health::Unhealthy,
        Ok(HealthStatus::Draining) => Health::Draining,
        Err(_) => return Err(input.invalid(format!("{path}health_status"), "unknown")),
    };
    let weight = read::number(raw.load_balancing_weight.as_ref(), 1);
    if weight == 0 {
        return Err(input.invalid(format!("{path}load_balancing_weight"), "zero"));
    }
    let metadata = raw.metadata.as_ref();
    Ok(Endpoint {
        address: read::address(input, &format!("{path}endpoint.address"), endpoint.address.as_ref())?,
        weight,
        health,
        mtls: read::part(metadata, names::SOCKET_MATCH).and_then(|part| read::text(part, names::TLS_MODE))
            == Some("istio"),
        workload: workload(metadata),
    })
}

/// `NAME;NAMESPACE;CANONICAL_NAME;CANONICAL_REVISION;CLUSTER`, as Istio writes it.
fn workload(metadata: Option<&Metadata>) -> Option<Workload> {
    let text = read::part(metadata, "istio").and_then(|part| read::text(part, "workload"))?;
    let mut parts = text.split(';').map(str::to_owned);
    Some(Workload {
        name: parts.next()?,
        namespace: parts.next()?,
        canonical_name: parts.next()?,
        canonical_revision: parts.next()?,
        cluster: parts.next().unwrap_or_default(),
    })
}
