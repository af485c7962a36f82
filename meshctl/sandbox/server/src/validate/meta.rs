//! Names, labels, annotations, finalizers, and what of the metadata never changes.
//!
//! Never here: specs. Called by `validate` for every kind, and by its neighbours for names within specs.

use serde_json::Value;

use crate::kinds::Kind;
use crate::limits::ANNOTATION_BYTES_MAX;
use crate::object;
use crate::reply::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const LABEL_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn edges(text: &str, ok: impl Fn(char) -> bool) -> bool {
    text.chars().next().is_some_and(&ok) && text.chars().next_back().is_some_and(ok)
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    edges(text, lower) && text.chars().all(|c| lower(c) || c == '-')
}

pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// What is wrong with a DNS subdomain.
pub(super) fn subdomain(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    (!text.split('.').all(is_label)).then(|| SUBDOMAIN.to_owned())
}

/// What is wrong with a DNS label.
pub(super) fn label(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!is_label(text)).then(|| LABEL.to_owned())
}

fn label_1035(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    let ok = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    (!ok).then(|| LABEL_1035.to_owned())
}

fn path_segment(text: &str) -> Option<String> {
    if matches!(text, "." | "..") {
        return Some(format!("may not be '{text}'"));
    }
    ["/", "%"].iter().find(|bad| text.contains(**bad)).map(|bad| format!("may not contain '{bad}'"))
}

fn name(kind: &Kind, name: &str) -> Option<String> {
    match kind.storage.as_str() {
        "namespaces" => label(name),
        "services" => label_1035(name),
        "roles.rbac.authorization.k8s.io"
        | "clusterroles.rbac.authorization.k8s.io"
        | "rolebindings.rbac.authorization.k8s.io"
        | "clusterrolebindings.rbac.authorization.k8s.io" => path_segment(name),
        _ => subdomain(name),
    }
}

/// What is wrong with a label's key.
pub(super) fn qualified(key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if key.matches('/').count() > 1 {
        return vec![format!(
            "a qualified name {LABEL_NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )];
    }
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            wrong.push("prefix part must be non-empty".to_owned());
        } else if let Some(why) = subdomain(prefix) {
            wrong.push(format!("prefix part {why}"));
        }
    }
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push("name part must be no more than 63 characters".to_owned());
    }
    let middle = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !edges(name, |c| c.is_ascii_alphanumeric()) || !name.chars().all(middle) {
        wrong.push(LABEL_NAME.to_owned());
    }
    wrong
}

/// What is wrong with a label's value.
pub(super) fn label_value(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    let middle = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ok = text.is_empty() || edges(text, |c| c.is_ascii_alphanumeric()) && text.chars().all(middle);
    (!ok).then(|| LABEL_VALUE.to_owned())
}

/// Labels at a path.
pub(super) fn labels(value: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    for (key, inner) in value.and_then(Value::as_object).into_iter().flatten() {
        for why in qualified(key) {
            causes.push(Cause::invalid(path, &key.as_str().into(), why));
        }
        if let Some(why) = label_value(inner.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid(path, inner, why));
        }
    }
}

pub(super) fn check(kind: &Kind, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let metadata = new.get("metadata").unwrap_or(&Value::Null);
    let own = object::name(new);
    let generate = object::text(metadata, "/generateName");
    if old.is_none() {
        if !generate.is_empty()
            && let Some(why) = name(kind, &format!("{}a", generate.trim_end_matches('-')))
        {
            causes.push(Cause::invalid("metadata.generateName", &generate.into(), why));
        }
        if let Some(why) = name(kind, own) {
            causes.push(Cause::invalid("metadata.name", &own.into(), why));
        }
    }
    labels(metadata.get("labels"), "metadata.labels", causes);
    let mut bytes = 0;
    for (key, inner) in object::members(metadata, "/annotations").into_iter().flatten() {
        for why in qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), why));
        }
        bytes += key.len() + inner.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATION_BYTES_MAX {
        causes.push(Cause::too_long("metadata.annotations", ANNOTATION_BYTES_MAX));
    }
    for finalizer in object::items(metadata, "/finalizers") {
        let text = finalizer.as_str().unwrap_or_default();
        for why in qualified(text) {
            causes.push(Cause::invalid("metadata.finalizers", finalizer, why));
        }
    }
    owners(metadata, causes);
    if let Some(old) = old {
        let deleting = !object::text(old, "/metadata/deletionTimestamp").is_empty();
        let before = object::items(old, "/metadata/finalizers");
        let added: Vec<String> = object::items(metadata, "/finalizers")
            .iter()
            .filter(|finalizer| !before.contains(finalizer))
            .map(|finalizer| format!("{:?}", finalizer.as_str().unwrap_or_default()))
            .collect();
        if deleting && !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            causes.push(Cause::forbidden("metadata.finalizers", &detail));
        }
    }
}

fn owners(metadata: &Value, causes: &mut Vec<Cause>) {
    let mut controllers = 0;
    for (index, owner) in object::items(metadata, "/ownerReferences").iter().enumerate() {
        let path = format!("metadata.ownerReferences[{index}]");
        for name in ["apiVersion", "kind", "name", "uid"] {
            if object::text(owner, &format!("/{name}")).is_empty() {
                let detail = if name == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                causes.push(Cause::invalid(format!("{path}.{name}"), &"".into(), detail));
            }
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            controllers += 1;
        }
    }
    if controllers > 1 {
        let shown = metadata.get("ownerReferences").cloned().unwrap_or_default();
        causes.push(Cause::invalid(
            "metadata.ownerReferences",
            &shown,
            "Only one reference can have Controller set to true",
        ));
    }
}
