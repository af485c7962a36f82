//! May this caller do this? The layers of authorization of a filter chain, compiled and checked.
//!
//! A request must pass every layer. ALLOW passes what one of its rules matches, DENY refuses it; a layer without rules
//! matches nothing, so an ALLOW without rules denies all. On TCP, what only HTTP knows is read as Istio reads it.
//! Never here: who the caller is (the handshake proved it). Called by the proxy before routing, and `meshctl can`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    head::Head,
    pattern::Text,
    spec::{Authorization, AuthorizationAction, AuthorizationOperation, AuthorizationSource, Origin},
    why::{Miss, Tried, Why},
};

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Principal that the client's certificate proved, without `spiffe://`; none without mTLS.
    pub principal: Option<&'a str>,
    /// Namespace of that principal.
    pub namespace: Option<&'a str>,
    /// Address of the direct peer.
    pub address: IpAddr,
    /// Port the client wanted (original destination).
    pub port: u16,
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It may.
    Allowed,
    /// It may not.
    Denied {
        /// The rule that denies; none: no rule allows.
        rule: Option<&'a str>,
    },
}

/// What a chain carries: it decides which attributes exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// Requests.
    Http,
    /// Bytes.
    Tcp,
}

/// The layers of a chain, compiled.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    layers: Box<[Layer]>,
}

#[derive(Debug, Clone)]
struct Layer {
    action: AuthorizationAction,
    rules: Box<[Rule]>,
}

#[derive(Debug, Clone)]
struct Rule {
    name: Box<str>,
    origin: Option<Origin>,
    from: Box<[Source]>,
    to: Box<[Operation]>,
}

#[derive(Debug, Clone)]
struct Source {
    principals: Texts,
    namespaces: Texts,
    addresses: Sets<IpNet>,
}

#[derive(Debug, Clone)]
struct Operation {
    hosts: Texts,
    methods: Texts,
    paths: Texts,
    ports: Sets<u16>,
}

/// Any of these, and none of those; an empty list of these means any at all.
#[derive(Debug, Clone)]
struct Sets<T> {
    any: Box<[T]>,
    none: Box<[T]>,
}

type Texts = Sets<Text>;

impl<T> Sets<T> {
    fn hold(&self, mut test: impl FnMut(&T) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(&mut test)) && !self.none.iter().any(test)
    }
}

impl Texts {
    fn compile(any: &[String], none: &[String], fold: bool) -> Self {
        let all = |list: &[String]| list.iter().map(|text| Text::policy(text, fold)).collect();
        Self { any: all(any), none: all(none) }
    }

    /// A value that is not there matches no text, not even `*`.
    fn hold_for(&self, value: Option<&str>) -> bool {
        self.hold(|text| value.is_some_and(|value| text.matches(value.as_bytes())))
    }
}

impl Source {
    fn compile(source: &AuthorizationSource) -> Self {
        let AuthorizationSource { principals, not_principals, namespaces, not_namespaces, ip_blocks, not_ip_blocks } =
            source;
        Self {
            principals: Texts::compile(principals, not_principals, false),
            namespaces: Texts::compile(namespaces, not_namespaces, false),
            addresses: Sets { any: ip_blocks.as_slice().into(), none: not_ip_blocks.as_slice().into() },
        }
    }

    fn takes(&self, peer: &Peer<'_>) -> bool {
        let address = peer.address.to_canonical();
        self.principals.hold_for(peer.principal)
            && self.namespaces.hold_for(peer.namespace)
            && self.addresses.hold(|block| block.contains(&address))
    }
}

impl Operation {
    fn compile(operation: &AuthorizationOperation) -> Self {
        let AuthorizationOperation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths } =
            operation;
        Self {
            hosts: Texts::compile(hosts, not_hosts, true),
            methods: Texts::compile(methods, not_methods, false),
            paths: Texts::compile(paths, not_paths, false),
            ports: Sets { any: ports.as_slice().into(), none: not_ports.as_slice().into() },
        }
    }

    /// A host matches with its port or without.
    fn takes(&self, peer: &Peer<'_>, head: Option<&Head<'_>>) -> bool {
        self.ports.hold(|port| *port == peer.port)
            && self.methods.hold_for(head.map(|head| head.method().as_str()))
            && self.paths.hold_for(head.map(Head::path))
            && self.hosts.hold(|text| {
                head.is_some_and(|head| {
                    text.matches(head.host().as_bytes()) || text.matches(head.authority().as_bytes())
                })
            })
    }
}

/// A layer as it holds for TCP, where hosts, methods and paths do not exist: in ALLOW a rule that asks for one is
/// dropped (fewer may), in DENY the question is dropped from the rule (fewer may, too).
#[must_use]
pub fn for_tcp(layer: &Authorization) -> Authorization {
    let http_only = |operation: &AuthorizationOperation| {
        let AuthorizationOperation { hosts, not_hosts, methods, not_methods, paths, not_paths, ports: _, not_ports: _ } =
            operation;
        [hosts, not_hosts, methods, not_methods, paths, not_paths].into_iter().any(|list| !list.is_empty())
    };
    let mut layer = layer.clone();
    match layer.action {
        AuthorizationAction::Allow => layer.rules.retain(|rule| !rule.to.iter().any(http_only)),
        AuthorizationAction::Deny => {
            for rule in &mut layer.rules {
                for operation in &mut rule.to {
                    *operation = AuthorizationOperation {
                        ports: std::mem::take(&mut operation.ports),
                        not_ports: std::mem::take(&mut operation.not_ports),
                        ..AuthorizationOperation::default()
                    };
                }
                if rule.to.contains(&AuthorizationOperation::default()) {
                    rule.to.clear();
                }
            }
        }
    }
    layer
}

impl Policies {
    /// Compiles the layers of a chain.
    pub fn compile(layers: &[Authorization], carried: Carried) -> Self {
        let layer = |layer: &Authorization| Layer {
            action: layer.action,
            rules: layer
                .rules
                .iter()
                .map(|rule| Rule {
                    name: rule.name.as_str().into(),
                    origin: rule.origin.clone(),
                    from: rule.from.iter().map(Source::compile).collect(),
                    to: rule.to.iter().map(Operation::compile).collect(),
                })
                .collect(),
        };
        let layers = match carried {
            Carried::Http => layers.iter().map(layer).collect(),
            Carried::Tcp => layers.iter().map(|raw| layer(&for_tcp(raw))).collect(),
        };
        Self { layers }
    }

    /// Whether everyone may do everything.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

impl Rule {
    fn miss(&self, peer: &Peer<'_>, head: Option<&Head<'_>>) -> Option<Miss<'_>> {
        if !(self.from.is_empty() || self.from.iter().any(|source| source.takes(peer))) {
            Some(Miss::Caller)
        } else if !(self.to.is_empty() || self.to.iter().any(|operation| operation.takes(peer, head))) {
            Some(Miss::Operation)
        } else {
            None
        }
    }
}

/// Decides whether a request (or, without a head, a connection) may pass.
pub fn check<'p>(policies: &'p Policies, peer: &Peer<'_>, head: Option<&Head<'_>>, why: &mut impl Why) -> Verdict<'p> {
    for layer in &policies.layers {
        let of = match layer.action {
            AuthorizationAction::Allow => "allow",
            AuthorizationAction::Deny => "deny",
        };
        let hit = layer.rules.iter().enumerate().find(|(index, rule)| {
            let miss = rule.miss(peer, head);
            why.tried(Tried { of, index: *index, name: &rule.name, origin: rule.origin.as_ref() }, miss);
            miss.is_none()
        });
        match (layer.action, hit) {
            (AuthorizationAction::Allow, Some(_)) | (AuthorizationAction::Deny, None) => {}
            (AuthorizationAction::Allow, None) => return Verdict::Denied { rule: None },
            (AuthorizationAction::Deny, Some((_, rule))) => return Verdict::Denied { rule: Some(&rule.name) },
        }
    }
    Verdict::Allowed
}

#[cfg(test)]
mod tests;
