//! CustomResourceDefinitions themselves.
//!
//! Never here: custom resources. Called by `validate`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::object;
use crate::reply::Cause;

pub(super) fn check(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let text = |pointer: &str| object::text(new, pointer);
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    let name = format!("{plural}.{group}");
    if object::name(new) != name {
        causes.push(Cause::invalid(
            "metadata.name",
            &object::name(new).into(),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    for (pointer, field) in [
        ("/spec/group", "spec.group"),
        ("/spec/scope", "spec.scope"),
        ("/spec/names/plural", "spec.names.plural"),
        ("/spec/names/kind", "spec.names.kind"),
    ] {
        if text(pointer).is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let scope = text("/spec/scope");
    if !scope.is_empty() && !matches!(scope, "Cluster" | "Namespaced") {
        causes.push(Cause::unsupported("spec.scope", &scope.into(), &["Cluster", "Namespaced"]));
    }
    if crate::kinds::built_in().iter().any(|kind| kind.group == group) {
        causes.push(Cause::invalid("spec.group", &group.into(), "should be a domain that no built-in group has"));
    }
    let versions = object::items(new, "/spec/versions");
    let stored =
        versions.iter().filter(|version| version.get("storage").and_then(Value::as_bool) == Some(true)).count();
    if stored != 1 {
        let shown = new.pointer("/spec/versions").cloned().unwrap_or_default();
        causes.push(Cause::invalid("spec.versions", &shown, "must have exactly one version marked as storage version"));
    }
    if object::text(new, "/spec/conversion/strategy") == "Webhook" {
        causes.push(Cause::unsupported("spec.conversion.strategy", &"Webhook".into(), &["None"]));
    }
    // The same rule stands in many places; each text is compiled once.
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}]");
        match version.pointer("/schema/openAPIV3Schema") {
            None => causes.push(Cause::required(format!("{at}.schema.openAPIV3Schema"), "schemas are required")),
            Some(schema) => {
                if object::text(schema, "/type") != "object" {
                    causes.push(Cause::required(
                        format!("{at}.schema.openAPIV3Schema.type"),
                        "must not be empty at the root",
                    ));
                }
                self::schema(schema, &format!("{at}.schema.openAPIV3Schema"), &mut seen, causes);
            }
        }
    }
    if let Some(old) = old {
        for (pointer, field) in
            [("/spec/group", "spec.group"), ("/spec/names/plural", "spec.names.plural"), ("/spec/scope", "spec.scope")]
        {
            if object::text(old, pointer) != text(pointer) {
                causes.push(Cause::invalid(field, &text(pointer).into(), "field is immutable"));
            }
        }
    }
}

fn schema(raw: &Value, path: &str, seen: &mut BTreeSet<String>, causes: &mut Vec<Cause>) {
    if let Some(pattern) = raw.get("pattern").and_then(Value::as_str)
        && let Err(error) = regex::Regex::new(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        causes.push(Cause::invalid(format!("{path}.pattern"), &pattern.into(), detail));
    }
    for (index, rule) in crate::crd::rules::parse(raw).iter().enumerate() {
        if seen.insert(rule.rule.clone())
            && let Err(why) = rule.compiled()
        {
            let at = format!("{path}.x-kubernetes-validations[{index}].rule");
            causes.push(Cause::invalid(at, &rule.rule.as_str().into(), format!("compilation failed: {why}")));
        }
    }
    for (name, inner) in object::members(raw, "/properties").into_iter().flatten() {
        schema(inner, &format!("{path}.properties[{name}]"), seen, causes);
    }
    for name in ["items", "additionalProperties", "not"] {
        if let Some(inner) = raw.get(name).filter(|inner| inner.is_object()) {
            schema(inner, &format!("{path}.{name}"), seen, causes);
        }
    }
}
