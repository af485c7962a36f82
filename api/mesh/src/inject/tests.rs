//! Injection against a public corpus of inputs and expected outputs, and the cases it does not hold.
//!
//! Differences on purpose are listed here with their reason; everything else must be equal.
//! Never here: files of our own. The corpus is found through `FERROMESH_SHARED`.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Value, json};

use super::*;

/// Files that are not compared, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("hello-existing-cncf-networks-json", "capture by CNI plugin is not offered"),
    ("hello-existing-cncf-networks", "capture by CNI plugin is not offered"),
    ("hello-openshift", "capture by CNI plugin is not offered"),
    ("sidecar-spire", "templates of the user's own are not offered"),
    ("merge-probers", "a Pod that has a sidecar is left alone, not injected again"),
    ("cronjob", "annotations and labels go to the Pod's template, where they take effect, not to the Job's"),
    ("hello-otel-semconv", "the proxy takes its resource attributes from its own environment"),
    ("proxy-override-args", "the user's container is saved as it was written, in its own list"),
];

/// Variables of Istio's template that the proxy does not read: it is not a Go program.
const NO_ENV: [&str; 2] = ["GOMEMLIMIT", "ISTIO_CPU_LIMIT"];
/// Volumes for SPIRE's socket, mounted certificates and revocation lists, which the proxy does not use.
const NO_VOLUMES: [&str; 4] = ["workload-socket", "credential-socket", "workload-certs", "istio-ca-crl"];

fn corpus() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "tests are told where the corpora are")]
    let shared = std::env::var("FERROMESH_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let folder = PathBuf::from(shared).join("corpora/injection");
    folder.is_dir().then_some(folder)
}

fn corpus_config(file: &str) -> InjectConfig {
    let mut config = InjectConfig::plain();
    let image = "registry.istio.io/testing/proxyv2:latest".to_owned();
    config.proxy_image.clone_from(&image);
    config.init_image = image;
    config.ca_address = "istiod.istio-system.svc:15012".into();
    config.native_sidecars = file != "gateway-with-default-container";
    config.resources =
        json!({ "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "cpu": "2", "memory": "1Gi" } });
    if file.starts_with("proxy-resources-null") {
        config.resources = json!({ "requests": { "memory": "150Mi" }, "limits": { "memory": "500Mi" } });
    }
    config.init_resources = config.resources.clone();
    if matches!(file, "status_params" | "kubevirtInterfaces" | "reroute-virtual-interfaces") {
        config.status_port = 123;
        (config.readiness_initial_delay, config.readiness_period, config.readiness_failures) = (100, 200, 300);
    }
    if file == "format-duration" {
        config.proxy_config.insert("drainDuration".into(), "23s".into());
    }
    config
}

fn named(value: &Value, names: &[&str]) -> bool {
    value["name"].as_str().is_some_and(|name| names.contains(&name))
}

/// Leaves out what means nothing (nulls, empty maps and lists) and what differs on purpose.
fn plain(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map.iter_mut() {
                if let (Some(text), true) = (inner.as_str(), name == STATUS || name == "proxy.istio.io/overrides") {
                    *inner = serde_json::from_str(text).unwrap();
                    if let Some(volumes) = inner["volumes"].as_array_mut() {
                        volumes.retain(|name| !NO_VOLUMES.contains(&name.as_str().unwrap()));
                    }
                }
                if name == "cpu" && inner == "4000m" {
                    *inner = json!("4");
                }
                plain(inner);
            }
            map.retain(|_, inner| !(inner.is_null() || inner == &json!({}) || inner == &json!([])));
        }
        Value::Array(list) => {
            list.retain(|item| !named(item, &NO_ENV) && !named(item, &NO_VOLUMES));
            list.iter_mut().for_each(plain);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                differences(&format!("{path}.{key}"), &ours[key], &theirs[key], found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), a, b, found);
            }
        }
        _ if ours == theirs => {}
        _ => found.push(format!("{path}: ours {ours}, theirs {theirs}")),
    }
}

fn drop_unset(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        for name in ["minReadySeconds", "paused", "test"] {
            spec.remove(name);
        }
    }
    for item in fields.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_unset(item);
    }
}

#[test]
fn the_public_corpus_comes_out_as_expected() {
    let Some(folder) = corpus() else {
        println!("not run: no corpora/injection in FERROMESH_SHARED");
        return;
    };
    let mut compared = 0;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "injected") {
            continue;
        }
        let input = path.with_extension("");
        let name = input.file_stem().unwrap().to_str().unwrap().to_owned();
        if LEFT_OUT.iter().any(|(file, _)| *file == name) {
            continue;
        }
        let read = |path: &std::path::Path| -> Vec<Value> {
            let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
            documents.into_iter().filter(|document| !document.is_null()).collect()
        };
        let (inputs, expected) = (read(&input), read(&path));
        assert_eq!(inputs.len(), expected.len(), "{name}");
        for (object, mut theirs) in inputs.iter().zip(expected) {
            let mut ours = workload(object, "default", &corpus_config(&name)).unwrap().object;
            // Objects went through Go's types there, which write fields that nobody set.
            for whole in [&mut ours, &mut theirs] {
                drop_unset(whole);
            }
            plain(&mut ours);
            plain(&mut theirs);
            differences(&name, &ours, &theirs, &mut found);
        }
        compared += 1;
    }
    assert!(found.is_empty(), "{} differences in {compared} files:\n{}", found.len(), found.join("\n"));
    assert!(compared > 30, "{compared}");
}

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "metadata": { "name": "a-1", "labels": { "app": "a" } },
        "spec": { "containers": [{ "name": "app", "image": "a", "ports": [{ "containerPort": 80 }] }] },
    });
    change(&mut pod);
    pod
}

fn place() -> Placement {
    Placement { namespace: "shop".into(), ..Placement::default() }
}

fn annotated(name: &str, value: &str) -> Value {
    pod(|pod| pod["metadata"]["annotations"][name] = json!(value))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn without_native_sidecars_the_proxy_comes_last_or_first_if_the_application_waits() {
    let config = InjectConfig::plain();
    let object = inject(&pod(|_| {}), &place(), &config).unwrap().object;
    assert_eq!(names(&object["spec"]["containers"]), ["app", "istio-proxy"]);
    assert_eq!(names(&object["spec"]["initContainers"]), ["istio-init"]);
    let held = annotated("proxy.istio.io/config", "holdApplicationUntilProxyStarts: true");
    let object = inject(&held, &place(), &config).unwrap().object;
    assert_eq!(names(&object["spec"]["containers"]), ["istio-proxy", "app"]);
    assert_eq!(
        object["spec"]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"],
        json!(["pilot-agent", "wait"])
    );
}

#[test]
fn annotations_that_cannot_be_read_refuse_the_pod_by_name() {
    for (name, value) in [
        ("sidecar.istio.io/interceptionMode", "SOMETIMES"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "maybe"),
        ("sidecar.istio.io/proxyCPU", "a lot"),
        ("sidecar.istio.io/proxyImage", "a\n  privileged: true"),
        ("sidecar.istio.io/logLevel", "info\n"),
        ("sidecar.istio.io/userVolume", "[]"),
        ("sidecar.istio.io/nativeSidecar", "perhaps"),
        ("status.sidecar.istio.io/port", "99999"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "-1"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/99"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "80,http"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "0"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "eth0; rm"),
        ("proxy.istio.io/config", "{ a: ["),
        ("proxy.istio.io/config", "discoveryAddress: nowhere"),
        ("proxy.istio.io/config", "just text"),
    ] {
        let error = inject(&annotated(name, value), &place(), &InjectConfig::plain()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("annotation {name}: {value:?} ")), "{error}");
    }
    let error = inject(&annotated("inject.istio.io/templates", "sidecar,mine"), &place(), &InjectConfig::plain());
    assert!(error.unwrap_err().to_string().contains("\"mine\" is not offered"));
}

#[test]
fn annotations_that_are_not_honoured_are_told() {
    let injected =
        inject(&annotated("sidecar.istio.io/bootstrapOverride", "x"), &place(), &InjectConfig::plain()).unwrap();
    assert_eq!(
        injected.notes,
        ["annotation sidecar.istio.io/bootstrapOverride is not honoured: the proxy has no Envoy bootstrap"]
    );
    let injected =
        inject(&annotated("sidecar.istio.io/interceptionMode", "TPROXY"), &place(), &InjectConfig::plain()).unwrap();
    assert_eq!(injected.object["spec"]["initContainers"][0]["args"][8], "REDIRECT");
    assert_eq!(injected.notes.len(), 1);
}

#[test]
fn who_gets_a_sidecar_follows_istios_order() {
    let mut config = InjectConfig::plain();
    let says = |pod: &Value, config: &InjectConfig| decide(pod, &place(), config) == Decision::Inject;
    let labelled = |value: &str| pod(|pod| pod["metadata"]["labels"][INJECT] = json!(value));
    assert!(says(&pod(|_| {}), &config));
    assert!(!says(&labelled("false"), &config));
    assert!(!says(&annotated(INJECT, "false"), &config));
    let mut both = labelled("true");
    both["metadata"]["annotations"][INJECT] = json!("false");
    assert!(says(&both, &config), "the label comes before the annotation");
    assert!(!says(&pod(|pod| pod["spec"]["hostNetwork"] = json!(true)), &config));
    let injected = inject(&pod(|_| {}), &place(), &config).unwrap().object;
    assert!(!says(&injected, &config), "it has one already");
    let system = Placement { namespace: "kube-system".into(), ..Placement::default() };
    assert_ne!(decide(&labelled("true"), &system, &config), Decision::Inject);

    config.by_default = false;
    assert!(!says(&pod(|_| {}), &config) && says(&labelled("true"), &config));
    let selector = json!([{ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["a"] }] }]);
    let nothing = json!({});
    let settings = json!({ "policy": "disabled", "alwaysInjectSelector": selector });
    assert!(says(&pod(|_| {}), &InjectConfig::new(&settings, &nothing, &nothing).unwrap()));
    let settings = json!({ "neverInjectSelector": selector });
    let never = InjectConfig::new(&settings, &nothing, &nothing).unwrap();
    assert!(!says(&pod(|_| {}), &never) && says(&labelled("true"), &never));
}

#[test]
fn a_selector_that_cannot_be_read_is_no_selector_that_selects_nothing() {
    for (selector, says) in [
        (json!({ "matchLabels": "app" }), "matchLabels is no map"),
        (json!({ "matchExpressions": {} }), "matchExpressions is no list"),
        (json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": "a" }] }), "values is no list"),
        (json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": [1] }] }), "a value is text"),
    ] {
        let settings = json!({ "neverInjectSelector": [selector] });
        let error = InjectConfig::new(&settings, &json!({}), &json!({})).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn the_workload_is_found_from_the_owner() {
    let owned = |kind: &str, name: &str| {
        let labels = BTreeMap::from([("pod-template-hash".to_owned(), "7d4fc9c8b".to_owned())]);
        let reference = json!([{ "apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true }]);
        let pod = json!({ "metadata": { "ownerReferences": reference } });
        let owner = pod::owner(&pod, &labels);
        format!("{}/{}", owner.kind, owner.name)
    };
    assert_eq!(owned("ReplicaSet", "reviews-v1-7d4fc9c8b"), "Deployment/reviews-v1");
    assert_eq!(owned("ReplicaSet", "lone"), "ReplicaSet/lone");
    assert_eq!(owned("Job", "backup-28193400"), "CronJob/backup");
    assert_eq!(owned("Job", "once"), "Job/once");
    assert_eq!(owned("StatefulSet", "db"), "StatefulSet/db");
    let made = json!({ "metadata": { "generateName": "sleep-" } });
    assert_eq!(pod::owner(&made, &BTreeMap::new()).name, "sleep");
}

#[test]
fn tcp_and_grpc_probes_and_hooks_go_through_the_proxy() {
    let object = pod(|pod| {
        let app = &mut pod["spec"]["containers"][0];
        app["livenessProbe"] = json!({ "tcpSocket": { "port": 80 }, "timeoutSeconds": 7 });
        app["readinessProbe"] = json!({ "grpc": { "port": 80, "service": "s" } });
        app["startupProbe"] = json!({ "exec": { "command": ["true"] } });
        app["lifecycle"] = json!({ "preStop": { "httpGet": { "port": 80, "path": "/bye", "scheme": "HTTP" } } });
    });
    let injected = inject(&object, &place(), &InjectConfig::plain()).unwrap().object;
    let app = &injected["spec"]["containers"][0];
    assert_eq!(
        app["livenessProbe"],
        json!({ "httpGet": { "path": "/app-health/app/livez", "port": 15020 }, "timeoutSeconds": 7 })
    );
    assert_eq!(app["startupProbe"], json!({ "exec": { "command": ["true"] } }));
    assert_eq!(app["lifecycle"]["preStop"]["httpGet"]["path"], "/app-lifecycle/app/prestopz");
    let env = injected["spec"]["containers"][1]["env"].as_array().unwrap();
    let kept = env.iter().find(|variable| variable["name"] == "ISTIO_KUBE_APP_PROBERS").unwrap();
    let kept: Value = serde_json::from_str(kept["value"].as_str().unwrap()).unwrap();
    assert_eq!(
        kept,
        json!({
            "/app-health/app/livez": { "tcpSocket": { "port": 80 }, "timeoutSeconds": 7 },
            "/app-health/app/readyz": { "grpc": { "port": 80, "service": "s" } },
            "/app-lifecycle/app/prestopz": { "httpGet": { "port": 80, "path": "/bye" } },
        })
    );
}

#[test]
fn settings_are_read_as_the_config_map_has_them() {
    let values = json!({
        "global": {
            "hub": "docker.io/istio", "tag": "1.0", "caAddress": "istio-citadel.mesh.svc:8060", "istioNamespace": "mesh",
            "proxy": { "image": "proxyv2", "resources": { "limits": { "cpu": 1 } } },
        },
        "sidecarInjectorWebhook": { "rewriteAppHTTPProbe": false },
    });
    let mesh =
        json!({ "defaultConfig": { "discoveryAddress": "istiod.mesh.svc:15012" }, "enablePrometheusMerge": false });
    let config = InjectConfig::new(&json!({ "policy": "enabled" }), &values, &mesh).unwrap();
    assert_eq!(config.proxy_image, "docker.io/istio/proxyv2:1.0");
    let object = inject(&pod(|_| {}), &place(), &config).unwrap().object;
    let proxy = &object["spec"]["containers"][1];
    let env: BTreeMap<&str, &str> = proxy["env"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?)))
        .collect();
    assert_eq!(env["CA_ADDR"], "istio-citadel.mesh.svc:8060");
    assert_eq!(env["PROXY_CONFIG"], "{\"discoveryAddress\":\"istiod.mesh.svc:15012\"}\n");
    assert!(!object["metadata"]["annotations"].as_object().unwrap().contains_key("prometheus.io/scrape"));
    let error = InjectConfig::new(&json!({ "policy": "sometimes" }), &values, &mesh).unwrap_err();
    assert_eq!(error.to_string(), "config.policy: \"sometimes\" is not \"enabled\" or \"disabled\"");
}
