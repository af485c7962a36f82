//! Group rbac.istio.io: ServiceRole, ServiceRoleBinding, RbacConfig and ClusterRbacConfig become AuthorizationPolicies.
//!
//! A role and its binding are two halves of one policy; each half is written with a place for the other that matches nobody.
//! Never here: a rule wider than the old one; what cannot be said leaves its rule out. Called by `instead`.

use serde_json::{Map, Value, json};

use super::{
    draft::{Draft, Workloads},
    part::Part,
};
use crate::{model::Labels, object::Kind};

/// Translates a ServiceRole.
pub(super) fn role(draft: &mut Draft<'_>, mut spec: Part) {
    let nobody =
        json!({ "from": [{ "source": { "principals": ["PUT-HERE-THE-SUBJECTS-OF-ITS-SERVICEROLEBINDING"] } }] });
    draft.info("", "a role allows nobody: put the subjects of its ServiceRoleBinding into `from`");
    draft.info("", "once a policy of action ALLOW selects a workload, all that none allows is refused");
    let grants = grants(draft, spec.parts("rules"));
    write_policies(draft, grants, &[nobody]);
    draft.rest(&spec);
}

/// What rules or actions allow, service by service.
fn grants(draft: &mut Draft<'_>, rules: Vec<Part>) -> Vec<(Workloads, Allowed)> {
    let mut grants = Vec::new();
    for mut rule in rules {
        let services = rule.texts("services");
        let Some(allowed) = Allowed::read(draft, &mut rule) else { continue };
        if !rule.is_empty() {
            draft.rest(&rule);
            draft.lost(rule.path(), "without these fields more would be allowed: the rule is left out");
            continue;
        }
        for service in services {
            let Some(mut workloads) = workloads(draft, &rule.at("services"), &service) else { continue };
            if !allowed.labels.is_empty() {
                workloads.labels.get_or_insert_default().extend(allowed.labels.clone());
            }
            grants.push((workloads, allowed.clone()));
        }
    }
    grants
}

/// Writes a policy for each grant, with a rule for each caller; without callers it allows nobody.
fn write_policies(draft: &mut Draft<'_>, grants: Vec<(Workloads, Allowed)>, callers: &[Value]) {
    let mut names = Names::new(draft.name());
    for (workloads, allowed) in grants {
        let rules: Vec<Value> = callers.iter().map(|caller| allowed.to(caller)).collect();
        let mut policy = workloads.spec();
        policy.insert("action".to_owned(), "ALLOW".into());
        if !rules.is_empty() {
            policy.insert("rules".to_owned(), rules.into());
        }
        draft.write(Kind::AuthorizationPolicy, &names.next(&workloads.name), policy.into());
    }
}

/// Names for several policies: the first has the old object's, the next its service's or number's after it.
struct Names {
    base: String,
    given: Vec<String>,
}

impl Names {
    fn new(base: String) -> Self {
        Self { base, given: Vec::new() }
    }

    fn next(&mut self, service: &str) -> String {
        let mut name = self.base.clone();
        if !self.given.is_empty() {
            name = if service.is_empty() { format!("{name}-all") } else { format!("{name}-{service}") };
        }
        if self.given.contains(&name) {
            name = format!("{name}-{}", self.given.len() + 1);
        }
        self.given.push(name.clone());
        name
    }
}

/// The workloads of a service name as roles write it: short or in full, or `*`.
fn workloads(draft: &mut Draft<'_>, path: &str, service: &str) -> Option<Workloads> {
    if service == "*" {
        return Some(Workloads { name: String::new(), labels: None });
    }
    if service.contains('*') {
        draft.lost(path, format!("{service}: a policy selects by labels; write one for each service it meant"));
        return None;
    }
    let name = service.split('.').next().unwrap_or(service).to_owned();
    let namespace = draft.namespace();
    Some(draft.behind(path, &namespace, &name, name.clone()))
}

/// What a rule allows.
#[derive(Debug, Clone, Default)]
struct Allowed {
    operation: Map<String, Value>,
    when: Vec<Value>,
    /// Labels of the workloads, besides those of the service.
    labels: Labels,
}

impl Allowed {
    /// None where a condition cannot be said: without it more would be allowed.
    fn read(draft: &mut Draft<'_>, rule: &mut Part) -> Option<Self> {
        let mut operation = Map::new();
        for field in ["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths", "ports", "notPorts"] {
            let values = rule.texts(field);
            // Every value is no condition; none of them is one that nobody meets.
            let anything = !field.starts_with("not") && values == ["*"];
            if !values.is_empty() && !anything {
                operation.insert(field.to_owned(), values.into());
            }
        }
        let mut allowed = Self { operation, when: Vec::new(), labels: Labels::new() };
        for mut constraint in rule.parts("constraints") {
            let (key, values) = (constraint.text("key").unwrap_or_default(), constraint.texts("values"));
            let label = key.strip_prefix("destination.labels[").and_then(|key| key.strip_suffix(']'));
            match (label, values.as_slice()) {
                (Some(label), [value]) => drop(allowed.labels.insert(label.to_owned(), value.clone())),
                (None, [_, ..]) if is_condition(&key) => allowed.when.push(json!({ "key": key, "values": values })),
                _ => {
                    let text = format!("{key}: no condition of today says this; the rule is left out");
                    draft.lost(constraint.path(), text);
                    return None;
                }
            }
        }
        Some(allowed)
    }
    /// A caller's rule that is only for these requests.
    fn to(&self, caller: &Value) -> Value {
        let mut rule = caller.clone();
        if !self.operation.is_empty() {
            rule["to"] = json!([{ "operation": self.operation }]);
        }
        if !self.when.is_empty() {
            let callers = rule.get("when").and_then(Value::as_array).cloned().unwrap_or_default();
            rule["when"] = callers.into_iter().chain(self.when.iter().cloned()).collect();
        }
        rule
    }
}

/// Whether conditions of today know that key.
fn is_condition(key: &str) -> bool {
    const KEYS: [&str; 8] = [
        "source.ip",
        "source.namespace",
        "source.principal",
        "request.auth.principal",
        "request.auth.presenter",
        "destination.ip",
        "destination.port",
        "connection.sni",
    ];
    const BEGINNINGS: [&str; 4] =
        ["request.headers[", "request.auth.claims[", "request.auth.audiences", "experimental.envoy.filters."];
    KEYS.contains(&key) || BEGINNINGS.iter().any(|beginning| key.starts_with(beginning))
}

/// Translates a ServiceRoleBinding.
pub(super) fn binding(draft: &mut Draft<'_>, mut spec: Part) {
    let dry_run = spec.text("mode").is_some_and(|mode| mode == "PERMISSIVE");
    let role = spec.text("role").or_else(|| spec.part("roleRef").and_then(|mut role| role.text("name")));
    let callers: Vec<Value> = spec.parts("subjects").into_iter().filter_map(|subject| caller(draft, subject)).collect();
    let actions = spec.parts("actions");
    let grants = if actions.is_empty() {
        let role = role.unwrap_or_default();
        draft.info("", format!("put what ServiceRole {role} allows into `to`, and select its services' workloads"));
        let nothing = json!([format!("PUT-HERE-THE-RULES-OF-SERVICEROLE-{role}")]);
        let nothing = Allowed { operation: Map::from_iter([("paths".to_owned(), nothing)]), ..Allowed::default() };
        vec![(Workloads { name: String::new(), labels: None }, nothing)]
    } else {
        grants(draft, actions)
    };
    write_policies(draft, grants, &callers);
    if dry_run {
        draft.dry_run();
    }
    draft.rest(&spec);
}

/// The rule of one subject; none where it cannot be said.
fn caller(draft: &mut Draft<'_>, mut subject: Part) -> Option<Value> {
    if subject.is_empty() {
        draft.lost(subject.path(), "names nobody");
        return None;
    }
    let mut source: Map<String, Value> = Map::new();
    let mut when = Vec::new();
    let mut put = |field: &str, values: Vec<String>| {
        if !values.is_empty() {
            source.insert(field.to_owned(), values.into());
        }
    };
    match subject.text("user").as_deref() {
        None | Some("*" | "allUsers") => {}
        Some("allAuthenticatedUsers") => put("principals", vec!["*".to_owned()]),
        Some(user) => put("principals", vec![user.to_owned()]),
    }
    for (old, new) in [
        ("names", "principals"),
        ("notNames", "notPrincipals"),
        ("namespaces", "namespaces"),
        ("notNamespaces", "notNamespaces"),
        ("ips", "ipBlocks"),
        ("notIps", "notIpBlocks"),
    ] {
        put(new, subject.texts(old));
    }
    let mut groups = subject.texts("groups");
    groups.extend(subject.text("group"));
    if !groups.is_empty() {
        when.push(json!({ "key": "request.auth.claims[groups]", "values": groups }));
    }
    for (key, value) in subject.pairs("properties") {
        match key.as_str() {
            "source.principal" | "source.user" => put("principals", vec![value]),
            "source.namespace" => put("namespaces", vec![value]),
            "source.ip" => put("ipBlocks", vec![value]),
            "request.auth.principal" => put("requestPrincipals", vec![value]),
            key if is_condition(key) => when.push(json!({ "key": key, "values": [value] })),
            key => {
                let text = format!("{key}: no condition of today says this; the subject is left out");
                draft.lost(subject.at("properties"), text);
                return None;
            }
        }
    }
    if !subject.is_empty() {
        draft.rest(&subject);
        draft.lost(subject.path(), "without these fields more callers would match: the subject is left out");
        return None;
    }
    let mut rule = json!({});
    if !source.is_empty() {
        rule["from"] = json!([{ "source": source }]);
    }
    if !when.is_empty() {
        rule["when"] = when.into();
    }
    Some(rule)
}

/// Translates an RbacConfig or a ClusterRbacConfig: where roles are asked for at all.
pub(super) fn config(draft: &mut Draft<'_>, mut spec: Part) {
    let root = draft.namespace();
    let nothing = || json!({});
    match spec.text("mode").as_deref() {
        None | Some("OFF") => {
            draft.info("", "without an AuthorizationPolicy everything is allowed: delete those there are")
        }
        Some("ON") => draft.write_in(Kind::AuthorizationPolicy, &root, "allow-nothing", nothing()),
        Some("ON_WITH_INCLUSION") => {
            for (namespace, labels) in members(draft, spec.part("inclusion")) {
                write(draft, &namespace, "allow-nothing", labels, None);
            }
        }
        Some("ON_WITH_EXCLUSION") => {
            draft.write_in(Kind::AuthorizationPolicy, &root, "allow-nothing", nothing());
            for (namespace, labels) in members(draft, spec.part("exclusion")) {
                write(draft, &namespace, "allow-all", labels, Some(json!([{}])));
            }
        }
        Some(other) => draft.lost(spec.at("mode"), format!("{other}: no such mode")),
    }
    if spec.text("enforcementMode").or_else(|| spec.text("enforcement_mode")).as_deref() == Some("PERMISSIVE") {
        draft.dry_run();
    }
    draft.rest(&spec);
}

fn write(draft: &mut Draft<'_>, namespace: &str, name: &str, workloads: Option<Workloads>, rules: Option<Value>) {
    let mut spec = workloads.as_ref().map(Workloads::spec).unwrap_or_default();
    let name = workloads.map_or(name.to_owned(), |workloads| format!("{name}-{}", workloads.name));
    spec.extend(rules.map(|rules| ("rules".to_owned(), rules)));
    draft.write_in(Kind::AuthorizationPolicy, namespace, &name, spec.into());
}

/// Namespaces, and workloads of single services with theirs.
fn members(draft: &mut Draft<'_>, list: Option<Part>) -> Vec<(String, Option<Workloads>)> {
    let Some(mut list) = list else { return Vec::new() };
    let mut members: Vec<_> = list.texts("namespaces").into_iter().map(|namespace| (namespace, None)).collect();
    let at = list.at("services");
    for service in list.texts("services") {
        match service.split('.').collect::<Vec<_>>().as_slice() {
            [name, namespace, ..] if !service.contains('*') => {
                let workloads = draft.behind(&at, namespace, name, (*name).to_owned());
                members.push(((*namespace).to_owned(), Some(workloads)));
            }
            _ => draft.lost(
                at.as_str(),
                format!("{service}: write it as SERVICE.NAMESPACE.svc.DOMAIN to have it translated"),
            ),
        }
    }
    draft.rest(&list);
    members
}
