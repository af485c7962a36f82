//! The settings of injection: ConfigMap `istio-sidecar-injector` (keys `config` and `values`) and the mesh's settings.
//!
//! Fields that others read, or that only matter to Istio's own templates, are passed over; what is read is checked here.
//! Never here: what they do to a Pod. Made by the injector and `meshctl kube-inject`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ConfigError {
    /// Path of the setting, for example `values.global.proxy.resources`.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Labels that a Pod must have (all of them).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    labels: BTreeMap<String, String>,
    /// Key, operator, values.
    expressions: Vec<(String, Operator, Vec<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    fn read(value: &Value, path: &str) -> Result<Self, ConfigError> {
        let bad = |reason: &str| ConfigError { path: path.to_owned(), reason: reason.to_owned() };
        let mut selector = Self::default();
        let part = |field: &str| value.get(field).filter(|part| !part.is_null());
        let labels = part("matchLabels").map(|labels| labels.as_object().ok_or_else(|| bad("matchLabels is no map")));
        for (key, wanted) in labels.transpose()?.into_iter().flatten() {
            selector.labels.insert(key.clone(), wanted.as_str().ok_or_else(|| bad("a label is text"))?.to_owned());
        }
        let expressions = part("matchExpressions")
            .map(|expressions| expressions.as_array().ok_or_else(|| bad("matchExpressions is no list")));
        for expression in expressions.transpose()?.into_iter().flatten() {
            let text = |name: &str| expression.get(name).and_then(Value::as_str);
            let operator = match text("operator") {
                Some("In") => Operator::In,
                Some("NotIn") => Operator::NotIn,
                Some("Exists") => Operator::Exists,
                Some("DoesNotExist") => Operator::DoesNotExist,
                Some(_) | None => return Err(bad("operator must be In, NotIn, Exists or DoesNotExist")),
            };
            let values = expression.get("values").filter(|values| !values.is_null());
            let values = values.map(|values| values.as_array().ok_or_else(|| bad("values is no list"))).transpose()?;
            let value = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| bad("a value is text"));
            let values = values.into_iter().flatten().map(value).collect::<Result<_, _>>()?;
            selector.expressions.push((
                text("key").ok_or_else(|| bad("a key is missing"))?.to_owned(),
                operator,
                values,
            ));
        }
        Ok(selector)
    }

    /// Whether it says anything; one that says nothing selects nothing here.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.expressions.is_empty()
    }

    /// Whether a Pod with these labels is meant.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let expression = |(key, operator, values): &(String, Operator, Vec<String>)| {
            let found = labels.get(key);
            match operator {
                Operator::In => found.is_some_and(|value| values.contains(value)),
                Operator::NotIn => found.is_none_or(|value| !values.contains(value)),
                Operator::Exists => found.is_some(),
                Operator::DoesNotExist => found.is_none(),
            }
        };
        !self.is_empty()
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(expression)
    }
}

/// Everything that decides how a Pod is injected, besides the Pod.
#[derive(Debug, Clone, PartialEq)]
pub struct InjectConfig {
    /// Whether Pods that say nothing get a sidecar (`config.policy: enabled`).
    pub by_default: bool,
    /// Pods that never get one.
    pub never: Vec<Selector>,
    /// Pods that always get one.
    pub always: Vec<Selector>,
    /// Annotations put on every injected Pod.
    pub injected_annotations: BTreeMap<String, String>,
    /// Revision of this control plane.
    pub revision: String,
    /// Image of the proxy.
    pub proxy_image: String,
    /// Image that sets up capture.
    pub init_image: String,
    /// Pull policy of both; none: the cluster's default.
    pub pull_policy: Option<String>,
    /// Secrets to pull them with.
    pub pull_secrets: Vec<String>,
    /// Resources of the proxy.
    pub resources: Value,
    /// Resources of the container that sets up capture.
    pub init_resources: Value,
    /// Where certificates are asked for.
    pub ca_address: String,
    /// Namespace of the control plane.
    pub istio_namespace: String,
    /// Domain of cluster names.
    pub cluster_domain: String,
    /// Name of the cluster.
    pub cluster_id: String,
    /// Name of the network; empty: none.
    pub network: String,
    /// Name of the mesh.
    pub mesh_id: String,
    /// Trust domain.
    pub trust_domain: String,
    /// Log level of the proxy.
    pub log_level: String,
    /// Log levels of the proxy's parts.
    pub component_log_level: String,
    /// Log levels of the proxy's agent.
    pub agent_log_level: String,
    /// Port of health and merged metrics; 0: no probes.
    pub status_port: u16,
    /// Readiness probe: first wait, seconds.
    pub readiness_initial_delay: u32,
    /// Readiness probe: pause, seconds.
    pub readiness_period: u32,
    /// Readiness probe: failures that count.
    pub readiness_failures: u32,
    /// Address ranges captured on the way out.
    pub include_ip_ranges: String,
    /// Address ranges not captured on the way out.
    pub exclude_ip_ranges: String,
    /// Ports captured on the way in.
    pub include_inbound_ports: String,
    /// Ports not captured on the way in.
    pub exclude_inbound_ports: String,
    /// Ports captured on the way out whatever the address.
    pub include_outbound_ports: String,
    /// Ports not captured on the way out.
    pub exclude_outbound_ports: String,
    /// How traffic is captured: `REDIRECT` or `NONE`.
    pub interception_mode: String,
    /// Whether application probes go through the proxy.
    pub rewrite_probes: bool,
    /// Whether application metrics are merged with the proxy's.
    pub prometheus_merge: bool,
    /// Whether applications wait for the proxy.
    pub hold_application: bool,
    /// Whether the proxy is an init container that stays (Kubernetes' native sidecar).
    pub native_sidecars: bool,
    /// User (and group) of the proxy.
    pub proxy_uid: i64,
    /// The mesh's `defaultConfig`, as written.
    pub proxy_config: Map<String, Value>,
}

/// A place in the settings, with its path for complaints.
struct At<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> At<'a> {
    fn new(value: &'a Value, path: &str) -> Self {
        Self { value, path: path.to_owned() }
    }

    fn at(&self, path: &str) -> Self {
        let value = path.split('.').fold(self.value, |value, field| value.get(field).unwrap_or(&Value::Null));
        Self { value, path: format!("{}.{path}", self.path) }
    }

    fn bad<T>(&self, expected: &str) -> Result<T, ConfigError> {
        Err(ConfigError { path: self.path.clone(), reason: format!("{} is not {expected}", self.value) })
    }

    /// Text; numbers are taken as they are written. None if absent or empty.
    fn text(&self) -> Result<Option<String>, ConfigError> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Value::Number(number) => Ok(Some(number.to_string())),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => self.bad("text"),
        }
    }

    fn text_or(&self, default: &str) -> Result<String, ConfigError> {
        Ok(self.text()?.unwrap_or_else(|| default.to_owned()))
    }

    fn switch(&self, default: bool) -> Result<bool, ConfigError> {
        match self.value {
            Value::Null => Ok(default),
            Value::Bool(on) => Ok(*on),
            Value::String(text) if text == "true" => Ok(true),
            Value::String(text) if text == "false" => Ok(false),
            Value::String(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => self.bad("true or false"),
        }
    }

    fn number<T: std::str::FromStr>(&self, default: T) -> Result<T, ConfigError> {
        match self.text()? {
            None => Ok(default),
            Some(text) => text.parse().or_else(|_| self.bad("a number in range")),
        }
    }

    fn map(&self) -> Result<Map<String, Value>, ConfigError> {
        match self.value {
            Value::Null => Ok(Map::new()),
            Value::Object(map) => Ok(map.clone()),
            Value::Bool(_) | Value::String(_) | Value::Number(_) | Value::Array(_) => self.bad("a map"),
        }
    }

    fn selectors(&self) -> Result<Vec<Selector>, ConfigError> {
        let items = self.value.as_array().into_iter().flatten();
        items.map(|item| Selector::read(item, &self.path)).collect()
    }

    fn texts(&self) -> Vec<String> {
        self.value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

impl InjectConfig {
    /// Reads the settings: `config` and `values` of the injector's ConfigMap, and `mesh` of ConfigMap `istio`.
    ///
    /// # Errors
    /// A setting has the wrong type.
    pub fn new(config: &Value, values: &Value, mesh: &Value) -> Result<Self, ConfigError> {
        let (config, values, mesh) = (At::new(config, "config"), At::new(values, "values"), At::new(mesh, "mesh"));
        let (global, proxy) = (values.at("global"), values.at("global.proxy"));
        let by_default = match config.at("policy").text()?.as_deref() {
            Some("enabled") | None => true,
            Some("disabled") => false,
            Some(_) => return config.at("policy").bad("\"enabled\" or \"disabled\""),
        };
        let hub = global.at("hub").text_or("ferromesh")?;
        let tag = global.at("tag").text_or("latest")?;
        // A name with a slash is a whole image.
        let image = |name: String| if name.contains('/') { name } else { format!("{hub}/{name}:{tag}") };
        let default_config = mesh.at("defaultConfig");
        let mode = default_config.at("interceptionMode").text_or("REDIRECT")?;
        let resources = proxy.at("resources").map()?;
        let init_resources = match global.at("proxy_init.resources").map()? {
            empty if empty.is_empty() => resources.clone(),
            own => own,
        };
        let annotations = config.at("injectedAnnotations").map()?;
        let trust_domain = mesh.at("trustDomain").text_or("cluster.local")?;
        Ok(Self {
            by_default,
            never: config.at("neverInjectSelector").selectors()?,
            always: config.at("alwaysInjectSelector").selectors()?,
            injected_annotations: annotations
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())))
                .collect(),
            revision: values.at("revision").text_or("default")?,
            proxy_image: image(proxy.at("image").text_or("proxyv2")?),
            init_image: image(global.at("proxy_init.image").text_or("proxyv2")?),
            pull_policy: global.at("imagePullPolicy").text()?,
            pull_secrets: global.at("imagePullSecrets").texts(),
            resources: Value::Object(resources),
            init_resources: Value::Object(init_resources),
            ca_address: global.at("caAddress").text_or("istio-citadel.istio-system.svc:8060")?,
            istio_namespace: global.at("istioNamespace").text_or("istio-system")?,
            cluster_domain: proxy.at("clusterDomain").text_or("cluster.local")?,
            cluster_id: global.at("multiCluster.clusterName").text_or("Kubernetes")?,
            network: global.at("network").text_or("")?,
            mesh_id: global.at("meshID").text_or(&trust_domain)?,
            trust_domain,
            log_level: proxy.at("logLevel").text_or("warning")?,
            component_log_level: proxy.at("componentLogLevel").text_or("misc:error")?,
            agent_log_level: global.at("logging.level").text_or("default:info")?,
            status_port: proxy.at("statusPort").number(15_020)?,
            readiness_initial_delay: proxy.at("readinessInitialDelaySeconds").number(0)?,
            readiness_period: proxy.at("readinessPeriodSeconds").number(15)?,
            readiness_failures: proxy.at("readinessFailureThreshold").number(4)?,
            include_ip_ranges: proxy.at("includeIPRanges").text_or("*")?,
            exclude_ip_ranges: proxy.at("excludeIPRanges").text_or("")?,
            include_inbound_ports: proxy.at("includeInboundPorts").text_or("*")?,
            exclude_inbound_ports: proxy.at("excludeInboundPorts").text_or("")?,
            include_outbound_ports: proxy.at("includeOutboundPorts").text_or("")?,
            exclude_outbound_ports: proxy.at("excludeOutboundPorts").text_or("")?,
            interception_mode: mode,
            rewrite_probes: values.at("sidecarInjectorWebhook.rewriteAppHTTPProbe").switch(true)?,
            prometheus_merge: mesh.at("enablePrometheusMerge").switch(true)?,
            hold_application: proxy.at("holdApplicationUntilProxyStarts").switch(false)?,
            native_sidecars: values.at("pilot.env.ENABLE_NATIVE_SIDECARS").switch(false)?,
            proxy_uid: 1337,
            proxy_config: default_config.map()?,
        })
    }

    /// The port that Prometheus scrapes, whatever a single Pod's status port is.
    pub(super) fn status_port_of_metrics(&self) -> u16 {
        let set = self.proxy_config.get("statusPort").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        set.filter(|port| *port != 0).unwrap_or(15_020)
    }

    /// The settings where nothing is set.
    pub fn plain() -> Self {
        let nothing = json!({});
        // Nothing set cannot be of a wrong type.
        match Self::new(&nothing, &nothing, &nothing) {
            Ok(config) => config,
            Err(_) => unreachable!("defaults are well-typed"),
        }
    }
}
