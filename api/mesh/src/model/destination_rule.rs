//! Reads a DestinationRule.
//!
//! Refuses what Istio's validation refuses, and TLS settings that are not enforced yet.
//! Never here: which rule wins for whom, or merging (`mesh`). Called by `model::parse`.

use std::{collections::BTreeMap, time::Duration};

use api::{
    note::{Notes, Severity},
    spec::{Balance, CertificateRef, ClientTls, Keepalive, Outlier, ProxyVersion, RootsRef},
};

use super::{
    Settings,
    base::{ExportTo, Judge, Meta},
    rule::{Blocks, DestinationRule, Policy, PolicyTls, Pool, Subset},
    text,
    virtual_service::is_subset_name,
};
use crate::object::{self, Object, networking as raw};

pub(crate) fn parse(
    object: &Object<raw::DestinationRule>,
    settings: &Settings,
    notes: &mut Notes,
) -> Option<DestinationRule> {
    let meta = Meta::of("DestinationRule", &object.metadata);
    let mut judge = Judge::new(meta.object.clone(), notes);
    let namespace = object.metadata.namespace.as_str();
    let raw::DestinationRule { host, traffic_policy, subsets, export_to, workload_selector } = &object.spec;

    let host = text::host(&mut judge, "spec.host", host, namespace, &settings.domain);
    let clients = workload_selector
        .as_ref()
        .map(|raw| text::selector(&mut judge, "spec.workloadSelector.matchLabels", &raw.match_labels))
        .unwrap_or_default();
    let policy = traffic_policy.as_ref().map(|raw| policy(&mut judge, "spec.trafficPolicy", raw));
    let mut parts: Vec<Subset> = Vec::with_capacity(subsets.len());
    for (index, raw::Subset { name, labels, traffic_policy }) in subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        if !is_subset_name(name) {
            judge.error(format!("{path}.name"), format!("{name:?} is not a subset's name: expected a DNS label"));
        }
        if parts.iter().any(|other| other.name == *name) {
            judge.warn(format!("{path}.name"), format!("duplicate subset {name:?}: the first one counts"));
            continue;
        }
        parts.push(Subset {
            name: name.clone(),
            labels: text::labels(&mut judge, &format!("{path}.labels"), labels),
            policy: traffic_policy.as_ref().map(|raw| self::policy(&mut judge, &format!("{path}.trafficPolicy"), raw)),
        });
    }
    let host = host?;
    (judge.errors() == 0).then(|| DestinationRule {
        meta,
        host,
        export_to: ExportTo::read(export_to.iter().map(String::as_str), namespace),
        clients,
        subsets: parts,
        policy,
    })
}

fn policy(judge: &mut Judge<'_>, path: &str, raw: &raw::TrafficPolicy) -> Policy {
    let raw::TrafficPolicy {
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
        port_level_settings,
        tunnel,
        proxy_protocol,
        retry_budget,
    } = raw;
    judge.not_honoured(tunnel.is_some(), format!("{path}.tunnel"));
    let proxy_header = proxy_protocol.as_ref().map(|raw::ProxyProtocol { version }| match version {
        None | Some(raw::ProxyProtocolVersion::V1) => ProxyVersion::V1,
        Some(raw::ProxyProtocolVersion::V2) => ProxyVersion::V2,
    });
    judge.not_honoured(retry_budget.is_some(), format!("{path}.retryBudget"));
    let parts = Parts {
        balance: load_balancer.as_ref(),
        pool: connection_pool.as_ref(),
        outlier: outlier_detection.as_ref(),
        tls: tls.as_ref(),
    };
    let mut ports = BTreeMap::new();
    for (index, raw) in port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        let raw::PortTrafficPolicy { port, load_balancer, connection_pool, outlier_detection, tls } = raw;
        let parts = Parts {
            balance: load_balancer.as_ref(),
            pool: connection_pool.as_ref(),
            outlier: outlier_detection.as_ref(),
            tls: tls.as_ref(),
        };
        // a port's own settings take the place of these, but for this one
        let blocks = Blocks { proxy_header, ..blocks(judge, &path, &parts) };
        let number = port.as_ref().and_then(|port| port.number);
        let Some(number) = number else {
            judge.error(format!("{path}.port.number"), "required");
            continue;
        };
        if let Some(number) = text::port(judge, &format!("{path}.port.number"), i64::from(number)) {
            ports.entry(number).or_insert(blocks);
        }
    }
    Policy { blocks: Blocks { proxy_header, ..blocks(judge, path, &parts) }, ports }
}

struct Parts<'r> {
    balance: Option<&'r raw::LoadBalancer>,
    pool: Option<&'r raw::ConnectionPool>,
    outlier: Option<&'r raw::OutlierDetection>,
    tls: Option<&'r raw::ClientTls>,
}

fn blocks(judge: &mut Judge<'_>, path: &str, parts: &Parts<'_>) -> Blocks {
    Blocks {
        balance: parts.balance.and_then(|raw| balance(judge, &format!("{path}.loadBalancer"), raw)),
        pool: parts.pool.map(|raw| pool(judge, &format!("{path}.connectionPool"), raw)),
        outlier: parts.outlier.map(|raw| outlier(judge, &format!("{path}.outlierDetection"), raw)),
        tls: parts.tls.and_then(|raw| tls(judge, &format!("{path}.tls"), raw)),
        proxy_header: None,
    }
}

fn balance(judge: &mut Judge<'_>, path: &str, raw: &raw::LoadBalancer) -> Option<Balance> {
    let raw::LoadBalancer {
        simple,
        consistent_hash,
        backend_utilization,
        locality_lb_setting,
        zone_aware_lb_setting,
        warmup_duration_secs,
        warmup,
    } = raw;
    judge.not_honoured(consistent_hash.is_some(), format!("{path}.consistentHash"));
    judge.not_honoured(backend_utilization.is_some(), format!("{path}.backendUtilization"));
    judge.not_honoured(locality_lb_setting.is_some(), format!("{path}.localityLbSetting"));
    judge.not_honoured(zone_aware_lb_setting.is_some(), format!("{path}.zoneAwareLbSetting"));
    judge.not_honoured(warmup_duration_secs.is_some(), format!("{path}.warmupDurationSecs"));
    judge.not_honoured(warmup.is_some(), format!("{path}.warmup"));
    if let Some(raw::Warmup { duration: _, minimum_percent, aggression }) = warmup {
        if minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            judge.error(format!("{path}.warmup.minimumPercent"), "must be 0 to 100");
        }
        if aggression.is_some_and(|aggression| aggression < 0.0) {
            judge.error(format!("{path}.warmup.aggression"), "must not be negative");
        }
    }
    if simple.is_some() && consistent_hash.is_some() {
        judge.error(path, "only one of simple, consistentHash may be set");
    }
    simple.map(|simple| match simple {
        raw::SimpleLoadBalancer::Unspecified
        | raw::SimpleLoadBalancer::LeastConn
        | raw::SimpleLoadBalancer::LeastRequest => Balance::LeastRequest,
        raw::SimpleLoadBalancer::Random => Balance::Random,
        raw::SimpleLoadBalancer::RoundRobin => Balance::RoundRobin,
        raw::SimpleLoadBalancer::Passthrough => Balance::OriginalDestination,
    })
}

/// Keep-alive as users write it.
pub(crate) fn keepalive(judge: &mut Judge<'_>, path: &str, raw: &raw::TcpKeepalive) -> Keepalive {
    let raw::TcpKeepalive { probes, time, interval } = raw;
    let mut span = |field: &str, raw: &Option<object::Duration>| {
        raw.and_then(|raw| text::positive_duration(judge, &format!("{path}.{field}"), raw))
    };
    Keepalive { probes: *probes, time: span("time", time), interval: span("interval", interval) }
}

fn pool(judge: &mut Judge<'_>, path: &str, raw: &raw::ConnectionPool) -> Pool {
    let raw::ConnectionPool { tcp, http } = raw;
    if tcp.is_none() && http.is_none() {
        judge.error(path, "required: at least one of tcp, http");
    }
    let mut pool = Pool::default();
    if let Some(raw) = tcp {
        let path = format!("{path}.tcp");
        let raw::TcpSettings { max_connections, connect_timeout, tcp_keepalive, max_connection_duration, idle_timeout } =
            raw;
        pool.connections = limit(judge, &format!("{path}.maxConnections"), *max_connections);
        pool.connect_timeout =
            connect_timeout.and_then(|raw| text::positive_duration(judge, &format!("{path}.connectTimeout"), raw));
        pool.keepalive = tcp_keepalive.as_ref().map(|raw| keepalive(judge, &format!("{path}.tcpKeepalive"), raw));
        if max_connection_duration.is_some() {
            let text = "counts for plain TCP; not honoured yet for connections that carry requests";
            judge.warn(format!("{path}.maxConnectionDuration"), text);
        }
        pool.tcp_longest = max_connection_duration
            .and_then(|raw| text::positive_duration(judge, &format!("{path}.maxConnectionDuration"), raw));
        pool.tcp_idle = idle_timeout.and_then(|raw| text::duration(judge, &format!("{path}.idleTimeout"), raw));
    }
    if let Some(raw) = http {
        let path = format!("{path}.http");
        let raw::HttpSettings {
            http1_max_pending_requests,
            http2_max_requests,
            max_requests_per_connection,
            max_retries,
            idle_timeout,
            h2_upgrade_policy,
            use_client_protocol,
            max_concurrent_streams,
            http2_keep_alive,
        } = raw;
        judge.not_honoured(http2_keep_alive.is_some(), format!("{path}.http2KeepAlive"));
        pool.pending = limit(judge, &format!("{path}.http1MaxPendingRequests"), *http1_max_pending_requests);
        pool.requests = limit(judge, &format!("{path}.http2MaxRequests"), *http2_max_requests);
        pool.requests_per_connection =
            limit(judge, &format!("{path}.maxRequestsPerConnection"), *max_requests_per_connection);
        pool.retries = limit(judge, &format!("{path}.maxRetries"), *max_retries);
        pool.streams = limit(judge, &format!("{path}.maxConcurrentStreams"), *max_concurrent_streams);
        pool.http_idle =
            idle_timeout.and_then(|raw| text::positive_duration(judge, &format!("{path}.idleTimeout"), raw));
        pool.upgrade = match h2_upgrade_policy {
            None | Some(raw::H2UpgradePolicy::Default) => None,
            Some(raw::H2UpgradePolicy::DoNotUpgrade) => Some(false),
            Some(raw::H2UpgradePolicy::Upgrade) => Some(true),
        };
        pool.client_protocol = *use_client_protocol == Some(true);
        if pool.client_protocol && pool.upgrade == Some(true) {
            judge.error(format!("{path}.useClientProtocol"), "not allowed together with h2UpgradePolicy UPGRADE");
        }
    }
    pool
}

/// A limit; 0 means the default, as in Istio.
fn limit(judge: &mut Judge<'_>, path: &str, raw: Option<i32>) -> Option<u32> {
    raw.and_then(|raw| text::count(judge, path, i64::from(raw))).filter(|limit| *limit > 0)
}

fn outlier(judge: &mut Judge<'_>, path: &str, raw: &raw::OutlierDetection) -> Outlier {
    let raw::OutlierDetection {
        consecutive_errors,
        consecutive_gateway_errors,
        consecutive_5xx_errors,
        consecutive_local_origin_failures,
        split_external_local_origin_errors,
        interval,
        base_ejection_time,
        max_ejection_percent,
        min_health_percent,
        outlier_detection_http_error_codes,
    } = raw;
    judge
        .not_honoured(!outlier_detection_http_error_codes.is_empty(), format!("{path}.outlierDetectionHttpErrorCodes"));
    let old = consecutive_errors
        .and_then(|raw| text::count(judge, &format!("{path}.consecutiveErrors"), i64::from(raw)))
        .filter(|number| *number > 0);
    if old.is_some() {
        judge.warn(
            format!("{path}.consecutiveErrors"),
            "deprecated: write consecutiveGatewayErrors or consecutive5xxErrors",
        );
    }
    let mut span = |field: &str, raw: &Option<object::Duration>, default: u64| {
        raw.and_then(|raw| text::positive_duration(judge, &format!("{path}.{field}"), raw))
            .unwrap_or(Duration::from_secs(default))
    };
    let (interval, base_ejection) = (span("interval", interval, 10), span("baseEjectionTime", base_ejection_time, 30));
    let mut share = |field: &str, raw: Option<i32>| {
        let raw = raw?;
        let share = u32::try_from(raw).ok().filter(|share| *share <= 100);
        if share.is_none() {
            judge.error(format!("{path}.{field}"), format!("{raw} must be 0 to 100"));
        }
        share
    };
    Outlier {
        // the deprecated field counted gateway errors, and turned the general count off
        consecutive_5xx: consecutive_5xx_errors.unwrap_or(if old.is_some() { 0 } else { 5 }),
        consecutive_gateway: consecutive_gateway_errors.or(old).unwrap_or(0),
        consecutive_local: consecutive_local_origin_failures.unwrap_or(5),
        split_local: *split_external_local_origin_errors == Some(true),
        interval,
        base_ejection,
        max_ejection_percent: share("maxEjectionPercent", *max_ejection_percent).filter(|s| *s > 0).unwrap_or(10),
        min_health_percent: share("minHealthPercent", *min_health_percent).unwrap_or(0),
    }
}

fn tls(judge: &mut Judge<'_>, path: &str, raw: &raw::ClientTls) -> Option<PolicyTls> {
    let raw::ClientTls {
        mode,
        client_certificate,
        private_key,
        ca_certificates,
        ca_crl,
        credential_name,
        subject_alt_names,
        sni,
        insecure_skip_verify,
    } = raw;
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (chain, key, roots) = (set(client_certificate), set(private_key), set(ca_certificates));
    let sni = set(sni);
    judge.not_enforced(set(ca_crl).is_some(), format!("{path}.caCrl"));
    judge.not_enforced(set(credential_name).is_some(), format!("{path}.credentialName"));
    match mode.unwrap_or(raw::ClientTlsMode::Disable) {
        raw::ClientTlsMode::Disable => Some(PolicyTls::Off),
        raw::ClientTlsMode::IstioMutual => {
            for (field, value) in [("clientCertificate", &chain), ("privateKey", &key), ("caCertificates", &roots)] {
                if value.is_some() {
                    judge.error(format!("{path}.{field}"), "not allowed with mode ISTIO_MUTUAL");
                }
            }
            Some(PolicyTls::Mesh { subject_alt_names: subject_alt_names.clone(), sni })
        }
        mode @ (raw::ClientTlsMode::Simple | raw::ClientTlsMode::Mutual) => {
            if roots.is_none() && set(credential_name).is_none() && *insecure_skip_verify != Some(true) {
                let code = if mode == raw::ClientTlsMode::Simple { "IST0128" } else { "IST0129" };
                let text = format!(
                    "TLS mode is {} but no caCertificates are set: the machine's own roots decide whom to trust",
                    mode.as_str()
                );
                judge.coded(Severity::Warn, code, format!("{path}.caCertificates"), text);
            }
            let certificate = match (mode, chain, key) {
                (raw::ClientTlsMode::Mutual, Some(chain), Some(key)) => Some(CertificateRef::Files { chain, key }),
                (raw::ClientTlsMode::Mutual, chain, key) => {
                    if set(credential_name).is_none() {
                        for (field, missing) in [("clientCertificate", chain.is_none()), ("privateKey", key.is_none())]
                        {
                            if missing {
                                judge.error(format!("{path}.{field}"), "required with mode MUTUAL");
                            }
                        }
                    }
                    return None;
                }
                _ => None,
            };
            Some(PolicyTls::Given(Box::new(ClientTls {
                sni,
                alpn: Vec::new(),
                certificate,
                roots: roots.map(RootsRef::File),
                subject_alt_names: subject_alt_names.clone(),
                insecure: *insecure_skip_verify == Some(true),
                mesh: false,
            })))
        }
    }
}
