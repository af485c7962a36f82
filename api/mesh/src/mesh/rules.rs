//! All DestinationRules of a mesh, and which of them shapes a service for a client.
//!
//! The client's namespace beats the service's, which beats the root namespace; the levels are not merged. Within one, the
//! most specific host wins, and rules for one host are merged in order of age.
//! Never here: clusters. Used by `cluster`, `view` and `analysis`.

use std::{collections::BTreeMap, sync::Arc};

use api::{name::Host, note::ObjectRef};

use super::key::Scope;
use crate::model::{Blocks, Catalog, DestinationRule, ExportTo, Labels, Service, Shared};

/// All DestinationRules, merged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    namespaces: BTreeMap<String, InNamespace>,
    by_name: BTreeMap<Arc<ObjectRef>, Shared<DestinationRule>>,
    default_export: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct InNamespace {
    exact: BTreeMap<String, Vec<Arc<ObjectRef>>>,
    /// The longest first.
    wildcards: Vec<(Host, Vec<Arc<ObjectRef>>)>,
}

impl Rules {
    pub(crate) fn of(catalog: &Catalog) -> Self {
        let mut all: Vec<&Shared<DestinationRule>> = catalog.destination_rules.values().collect();
        all.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        // rules that stand for one another: same namespace, host, clients and visibility
        let mut groups: BTreeMap<_, Vec<&Shared<DestinationRule>>> = BTreeMap::new();
        for rule in all {
            let group = (rule.meta.namespace(), &rule.host, &rule.clients, &rule.export_to);
            groups.entry(group).or_default().push(rule);
        }
        let mut rules = Self { default_export: catalog.mesh_config.destination_rule_export.clone(), ..Self::default() };
        let mut wildcards: BTreeMap<&str, BTreeMap<&Host, Vec<Arc<ObjectRef>>>> = BTreeMap::new();
        for ((namespace, host, ..), group) in groups {
            let Some(merged) = merge(&group) else { continue };
            let name = Arc::new(merged.meta.object.clone());
            rules.by_name.insert(Arc::clone(&name), merged);
            if host.is_wildcard() {
                wildcards.entry(namespace).or_default().entry(host).or_default().push(name);
            } else {
                let level = rules.namespaces.entry(namespace.to_owned()).or_default();
                level.exact.entry(host.as_str().to_owned()).or_default().push(name);
            }
        }
        for (namespace, hosts) in wildcards {
            let mut hosts: Vec<_> = hosts.into_iter().map(|(host, names)| (host.clone(), names)).collect();
            hosts.sort_by_key(|(host, _)| std::cmp::Reverse(host.as_str().len()));
            rules.namespaces.entry(namespace.to_owned()).or_default().wildcards = hosts;
        }
        rules
    }

    /// The rule of that name, merged with those that stand beside it.
    pub(crate) fn get(&self, name: &ObjectRef) -> Option<&Shared<DestinationRule>> {
        self.by_name.get(name)
    }

    /// The rule that shapes a service for a client.
    pub(crate) fn find(&self, scope: &Scope, root: &str, service: &Service) -> Option<&Arc<ObjectRef>> {
        let client = &*scope.namespace;
        let own = &*service.id.namespace;
        if client != root
            && let Some(found) = self.in_namespace(client, &service.id.host, scope, |_| true)
        {
            return Some(found);
        }
        if client == root
            && let Some(found) = self.in_namespace(root, &service.id.host, scope, |rule| {
                rule.export_to.as_ref().is_some_and(|export| export.is_private_to(root))
            })
        {
            return Some(found);
        }
        let exported = |rule: &DestinationRule| {
            let said = rule.export_to.as_ref();
            // a rule for some clients is for clients of its own namespace
            (rule.clients.is_empty() || rule.meta.namespace() == client)
                && ExportTo::allows(said, &self.default_export, rule.meta.namespace(), client)
        };
        if own != client
            && own != root
            && let Some(found) = self.in_namespace(own, &service.id.host, scope, exported)
        {
            return Some(found);
        }
        self.in_namespace(root, &service.id.host, scope, exported)
    }

    fn in_namespace(
        &self,
        namespace: &str,
        host: &str,
        scope: &Scope,
        allowed: impl Fn(&DestinationRule) -> bool,
    ) -> Option<&Arc<ObjectRef>> {
        let level = self.namespaces.get(namespace)?;
        let pick = |names: &'_ Vec<Arc<ObjectRef>>| -> Option<usize> {
            let usable = |at: &usize, selected: bool| {
                names.get(*at).and_then(|name| self.by_name.get(name)).is_some_and(|rule| {
                    allowed(rule)
                        && if selected {
                            !rule.clients.is_empty() && scope.selectors.contains(&rule.clients)
                        } else {
                            rule.clients.is_empty()
                        }
                })
            };
            (0..names.len()).find(|at| usable(at, true)).or_else(|| (0..names.len()).find(|at| usable(at, false)))
        };
        if let Some(names) = level.exact.get(host)
            && let Some(found) = pick(names).and_then(|at| names.get(at))
        {
            return Some(found);
        }
        if level.wildcards.is_empty() {
            return None;
        }
        let host: Host = host.parse().ok()?;
        let covering = level.wildcards.iter().filter(|(wildcard, _)| wildcard.covers(&host));
        covering.map(|(_, names)| names).find_map(|names| names.get(pick(names)?))
    }

    /// Every merged rule.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shared<DestinationRule>> {
        self.by_name.values()
    }

    /// Labels that rules ask of clients.
    pub(crate) fn client_selectors(&self) -> impl Iterator<Item = Arc<Labels>> {
        self.by_name.values().filter(|rule| !rule.clients.is_empty()).map(|rule| Arc::new(rule.clients.clone()))
    }
}

/// The oldest rule with the subsets of all, and the first policy that any of them has.
fn merge(group: &[&Shared<DestinationRule>]) -> Option<Shared<DestinationRule>> {
    let (first, rest) = group.split_first()?;
    if rest.is_empty() {
        return Some((*first).clone());
    }
    let mut merged = DestinationRule::clone(first);
    for rule in rest {
        for subset in &rule.subsets {
            if !merged.subsets.iter().any(|known| known.name == subset.name) {
                merged.subsets.push(subset.clone());
            }
        }
        if merged.policy.is_none() {
            merged.policy.clone_from(&rule.policy);
        }
    }
    Some(Shared::new(merged))
}

impl DestinationRule {
    /// The policy for a port, of all of the service or of a subset.
    pub(crate) fn blocks(&self, port: u16, subset: Option<&str>) -> Blocks {
        let mut blocks = match &self.policy {
            None => Blocks::default(),
            Some(policy) => policy.ports.get(&port).unwrap_or(&policy.blocks).clone(),
        };
        let part = subset.and_then(|name| self.subsets.iter().find(|subset| subset.name == name));
        if let Some(policy) = part.and_then(|part| part.policy.as_ref()) {
            if let Some(own) = policy.ports.get(&port) {
                return Blocks { proxy_header: own.proxy_header.or(blocks.proxy_header), ..own.clone() };
            }
            let Blocks { balance, pool, outlier, tls, proxy_header } = policy.blocks.clone();
            blocks.balance = balance.or(blocks.balance);
            blocks.pool = pool.or(blocks.pool);
            blocks.outlier = outlier.or(blocks.outlier);
            blocks.tls = tls.or(blocks.tls);
            blocks.proxy_header = proxy_header.or(blocks.proxy_header);
        }
        blocks
    }
}
