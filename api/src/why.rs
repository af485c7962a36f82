//! Who listens while a decision is made: nobody when traffic is served, `meshctl` when a user asks why.
//!
//! The explaining path is the serving path with a listener; the listener of the data plane is `()` and compiles away.
//! Never here: decisions, or how an explanation is shown. Used by `authz`, `table` and `route`.

use crate::spec::Origin;

/// Hears what was tried, in the order of the rules.
pub trait Why {
    /// False: nobody listens, and what is tried only to be told is not tried.
    const LISTENS: bool;
    /// A rule was tried; without a miss it matched.
    fn tried(&mut self, rule: Tried<'_>, miss: Option<Miss<'_>>);
}

/// Nobody listens.
impl Why for () {
    const LISTENS: bool = false;
    fn tried(&mut self, _: Tried<'_>, _: Option<Miss<'_>>) {}
}

/// Keeps what was tried, as text.
impl Why for Vec<(String, Option<String>)> {
    const LISTENS: bool = true;
    fn tried(&mut self, rule: Tried<'_>, miss: Option<Miss<'_>>) {
        self.push((rule.to_string(), miss.map(|miss| miss.to_string())));
    }
}

/// A rule as it is named to a listener.
#[derive(Debug, Clone, Copy)]
pub struct Tried<'a> {
    /// The virtual host, filter chain or policy layer that the rule belongs to.
    pub of: &'a str,
    /// Its place among its neighbours.
    pub index: usize,
    /// Its name; may be empty.
    pub name: &'a str,
    /// The object it was made from.
    pub origin: Option<&'a Origin>,
}

impl std::fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.is_empty() {
            write!(f, "{}[{}]", self.of, self.index)
        } else {
            write!(f, "{}[{}] {}", self.of, self.index, self.name)
        }
    }
}

/// The first part of a rule that did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Miss<'a> {
    /// The path.
    #[error("the path does not match")]
    Path,
    /// A header, `:method`, `:authority` and `:scheme` among them.
    #[error("header {0} does not match")]
    Header(&'a str),
    /// A parameter of the query.
    #[error("query parameter {0} does not match")]
    Query(&'a str),
    /// Who calls.
    #[error("the caller is not one of its sources")]
    Caller,
    /// What is asked.
    #[error("the operation is not one of its operations")]
    Operation,
}
