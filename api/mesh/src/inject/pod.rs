//! One Pod: reads what it asks, builds the proxy, and puts both together.
//!
//! Never here: the containers themselves (`sidecar`, `gateway`), probes, or whether (`decide`). Called by [`super::inject`].

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    InjectConfig, InjectError, Injected, Owner, Placement, STATUS, annotations::Asked, gateway, overrides, probes,
    sidecar,
};

/// Name of the proxy's container.
pub(super) const PROXY: &str = "istio-proxy";
/// Name of the container that sets up capture.
pub(super) const INIT: &str = "istio-init";

/// `metadata.labels` or `metadata.annotations` as texts.
pub(super) fn texts(pod: &Value, field: &str) -> BTreeMap<String, String> {
    let map = pod.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_object);
    let entry = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    map.into_iter().flatten().filter_map(entry).collect()
}

/// The Pod's workload: a ReplicaSet's Deployment, a Job's CronJob, else the owner, else the Pod itself.
pub(super) fn owner(pod: &Value, labels: &BTreeMap<String, String>) -> Owner {
    let metadata = &pod["metadata"];
    let references = metadata["ownerReferences"].as_array().into_iter().flatten();
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let Some(found) = references.into_iter().find(|reference| reference["controller"] == true) else {
        let name = match text(metadata, "name") {
            empty if empty.is_empty() => text(metadata, "generateName").trim_end_matches('-').to_owned(),
            name => name,
        };
        return Owner { api_version: "v1".into(), kind: "Pod".into(), name };
    };
    let (api_version, kind, name) = (text(found, "apiVersion"), text(found, "kind"), text(found, "name"));
    if kind == "ReplicaSet"
        && let Some(hash) = labels.get("pod-template-hash")
        && let Some(deployment) = name.strip_suffix(hash.as_str()).and_then(|rest| rest.strip_suffix('-'))
    {
        return Owner { api_version, kind: "Deployment".into(), name: deployment.to_owned() };
    }
    if kind == "Job"
        && let Some((cron, number)) = name.rsplit_once('-')
        && (8..=11).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
    {
        return Owner { api_version, kind: "CronJob".into(), name: cron.to_owned() };
    }
    Owner { api_version, kind, name }
}

/// Everything the proxy's containers are made from.
pub(super) struct Making<'a> {
    pub(super) config: &'a InjectConfig,
    pub(super) placement: &'a Placement,
    pub(super) asked: &'a Asked,
    pub(super) owner: Owner,
    /// The application's containers, and those init containers that stay.
    pub(super) applications: Vec<Value>,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) annotations: &'a BTreeMap<String, String>,
}

/// Containers of a list, without those of ours; ours are given back apart.
fn take_containers(spec: &mut Map<String, Value>, field: &str) -> Result<(Vec<Value>, Vec<Value>), InjectError> {
    let list = match spec.remove(field) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(InjectError::Shape { field: "spec.containers" }),
    };
    Ok(list.into_iter().partition(|container| container["name"] != PROXY && container["name"] != INIT))
}

fn stays(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn by_name(mine: &[Value], name: &str) -> Option<Value> {
    mine.iter().find(|container| container["name"] == name).cloned()
}

/// What a template adds.
pub(super) struct Added {
    pub(super) proxy: Value,
    pub(super) init: Option<Value>,
    pub(super) volumes: Vec<Value>,
    pub(super) security: Option<Value>,
}

pub(super) fn inject(pod: &Value, placement: &Placement, config: &InjectConfig) -> Result<Injected, InjectError> {
    let mut pod = pod.clone();
    let (labels, annotations) = (texts(&pod, "labels"), texts(&pod, "annotations"));
    let asked = Asked::read(&annotations, config)?;
    let owner = placement.owner.clone().unwrap_or_else(|| owner(&pod, &labels));
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut).ok_or(InjectError::Shape { field: "spec" })?;
    let (mut containers, mine) = take_containers(spec, "containers")?;
    let (mut inits, init_mine) = take_containers(spec, "initContainers")?;
    let applications: Vec<Value> =
        inits.iter().filter(|container| stays(container)).chain(&containers).cloned().collect();
    let making =
        Making { config, placement, asked: &asked, owner, applications, labels: &labels, annotations: &annotations };

    let is_gateway = wants_gateway(&asked)?;
    let Added { mut proxy, mut init, volumes, security } =
        if is_gateway { gateway::make(&making) } else { sidecar::make(&making) };
    if !is_gateway && asked.rewrite_probes && asked.status_port != 0 {
        let kept = probes::rewrite(&mut inits, &mut containers, asked.status_port);
        if !kept.is_empty() {
            sidecar::push_env(&mut proxy, "ISTIO_KUBE_APP_PROBERS", &Value::Object(kept).to_string());
        }
    }
    let saved = saved(&mine, &init_mine);
    if let Some(own) = by_name(&mine, PROXY).or_else(|| by_name(&init_mine, PROXY)) {
        overrides::apply(&mut proxy, &own);
    }
    if let (Some(made), Some(own)) = (&mut init, by_name(&init_mine, INIT)) {
        overrides::apply(made, &own);
    }

    let stand = Stand::of(&asked, is_gateway);
    let status = status(config, stand, init.is_some(), &volumes);
    stand.put(proxy, init, &mut containers, &mut inits);
    spec.insert("containers".into(), Value::Array(containers));
    if !inits.is_empty() {
        spec.insert("initContainers".into(), Value::Array(inits));
    }
    extend(spec, "volumes", volumes);
    extend(spec, "imagePullSecrets", config.pull_secrets.iter().map(|name| json!({ "name": name })).collect());
    if let Some(security) = security
        && !spec.contains_key("securityContext")
    {
        spec.insert("securityContext".into(), security);
    }

    let mut wanted = pod_annotations(&making, main_container(&pod, &making).as_deref());
    if !saved.is_empty() {
        wanted.insert("proxy.istio.io/overrides".into(), Value::Object(saved).to_string());
    }
    wanted.insert(STATUS.into(), status.to_string());
    set_texts(&mut pod, "annotations", &wanted, true)?;
    if let Some(map) = pod["metadata"]["annotations"].as_object_mut()
        && asked.prometheus_merge
    {
        // The proxy has them; a scraper must not go past it.
        map.remove("prometheus.istio.io/scrape-targets");
    }
    let mut wanted = pod_labels(&making);
    if is_gateway {
        // A gateway is no server of mesh mTLS by itself.
        wanted.remove("security.istio.io/tlsMode");
    }
    set_texts(&mut pod, "labels", &wanted, false)?;
    let mut notes = asked.notes.clone();
    notes.sort();
    Ok(Injected { object: pod, notes })
}

/// Whether the gateway's template is asked for, and not the sidecar's.
fn wants_gateway(asked: &Asked) -> Result<bool, InjectError> {
    match asked.templates.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["sidecar"] => Ok(false),
        ["gateway"] => Ok(true),
        other => {
            let name = other.iter().find(|name| !["sidecar", "gateway"].contains(name)).copied().unwrap_or_default();
            Err(InjectError::Template { name: name.to_owned() })
        }
    }
}

/// What the user wrote of our containers, to be found when the Pod is injected again.
fn saved(mine: &[Value], init_mine: &[Value]) -> Map<String, Value> {
    let mut saved = Map::new();
    for (field, list) in [("containers", mine), ("initContainers", init_mine)] {
        let list: Vec<Value> = list.iter().map(overrides::to_save).collect();
        if !list.is_empty() {
            saved.insert(field.to_owned(), Value::Array(list));
        }
    }
    saved
}

/// Where the proxy stands among the Pod's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// As the first init container, which stays: the application's own init containers have the mesh.
    Native,
    /// Before the application, which waits for it.
    First,
    Last,
}

impl Stand {
    fn of(asked: &Asked, is_gateway: bool) -> Self {
        match (is_gateway, asked.native, asked.hold_application) {
            (true, _, _) | (false, false, false) => Self::Last,
            (false, true, _) => Self::Native,
            (false, false, true) => Self::First,
        }
    }

    fn put(self, mut proxy: Value, init: Option<Value>, containers: &mut Vec<Value>, inits: &mut Vec<Value>) {
        if self == Self::Native {
            proxy["restartPolicy"] = json!("Always");
            inits.splice(0..0, init.into_iter().chain([proxy]));
            return;
        }
        // Last, so that the application's init containers, which start before the proxy, reach the network.
        inits.extend(init);
        let at = if self == Self::First { 0 } else { containers.len() };
        containers.insert(at, proxy);
    }
}

/// What was added, as tools read it from the Pod.
fn status(config: &InjectConfig, stand: Stand, has_init: bool, volumes: &[Value]) -> Value {
    let native = stand == Stand::Native;
    let inits: Vec<&str> = has_init.then_some(INIT).into_iter().chain(native.then_some(PROXY)).collect();
    let volumes: Vec<&str> = volumes.iter().filter_map(|volume| volume["name"].as_str()).collect();
    json!({
        "initContainers": if inits.is_empty() { Value::Null } else { json!(inits) },
        "containers": if native { Value::Null } else { json!([PROXY]) },
        "volumes": volumes,
        "imagePullSecrets": if config.pull_secrets.is_empty() { Value::Null } else { json!(config.pull_secrets) },
        "revision": config.revision,
    })
}

/// The container that tools mean where a Pod is named only.
fn main_container(pod: &Value, making: &Making<'_>) -> Option<String> {
    let first = making.applications.iter().rfind(|container| !stays(container)).or(making.applications.last());
    let beside = pod["spec"]["containers"].as_array().into_iter().flatten().find(|c| c["name"] != PROXY);
    beside.or(first)?["name"].as_str().map(str::to_owned)
}

/// Annotations for tools: what to look at, and where the metrics are.
fn pod_annotations(making: &Making<'_>, main: Option<&str>) -> BTreeMap<String, String> {
    let Making { config, asked, annotations, .. } = making;
    let mut wanted = BTreeMap::from([("istio.io/rev".to_owned(), config.revision.clone())]);
    for name_of in ["kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"] {
        if let Some(main) = main
            && !annotations.contains_key(name_of)
        {
            wanted.insert(name_of.to_owned(), main.to_owned());
        }
    }
    // Both spellings are in use.
    let unwanted = ["prometheus.io/scrape", "prometheus.io.scrape"]
        .iter()
        .any(|name| annotations.get(*name).is_some_and(|value| value == "false"));
    if asked.prometheus_merge && !unwanted {
        let port = config.status_port_of_metrics();
        wanted.insert("prometheus.io/scrape".into(), "true".into());
        wanted.insert("prometheus.io/port".into(), port.to_string());
        wanted.insert("prometheus.io/path".into(), "/stats/prometheus".into());
    }
    wanted.extend(config.injected_annotations.clone());
    wanted
}

fn extend(spec: &mut Map<String, Value>, field: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    let list = spec.entry(field).or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        // One of the same name is the user's own.
        let new: Vec<Value> =
            more.into_iter().filter(|item| !list.iter().any(|old| old["name"] == item["name"])).collect();
        list.splice(0..0, new);
    }
}

/// Labels that the mesh knows a workload by; the user's own stay.
fn pod_labels(making: &Making<'_>) -> BTreeMap<String, String> {
    let first = |names: &[&str], last: &str| {
        let found = names.iter().find_map(|name| making.labels.get(*name));
        found.cloned().unwrap_or_else(|| last.to_owned())
    };
    let mut labels: BTreeMap<String, String> = [
        ("security.istio.io/tlsMode", "istio".to_owned()),
        ("service.istio.io/canonical-name", first(&["app.kubernetes.io/name", "app"], &making.owner.name)),
        ("service.istio.io/canonical-revision", first(&["app.kubernetes.io/version", "version"], "latest")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if !making.config.network.is_empty() {
        labels.insert("topology.istio.io/network".into(), making.config.network.clone());
    }
    labels
}

fn set_texts(
    pod: &mut Value,
    field: &str,
    wanted: &BTreeMap<String, String>,
    replace: bool,
) -> Result<(), InjectError> {
    let pod = pod.as_object_mut().ok_or(InjectError::Shape { field: "object" })?;
    let metadata = pod.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let metadata = metadata.as_object_mut().ok_or(InjectError::Shape { field: "metadata" })?;
    let map = metadata.entry(field).or_insert_with(|| json!({}));
    if map.is_null() {
        *map = json!({});
    }
    let map = map.as_object_mut().ok_or(InjectError::Shape { field: "metadata.labels or annotations" })?;
    for (name, value) in wanted {
        if replace || !map.contains_key(name) {
            map.insert(name.clone(), value.clone().into());
        }
    }
    Ok(())
}
