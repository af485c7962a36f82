//! Who may do what: layers of authorization, each a list of rules (AuthorizationPolicy, Envoy's RBAC).
//!
//! A rule is plain logic: one of its callers and one of its operations must match, and each of these is a list of clauses
//! that must all hold. Whatever users write (`from`, `to`, `when`, their `not…` forms) comes down to that.
//! Never here: deciding (`authz`). Part of [`super`]; compiled by `table`.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Origin;

/// One layer of authorization: what it does and to whom. The request must pass every layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Authorization {
    /// What a match means.
    pub action: AuthorizationAction,
    /// Rules in order of their names; any of them matching is a match.
    pub rules: Vec<AuthorizationRule>,
}

/// What a match of an authorization rule means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuthorizationAction {
    /// Requests that match pass; all others are denied.
    Allow,
    /// Requests that match are denied.
    Deny,
}

/// One rule: who and what, both of which must match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuthorizationRule {
    /// `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`, as Istio names it in logs.
    pub name: String,
    /// Any of these callers; empty: every caller.
    pub from: Vec<AuthorizationSource>,
    /// Any of these operations; empty: every operation.
    pub to: Vec<AuthorizationOperation>,
    /// The policy it was made from.
    pub origin: Option<Origin>,
}

/// A caller: every clause must hold.
pub type AuthorizationSource = Vec<AuthorizationClause<SourceTest>>;

/// An operation: every clause must hold.
pub type AuthorizationOperation = Vec<AuthorizationClause<OperationTest>>;

/// A question about one attribute. Texts are exact, `prefix*`, `*suffix` or `*` (any, but present).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuthorizationClause<T> {
    /// The attribute, and the values of which it must have one.
    pub test: T,
    /// True: it must have none of them; then an attribute that is not there is right, too.
    pub not: bool,
}

impl<T> AuthorizationClause<T> {
    /// The attribute must have one of the values.
    pub fn is(test: T) -> Self {
        Self { test, not: false }
    }

    /// The attribute must have none of the values.
    pub fn is_not(test: T) -> Self {
        Self { test, not: true }
    }
}

/// An attribute of a caller, with values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceTest {
    /// The principal that its certificate proves, without `spiffe://`.
    Principals(Vec<String>),
    /// The namespace of that principal.
    Namespaces(Vec<String>),
    /// The trust domain of that principal.
    TrustDomains(Vec<String>),
    /// The address of the direct peer.
    Addresses(Vec<IpNet>),
    /// A header of the request, its name in lower case.
    Header(String, Vec<String>),
}

/// An attribute of an operation, with values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OperationTest {
    /// The host asked for, in either case, with its port or without.
    Hosts(Vec<String>),
    /// The method.
    Methods(Vec<String>),
    /// The path, without the query; `{*}` stands for one segment, `{**}` for any number of them.
    Paths(Vec<String>),
    /// The port that the connection was for.
    Ports(Vec<u16>),
    /// The address that the connection was for.
    Addresses(Vec<IpNet>),
    /// The server name of the ClientHello.
    ServerNames(Vec<String>),
}
