//! What a Pod's annotations ask of its proxy, read and checked.
//!
//! Every known annotation is either honoured, or told in a note, or cannot be read and refuses the Pod with its name.
//! Never here: what is done about it. Called by `pod`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::InjectConfig;

/// An annotation that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name}: {value:?} {reason}")]
pub struct AnnotationError {
    /// Its name.
    pub name: String,
    /// Its text.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Annotations that are known and not honoured, with what is done instead.
const NOT_HONOURED: [(&str, &str); 17] = [
    ("sidecar.istio.io/bootstrapOverride", "the proxy has no Envoy bootstrap"),
    ("sidecar.istio.io/proxyImageType", "there is one type of image"),
    ("sidecar.istio.io/capNetBindService", "the proxy binds no port below 1024"),
    ("sidecar.istio.io/statsInclusionPrefixes", "the proxy's metrics are a fixed list"),
    ("sidecar.istio.io/statsInclusionSuffixes", "the proxy's metrics are a fixed list"),
    ("sidecar.istio.io/statsInclusionRegexps", "the proxy's metrics are a fixed list"),
    ("sidecar.istio.io/statsHistogramBuckets", "buckets are fixed"),
    ("sidecar.istio.io/statsHistogramBins", "buckets are fixed"),
    ("sidecar.istio.io/statsFlushInterval", "metrics are always current"),
    ("sidecar.istio.io/statsEvictionInterval", "metrics are not evicted"),
    ("sidecar.istio.io/statsCompression", "metrics are not compressed"),
    ("sidecar.istio.io/extraStatTags", "labels of metrics are fixed"),
    ("readiness.status.sidecar.istio.io/applicationPorts", "readiness does not look at application ports"),
    ("ambient.istio.io/redirection", "ambient mode is not offered"),
    ("ambient.istio.io/bypass-inbound-capture", "ambient mode is not offered"),
    ("ambient.istio.io/dns-capture", "ambient mode is not offered"),
    ("k8s.v1.cni.cncf.io/networks", "capture is set up by an init container, not by a CNI plugin"),
];

/// What a Pod asks of its proxy; where it says nothing, what the settings say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) templates: Vec<String>,
    pub(super) image: String,
    pub(super) resources: Value,
    pub(super) init_resources: Value,
    pub(super) interception_mode: String,
    pub(super) log_level: String,
    pub(super) component_log_level: String,
    pub(super) agent_log_level: String,
    pub(super) status_port: u16,
    pub(super) readiness_initial_delay: u32,
    pub(super) readiness_period: u32,
    pub(super) readiness_failures: u32,
    pub(super) include_ip_ranges: String,
    pub(super) exclude_ip_ranges: String,
    pub(super) include_inbound_ports: String,
    pub(super) exclude_inbound_ports: String,
    pub(super) include_outbound_ports: String,
    pub(super) exclude_outbound_ports: String,
    pub(super) exclude_interfaces: String,
    pub(super) reroute_interfaces: String,
    pub(super) rewrite_probes: bool,
    pub(super) prometheus_merge: bool,
    pub(super) hold_application: bool,
    pub(super) native: bool,
    pub(super) volumes: Map<String, Value>,
    pub(super) mounts: Map<String, Value>,
    /// `defaultConfig` with the Pod's own `proxy.istio.io/config` on top.
    pub(super) proxy_config: Map<String, Value>,
    pub(super) notes: Vec<String>,
}

/// Annotations by name.
pub(super) struct Annotations<'a>(pub(super) &'a BTreeMap<String, String>);

impl Annotations<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn bad<T>(&self, name: &str, reason: impl Into<String>) -> Result<T, AnnotationError> {
        let value = self.get(name).unwrap_or_default().to_owned();
        Err(AnnotationError { name: name.to_owned(), value, reason: reason.into() })
    }

    fn read<T>(
        &self,
        name: &str,
        default: T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, AnnotationError> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => read(text).or_else(|reason| self.bad(name, reason)),
        }
    }

    fn switch(&self, name: &str, default: bool) -> Result<bool, AnnotationError> {
        self.read(name, default, |text| match text {
            "true" | "True" | "TRUE" | "1" | "t" | "T" => Ok(true),
            "false" | "False" | "FALSE" | "0" | "f" | "F" => Ok(false),
            _ => Err("is neither true nor false".to_owned()),
        })
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, AnnotationError> {
        self.read(name, default, |text| text.parse().map_err(|_| "is not a number in range".to_owned()))
    }

    fn ports(&self, name: &str, default: &str, wildcard: bool) -> Result<String, AnnotationError> {
        self.read(name, default.to_owned(), |text| {
            let one = |port: &str| port.trim().parse::<u16>().is_ok_and(|port| port > 0);
            if text.is_empty() || (wildcard && text == "*") || text.split(',').all(one) {
                Ok(text.to_owned())
            } else {
                let or = if wildcard { " or \"*\"" } else { "" };
                Err(format!("is not a list of ports (1 to 65535, separated by commas){or}"))
            }
        })
    }

    fn ranges(&self, name: &str, default: &str, wildcard: bool) -> Result<String, AnnotationError> {
        self.read(name, default.to_owned(), |text| {
            let one = |range: &str| range.trim().parse::<IpNet>().is_ok();
            if text.is_empty() || (wildcard && text == "*") || text.split(',').all(one) {
                Ok(text.to_owned())
            } else {
                let or = if wildcard { ", or \"*\"" } else { "" };
                Err(format!("is not a list of address ranges such as 10.0.0.0/8{or}"))
            }
        })
    }

    fn words(&self, name: &str, default: &str, allowed: &str) -> Result<String, AnnotationError> {
        self.read(name, default.to_owned(), |text| {
            let good = |c: char| c.is_ascii_alphanumeric() || allowed.contains(c);
            if !text.is_empty() && text.len() <= 512 && text.chars().all(good) {
                Ok(text.to_owned())
            } else {
                Err(format!("may only have letters, digits and {allowed:?}"))
            }
        })
    }

    fn map(&self, name: &str) -> Result<Map<String, Value>, AnnotationError> {
        self.read(name, Map::new(), |text| {
            serde_json::from_str(text).map_err(|error| format!("is not a JSON object: {error}"))
        })
    }

    fn quantity(&self, name: &str) -> Result<Option<String>, AnnotationError> {
        self.read(name, None, |text| {
            let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
            let (number, unit) = text.split_at(digits);
            let known = ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].contains(&unit);
            match number.parse::<f64>() {
                Ok(_) if known => Ok(Some(text.to_owned())),
                Ok(_) | Err(_) => Err("is not a quantity such as 100m or 128Mi".to_owned()),
            }
        })
    }

    /// Resources; as soon as one annotation names one, only those that are named count.
    fn resources(&self, default: &Value) -> Result<Value, AnnotationError> {
        let mut resources = Map::new();
        for (name, part, kind) in [
            ("sidecar.istio.io/proxyCPU", "requests", "cpu"),
            ("sidecar.istio.io/proxyMemory", "requests", "memory"),
            ("sidecar.istio.io/proxyCPULimit", "limits", "cpu"),
            ("sidecar.istio.io/proxyMemoryLimit", "limits", "memory"),
        ] {
            if let Some(quantity) = self.quantity(name)? {
                let part = resources.entry(part).or_insert_with(|| Value::Object(Map::new()));
                part[kind] = Value::String(quantity);
            }
        }
        Ok(if resources.is_empty() { default.clone() } else { Value::Object(resources) })
    }

    fn interception_mode(&self, default: &str, notes: &mut Vec<String>) -> Result<String, AnnotationError> {
        const NAME: &str = "sidecar.istio.io/interceptionMode";
        match self.get(NAME).unwrap_or(default) {
            "TPROXY" => {
                notes.push(format!("{NAME}: TPROXY is not honoured: traffic is captured by REDIRECT"));
                Ok("REDIRECT".to_owned())
            }
            mode @ ("REDIRECT" | "NONE") => Ok(mode.to_owned()),
            _ => self.bad(NAME, "is not REDIRECT, TPROXY or NONE"),
        }
    }

    fn proxy_config(&self, config: &InjectConfig) -> Result<Map<String, Value>, AnnotationError> {
        const NAME: &str = "proxy.istio.io/config";
        let own = self.read(NAME, Value::Null, |text| {
            serde_saphyr::from_str::<Value>(text).map_err(|error| {
                let error = error.without_snippet().to_string();
                format!("is not YAML: {}", error.lines().next().unwrap_or_default())
            })
        })?;
        let mut whole = config.proxy_config.clone();
        match own {
            Value::Null => {}
            Value::Object(own) => overlay(&mut whole, own),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return self.bad(NAME, "is not a map of settings");
            }
        }
        if let Some(address) = self.get("sidecar.istio.io/discoveryAddress") {
            whole.insert("discoveryAddress".into(), address.into());
        }
        for (field, value) in &whole {
            let good = match field.as_str() {
                "discoveryAddress" => value.as_str().is_some_and(|text| {
                    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
                }),
                "proxyMetadata" => value
                    .as_object()
                    .is_some_and(|map| map.values().all(|value| !value.is_object() && !value.is_array())),
                "holdApplicationUntilProxyStarts" => value.is_boolean(),
                "concurrency" => value.is_u64(),
                _ => true,
            };
            if !good {
                return self.bad(NAME, format!("has a wrong {field}: {value}"));
            }
        }
        Ok(whole)
    }
}

/// Puts settings over others: maps are merged, everything else is replaced.
fn overlay(whole: &mut Map<String, Value>, own: Map<String, Value>) {
    for (field, value) in own {
        match (whole.get_mut(&field), value) {
            (Some(Value::Object(old)), Value::Object(new)) => overlay(old, new),
            (_, value) => {
                whole.insert(field, value);
            }
        }
    }
}

impl Asked {
    /// Long and flat: one annotation after the other.
    pub(super) fn read(annotations: &BTreeMap<String, String>, config: &InjectConfig) -> Result<Self, AnnotationError> {
        let all = Annotations(annotations);
        let mut notes: Vec<String> = NOT_HONOURED
            .iter()
            .filter(|(name, _)| annotations.contains_key(*name))
            .map(|(name, why)| format!("annotation {name} is not honoured: {why}"))
            .collect();
        let proxy_config = all.proxy_config(config)?;
        let held = proxy_config.get("holdApplicationUntilProxyStarts").and_then(Value::as_bool);
        let templates = all.get("inject.istio.io/templates").unwrap_or("sidecar");
        let interfaces = all.words("traffic.sidecar.istio.io/kubevirtInterfaces", "", ",.-_@:")?;
        const IMAGE: &str = ":/._-@";
        Ok(Self {
            templates: templates
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
            image: all.words("sidecar.istio.io/proxyImage", &config.proxy_image, IMAGE)?,
            resources: all.resources(&config.resources)?,
            init_resources: all.resources(&config.init_resources)?,
            interception_mode: all.interception_mode(&config.interception_mode, &mut notes)?,
            log_level: all.words("sidecar.istio.io/logLevel", &config.log_level, "")?,
            component_log_level: all.words(
                "sidecar.istio.io/componentLogLevel",
                &config.component_log_level,
                ":,_.-",
            )?,
            agent_log_level: all.words("sidecar.istio.io/agentLogLevel", &config.agent_log_level, ":,_.-")?,
            status_port: all.number("status.sidecar.istio.io/port", config.status_port)?,
            readiness_initial_delay: all
                .number("readiness.status.sidecar.istio.io/initialDelaySeconds", config.readiness_initial_delay)?,
            readiness_period: all.number("readiness.status.sidecar.istio.io/periodSeconds", config.readiness_period)?,
            readiness_failures: all
                .number("readiness.status.sidecar.istio.io/failureThreshold", config.readiness_failures)?,
            include_ip_ranges: all.ranges(
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                &config.include_ip_ranges,
                true,
            )?,
            exclude_ip_ranges: all.ranges(
                "traffic.sidecar.istio.io/excludeOutboundIPRanges",
                &config.exclude_ip_ranges,
                false,
            )?,
            include_inbound_ports: all.ports(
                "traffic.sidecar.istio.io/includeInboundPorts",
                &config.include_inbound_ports,
                true,
            )?,
            exclude_inbound_ports: all.ports(
                "traffic.sidecar.istio.io/excludeInboundPorts",
                &config.exclude_inbound_ports,
                false,
            )?,
            include_outbound_ports: all.ports(
                "traffic.sidecar.istio.io/includeOutboundPorts",
                &config.include_outbound_ports,
                true,
            )?,
            exclude_outbound_ports: all.ports(
                "traffic.sidecar.istio.io/excludeOutboundPorts",
                &config.exclude_outbound_ports,
                false,
            )?,
            exclude_interfaces: all.words("traffic.sidecar.istio.io/excludeInterfaces", "", ",.-_@:")?,
            reroute_interfaces: all.words("istio.io/reroute-virtual-interfaces", &interfaces, ",.-_@:")?,
            rewrite_probes: all.switch("sidecar.istio.io/rewriteAppHTTPProbers", config.rewrite_probes)?,
            prometheus_merge: all.switch("prometheus.istio.io/merge-metrics", config.prometheus_merge)?,
            hold_application: held.unwrap_or(config.hold_application),
            native: all.switch("sidecar.istio.io/nativeSidecar", config.native_sidecars)?,
            volumes: all.map("sidecar.istio.io/userVolume")?,
            mounts: all.map("sidecar.istio.io/userVolumeMount")?,
            proxy_config,
            notes,
        })
    }

    /// `proxyMetadata`: variables for the proxy's environment.
    pub(super) fn metadata(&self) -> Vec<(String, String)> {
        let map = self.proxy_config.get("proxyMetadata").and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect()
    }
}
