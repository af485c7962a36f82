//! Conditions of RBAC as alternatives, each an `and` of clauses, each an `or` of values of one attribute or its negation.
//!
//! Permissions and principals nest in the same way; what a value is they say themselves.
//! Never here: values. Called by [`super`] with the kinds of `permissions` and `principals`.

use api::spec::AuthorizationClause;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;

use super::{DecodeError, In};

/// How a condition is made of others.
pub(super) enum Shape<'c, C> {
    /// It holds always.
    Any,
    And(&'c [C]),
    Or(&'c [C]),
    Not(&'c C),
    /// It is none of these.
    Value,
}

/// What a condition that is not made of others asks for.
pub(super) enum Value<T> {
    Is(T),
    IsNot(T),
    /// What another value beside it covers already.
    Covered,
}

impl<T> Value<T> {
    /// The test of a header, which may be inverted.
    pub(super) fn of_header(header: &HeaderMatcher, test: T) -> Self {
        if header.invert_match { Self::IsNot(test) } else { Self::Is(test) }
    }
}

/// A permission or a principal.
pub(super) trait Condition: Sized {
    /// What is tested.
    type Test;

    /// What a set of them is called.
    const NAME: &'static str;

    fn shape(&self) -> Shape<'_, Self>;
    fn value(&self, input: &In<'_>, path: &str) -> Result<Value<Self::Test>, DecodeError>;
    /// The values of both tests, where they are of one attribute.
    fn join(known: Self::Test, more: Self::Test) -> Option<Self::Test>;
    /// Whether a test covers a value that is [`Value::Covered`].
    fn is_covered(by: &Self::Test) -> bool;
}

/// All values of two lists.
pub(super) fn both<T>(mut known: Vec<T>, more: Vec<T>) -> Vec<T> {
    known.extend(more);
    known
}

type Clauses<C> = Vec<AuthorizationClause<<C as Condition>::Test>>;

/// The alternatives of a condition, each an `and` of clauses.
pub(super) fn alternatives<C: Condition>(
    input: &In<'_>,
    path: &str,
    raw: &C,
    all: &mut Vec<Clauses<C>>,
) -> Result<(), DecodeError> {
    if let Shape::Or(set) = raw.shape() {
        return set.iter().try_for_each(|one| alternatives(input, path, one, all));
    }
    let mut one = Vec::new();
    clauses(input, path, raw, &mut one)?;
    all.push(one);
    Ok(())
}

fn clauses<C: Condition>(input: &In<'_>, path: &str, raw: &C, all: &mut Clauses<C>) -> Result<(), DecodeError> {
    all.push(match raw.shape() {
        Shape::Any => return Ok(()),
        Shape::And(set) => return set.iter().try_for_each(|one| clauses(input, path, one, all)),
        Shape::Or(set) => clause(input, path, set, false)?,
        Shape::Not(inner) => match inner.shape() {
            Shape::Or(set) => clause(input, path, set, true)?,
            Shape::Any | Shape::And(_) | Shape::Not(_) | Shape::Value => {
                clause(input, path, std::slice::from_ref(inner), true)?
            }
        },
        Shape::Value => clause(input, path, std::slice::from_ref(raw), false)?,
    });
    Ok(())
}

/// Any (or none) of values of one attribute.
fn clause<C: Condition>(
    input: &In<'_>,
    path: &str,
    raw: &[C],
    not: bool,
) -> Result<AuthorizationClause<C::Test>, DecodeError> {
    let mut test: Option<C::Test> = None;
    let (mut inverted, mut covered) = (false, false);
    for one in raw {
        let value = match one.value(input, path)? {
            Value::Is(value) => value,
            Value::IsNot(value) => {
                inverted = true;
                value
            }
            Value::Covered => {
                covered = true;
                continue;
            }
        };
        test = Some(match test {
            None => value,
            Some(known) => C::join(known, value)
                .ok_or_else(|| input.guards(path, "alternatives of different attributes are not tested"))?,
        });
    }
    if covered && !test.as_ref().is_some_and(C::is_covered) {
        return Err(input.guards(path, "authorities are not tested by regex"));
    }
    if inverted && raw.len() > 1 {
        return Err(input.guards(path, "alternatives that are inverted one by one are not tested"));
    }
    let test = test.ok_or_else(|| input.invalid(path, format!("an empty set of {}", C::NAME)))?;
    Ok(AuthorizationClause { test, not: not != inverted })
}
