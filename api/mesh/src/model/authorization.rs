//! Reads an AuthorizationPolicy: who may call some workloads, and what.
//!
//! `from`, `to` and `when` become the clauses of the spec's rules. What is not enforced, or cannot be read, is refused;
//! stored all the same, what the policy selects denies everything.
//! Never here: which workloads are selected, trust-domain aliases (`mesh::authorization`). Called by `model::parse`.

use api::{
    note::Notes,
    spec::{
        AuthorizationAction, AuthorizationClause, AuthorizationOperation, AuthorizationRule, AuthorizationSource,
        OperationTest, Origin, SourceTest,
    },
};

use super::{
    Model, authorization_condition as condition,
    base::{Judge, Labels, Meta},
    text,
};
use crate::object::{Object, security};

/// Who may call some workloads, and what (AuthorizationPolicy).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthorizationPolicy {
    /// Name and age.
    pub meta: Meta,
    /// Labels of the workloads; empty: all of the namespace (of the mesh, in the root namespace).
    pub selector: Labels,
    /// What a match means.
    pub action: AuthorizationAction,
    /// Rules, any of which suffices; principals as they were written, without aliases of their trust domain.
    pub rules: Vec<AuthorizationRule>,
}

impl AuthorizationPolicy {
    /// Denies everything: in place of a policy that cannot be enforced as it was meant.
    fn closed(meta: Meta, selector: Labels) -> Self {
        let origin = Some(Origin { object: meta.object.clone(), path: String::new() });
        let rule = AuthorizationRule { name: rule_name(&meta, 0), from: Vec::new(), to: Vec::new(), origin };
        Self { meta, selector, action: AuthorizationAction::Deny, rules: vec![rule] }
    }
}

/// Name of a rule, as Istio writes it in logs.
fn rule_name(meta: &Meta, index: usize) -> String {
    format!("ns[{}]-policy[{}]-rule[{index}]", meta.object.namespace, meta.object.name)
}

/// Says that a policy does nothing but be counted.
const DRY_RUN: &str = "istio.io/dry-run";

pub(crate) fn parse(object: &Object<security::AuthorizationPolicy>, notes: &mut Notes) -> Model {
    let meta = Meta::of("AuthorizationPolicy", &object.metadata);
    let mut judge = Judge::new(meta.object.clone(), notes);
    let security::AuthorizationPolicy { selector, target_ref, target_refs, action, rules, provider } = &object.spec;
    let refs = target_ref.is_some() || !target_refs.is_empty();
    if refs {
        judge.not_enforced(target_ref.is_some(), "spec.targetRef");
        judge.not_enforced(!target_refs.is_empty(), "spec.targetRefs");
        if selector.is_none() {
            judge.warn("spec", "gateways and waypoints of the Gateway API are not served: nothing is guarded");
            return Model::Unguarded;
        }
    }
    let selector = match selector {
        None => Labels::new(),
        Some(raw) => {
            let before = judge.errors();
            let labels = text::selector(&mut judge, "spec.selector.matchLabels", &raw.match_labels);
            // what was meant is unknown, so the widest holds
            if judge.errors() > before { Labels::new() } else { labels }
        }
    };
    let action = match action {
        None | Some(security::AuthorizationAction::Allow) => AuthorizationAction::Allow,
        Some(security::AuthorizationAction::Deny) => AuthorizationAction::Deny,
        Some(other @ (security::AuthorizationAction::Audit | security::AuthorizationAction::Custom)) => {
            judge.error("spec.action", format!("not enforced yet: {} is refused rather than ignored", other.as_str()));
            AuthorizationAction::Deny
        }
    };
    if provider.is_some() && object.spec.action != Some(security::AuthorizationAction::Custom) {
        judge.error("spec.provider", "only action CUSTOM has a provider");
    }
    if action == AuthorizationAction::Deny && rules.is_empty() {
        judge.error("spec.rules", "DENY without rules denies nothing");
    }
    let mut reader = Reader { judge, meta: &meta };
    let rules: Vec<AuthorizationRule> = rules.iter().enumerate().map(|(index, raw)| reader.rule(index, raw)).collect();
    let mut judge = reader.judge;
    let dry_run = object.metadata.annotations.get(DRY_RUN).map(|raw| raw.parse::<bool>());
    let path = format!("metadata.annotations[{DRY_RUN}]");
    match dry_run {
        Some(Err(_)) => judge.error(path, "must be \"true\" or \"false\""),
        Some(Ok(true)) if judge.errors() == 0 => {
            judge.warn(
                path,
                "not honoured yet: the policy is not enforced, as it asks, and its matches are not counted",
            );
            return Model::Unguarded;
        }
        Some(Ok(_)) | None => {}
    }
    if judge.errors() > 0 {
        judge.warn("", "where it is stored all the same, what it selects denies all requests");
        return Model::AuthorizationPolicy(AuthorizationPolicy::closed(meta, selector));
    }
    Model::AuthorizationPolicy(AuthorizationPolicy { meta, selector, action, rules })
}

/// Reads the rules of one policy.
struct Reader<'n> {
    judge: Judge<'n>,
    meta: &'n Meta,
}

impl Reader<'_> {
    fn rule(&mut self, index: usize, raw: &security::AuthorizationRule) -> AuthorizationRule {
        let security::AuthorizationRule { from, to, when } = raw;
        let path = format!("spec.rules[{index}]");
        for (field, empty) in
            [("from", from.as_ref().is_some_and(Vec::is_empty)), ("to", to.as_ref().is_some_and(Vec::is_empty))]
        {
            if empty {
                self.judge.error(format!("{path}.{field}"), "must not be an empty list: everything would match");
            }
        }
        let mut sources: Vec<AuthorizationSource> = Vec::new();
        for (at, security::AuthorizationFrom { source }) in from.iter().flatten().enumerate() {
            sources.push(self.source(&format!("{path}.from[{at}].source"), source.as_ref()));
        }
        let mut operations: Vec<AuthorizationOperation> = Vec::new();
        for (at, security::AuthorizationTo { operation }) in to.iter().flatten().enumerate() {
            operations.push(self.operation(&format!("{path}.to[{at}].operation"), operation.as_ref()));
        }
        for (at, raw) in when.iter().enumerate() {
            let namespace = self.meta.namespace();
            let (source, operation) = condition::read(&mut self.judge, &format!("{path}.when[{at}]"), raw, namespace);
            every(&mut sources, &source);
            every(&mut operations, &operation);
        }
        AuthorizationRule {
            name: rule_name(self.meta, index),
            from: sources,
            to: operations,
            origin: Some(Origin { object: self.meta.object.clone(), path }),
        }
    }

    fn source(&mut self, path: &str, raw: Option<&security::AuthorizationSource>) -> AuthorizationSource {
        let Some(raw) = raw else {
            self.judge.error(path, "required: without a source every caller would match");
            return AuthorizationSource::new();
        };
        let security::AuthorizationSource {
            principals,
            not_principals,
            request_principals,
            not_request_principals,
            namespaces,
            not_namespaces,
            service_accounts,
            not_service_accounts,
            ip_blocks,
            not_ip_blocks,
            remote_ip_blocks,
            not_remote_ip_blocks,
            trust_domains,
            not_trust_domains,
        } = raw;
        let judge = &mut self.judge;
        let at = |field: &str| format!("{path}.{field}");
        let before = judge.errors();
        judge.not_enforced(!request_principals.is_empty(), at("requestPrincipals"));
        judge.not_enforced(!not_request_principals.is_empty(), at("notRequestPrincipals"));
        judge.not_enforced(!remote_ip_blocks.is_empty(), at("remoteIpBlocks"));
        judge.not_enforced(!not_remote_ip_blocks.is_empty(), at("notRemoteIpBlocks"));
        let accounts = !service_accounts.is_empty() || !not_service_accounts.is_empty();
        let others = [principals, not_principals, namespaces, not_namespaces];
        if accounts && others.iter().any(|list| !list.is_empty()) {
            judge.error(path, "serviceAccounts cannot be combined with principals or namespaces");
        }
        let mut all = AuthorizationSource::new();
        for (field, texts, not) in [("principals", principals, false), ("notPrincipals", not_principals, true)] {
            add(&mut all, condition::principals(judge, &at(field), texts), SourceTest::Principals, not);
        }
        for (field, texts, not) in [("namespaces", namespaces, false), ("notNamespaces", not_namespaces, true)] {
            add(&mut all, condition::parts(judge, &at(field), texts), SourceTest::Namespaces, not);
        }
        for (field, texts, not) in
            [("serviceAccounts", service_accounts, false), ("notServiceAccounts", not_service_accounts, true)]
        {
            let texts = condition::service_accounts(judge, &at(field), texts, self.meta.namespace());
            add(&mut all, texts, SourceTest::Principals, not);
        }
        for (field, texts, not) in
            [("trustDomains", trust_domains, false), ("notTrustDomains", not_trust_domains, true)]
        {
            add(&mut all, condition::parts(judge, &at(field), texts), SourceTest::TrustDomains, not);
        }
        for (field, texts, not) in [("ipBlocks", ip_blocks, false), ("notIpBlocks", not_ip_blocks, true)] {
            add(&mut all, condition::blocks(judge, &at(field), texts), SourceTest::Addresses, not);
        }
        if all.is_empty() && judge.errors() == before {
            judge.error(path, "must not be empty: every caller would match");
        }
        all
    }

    fn operation(&mut self, path: &str, raw: Option<&security::AuthorizationOperation>) -> AuthorizationOperation {
        let Some(raw) = raw else {
            self.judge.error(path, "required: without an operation every request would match");
            return AuthorizationOperation::new();
        };
        let security::AuthorizationOperation {
            hosts,
            not_hosts,
            ports,
            not_ports,
            methods,
            not_methods,
            paths,
            not_paths,
        } = raw;
        let judge = &mut self.judge;
        let at = |field: &str| format!("{path}.{field}");
        let before = judge.errors();
        let mut all = AuthorizationOperation::new();
        for (field, texts, not) in [("hosts", hosts, false), ("notHosts", not_hosts, true)] {
            add(&mut all, condition::texts(judge, &at(field), texts), OperationTest::Hosts, not);
        }
        for (field, texts, not) in [("methods", methods, false), ("notMethods", not_methods, true)] {
            add(&mut all, condition::texts(judge, &at(field), texts), OperationTest::Methods, not);
        }
        for (field, texts, not) in [("paths", paths, false), ("notPaths", not_paths, true)] {
            add(&mut all, condition::paths(judge, &at(field), texts), OperationTest::Paths, not);
        }
        for (field, texts, not) in [("ports", ports, false), ("notPorts", not_ports, true)] {
            add(&mut all, condition::ports(judge, &at(field), texts), OperationTest::Ports, not);
        }
        if all.is_empty() && judge.errors() == before {
            judge.error(path, "must not be empty: every request would match");
        }
        all
    }
}

/// Adds a clause, unless it has no values.
fn add<V, T>(all: &mut Vec<AuthorizationClause<T>>, values: Vec<V>, test: impl Fn(Vec<V>) -> T, not: bool) {
    if !values.is_empty() {
        all.push(AuthorizationClause { test: test(values), not });
    }
}

/// Adds clauses to every alternative; where there is no alternative, they are the only one.
fn every<T: Clone>(alternatives: &mut Vec<Vec<AuthorizationClause<T>>>, clauses: &[AuthorizationClause<T>]) {
    if clauses.is_empty() {
        return;
    }
    if alternatives.is_empty() {
        alternatives.push(Vec::new());
    }
    for alternative in alternatives {
        alternative.extend_from_slice(clauses);
    }
}
