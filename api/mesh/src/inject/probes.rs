//! Sends an application's probes through the proxy, which can reach the application whatever the mesh demands of callers.
//!
//! `httpGet`, `tcpSocket` and `grpc` probes (and HTTP and TCP lifecycle hooks) become HTTP requests to the proxy; the
//! originals go to the proxy in `ISTIO_KUBE_APP_PROBERS`. Never here: asking the application. Called by `pod`.

use serde_json::{Map, Value, json};

const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
const HOOKS: [(&str, &str); 2] = [("postStart", "poststartz"), ("preStop", "prestopz")];

/// The number behind a port that may be a name of one of the container's ports.
fn number(port: &Value, ports: &Value) -> Value {
    let Some(name) = port.as_str() else { return port.clone() };
    if let Ok(number) = name.parse::<u16>() {
        return json!(number);
    }
    let found = ports.as_array().into_iter().flatten().find(|entry| entry["name"] == name);
    found.map_or_else(|| port.clone(), |entry| entry["containerPort"].clone())
}

/// The question of a probe or hook with its port as a number; none if it is of a kind that needs no proxy.
fn question(handler: &Value, ports: &Value, kinds: &[&'static str]) -> Option<(&'static str, Value)> {
    let kind = kinds.iter().copied().find(|kind| handler.get(*kind).is_some_and(Value::is_object))?;
    let mut asked = handler[kind].clone();
    asked["port"] = number(&asked["port"], ports);
    // The usual scheme is not written.
    if kind == "httpGet"
        && asked["scheme"] == "HTTP"
        && let Some(fields) = asked.as_object_mut()
    {
        fields.remove("scheme");
    }
    Some((kind, asked))
}

fn through_proxy(handler: &mut Value, kind: &str, path: &str, status_port: u16) {
    if let Some(fields) = handler.as_object_mut() {
        let had_scheme = fields.remove(kind).is_some_and(|original| original.get("scheme").is_some());
        let mut asked = json!({ "path": path, "port": status_port });
        if had_scheme {
            asked["scheme"] = json!("HTTP");
        }
        fields.insert("httpGet".into(), asked);
    }
}

fn rewrite_container(container: &mut Value, status_port: u16, kept: &mut Map<String, Value>) {
    let (name, ports) = (container["name"].as_str().unwrap_or_default().to_owned(), container["ports"].clone());
    for (field, path) in PROBES {
        let Some(probe) = container.get_mut(field).filter(|probe| probe.is_object()) else { continue };
        let Some((kind, asked)) = question(probe, &ports, &["httpGet", "tcpSocket", "grpc"]) else { continue };
        if asked["port"] == status_port {
            continue;
        }
        let path = format!("/app-health/{name}/{path}");
        let mut original = json!({});
        original[kind] = asked;
        if let Some(timeout) = probe.get("timeoutSeconds") {
            original["timeoutSeconds"] = timeout.clone();
        }
        kept.insert(path.clone(), original);
        through_proxy(probe, kind, &path, status_port);
    }
    for (field, path) in HOOKS {
        let Some(hook) = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(field)) else {
            continue;
        };
        let Some((kind, asked)) = question(hook, &ports, &["httpGet", "tcpSocket"]) else { continue };
        let path = format!("/app-lifecycle/{name}/{path}");
        let mut original = json!({});
        original[kind] = asked;
        kept.insert(path.clone(), original);
        through_proxy(hook, kind, &path, status_port);
    }
}

/// Rewrites the probes of all containers that stay; returns the originals by their new path.
pub(super) fn rewrite(inits: &mut [Value], containers: &mut [Value], status_port: u16) -> Map<String, Value> {
    let mut kept = Map::new();
    let stay = inits.iter_mut().filter(|container| container["restartPolicy"] == "Always");
    for container in stay.chain(containers) {
        rewrite_container(container, status_port, &mut kept);
    }
    kept.sort_keys();
    kept
}
