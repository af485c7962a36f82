//! Route tables and virtual hosts; what they say for all their routes is handed down to each.
//!
//! Never here: single routes (`route`). Called by `decode`, and by `http` for inline tables.

use std::sync::Arc;

use api::spec::{Fault, HeaderOps, Mirror, Retry, Route, RouteTable, VirtualHost};
use envoy_types::pb::envoy::config::route::v3 as pb;

use super::{DecodeError, In, fault, route};

/// What a table or virtual host says for all its routes.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) request: HeaderOps,
    pub(super) response: HeaderOps,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) retry: Option<Retry>,
    pub(super) fault: Option<Fault>,
    pub(super) buffer: Option<u32>,
}

pub(super) fn table(input: &mut In<'_>, path: &str, raw: &pb::RouteConfiguration) -> Result<RouteTable, DecodeError> {
    input.refuse(!raw.vhost_header.is_empty(), path, "vhost_header", "virtual hosts are chosen by authority only")?;
    input.refuse(
        raw.ignore_path_parameters_in_path_matching,
        path,
        "ignore_path_parameters_in_path_matching",
        "paths are matched with their parameters",
    )?;
    input.ignore(!raw.cluster_specifier_plugins.is_empty(), path, "cluster_specifier_plugins");
    input.ignore(!raw.internal_only_headers.is_empty(), path, "internal_only_headers");
    let below = Table {
        request: route::operations(
            input,
            path,
            "request_headers_to",
            &raw.request_headers_to_add,
            &raw.request_headers_to_remove,
        )?,
        response: route::operations(
            input,
            path,
            "response_headers_to",
            &raw.response_headers_to_add,
            &raw.response_headers_to_remove,
        )?,
        mirrors: route::mirrors(input, path, &raw.request_mirror_policies)?,
        fault: fault::fault(input, &format!("{path}typed_per_filter_config"), &raw.typed_per_filter_config)?,
        ..Table::default()
    };
    let mut virtual_hosts = Vec::with_capacity(raw.virtual_hosts.len());
    for host in &raw.virtual_hosts {
        let path = format!("{path}virtual_hosts[{}].", host.name);
        virtual_hosts.push(Arc::new(virtual_host(input, &path, host, &below)?));
    }
    Ok(RouteTable {
        name: raw.name.clone(),
        virtual_hosts,
        ignore_port: raw.ignore_port_in_host_matching,
        hosts_apart: raw.vhds.is_some(),
    })
}

pub(super) fn virtual_host(
    input: &mut In<'_>,
    path: &str,
    raw: &pb::VirtualHost,
    above: &Table,
) -> Result<VirtualHost, DecodeError> {
    input.refuse(raw.require_tls != 0, path, "require_tls", "plain requests are not sent to TLS")?;
    input.refuse(raw.matcher.is_some(), path, "matcher", "generic matchers are not tested")?;
    input.ignore(!raw.rate_limits.is_empty(), path, "rate_limits");
    input.ignore(raw.cors.is_some(), path, "cors");
    input.ignore(raw.hedge_policy.is_some(), path, "hedge_policy");
    input.ignore(raw.retry_policy_typed_config.is_some(), path, "retry_policy_typed_config");
    if raw.domains.is_empty() {
        return Err(input.invalid(format!("{path}domains"), "none"));
    }
    let mut below = above.clone();
    let request = route::operations(
        input,
        path,
        "request_headers_to",
        &raw.request_headers_to_add,
        &raw.request_headers_to_remove,
    )?;
    below.request = joined(request, &above.request);
    let response = route::operations(
        input,
        path,
        "response_headers_to",
        &raw.response_headers_to_add,
        &raw.response_headers_to_remove,
    )?;
    below.response = joined(response, &above.response);
    let mirrors = route::mirrors(input, path, &raw.request_mirror_policies)?;
    if !mirrors.is_empty() {
        below.mirrors = mirrors;
    }
    if let Some(retry) = &raw.retry_policy {
        below.retry = Some(route::retry(input, &format!("{path}retry_policy."), retry)?);
    }
    let fault = fault::fault(input, &format!("{path}typed_per_filter_config"), &raw.typed_per_filter_config)?;
    below.fault = fault.or(below.fault);
    below.buffer = route::buffer(raw.request_body_buffer_limit.as_ref(), limit(raw)).or(below.buffer);
    let mut routes: Vec<Route> = Vec::with_capacity(raw.routes.len());
    for (index, one) in raw.routes.iter().enumerate() {
        routes.extend(route::route(input, &format!("{path}routes[{index}]."), one, &below)?);
    }
    Ok(VirtualHost { name: raw.name.clone(), domains: raw.domains.clone(), routes })
}

fn limit(raw: &pb::VirtualHost) -> Option<u32> {
    raw.per_request_buffer_limit_bytes.as_ref().map(|limit| limit.value)
}

/// Changes of the inner level, then those of the outer: the last to set a header wins, as in Envoy.
pub(super) fn joined(mut inner: HeaderOps, outer: &HeaderOps) -> HeaderOps {
    inner.set.extend(outer.set.iter().cloned());
    inner.add.extend(outer.add.iter().cloned());
    inner.remove.extend(outer.remove.iter().cloned());
    inner
}
