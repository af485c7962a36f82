//! The sidecar: capture, proxy and volumes, in Istio's shape.
//!
//! Never here: reading of annotations, or gateways' own differences. Called by `pod`.

use serde_json::{Map, Value, json};

use super::pod::{Added, INIT, Making, PROXY};

/// Ports of the proxy that are never captured on the way in.
const OWN_PORTS: &str = "15090,15021";

fn field(path: &str) -> Value {
    json!({ "fieldRef": { "fieldPath": path } })
}

/// Adds a variable to a container.
pub(super) fn push_env(container: &mut Value, name: &str, value: &str) {
    if let Some(env) = container["env"].as_array_mut() {
        env.push(json!({ "name": name, "value": value }));
    }
}

/// Arguments of the program that sets up capture.
fn capture_args(making: &Making<'_>) -> Vec<String> {
    let asked = making.asked;
    let mut not_in = vec![OWN_PORTS.to_owned()];
    if !asked.exclude_inbound_ports.is_empty() {
        not_in.push(asked.exclude_inbound_ports.clone());
    }
    if asked.status_port != 0 {
        not_in.push(asked.status_port.to_string());
    }
    let uid = making.config.proxy_uid.to_string();
    let mut args: Vec<String> =
        ["istio-iptables", "-p", "15001", "-z", "15006", "-u", &uid, "-m"].map(Into::into).into();
    args.push(asked.interception_mode.clone());
    let mut pair = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    pair("-i", &asked.include_ip_ranges);
    pair("-x", &asked.exclude_ip_ranges);
    pair("-b", &asked.include_inbound_ports);
    pair("-d", &not_in.join(","));
    for (flag, value) in [
        ("-q", &asked.include_outbound_ports),
        ("-o", &asked.exclude_outbound_ports),
        ("-k", &asked.reroute_interfaces),
        ("-c", &asked.exclude_interfaces),
    ] {
        if !value.is_empty() {
            pair(flag, value);
        }
    }
    args.push(format!("--log_output_level={}", asked.agent_log_level));
    args
}

fn capture(making: &Making<'_>) -> Value {
    let mut container = json!({
        "name": INIT,
        "image": making.config.init_image,
        "args": capture_args(making),
        "resources": making.asked.init_resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
            "readOnlyRootFilesystem": false,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
        },
    });
    if let Some(policy) = &making.config.pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    let metadata = making.asked.metadata();
    if !metadata.is_empty() {
        container["env"] = metadata.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    }
    container
}

/// The application's ports, one a line.
fn ports(making: &Making<'_>) -> String {
    let ordinary = making.applications.iter().filter(|container| container["restartPolicy"] != "Always");
    let ports = ordinary.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let lines: Vec<String> = ports
        .map(|port| {
            let fields = ["name", "hostPort", "containerPort", "protocol", "hostIP"];
            let shown: Map<String, Value> =
                fields.iter().filter_map(|name| Some(((*name).to_owned(), port.get(*name)?.clone()))).collect();
            Value::Object(shown).to_string()
        })
        .collect();
    if lines.is_empty() { "[\n]".to_owned() } else { format!("[\n    {}\n]", lines.join("\n    ,")) }
}

/// What Prometheus was told about the application, for the proxy that is scraped instead.
fn prometheus(making: &Making<'_>) -> Option<String> {
    let get = |name: &str| making.annotations.get(name).map(String::as_str);
    let scrapes = get("prometheus.io/scrape") == Some("true");
    let targets: Vec<Value> = get("prometheus.istio.io/scrape-targets")
        .into_iter()
        .flat_map(|list| list.split(','))
        .filter_map(|target| {
            let (port, path) = target.trim().split_once(':')?;
            Some(json!({ "port": port, "path": path }))
        })
        .collect();
    let port = get("prometheus.io/port").or_else(|| targets.first()?["port"].as_str())?;
    let own = making.config.status_port_of_metrics().to_string();
    if !making.asked.prometheus_merge || !scrapes || port == own {
        return None;
    }
    let path = get("prometheus.io/path").or_else(|| targets.first()?["path"].as_str()).unwrap_or("");
    let mut shown = json!({ "scrape": "true", "path": path, "port": port });
    if !targets.is_empty() {
        shown["targets"] = Value::Array(targets);
    }
    Some(shown.to_string())
}

/// Where the workload is in the API, as Istio writes it.
fn owner_path(making: &Making<'_>) -> String {
    let owner = &making.owner;
    let kind = owner.kind.to_ascii_lowercase();
    let namespace = &making.placement.namespace;
    format!("kubernetes://apis/{}/namespaces/{namespace}/{kind}s/{}", owner.api_version, owner.name)
}

/// The settings that differ from the proxy's own defaults.
fn proxy_config(making: &Making<'_>) -> String {
    let mut settings = making.asked.proxy_config.clone();
    let default = format!("istiod.{}.svc:15012", making.config.istio_namespace);
    if settings.get("discoveryAddress") == Some(&json!(default)) && making.config.istio_namespace == "istio-system" {
        settings.remove("discoveryAddress");
    }
    format!("{}\n", Value::Object(settings))
}

/// The proxy's environment.
pub(super) fn env(making: &Making<'_>) -> Vec<Value> {
    let config = making.config;
    let applications: Vec<&str> =
        making.applications.iter().filter_map(|container| container["name"].as_str()).collect();
    // Init containers that stay are not named, as in Istio.
    let applications: Vec<&str> = applications
        .into_iter()
        .filter(|name| making.applications.iter().any(|c| c["name"] == *name && c["restartPolicy"] != "Always"))
        .collect();
    let mut env = vec![
        json!({ "name": "PILOT_CERT_PROVIDER", "value": "istiod" }),
        json!({ "name": "CA_ADDR", "value": config.ca_address }),
        json!({ "name": "POD_NAME", "valueFrom": field("metadata.name") }),
        json!({ "name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace") }),
        json!({ "name": "INSTANCE_IP", "valueFrom": field("status.podIP") }),
        json!({ "name": "SERVICE_ACCOUNT", "valueFrom": field("spec.serviceAccountName") }),
        json!({ "name": "HOST_IP", "valueFrom": field("status.hostIP") }),
        json!({ "name": "PROXY_CONFIG", "value": proxy_config(making) }),
        json!({ "name": "ISTIO_META_POD_PORTS", "value": ports(making) }),
        json!({ "name": "ISTIO_META_APP_CONTAINERS", "value": applications.join(",") }),
        json!({ "name": "ISTIO_META_CLUSTER_ID", "value": config.cluster_id }),
        json!({ "name": "ISTIO_META_NODE_NAME", "valueFrom": field("spec.nodeName") }),
        json!({ "name": "ISTIO_META_INTERCEPTION_MODE", "value": making.asked.interception_mode }),
    ];
    let mut push = |name: &str, value: &str| env.push(json!({ "name": name, "value": value }));
    if !config.network.is_empty() {
        push("ISTIO_META_NETWORK", &config.network);
    }
    if !making.owner.name.is_empty() {
        push("ISTIO_META_WORKLOAD_NAME", &making.owner.name);
        push("ISTIO_META_OWNER", &owner_path(making));
    }
    push("ISTIO_META_MESH_ID", &config.mesh_id);
    push("TRUST_DOMAIN", &config.trust_domain);
    for (name, value) in making.asked.metadata().iter().chain(&making.placement.extra_env) {
        push(name, value);
    }
    if let Some(annotations) = prometheus(making) {
        push("ISTIO_PROMETHEUS_ANNOTATIONS", &annotations);
    }
    env
}

fn args(making: &Making<'_>, role: &str) -> Vec<String> {
    let asked = making.asked;
    vec![
        "proxy".into(),
        role.into(),
        "--domain".into(),
        format!("$(POD_NAMESPACE).svc.{}", making.config.cluster_domain),
        format!("--proxyLogLevel={}", asked.log_level),
        format!("--proxyComponentLogLevel={}", asked.component_log_level),
        format!("--log_output_level={}", asked.agent_log_level),
    ]
}

const MOUNTS: [(&str, &str); 5] = [
    ("istiod-ca-cert", "/var/run/secrets/istio"),
    ("istio-data", "/var/lib/istio/data"),
    ("istio-envoy", "/etc/istio/proxy"),
    ("istio-token", "/var/run/secrets/tokens"),
    ("istio-podinfo", "/etc/istio/pod"),
];

/// The proxy's container, in what sidecar and gateway share.
pub(super) fn proxy(making: &Making<'_>, role: &str) -> Value {
    let asked = making.asked;
    let mut container = json!({
        "name": PROXY,
        "image": asked.image,
        "args": args(making, role),
        "env": env(making),
        "ports": [{ "containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP" }],
        "volumeMounts": MOUNTS.iter().map(|(name, path)| json!({ "name": name, "mountPath": path })).collect::<Vec<_>>(),
    });
    if let Some(policy) = &making.config.pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if asked.status_port != 0 {
        let health = json!({ "path": "/healthz/ready", "port": 15021 });
        let mut probe = json!({
            "httpGet": health,
            "periodSeconds": asked.readiness_period,
            "failureThreshold": asked.readiness_failures,
            "timeoutSeconds": 3,
        });
        if asked.readiness_initial_delay != 0 {
            probe["initialDelaySeconds"] = json!(asked.readiness_initial_delay);
        }
        container["readinessProbe"] = probe;
    }
    container
}

/// The volumes that the proxy needs.
pub(super) fn volumes(making: &Making<'_>) -> Vec<Value> {
    let info = |name: &str| json!({ "path": name, "fieldRef": { "fieldPath": format!("metadata.{name}") } });
    let token = json!({ "audience": "istio-ca", "expirationSeconds": 43_200, "path": "istio-token" });
    let mut volumes = vec![
        json!({ "name": "istio-envoy", "emptyDir": { "medium": "Memory" } }),
        json!({ "name": "istio-data", "emptyDir": {} }),
        json!({ "name": "istio-podinfo", "downwardAPI": { "items": [info("labels"), info("annotations")] } }),
        json!({ "name": "istio-token", "projected": { "sources": [{ "serviceAccountToken": token }] } }),
        json!({ "name": "istiod-ca-cert", "configMap": { "name": "istio-ca-root-cert" } }),
    ];
    for (name, value) in &making.asked.volumes {
        let mut volume = value.clone();
        volume["name"] = json!(name);
        volumes.push(volume);
    }
    volumes
}

/// The sidecar of a Pod.
pub(super) fn make(making: &Making<'_>) -> Added {
    let asked = making.asked;
    let mut container = proxy(making, "sidecar");
    container["resources"] = asked.resources.clone();
    container["securityContext"] = json!({
        "allowPrivilegeEscalation": false,
        "privileged": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsGroup": making.config.proxy_uid,
        "runAsNonRoot": true,
        "runAsUser": making.config.proxy_uid,
    });
    if asked.status_port != 0 {
        let health = json!({ "path": "/healthz/ready", "port": 15021 });
        container["startupProbe"] =
            json!({ "httpGet": health, "periodSeconds": 1, "failureThreshold": 600, "timeoutSeconds": 3 });
    }
    if asked.native {
        let port = format!("--debug-port={}", asked.status_port);
        container["lifecycle"] =
            json!({ "preStop": { "exec": { "command": ["pilot-agent", "request", port, "POST", "drain"] } } });
    } else if asked.hold_application {
        container["lifecycle"] = json!({ "postStart": { "exec": { "command": ["pilot-agent", "wait"] } } });
    }
    for (name, value) in &asked.mounts {
        let mut mount = value.clone();
        mount["name"] = json!(name);
        if let Some(mounts) = container["volumeMounts"].as_array_mut() {
            mounts.push(mount);
        }
    }
    let init = (asked.interception_mode != "NONE").then(|| capture(making));
    Added { proxy: container, init, volumes: volumes(making), security: None }
}
