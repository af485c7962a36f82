//! May this user do this? Roles and bindings.
//!
//! Never here: who the user is. Called by `server` before every request and by the review kinds.

use serde_json::Value;

use crate::User;
use crate::core::Core;
use crate::object;
use crate::reply::Refusal;

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deed {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// For requests that name no resource; then the fields above but the verb are empty.
    pub(crate) path: String,
}

impl Deed {
    fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// The API's 403.
    pub(crate) fn refusal(&self, user: &User) -> Refusal {
        if !self.path.is_empty() {
            let message = format!("forbidden: User \"{}\" cannot {} path \"{}\"", user.name, self.verb, self.path);
            let mut refusal = Refusal::new(403, "Forbidden", message);
            refusal.details = Some(Box::new(serde_json::json!({})));
            return refusal;
        }
        let resource = crate::kinds::group_resource(&self.resource, &self.group);
        let shown = if self.name.is_empty() { resource } else { format!("{resource} \"{}\"", self.name) };
        let scope = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", self.namespace)
        };
        let message = format!(
            "{shown} is forbidden: User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {scope}",
            user.name,
            self.verb,
            self.resource_path(),
            self.group
        );
        let mut refusal = Refusal::new(403, "Forbidden", message);
        let mut details = serde_json::Map::new();
        if !self.name.is_empty() {
            details.insert("name".to_owned(), self.name.clone().into());
        }
        if !self.group.is_empty() {
            details.insert("group".to_owned(), self.group.clone().into());
        }
        details.insert("kind".to_owned(), self.resource.clone().into());
        refusal.details = Some(Box::new(details.into()));
        refusal
    }
}

/// Why a deed is allowed; `None` when it is not.
pub(crate) fn allowed(core: &Core, user: &User, deed: &Deed) -> Option<String> {
    if user.groups.iter().any(|group| group == "system:masters") {
        return Some(String::new());
    }
    for (rules, reason) in granted(core, user, &deed.namespace) {
        if rules.iter().any(|rule| covers(rule, deed)) {
            return Some(reason);
        }
    }
    None
}

/// The rules that hold for a user in a namespace (cluster-wide ones always), with what granted them.
pub(crate) fn granted(core: &Core, user: &User, namespace: &str) -> Vec<(Vec<Value>, String)> {
    let mut all = Vec::new();
    for item in core.store.list("clusterrolebindings.rbac.authorization.k8s.io", None).0 {
        let binding = item.value();
        if binds(&binding, user, "") {
            let role = object::text(&binding, "/roleRef/name");
            let reason = format!(
                "RBAC: allowed by ClusterRoleBinding {:?} of ClusterRole {role:?} to {}",
                &*item.name,
                subject(user)
            );
            all.push((rules(core, &binding, ""), reason));
        }
    }
    if namespace.is_empty() {
        return all;
    }
    for item in core.store.list("rolebindings.rbac.authorization.k8s.io", Some(namespace)).0 {
        let binding = item.value();
        if binds(&binding, user, namespace) {
            let (kind, role) = (object::text(&binding, "/roleRef/kind"), object::text(&binding, "/roleRef/name"));
            let name = format!("{}/{namespace}", &*item.name);
            let reason = format!("RBAC: allowed by RoleBinding {name:?} of {kind} {role:?} to {}", subject(user));
            all.push((rules(core, &binding, namespace), reason));
        }
    }
    all
}

fn subject(user: &User) -> String {
    match user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, name)) => format!("ServiceAccount \"{name}/{namespace}\""),
        None => format!("User {:?}", user.name),
    }
}

fn rules(core: &Core, binding: &Value, namespace: &str) -> Vec<Value> {
    let (kind, name) = (object::text(binding, "/roleRef/kind"), object::text(binding, "/roleRef/name"));
    let (resource, space) = if kind == "Role" {
        ("roles.rbac.authorization.k8s.io", namespace)
    } else {
        ("clusterroles.rbac.authorization.k8s.io", "")
    };
    core.store.get(resource, space, name).map(|item| role_rules(core, &item.value())).unwrap_or_default()
}

/// A role's rules; an aggregated one's are those of the roles that it selects.
fn role_rules(core: &Core, role: &Value) -> Vec<Value> {
    let selectors = object::items(role, "/aggregationRule/clusterRoleSelectors");
    if selectors.is_empty() {
        return object::items(role, "/rules").to_vec();
    }
    let own = object::name(role);
    let mut all = Vec::new();
    for item in core.store.list("clusterroles.rbac.authorization.k8s.io", None).0 {
        let other = item.value();
        let selected =
            selectors.iter().any(|selector| crate::selector::Labels::from_object(selector).matches_object(&other));
        if selected && &*item.name != own {
            all.extend(role_rules(core, &other));
        }
    }
    all
}

fn binds(binding: &Value, user: &User, namespace: &str) -> bool {
    object::items(binding, "/subjects").iter().any(|subject| {
        let name = object::text(subject, "/name");
        match object::text(subject, "/kind") {
            "User" => user.name == name,
            "Group" => user.groups.iter().any(|group| group == name),
            "ServiceAccount" => {
                let space = object::text(subject, "/namespace");
                let space = if space.is_empty() { namespace } else { space };
                user.name == format!("system:serviceaccount:{space}:{name}")
            }
            _ => false,
        }
    })
}

fn has(rule: &Value, list: &str, wanted: &str) -> bool {
    object::items(rule, list).iter().any(|item| item.as_str().is_some_and(|item| item == "*" || item == wanted))
}

fn covers(rule: &Value, deed: &Deed) -> bool {
    if !has(rule, "/verbs", &deed.verb) {
        return false;
    }
    if !deed.path.is_empty() {
        return object::items(rule, "/nonResourceURLs").iter().filter_map(Value::as_str).any(|pattern| {
            pattern == "*"
                || pattern == deed.path
                || pattern.strip_suffix('*').is_some_and(|prefix| deed.path.starts_with(prefix))
        });
    }
    let resource = deed.resource_path();
    let resource_fits = has(rule, "/resources", &resource)
        || !deed.subresource.is_empty() && has(rule, "/resources", &format!("*/{}", deed.subresource));
    let names = object::items(rule, "/resourceNames");
    let name_fits = names.is_empty() || names.iter().any(|name| name.as_str() == Some(&deed.name));
    has(rule, "/apiGroups", &deed.group) && resource_fits && name_fits
}
