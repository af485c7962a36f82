//! A container's environment, as Kubernetes makes it.
//!
//! Service variables, then `envFrom`, then `env` with `$(VAR)`; fields of the Pod. Pure but for the `Lookup` given.
//! Never here: fetching. Called when a container starts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::net::view::{Entry, Kind};

/// ConfigMaps and Secrets of the Pod's namespace, already fetched; `None`: absent.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Option<BTreeMap<String, String>>>,
    pub(crate) secrets: BTreeMap<String, Option<BTreeMap<String, String>>>,
}

/// What of the machine a Pod may ask about.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) host_ip: String,
    pub(crate) pod_ip: String,
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
}

/// Why a container cannot have its environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    NoObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported resource: {0}")]
    Resource(String),
}

/// Which ConfigMaps and Secrets a container's environment needs.
pub(crate) fn needed(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.iter().map(|found| found.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|found| found.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.iter().map(|found| found.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|found| found.name.clone()));
    }
    (maps, secrets)
}

/// The whole environment, without the image's own.
pub(crate) fn build(
    pod: &Pod,
    container: &Container,
    services: &[Entry],
    sources: &Sources,
    place: &Place,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = BTreeMap::new();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    service_variables(&mut env, services, pod.metadata.namespace.as_deref().unwrap_or_default(), links);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (found, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => (object(&sources.config_maps, "configmap", &map.name), map.optional),
            (None, Some(secret)) => (object(&sources.secrets, "secret", &secret.name), secret.optional),
            (None, None) => continue,
        };
        match found {
            Ok(values) => env.extend(values.iter().map(|(key, value)| (format!("{prefix}{key}"), value.clone()))),
            Err(_) if optional == Some(true) => {}
            Err(error) => return Err(error),
        }
    }
    let mut own = Vec::new();
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (_, Some(source)) => match from_source(pod, container, source, sources, place)? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => expand(value.as_deref().unwrap_or_default(), |name| env.get(name).cloned()),
        };
        env.insert(var.name.clone(), value);
        own.push(var.name.clone());
    }
    Ok(env.into_iter().collect())
}

fn object<'a>(
    all: &'a BTreeMap<String, Option<BTreeMap<String, String>>>,
    kind: &'static str,
    name: &str,
) -> Result<&'a BTreeMap<String, String>, EnvError> {
    all.get(name).and_then(Option::as_ref).ok_or_else(|| EnvError::NoObject { kind, name: name.to_owned() })
}

fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources,
    place: &Place,
) -> Result<Option<String>, EnvError> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, field, place).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(pod, container, resource, place).map(Some);
    }
    let (kind, all, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(map), _) => ("ConfigMap", &sources.config_maps, &map.name, &map.key, map.optional),
        (None, Some(secret)) => ("Secret", &sources.secrets, &secret.name, &secret.key, secret.optional),
        (None, None) => return Ok(None),
    };
    let lower = if kind == "ConfigMap" { "configmap" } else { "secret" };
    let found = object(all, lower, name).and_then(|values| {
        values.get(key).ok_or_else(|| EnvError::NoKey {
            kind,
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: name.clone(),
            key: key.clone(),
        })
    });
    match found {
        Ok(value) => Ok(Some(value.clone())),
        Err(_) if optional == Some(true) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `metadata.labels['a']` and the like.
pub(crate) fn field_value(pod: &Pod, field: &ObjectFieldSelector, place: &Place) -> Result<String, EnvError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let unknown = || EnvError::Field(field.field_path.clone());
    let value = match field.field_path.as_str() {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(lines(meta.labels.as_ref())),
        "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
        "spec.nodeName" => Some(place.node.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" | "status.hostIPs" => Some(place.host_ip.clone()),
        "status.podIP" | "status.podIPs" => Some(place.pod_ip.clone()),
        path => {
            let (map, key) = path.strip_suffix("']").and_then(|path| path.split_once("['")).ok_or_else(unknown)?;
            let map = match map {
                "metadata.labels" => meta.labels.as_ref(),
                "metadata.annotations" => meta.annotations.as_ref(),
                _ => return Err(unknown()),
            };
            map.and_then(|map| map.get(key)).cloned()
        }
    };
    Ok(value.unwrap_or_default())
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// `limits.cpu` and the like; a missing limit is the node's size.
pub(crate) fn resource_value(
    pod: &Pod,
    container: &Container,
    field: &ResourceFieldSelector,
    place: &Place,
) -> Result<String, EnvError> {
    let unknown = || EnvError::Resource(field.resource.clone());
    let of = match &field.container_name {
        None => Some(container),
        Some(name) => {
            let spec = pod.spec.as_ref();
            let all =
                spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
            all.into_iter().find(|found| found.name == *name)
        }
    };
    let resources = of.ok_or_else(unknown)?.resources.clone().unwrap_or_default();
    let (which, resource) = field.resource.split_once('.').ok_or_else(unknown)?;
    let limit = resources.limits.as_ref().and_then(|limits| limits.get(resource));
    let request = resources.requests.as_ref().and_then(|requests| requests.get(resource));
    let given = match which {
        "limits" => limit,
        "requests" => request.or(limit),
        _ => return Err(unknown()),
    };
    let milli = match (given, which, resource) {
        (Some(quantity), _, _) => milli(quantity).ok_or_else(unknown)?,
        (None, "limits", "cpu") => u128::from(place.cpus) * 1000,
        (None, "limits", "memory") => u128::from(place.memory_bytes) * 1000,
        (None, "requests", _) | (None, _, "ephemeral-storage") => 0,
        (None, _, _) => return Err(unknown()),
    };
    let divisor = match &field.divisor {
        Some(quantity) if quantity.0 != "0" => {
            self::milli(quantity).filter(|divisor| *divisor > 0).ok_or_else(unknown)?
        }
        _ => 1000,
    };
    Ok(milli.div_ceil(divisor).to_string())
}

/// A quantity in thousandths.
fn milli(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.as_str();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()? };
    let thousandths = whole.checked_mul(1000)? + part.parse::<u128>().ok()?;
    let factor: u128 = match suffix {
        "" => 1,
        "m" => return Some(thousandths.div_ceil(1000)),
        "k" => 1000,
        "M" => 1000_u128.pow(2),
        "G" => 1000_u128.pow(3),
        "T" => 1000_u128.pow(4),
        "Ki" => 1024,
        "Mi" => 1024_u128.pow(2),
        "Gi" => 1024_u128.pow(3),
        "Ti" => 1024_u128.pow(4),
        _ => return None,
    };
    thousandths.checked_mul(factor)
}

/// A quantity in whole units, rounded up.
pub(crate) fn units(quantity: &Quantity) -> Option<u64> {
    u64::try_from(milli(quantity)?.div_ceil(1000)).ok()
}

/// Replaces `$(NAME)`; `$$` is a dollar; unknown names stay.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        if let Some(after) = tail.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix("$(").and_then(|tail| tail.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = &tail[1..];
        }
    }
    out.push_str(rest);
    out
}

fn service_variables(env: &mut BTreeMap<String, String>, services: &[Entry], namespace: &str, links: bool) {
    for entry in services {
        let api = entry.key.0 == "default" && entry.key.1 == "kubernetes";
        let Kind::Address(address) = entry.kind else { continue };
        if !api && (!links || entry.key.0 != namespace) {
            continue;
        }
        let Some(first) = entry.ports.first() else { continue };
        let name = entry.key.1.to_ascii_uppercase().replace('-', "_");
        let mut put = |suffix: String, value: String| env.insert(format!("{name}_{suffix}"), value);
        put("SERVICE_HOST".to_owned(), address.to_string());
        put("SERVICE_PORT".to_owned(), first.number.to_string());
        put("PORT".to_owned(), format!("{}://{address}:{}", first.transport, first.number));
        for port in &entry.ports {
            if !port.name.is_empty() {
                let port_name = port.name.to_ascii_uppercase().replace('-', "_");
                put(format!("SERVICE_PORT_{port_name}"), port.number.to_string());
            }
            let transport = port.transport.to_string();
            let stem = format!("PORT_{}_{}", port.number, transport.to_ascii_uppercase());
            put(stem.clone(), format!("{transport}://{address}:{}", port.number));
            put(format!("{stem}_PROTO"), transport);
            put(format!("{stem}_PORT"), port.number.to_string());
            put(format!("{stem}_ADDR"), address.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn place() -> Place {
        Place {
            node: "n".to_owned(),
            host_ip: "198.18.0.1".to_owned(),
            pod_ip: "198.18.0.2".to_owned(),
            cpus: 2,
            memory_bytes: 1 << 30,
        }
    }

    fn check(container: Value, name: &str, expected: Option<&str>) {
        let mut container = container;
        container["name"] = json!("c");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "web"}, "annotations": {"a": "x y"}},
            "spec": {"containers": [container], "serviceAccountName": "sa"}
        }))
        .unwrap();
        let sources = Sources {
            config_maps: BTreeMap::from([("m".to_owned(), Some(BTreeMap::from([("k".to_owned(), "v".to_owned())])))]),
            secrets: BTreeMap::new(),
        };
        let env = build(&pod, &pod.spec.as_ref().unwrap().containers[0], &[], &sources, &place()).unwrap();
        let found = env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(found, expected);
    }

    #[test]
    fn earlier_variables_are_put_in() {
        check(
            json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$$(A)$(C)$x"}]}),
            "B",
            Some("1$(A)$(C)$x"),
        );
    }

    #[test]
    fn a_whole_config_map_comes_with_its_prefix() {
        check(json!({"envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}]}), "P_k", Some("v"));
    }

    #[test]
    fn an_optional_absence_is_silent() {
        let reference = json!({"name": "none", "key": "k", "optional": true});
        check(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": reference}}]}), "A", None);
    }

    #[test]
    fn fields_of_the_pod() {
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.labels['app']", "web"),
            ("metadata.annotations", "a=\"x y\""),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "198.18.0.2"),
        ] {
            check(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}), "A", Some(value));
        }
    }

    #[test]
    fn resources_are_rounded_up() {
        let cpu = json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
            "resources": {"limits": {"cpu": "1500m"}}});
        check(cpu, "A", Some("2"));
        let memory = json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef":
            {"resource": "limits.memory", "divisor": "1Mi"}}}]});
        check(memory, "A", Some("1024"));
    }
}
