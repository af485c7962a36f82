//! Admission webhooks: which are asked, what they are told, what they answer.
//!
//! Mutating ones serially by configuration name, validating ones after them. Never here: TLS (see `post`).
//! Called by `admission`.

mod post;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::{Ask, Operation};
use crate::auth::review::user_object;
use crate::core::Core;
use crate::kinds::Kind;
use crate::object;
use crate::reply::Refusal;
use crate::selector::Labels;
use crate::verb::input;

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// A webhook that wants to see this write, and in which version.
struct Hook {
    configuration: String,
    webhook: Value,
    group: String,
    version: String,
    kind: String,
    plural: String,
}

impl Hook {
    fn name(&self) -> &str {
        object::text(&self.webhook, "/name")
    }

    fn ignores_failure(&self) -> bool {
        object::text(&self.webhook, "/failurePolicy") == "Ignore"
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

pub(super) async fn mutate(
    core: &Core,
    ask: &mut Ask<'_>,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let hooks = matching(core, ask, MUTATING, Some(new), old);
    let mut asked_again = false;
    let mut changed_by_later = vec![false; hooks.len()];
    for round in 0..2 {
        for (index, hook) in hooks.iter().enumerate() {
            if round == 1 {
                let again = object::text(&hook.webhook, "/reinvocationPolicy") == "IfNeeded";
                if !again || !changed_by_later[index] {
                    continue;
                }
            }
            // Another hook may have changed the labels that this one selects by.
            if !selects(core, ask, &hook.webhook, Some(new), old) {
                continue;
            }
            let before = new.clone();
            one_mutation(core, ask, hook, new, old).await?;
            if before != *new {
                for earlier in changed_by_later.iter_mut().take(index) {
                    *earlier = true;
                }
                asked_again = true;
            }
        }
        if !asked_again {
            break;
        }
    }
    Ok(())
}

async fn one_mutation(
    core: &Core,
    ask: &mut Ask<'_>,
    hook: &Hook,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let Some(response) = call(core, ask, hook, Some(new), old).await? else { return Ok(()) };
    judge(hook, &response)?;
    let patch = object::text(&response, "/patch");
    if patch.is_empty() {
        return Ok(());
    }
    let broken = |why: String| Refusal::internal(format!("failed calling webhook {:?}: {why}", hook.name()));
    if object::text(&response, "/patchType") != "JSONPatch" {
        return Err(broken("invalid response.patchType: only JSONPatch is supported".to_owned()));
    }
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(patch)
        .map_err(|error| broken(format!("illegal base64 data: {error}")))?;
    let patch = crate::patch::json::parse(&bytes).map_err(|refusal| broken(refusal.message))?;
    let mut changed = new.clone();
    json_patch::patch(&mut changed, &patch).map_err(|error| broken(error.to_string()))?;
    object::object(&mut changed).insert("apiVersion".to_owned(), object::api_version(new).into());
    let mut warnings = Vec::new();
    input::tidy(&ask.target.kind, &mut changed, input::FieldValidation::Ignore, &[], &mut warnings)?;
    *new = changed;
    Ok(())
}

pub(super) async fn validate(
    core: &Core,
    ask: &mut Ask<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    for hook in matching(core, ask, VALIDATING, new, old) {
        if let Some(response) = call(core, ask, &hook, new, old).await? {
            judge(&hook, &response)?;
        }
    }
    Ok(())
}

/// The webhooks that want to see this write, in order.
fn matching(core: &Core, ask: &Ask<'_>, resource: &str, new: Option<&Value>, old: Option<&Value>) -> Vec<Hook> {
    let kind = &ask.target.kind;
    if kind.storage == MUTATING || kind.storage == VALIDATING {
        return Vec::new();
    }
    let mut hooks = Vec::new();
    for item in core.store.list(resource, None).0 {
        let configuration = item.value();
        for webhook in object::items(&configuration, "/webhooks") {
            if let Some((group, version, kind, plural)) = version_for(core, ask, webhook)
                && selects(core, ask, webhook, new, old)
            {
                let configuration = item.name.to_string();
                hooks.push(Hook { configuration, webhook: webhook.clone(), group, version, kind, plural });
            }
        }
    }
    hooks
}

/// The version in which a webhook wants the object, if it wants it at all.
fn version_for(core: &Core, ask: &Ask<'_>, webhook: &Value) -> Option<(String, String, String, String)> {
    let kind = &ask.target.kind;
    let rules = object::items(webhook, "/rules");
    let of = |kind: &Kind| (kind.group.clone(), kind.version.clone(), kind.kind.clone(), kind.plural.clone());
    if rules.iter().any(|rule| covers(rule, kind, ask)) {
        return Some(of(kind));
    }
    if object::text(webhook, "/matchPolicy") == "Exact" {
        return None;
    }
    let served = core.registry.served();
    served
        .kinds()
        .iter()
        .filter(|other| other.storage == kind.storage && !std::sync::Arc::ptr_eq(other, kind))
        .find(|other| rules.iter().any(|rule| covers(rule, other, ask)))
        .map(|other| of(other))
}

fn covers(rule: &Value, kind: &Kind, ask: &Ask<'_>) -> bool {
    let has = |list: &str, wanted: &str| {
        object::items(rule, list).iter().any(|item| item.as_str().is_some_and(|item| item == "*" || item == wanted))
    };
    let scope = object::text(rule, "/scope");
    let scope_fits = match scope {
        "Cluster" => !kind.namespaced,
        "Namespaced" => kind.namespaced,
        _ => true,
    };
    let sub = &ask.target.subresource;
    let resource_fits = object::items(rule, "/resources").iter().filter_map(Value::as_str).any(|pattern| {
        let (resource, wanted) = pattern.split_once('/').unwrap_or((pattern, ""));
        (resource == "*" || resource == kind.plural) && (wanted == "*" || wanted == sub || pattern == "*/*")
    });
    has("/operations", ask.operation.name())
        && has("/apiGroups", &kind.group)
        && has("/apiVersions", &kind.version)
        && resource_fits
        && scope_fits
}

fn selects(core: &Core, ask: &Ask<'_>, webhook: &Value, new: Option<&Value>, old: Option<&Value>) -> bool {
    let selector = |name: &str| webhook.get(name).map(Labels::from_object).unwrap_or_default();
    let objects = selector("objectSelector");
    let object_fits = objects.is_empty()
        || new.is_some_and(|value| objects.matches_object(value))
        || old.is_some_and(|value| objects.matches_object(value));
    if !object_fits {
        return false;
    }
    let namespaces = selector("namespaceSelector");
    if namespaces.is_empty() {
        return true;
    }
    if ask.target.kind.is("", "namespaces") {
        return new.or(old).is_some_and(|value| namespaces.matches_object(value));
    }
    if !ask.target.kind.namespaced {
        return true;
    }
    core.store.get("namespaces", "", &ask.target.namespace).is_some_and(|item| namespaces.matches_object(&item.value()))
}

/// Asks one webhook; `None` when it failed and may be ignored.
async fn call(
    core: &Core,
    ask: &mut Ask<'_>,
    hook: &Hook,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<Option<Value>, Refusal> {
    let effects = object::text(&hook.webhook, "/sideEffects");
    if ask.dry_run && !matches!(effects, "None" | "NoneOnDryRun") {
        return Err(Refusal::bad_request(format!("admission webhook {:?} does not support dry run", hook.name())));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review(ask, hook, &uid, new, old);
    let name = object::text(&review, "/request/name");
    if !conditions_hold(name, ask, hook, &review)? {
        return Ok(None);
    }
    let answer = post::post(core, &hook.webhook, &review).await;
    let answer = answer.and_then(|answer| {
        let response = answer.get("response").cloned().unwrap_or_default();
        if object::kind(&answer) != "AdmissionReview" || !response.is_object() {
            return Err("webhook response was absent".to_owned());
        }
        if object::text(&response, "/uid") != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", object::text(&response, "/uid")));
        }
        Ok(response)
    });
    match answer {
        Ok(response) => {
            ask.warnings
                .extend(object::items(&response, "/warnings").iter().filter_map(Value::as_str).map(str::to_owned));
            Ok(Some(response))
        }
        Err(why) if hook.ignores_failure() => {
            tracing::warn!(webhook = hook.name(), configuration = hook.configuration, why, "webhook failed, ignored");
            Ok(None)
        }
        Err(why) => Err(Refusal::internal(format!("failed calling webhook {:?}: {why}", hook.name()))),
    }
}

fn review(ask: &Ask<'_>, hook: &Hook, uid: &str, new: Option<&Value>, old: Option<&Value>) -> Value {
    let kind = &ask.target.kind;
    let shown = |value: Option<&Value>| -> Value {
        let Some(value) = value else { return Value::Null };
        let mut value = value.clone();
        let map = object::object(&mut value);
        map.insert("apiVersion".to_owned(), hook.api_version().into());
        map.insert("kind".to_owned(), hook.kind.clone().into());
        value
    };
    let options = match ask.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    };
    let mut option_map = Map::new();
    option_map.insert("kind".to_owned(), options.into());
    option_map.insert("apiVersion".to_owned(), "meta.k8s.io/v1".into());
    if !ask.manager.is_empty() {
        option_map.insert("fieldManager".to_owned(), ask.manager.clone().into());
    }
    let gvk = |group: &str, version: &str, name: &str| json!({"group": group, "version": version, "kind": name});
    let gvr = |group: &str, version: &str, name: &str| json!({"group": group, "version": version, "resource": name});
    let name =
        if ask.target.name.is_empty() { new.map(object::name).unwrap_or_default() } else { ask.target.name.as_str() };
    let mut request = json!({
        "uid": uid,
        "kind": gvk(&hook.group, &hook.version, &hook.kind),
        "resource": gvr(&hook.group, &hook.version, &hook.plural),
        "requestKind": gvk(&kind.group, &kind.version, &kind.kind),
        "requestResource": gvr(&kind.group, &kind.version, &kind.plural),
        "name": name,
        "operation": ask.operation.name(),
        "userInfo": user_object(ask.user),
        "object": shown(new),
        "oldObject": shown(old),
        "dryRun": ask.dry_run,
        "options": option_map,
    });
    let map = object::object(&mut request);
    if kind.namespaced {
        map.insert("namespace".to_owned(), ask.target.namespace.clone().into());
    }
    if !ask.target.subresource.is_empty() {
        map.insert("subResource".to_owned(), ask.target.subresource.clone().into());
        map.insert("requestSubResource".to_owned(), ask.target.subresource.clone().into());
    }
    let versions = object::items(&hook.webhook, "/admissionReviewVersions");
    let version = if versions.iter().any(|version| version == "v1") { "v1" } else { "v1beta1" };
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
}

/// Whether all `matchConditions` are true of the request. One that is false settles it; else one that cannot be
/// answered counts as the webhook's own failure does, so that what guards something is not passed by.
fn conditions_hold(name: &str, ask: &Ask<'_>, hook: &Hook, review: &Value) -> Result<bool, Refusal> {
    let request = review.get("request").unwrap_or(&Value::Null);
    let part = |name: &str| request.get(name).cloned().unwrap_or_default();
    let mut broken = None;
    for condition in object::items(&hook.webhook, "/matchConditions") {
        let variables = [("object", part("object")), ("oldObject", part("oldObject")), ("request", request.clone())];
        match crate::cel_rules::condition(object::text(condition, "/expression"), &variables) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => broken = Some(why),
        }
    }
    match broken {
        None => Ok(true),
        Some(why) if hook.ignores_failure() => {
            tracing::warn!(webhook = hook.name(), why, "a webhook's condition failed, ignored");
            Ok(false)
        }
        Some(why) => {
            let of = ask.target.kind.group_resource();
            Err(Refusal::new(403, "Forbidden", format!("{of} {name:?} is forbidden: {why}")))
        }
    }
}

/// A refusal in the API's words.
fn judge(hook: &Hook, response: &Value) -> Result<(), Refusal> {
    if response.get("allowed").and_then(Value::as_bool) == Some(true) {
        return Ok(());
    }
    let status = response.get("status").unwrap_or(&Value::Null);
    let code = status.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
    let said = match (object::text(status, "/message"), object::text(status, "/reason")) {
        ("", "") => None,
        ("", reason) => Some(reason),
        (message, _) => Some(message),
    };
    let message = match said {
        Some(said) => format!("admission webhook {:?} denied the request: {said}", hook.name()),
        None => format!("admission webhook {:?} denied the request without explanation", hook.name()),
    };
    let reason = match object::text(status, "/reason") {
        "Forbidden" => "Forbidden",
        "Invalid" => "Invalid",
        "BadRequest" => "BadRequest",
        "NotFound" => "NotFound",
        "Conflict" => "Conflict",
        "InternalError" => "InternalError",
        _ => "",
    };
    let mut refusal = Refusal::new(if (400..600).contains(&code) { code } else { 400 }, reason, message);
    refusal.details = status.get("details").cloned().map(Box::new);
    Err(refusal)
}
