//! Which kinds the server serves: built-in ones from a table, custom ones from CRDs.
//!
//! A [`Kind`] is one resource in one API version; several may share one storage. Never here: fields, rules, handlers.
//! Called by `request` (path → kind), `discovery`, `openapi` and every handler.

mod registry;

use std::sync::{Arc, LazyLock};

pub(crate) use registry::{Registry, Served};

use crate::crd::Custom;
use crate::schema::{self, Type};

/// One resource in one version.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) subresources: Vec<String>,
    /// Where its objects are stored: `pods`, `deployments.apps`.
    pub(crate) storage: String,
    /// Answered, never stored (reviews).
    pub(crate) review: bool,
    pub(crate) model: Model,
}

/// Where a kind's fields are described.
#[derive(Debug, Clone)]
pub(crate) enum Model {
    BuiltIn(&'static Type),
    Custom(Arc<Custom>),
}

impl Kind {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `deployments.apps`: as messages name it.
    pub(crate) fn group_resource(&self) -> String {
        group_resource(&self.plural, &self.group)
    }

    pub(crate) fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|name| name == subresource)
    }

    pub(crate) fn custom(&self) -> Option<&Arc<Custom>> {
        match &self.model {
            Model::Custom(custom) => Some(custom),
            Model::BuiltIn(_) => None,
        }
    }

    /// Whether this is the built-in kind of that group and plural, in any version.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        if self.review {
            &["create"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }

    /// The old API versions of Deployment, which the real server has dropped.
    pub(crate) fn is_old_deployment(&self) -> bool {
        self.plural == "deployments" && (self.group == "extensions" || self.group == "apps" && self.version != "v1")
    }
}

pub(crate) fn group_resource(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// The built-in kinds in the order of discovery.
pub(crate) fn built_in() -> &'static [Arc<Kind>] {
    &BUILT_IN
}

static BUILT_IN: LazyLock<Vec<Arc<Kind>>> =
    LazyLock::new(|| include_str!("rows.txt").lines().filter_map(row).map(Arc::new).collect());

fn row(line: &'static str) -> Option<Kind> {
    if line.starts_with('#') {
        return None;
    }
    let words: Vec<&'static str> = line.split_whitespace().collect();
    let [version, plural, singular, kind, short, categories, scope, type_name, subresources, storage] = words[..]
    else {
        return None;
    };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let list = |text: &str| -> Vec<String> {
        if text == "-" { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
    };
    Some(Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        singular: singular.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        short: list(short),
        categories: list(categories),
        namespaced: scope == "n",
        subresources: list(subresources),
        storage: if storage == "-" || storage == "review" { group_resource(plural, group) } else { storage.to_owned() },
        review: storage == "review",
        model: Model::BuiltIn(schema::find(type_name)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read() {
        let lines = include_str!("rows.txt").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(built_in().len(), lines);
    }
}
