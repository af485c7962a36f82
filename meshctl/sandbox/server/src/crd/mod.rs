//! Custom resources: a CRD object → kinds with a structural schema.
//!
//! Never here: storing, HTTP. Called by `kinds::Registry`'s owner on every change of a CRD, and by `verb` on writes.

pub(crate) mod path;
pub(crate) mod rules;
pub(crate) mod schema;
mod validate;

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::kinds::{Kind, Model, group_resource};
use crate::object;
use crate::reply::Cause;
use schema::Structural;

/// One version of a custom resource.
#[derive(Debug)]
pub(crate) struct Custom {
    pub(crate) schema: Structural,
    /// Tells versions of the schema apart.
    pub(crate) digest: [u8; 32],
    pub(crate) columns: Vec<Value>,
    /// `spec.a`: usable in field selectors.
    pub(crate) selectable: Vec<String>,
    /// The `scale` subresource's paths.
    pub(crate) scale: Option<Value>,
    /// The version that objects are stored in.
    pub(crate) storage_version: String,
    pub(crate) deprecated: Option<String>,
}

/// The kinds that a CRD object serves, in order of preference.
pub(crate) fn kinds(crd: &Value) -> Vec<Arc<Kind>> {
    let group = object::text(crd, "/spec/group");
    let names = crd.pointer("/spec/names").cloned().unwrap_or_default();
    let plural = object::text(&names, "/plural");
    let texts = |pointer: &str| -> Vec<String> {
        object::items(&names, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let versions = object::items(crd, "/spec/versions");
    let storage_version = versions
        .iter()
        .find(|version| version.get("storage").and_then(Value::as_bool) == Some(true))
        .map_or("", |version| object::text(version, "/name"));
    let mut served: Vec<&Value> =
        versions.iter().filter(|version| version.get("served").and_then(Value::as_bool) == Some(true)).collect();
    served.sort_by_key(|version| std::cmp::Reverse(rank(object::text(version, "/name"))));
    served
        .into_iter()
        .map(|version| {
            let raw = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
            let mut subresources = Vec::new();
            if version.pointer("/subresources/status").is_some() {
                subresources.push("status".to_owned());
            }
            let scale = version.pointer("/subresources/scale").cloned();
            if scale.is_some() {
                subresources.push("scale".to_owned());
            }
            let selectable = object::items(version, "/selectableFields")
                .iter()
                .map(|field| object::text(field, "/jsonPath").trim_start_matches('.').to_owned())
                .collect();
            let deprecated = (version.get("deprecated").and_then(Value::as_bool) == Some(true)).then(|| {
                let text = object::text(version, "/deprecationWarning");
                if text.is_empty() {
                    let name = object::text(version, "/name");
                    format!("{group}/{name} {} is deprecated", object::text(&names, "/kind"))
                } else {
                    text.to_owned()
                }
            });
            Arc::new(Kind {
                group: group.to_owned(),
                version: object::text(version, "/name").to_owned(),
                plural: plural.to_owned(),
                singular: object::text(&names, "/singular").to_owned(),
                kind: object::text(&names, "/kind").to_owned(),
                list_kind: object::text(&names, "/listKind").to_owned(),
                short: texts("/shortNames"),
                categories: texts("/categories"),
                namespaced: object::text(crd, "/spec/scope") == "Namespaced",
                subresources,
                storage: group_resource(plural, group),
                review: false,
                model: Model::Custom(Arc::new(Custom {
                    schema: Structural::parse(raw),
                    digest: Sha256::digest(raw.to_string()).into(),
                    columns: object::items(version, "/additionalPrinterColumns").to_vec(),
                    selectable,
                    scale,
                    storage_version: storage_version.to_owned(),
                    deprecated,
                })),
            })
        })
        .collect()
}

/// Appends what is wrong with a custom resource: its schema, then (if that holds) its rules.
pub(crate) fn check(custom: &Custom, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut found = Vec::new();
    validate::check(&custom.schema, new, "", &mut found);
    if found.is_empty() {
        rules::check(&custom.schema, new, old, "", causes);
        return;
    }
    causes.append(&mut found);
    if custom.schema.has_rules() {
        let text = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        causes.push(Cause::invalid("", &"null".into(), text));
    }
}

/// Order of versions: v2 > v1 > v1beta2 > v1beta1 > v1alpha1 > anything else.
pub(crate) fn rank(version: &str) -> (u8, u32, u32) {
    let split = |text: &str| -> Option<(u32, u8, u32)> {
        let rest = text.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..end].parse().ok()?;
        match &rest[end..] {
            "" => Some((major, 3, 0)),
            tail => {
                let (stage, minor) = if let Some(minor) = tail.strip_prefix("beta") {
                    (2, minor)
                } else {
                    (1, tail.strip_prefix("alpha")?)
                };
                Some((major, stage, minor.parse().ok()?))
            }
        }
    };
    split(version).map_or((0, 0, 0), |(major, stage, minor)| (stage, major, minor))
}
