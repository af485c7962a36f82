//! The smaller kinds.
//!
//! Never here: Pods, workloads, Services, CRDs. Called by `validate`.

use serde_json::Value;

use super::meta;
use crate::kinds::Kind;
use crate::object;
use crate::reply::Cause;

pub(super) fn check(kind: &Kind, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    match kind.storage.as_str() {
        "configmaps" => stored_data(new, old, &["data", "binaryData"], causes),
        "secrets" => {
            stored_data(new, old, &["data"], causes);
            if let Some(old) = old
                && object::text(old, "/type") != object::text(new, "/type")
            {
                causes.push(Cause::invalid("type", &object::text(new, "/type").into(), "field is immutable"));
            }
            if object::text(new, "/type") == "kubernetes.io/tls" {
                for key in ["tls.crt", "tls.key"] {
                    if object::members(new, "/data").is_none_or(|data| !data.contains_key(key)) {
                        causes.push(Cause::required(format!("data[{key}]"), ""));
                    }
                }
            }
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            binding(kind, new, old, causes);
        }
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => role(new, causes),
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => webhooks(new, causes),
        "endpointslices.discovery.k8s.io" => slice(new, old, causes),
        "leases.coordination.k8s.io" => {
            if let Some(seconds) =
                new.pointer("/spec/leaseDurationSeconds").filter(|value| value.as_i64().is_some_and(|n| n <= 0))
            {
                causes.push(Cause::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
            }
        }
        "ingresses.networking.k8s.io" => ingress(new, causes),
        "events" if old.is_none() => {
            let (own, of) = (object::namespace(new), object::text(new, "/involvedObject/namespace"));
            if !of.is_empty() && own != of {
                causes.push(Cause::invalid("involvedObject.namespace", &of.into(), "does not match event.namespace"));
            }
        }
        "priorityclasses.scheduling.k8s.io" => {
            if let Some(old) = old
                && old.get("value") != new.get("value")
            {
                let shown = new.get("value").cloned().unwrap_or_default();
                causes.push(Cause::forbidden("value", "may not be changed in an update."));
                drop(shown);
            }
        }
        _ => {}
    }
}

fn stored_data(new: &Value, old: Option<&Value>, lists: &[&str], causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for list in lists {
        for (key, inner) in object::members(new, &format!("/{list}")).into_iter().flatten() {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if key.is_empty() || !key.chars().all(fits) || key.len() > 253 || matches!(key.as_str(), "." | "..") {
                let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid(format!("{list}[{key}]"), &key.as_str().into(), detail));
            }
            bytes += inner.as_str().map_or(0, str::len);
        }
    }
    if bytes > 1_048_576 {
        causes.push(Cause::too_long("", 1_048_576));
    }
    if let Some(old) = old
        && old.get("immutable").and_then(Value::as_bool) == Some(true)
    {
        if new.get("immutable").and_then(Value::as_bool) != Some(true) {
            causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
        }
        for list in lists.iter().filter(|list| old.get(**list) != new.get(**list)) {
            causes.push(Cause::forbidden(*list, "field is immutable when `immutable` is set"));
        }
    }
}

fn binding(kind: &Kind, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let role = object::text(new, "/roleRef/kind");
    let allowed: &[&str] = if kind.plural == "rolebindings" { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !allowed.contains(&role) {
        causes.push(Cause::unsupported("roleRef.kind", &role.into(), allowed));
    }
    if object::text(new, "/roleRef/name").is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    }
    for (index, subject) in object::items(new, "/subjects").iter().enumerate() {
        let at = format!("subjects[{index}]");
        if object::text(subject, "/name").is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        }
        match object::text(subject, "/kind") {
            "ServiceAccount" => {
                if object::text(subject, "/namespace").is_empty() {
                    causes.push(Cause::required(format!("{at}.namespace"), ""));
                }
            }
            "User" | "Group" => {}
            other => causes.push(Cause::unsupported(
                format!("{at}.kind"),
                &other.into(),
                &["Group", "ServiceAccount", "User"],
            )),
        }
    }
    if let Some(old) = old
        && old.get("roleRef") != new.get("roleRef")
    {
        let shown = new.get("roleRef").cloned().unwrap_or_default();
        causes.push(Cause::invalid("roleRef", &shown, "cannot change roleRef"));
    }
}

fn role(new: &Value, causes: &mut Vec<Cause>) {
    for (index, rule) in object::items(new, "/rules").iter().enumerate() {
        let at = format!("rules[{index}]");
        if object::items(rule, "/verbs").is_empty() {
            causes.push(Cause::required(format!("{at}.verbs"), "verbs must contain at least one value"));
        }
        if object::items(rule, "/nonResourceURLs").is_empty() {
            if object::items(rule, "/apiGroups").is_empty() {
                causes.push(Cause::required(
                    format!("{at}.apiGroups"),
                    "resource rules must supply at least one api group",
                ));
            }
            if object::items(rule, "/resources").is_empty() {
                causes.push(Cause::required(
                    format!("{at}.resources"),
                    "resource rules must supply at least one resource",
                ));
            }
        }
    }
}

fn webhooks(new: &Value, causes: &mut Vec<Cause>) {
    for (index, webhook) in object::items(new, "/webhooks").iter().enumerate() {
        let at = format!("webhooks[{index}]");
        let name = object::text(webhook, "/name");
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !meta::is_subdomain(name) || name.matches('.').count() < 2 {
            causes.push(Cause::invalid(
                format!("{at}.name"),
                &name.into(),
                "should be a domain with at least three segments separated by dots",
            ));
        }
        let config = webhook.get("clientConfig").unwrap_or(&Value::Null);
        if config.get("url").is_some() == config.get("service").is_some() {
            causes.push(Cause::required(format!("{at}.clientConfig"), "exactly one of url or service is required"));
        }
        if object::items(webhook, "/admissionReviewVersions").is_empty() {
            causes.push(Cause::required(format!("{at}.admissionReviewVersions"), "must specify one of v1, v1beta1"));
        }
        let effects = object::text(webhook, "/sideEffects");
        if !matches!(effects, "None" | "NoneOnDryRun") {
            causes.push(Cause::unsupported(format!("{at}.sideEffects"), &effects.into(), &["None", "NoneOnDryRun"]));
        }
        if let Some(seconds) =
            webhook.get("timeoutSeconds").filter(|value| !value.as_i64().is_some_and(|n| (1..=30).contains(&n)))
        {
            causes.push(Cause::invalid(
                format!("{at}.timeoutSeconds"),
                seconds,
                "the timeout value must be between 1 and 30 seconds",
            ));
        }
    }
}

fn slice(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let family = object::text(new, "/addressType");
    if !matches!(family, "IPv4" | "IPv6" | "FQDN") {
        causes.push(Cause::unsupported("addressType", &family.into(), &["FQDN", "IPv4", "IPv6"]));
    }
    if let Some(old) = old
        && object::text(old, "/addressType") != family
    {
        causes.push(Cause::invalid("addressType", &family.into(), "field is immutable"));
    }
    for (index, endpoint) in object::items(new, "/endpoints").iter().enumerate() {
        let addresses = object::items(endpoint, "/addresses");
        let at = format!("endpoints[{index}].addresses");
        if addresses.is_empty() {
            causes.push(Cause::required(at.clone(), "must contain at least 1 address"));
        }
        for (place, address) in addresses.iter().enumerate() {
            let text = address.as_str().unwrap_or_default();
            let fits = match family {
                "IPv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
                "IPv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
                _ => meta::is_subdomain(text),
            };
            if !fits {
                causes.push(Cause::invalid(
                    format!("{at}[{place}]"),
                    address,
                    format!("must be a valid {family} address"),
                ));
            }
        }
    }
}

fn ingress(new: &Value, causes: &mut Vec<Cause>) {
    let rules = object::items(new, "/spec/rules");
    if rules.is_empty() && new.pointer("/spec/defaultBackend").is_none() {
        let shown = new.pointer("/spec/rules").cloned().unwrap_or_else(|| serde_json::json!([]));
        causes.push(Cause::invalid("spec", &shown, "either `defaultBackend` or `rules` must be specified"));
    }
    for (index, rule) in rules.iter().enumerate() {
        for (place, path) in object::items(rule, "/http/paths").iter().enumerate() {
            let at = format!("spec.rules[{index}].http.paths[{place}]");
            match object::text(path, "/pathType") {
                "" => causes.push(Cause::required(format!("{at}.pathType"), "pathType must be specified")),
                "Exact" | "Prefix" | "ImplementationSpecific" => {}
                other => causes.push(Cause::unsupported(
                    format!("{at}.pathType"),
                    &other.into(),
                    &["Exact", "ImplementationSpecific", "Prefix"],
                )),
            }
            if path.pointer("/backend/service/name").is_none() && path.pointer("/backend/resource").is_none() {
                causes.push(Cause::required(format!("{at}.backend"), ""));
            }
        }
    }
}
