//! Which policies hold for a workload, and the layers they make: what denies before what allows.
//!
//! Policies of the workload's namespace and of the root namespace that select it all count together, by action.
//! Never here: reading policies (`model`), deciding (`api::authz`). Used by `view`, `inbound` and `gateway`.

use std::collections::BTreeMap;

use api::{
    note::ObjectRef,
    spec::{Authorization, AuthorizationAction, AuthorizationClause, AuthorizationRule, Origin, SourceTest},
};

use super::Mesh;
use crate::model::{
    AuthorizationPolicy, Catalog, Labels, MeshConfig, Shared,
    base::{hash_of, selects},
};

/// The domain that stands in principals for the mesh's own, whatever its name (Istio).
const OWN_DOMAIN: &str = "cluster.local";

/// What guards a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Guarded {
    /// Policies that select it.
    pub(crate) policies: Vec<ObjectRef>,
    /// What denies it everything.
    pub(crate) guards: Vec<ObjectRef>,
}

/// All policies, by namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Policies {
    namespaces: BTreeMap<String, BTreeMap<ObjectRef, Shared<AuthorizationPolicy>>>,
}

impl Policies {
    pub(crate) fn of(catalog: &Catalog) -> Self {
        let mut policies = Self::default();
        for (object, policy) in &catalog.authorization_policies {
            policies.namespaces.entry(object.namespace.clone()).or_default().insert(object.clone(), policy.clone());
        }
        policies
    }

    fn get(&self, object: &ObjectRef) -> Option<&Shared<AuthorizationPolicy>> {
        self.namespaces.get(&object.namespace)?.get(object)
    }

    /// Policies that select a workload.
    fn selecting(&self, root: &str, namespace: &str, labels: &Labels) -> Vec<ObjectRef> {
        let own = (namespace != root).then_some(namespace);
        let known = [Some(root), own].into_iter().flatten().filter_map(|name| self.namespaces.get(name)).flatten();
        known.filter(|(_, policy)| selects(&policy.selector, labels)).map(|(object, _)| object.clone()).collect()
    }
}

/// What guards a workload.
pub(crate) fn guarded(mesh: &Mesh, namespace: &str, labels: &Labels) -> Guarded {
    Guarded {
        policies: mesh.policies.selecting(&mesh.root, namespace, labels),
        guards: mesh.peers.guards(namespace, labels),
    }
}

/// Version of all that the layers are made from; the mesh's configuration is not among it.
pub(crate) fn version(mesh: &Mesh, guarded: &Guarded) -> u64 {
    let policies: Vec<_> =
        guarded.policies.iter().map(|object| mesh.policies.get(object).map(Shared::version)).collect();
    hash_of(&(policies, &guarded.guards))
}

/// The layers of a workload: first all that denies, then all that allows; rules in order of their names.
pub(crate) fn layers(mesh: &Mesh, guarded: &Guarded) -> Vec<Authorization> {
    let closed = guarded.guards.iter().map(|guard| AuthorizationRule {
        name: format!("ns[{}]-{}[{}]", guard.namespace, guard.kind, guard.name),
        from: Vec::new(),
        to: Vec::new(),
        origin: Some(Origin { object: guard.clone(), path: String::new() }),
    });
    let policies: Vec<_> = guarded.policies.iter().filter_map(|object| mesh.policies.get(object)).collect();
    let rules = |action| {
        let chosen = policies.iter().filter(move |policy| policy.action == action);
        chosen.flat_map(|policy| &policy.rules).map(|rule| with_aliases(rule, &mesh.config))
    };
    let allows = policies.iter().any(|policy| policy.action == AuthorizationAction::Allow);
    let mut layers = Vec::with_capacity(2);
    let deny: Vec<_> = closed.chain(rules(AuthorizationAction::Deny)).collect();
    if !deny.is_empty() {
        layers.push(Authorization { action: AuthorizationAction::Deny, rules: deny });
    }
    if allows {
        let rules = rules(AuthorizationAction::Allow).collect();
        layers.push(Authorization { action: AuthorizationAction::Allow, rules });
    }
    for layer in &mut layers {
        layer.rules.sort_by(|a, b| a.name.cmp(&b.name));
    }
    layers
}

/// A rule in which principals of the mesh's trust domain stand for those of its aliases, too.
fn with_aliases(rule: &AuthorizationRule, config: &MeshConfig) -> AuthorizationRule {
    let mut rule = rule.clone();
    for AuthorizationClause { test, not: _ } in rule.from.iter_mut().flatten() {
        if let SourceTest::Principals(principals) = test {
            *principals = expand(principals, config);
        }
    }
    rule
}

fn expand(principals: &[String], config: &MeshConfig) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(principals.len());
    let mut add = |principal: String| {
        if !all.contains(&principal) {
            all.push(principal);
        }
    };
    let domains = || std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases);
    for principal in principals {
        // what does not say which trust domain it means needs no aliases
        let parts: Vec<&str> = principal.split('/').collect();
        let (domain, rest) = match parts.as_slice() {
            [domain, "ns", _, "sa", _] if *domain != "*" => (*domain, principal.get(domain.len()..)),
            _ => ("*", None),
        };
        let named = |known: &&String| match domain.strip_prefix('*') {
            Some(end) => known.ends_with(end),
            None => *known == domain,
        };
        match rest.filter(|_| domain == OWN_DOMAIN || domains().any(|known| named(&known))) {
            None => add(principal.clone()),
            Some(rest) => domains().for_each(|known| {
                add(if named(&known) { principal.clone() } else { format!("{known}{rest}") });
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(principals: &[&str], domain: &str, aliases: &[&str], want: &[&str]) {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
        let config =
            MeshConfig { trust_domain: domain.to_owned(), trust_domain_aliases: own(aliases), ..MeshConfig::default() };
        assert_eq!(expand(&own(principals), &config), want, "{principals:?} {domain} {aliases:?}");
    }

    #[test]
    fn principals_of_the_mesh_stand_for_its_aliases_too() {
        check(&["td1/ns/a/sa/b"], "td1", &["td2"], &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        check(&["td2/ns/a/sa/b"], "td1", &["td2"], &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        check(&["cluster.local/ns/a/sa/*"], "td1", &["td2"], &["td1/ns/a/sa/*", "td2/ns/a/sa/*"]);
        check(&["cluster.local/ns/a/sa/b"], "td1", &["cluster.local"], &["td1/ns/a/sa/b", "cluster.local/ns/a/sa/b"]);
        check(&["other/ns/a/sa/b"], "td1", &["td2"], &["other/ns/a/sa/b"]);
        check(&["*-td/ns/a/sa/b"], "old-td", &["new-td", "x"], &["*-td/ns/a/sa/b", "x/ns/a/sa/b"]);
        check(&["*/ns/a/sa/b", "*", "td1/*"], "td1", &["td2"], &["*/ns/a/sa/b", "*", "td1/*"]);
    }
}
