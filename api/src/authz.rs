//! May this caller do this? The layers of authorization of a filter chain, compiled and checked.
//!
//! A request must pass every layer. ALLOW passes what one of its rules matches, DENY refuses it; a layer without rules
//! matches nothing, so an ALLOW without rules denies all. On TCP, what only HTTP knows is read as Istio reads it.
//! Never here: who the caller is (the handshake proved it). Called by the proxy before routing, and `meshctl can`.

mod index;
mod nested;
mod rule;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    head::Head,
    spec::{
        Authorization, AuthorizationAction, AuthorizationOperation, AuthorizationSource, OperationTest, SourceTest,
    },
    why::{Tried, Why},
};
use index::Index;
use rule::{Asked, Rule};

/// Rules of a layer up to which they are tried one after the other.
const FEW: usize = 4;

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Principal that the client's certificate proved, without `spiffe://`; none without mTLS.
    pub principal: Option<&'a str>,
    /// Namespace of that principal.
    pub namespace: Option<&'a str>,
    /// Address of the direct peer.
    pub address: IpAddr,
    /// Where the client wanted to go (original destination).
    pub destination: SocketAddr,
    /// Server name of its ClientHello.
    pub server_name: Option<&'a str>,
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It may.
    Allowed,
    /// It may not.
    Denied {
        /// The rule that denies; none: no rule allows.
        rule: Option<&'a Arc<str>>,
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
    /// None where there are few rules.
    index: Option<Box<Index>>,
}

fn source_knows_http(test: &SourceTest) -> bool {
    match test {
        SourceTest::Header(..) => true,
        SourceTest::Principals(_)
        | SourceTest::Namespaces(_)
        | SourceTest::TrustDomains(_)
        | SourceTest::Addresses(_) => false,
    }
}

fn operation_knows_http(test: &OperationTest) -> bool {
    match test {
        OperationTest::Hosts(_) | OperationTest::Methods(_) | OperationTest::Paths(_) => true,
        OperationTest::Ports(_) | OperationTest::Addresses(_) | OperationTest::ServerNames(_) => false,
    }
}

/// A layer as it holds for TCP, where hosts, methods, paths and headers do not exist: in ALLOW a rule that asks for one is
/// dropped (fewer may), in DENY the question is dropped from the rule (fewer may, too).
#[must_use]
pub fn for_tcp(layer: &Authorization) -> Authorization {
    let mut layer = layer.clone();
    match layer.action {
        AuthorizationAction::Allow => layer.rules.retain(|rule| {
            !rule.from.iter().flatten().any(|clause| source_knows_http(&clause.test))
                && !rule.to.iter().flatten().any(|clause| operation_knows_http(&clause.test))
        }),
        AuthorizationAction::Deny => {
            for rule in &mut layer.rules {
                for source in &mut rule.from {
                    source.retain(|clause| !source_knows_http(&clause.test));
                }
                for operation in &mut rule.to {
                    operation.retain(|clause| !operation_knows_http(&clause.test));
                }
                if rule.from.iter().any(AuthorizationSource::is_empty) {
                    rule.from.clear();
                }
                if rule.to.iter().any(AuthorizationOperation::is_empty) {
                    rule.to.clear();
                }
            }
        }
    }
    layer
}

impl Layer {
    fn compile(layer: &Authorization) -> Self {
        let Authorization { action, rules } = layer;
        Self {
            action: *action,
            rules: rules.iter().map(|rule| Rule::compile(rule, *action)).collect(),
            index: (rules.len() > FEW).then(|| Box::new(Index::build(rules))),
        }
    }

    /// The first rule that matches.
    fn first(&self, asked: &Asked<'_>) -> Option<(usize, &Rule)> {
        let Some(index) = &self.index else {
            return self.rules.iter().enumerate().find(|(_, rule)| rule.miss(asked).is_none());
        };
        let mut found: Option<(usize, &Rule)> = None;
        index.each(asked, &mut |ids| {
            for at in ids.iter().map(|id| *id as usize) {
                if found.is_some_and(|(best, _)| best <= at) {
                    break;
                }
                if let Some(rule) = self.rules.get(at).filter(|rule| rule.miss(asked).is_none()) {
                    found = Some((at, rule));
                    break;
                }
            }
        });
        found
    }
}

impl Policies {
    /// Compiles the layers of a chain.
    pub fn compile(layers: &[Authorization], carried: Carried) -> Self {
        let layers = match carried {
            Carried::Http => layers.iter().map(Layer::compile).collect(),
            Carried::Tcp => layers.iter().map(|layer| Layer::compile(&for_tcp(layer))).collect(),
        };
        Self { layers }
    }

    /// Whether everyone may do everything.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

/// Decides whether a request (or, without a head, a connection) may pass.
pub fn check<'p, W: Why>(policies: &'p Policies, peer: &Peer<'_>, head: Option<&Head<'_>>, why: &mut W) -> Verdict<'p> {
    let asked = Asked::new(peer, head);
    for layer in &policies.layers {
        let hit = layer.first(&asked);
        if W::LISTENS {
            let of = match layer.action {
                AuthorizationAction::Allow => "allow",
                AuthorizationAction::Deny => "deny",
            };
            let until = hit.map_or(layer.rules.len(), |(at, _)| at + 1);
            for (index, rule) in layer.rules.iter().take(until).enumerate() {
                let tried = Tried { of, index, name: &rule.name, origin: rule.origin.as_ref() };
                why.tried(tried, rule.miss(&asked));
            }
        }
        match (layer.action, hit) {
            (AuthorizationAction::Allow, Some(_)) | (AuthorizationAction::Deny, None) => {}
            (AuthorizationAction::Allow, None) => return Verdict::Denied { rule: None },
            (AuthorizationAction::Deny, Some((_, rule))) => return Verdict::Denied { rule: Some(&rule.name) },
        }
    }
    Verdict::Allowed
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
