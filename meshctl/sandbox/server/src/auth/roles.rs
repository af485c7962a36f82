//! The roles that every cluster begins with.
//!
//! Never here: deciding. Called by `bootstrap`.

use serde_json::{Value, json};

const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const READ: [&str; 3] = ["get", "list", "watch"];
const NAMESPACED: [(&str, &[&str]); 8] = [
    (
        "",
        &[
            "configmaps",
            "endpoints",
            "persistentvolumeclaims",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "serviceaccounts",
            "services",
            "services/status",
            "events",
            "limitranges",
            "namespaces",
            "resourcequotas",
            "bindings",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
            "controllerrevisions",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    ("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    ("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    ("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("extensions", &["deployments", "deployments/scale", "deployments/status"]),
];

fn role(name: &str, rules: impl Into<Value>) -> Value {
    let rules: Value = rules.into();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "rules": rules,
    })
}

/// A role made of others: those labelled for it.
fn aggregate(name: &str, also: Option<&str>) -> Value {
    let mut value = role(name, json!([]));
    let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    value["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    if let Some(target) = also {
        value["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{target}")] = "true".into();
    }
    value
}

fn part(target: &str, rules: impl Into<Value>) -> Value {
    let mut value = role(&format!("system:aggregate-to-{target}"), rules);
    value["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{target}")] = "true".into();
    value
}

fn namespaced(verbs: &[&str]) -> Vec<Value> {
    NAMESPACED
        .iter()
        .map(|(group, resources)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs}))
        .collect()
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn binding(role: &str, groups: &[&str]) -> Value {
    let subjects: Vec<Value> = groups
        .iter()
        .map(|group| json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group}))
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": role, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

/// Roles and bindings, as objects to create.
pub(crate) fn seed() -> Vec<Value> {
    [of_users(), of_paths(), of_components()].concat()
}

/// What people are given: everything, or what is in a namespace.
fn of_users() -> Vec<Value> {
    let mut edit = namespaced(&WRITE);
    edit.push(rule("", &["secrets"], &[READ.as_slice(), &WRITE].concat()));
    edit.push(rule(
        "",
        &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"],
        &[READ.as_slice(), &WRITE].concat(),
    ));
    edit.push(rule("", &["pods/eviction", "serviceaccounts/token"], &["create"]));
    edit.push(rule("", &["serviceaccounts"], &["impersonate"]));
    edit.push(rule("coordination.k8s.io", &["leases"], &[READ.as_slice(), &WRITE].concat()));
    edit.push(rule("events.k8s.io", &["events"], &READ));
    vec![
        role(
            "cluster-admin",
            json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]),
        ),
        binding("cluster-admin", &["system:masters"]),
        aggregate("admin", None),
        aggregate("edit", Some("admin")),
        aggregate("view", Some("edit")),
        part(
            "admin",
            json!([
                rule("rbac.authorization.k8s.io", &["rolebindings", "roles"], &[READ.as_slice(), &WRITE].concat()),
                rule("authorization.k8s.io", &["localsubjectaccessreviews"], &["create"]),
            ]),
        ),
        part("edit", edit),
        part("view", namespaced(&READ)),
    ]
}

/// What may be read that is no object.
fn of_paths() -> Vec<Value> {
    let paths = |paths: &[&str]| json!([{"nonResourceURLs": paths, "verbs": ["get"]}]);
    vec![
        role(
            "system:discovery",
            paths(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ]),
        ),
        binding("system:discovery", &["system:authenticated"]),
        role("system:public-info-viewer", paths(&["/healthz", "/livez", "/readyz", "/version", "/version/"])),
        binding("system:public-info-viewer", &["system:authenticated", "system:unauthenticated"]),
        role(
            "system:service-account-issuer-discovery",
            paths(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ]),
        ),
        binding("system:service-account-issuer-discovery", &["system:serviceaccounts"]),
    ]
}

/// What callers may ask of themselves, and what parts of the cluster need.
fn of_components() -> Vec<Value> {
    vec![
        role(
            "system:basic-user",
            json!([
                rule("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
                rule("authentication.k8s.io", &["selfsubjectreviews"], &["create"]),
            ]),
        ),
        binding("system:basic-user", &["system:authenticated"]),
        role(
            "system:auth-delegator",
            json!([
                rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
                rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
            ]),
        ),
        role(
            "system:node",
            json!([
                rule(
                    "",
                    &["nodes", "nodes/status", "pods", "pods/status", "services", "configmaps", "secrets", "events"],
                    &["*"]
                ),
                rule("coordination.k8s.io", &["leases"], &["*"]),
            ]),
        ),
    ]
}
