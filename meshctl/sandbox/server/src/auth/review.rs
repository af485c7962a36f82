//! Reviews: objects that are questions (TokenReview, SubjectAccessReview, …), and TokenRequest.
//!
//! Never here: deciding (see `rbac`, `token`). Called by `server` for POSTs of review kinds and `…/token`.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::rbac::{self, Deed};
use super::token::{self, Wanted};
use crate::core::Core;
use crate::reply::{self, Body, Cause, Refusal, json_body};
use crate::verb::{Call, input, update};
use crate::{User, body, clock, object};

pub(crate) fn run(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let mut warnings = Vec::new();
    let mut value = input::object(call, &mut warnings)?;
    input::place(call, &mut value)?;
    input::arrange(&call.target.kind, &mut value);
    object::metadata(&mut value).entry("creationTimestamp").or_insert(Value::Null);
    let status = match call.target.kind.kind.as_str() {
        "TokenReview" => token_review(core, &value)?,
        "SelfSubjectReview" => json!({"userInfo": user_object(&call.user)}),
        "SelfSubjectAccessReview" => access(core, &call.user, &value)?,
        "SelfSubjectRulesReview" => rules(core, &call.user, &value)?,
        "SubjectAccessReview" => access(core, &named_user(&value)?, &value)?,
        "LocalSubjectAccessReview" => {
            if object::text(&value, "/spec/resourceAttributes/namespace") != call.target.namespace {
                let shown = object::text(&value, "/spec/resourceAttributes/namespace").into();
                let field = "spec.resourceAttributes.namespace";
                let cause = Cause::invalid(field, &shown, "must match metadata.namespace");
                return Err(Refusal::invalid(&call.target.kind, "", &[cause]));
            }
            access(core, &named_user(&value)?, &value)?
        }
        _ => return Err(Refusal::method_not_allowed()),
    };
    object::object(&mut value).insert("status".to_owned(), status);
    let mut response = json_body(StatusCode::CREATED, &value);
    reply::warn(&mut response, &warnings);
    Ok(response)
}

/// A user as reviews show it.
pub(crate) fn user_object(user: &User) -> Value {
    let mut map = Map::new();
    map.insert("username".to_owned(), user.name.clone().into());
    if !user.uid.is_empty() {
        map.insert("uid".to_owned(), user.uid.clone().into());
    }
    map.insert("groups".to_owned(), json!(user.groups));
    if !user.extra.is_empty() {
        map.insert("extra".to_owned(), json!(user.extra));
    }
    map.into()
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    object::items(value, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn token_review(core: &Core, value: &Value) -> Result<Value, Refusal> {
    let token = object::text(value, "/spec/token");
    if token.is_empty() {
        return Err(Refusal::bad_request("token is required for TokenReview in authentication"));
    }
    Ok(match token::check(core, token, &texts(value, "/spec/audiences")) {
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user_object(&user), "audiences": audiences})
        }
        Err(error) => json!({"user": {}, "error": format!("[{error}]")}),
    })
}

fn named_user(value: &Value) -> Result<User, Refusal> {
    let user = User {
        name: object::text(value, "/spec/user").to_owned(),
        uid: object::text(value, "/spec/uid").to_owned(),
        groups: texts(value, "/spec/groups"),
        ..User::default()
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let cause = Cause::invalid("spec.user", &"".into(), "at least one of user or group must be specified");
        return Err(Refusal::invalid_as("SubjectAccessReview", "authorization.k8s.io", "", &[cause]));
    }
    Ok(user)
}

fn access(core: &Core, user: &User, value: &Value) -> Result<Value, Refusal> {
    let resource = value.pointer("/spec/resourceAttributes");
    let path = value.pointer("/spec/nonResourceAttributes");
    let deed = match (resource, path) {
        (Some(resource), None) => {
            let text = |name: &str| object::text(resource, &format!("/{name}")).to_owned();
            Deed {
                verb: text("verb"),
                group: text("group"),
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
                path: String::new(),
            }
        }
        (None, Some(path)) => Deed {
            verb: object::text(path, "/verb").to_owned(),
            path: object::text(path, "/path").to_owned(),
            ..Deed::default()
        },
        _ => {
            let field = "spec.resourceAttributes";
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let cause = Cause::invalid(field, &Value::Null, detail);
            return Err(Refusal::invalid_as("SelfSubjectAccessReview", "authorization.k8s.io", "", &[cause]));
        }
    };
    Ok(match rbac::allowed(core, user, &deed) {
        Some(reason) if reason.is_empty() => json!({"allowed": true}),
        Some(reason) => json!({"allowed": true, "reason": reason}),
        None => json!({"allowed": false}),
    })
}

fn rules(core: &Core, user: &User, value: &Value) -> Result<Value, Refusal> {
    let namespace = object::text(value, "/spec/namespace");
    if namespace.is_empty() {
        return Err(Refusal::bad_request("no namespace on request"));
    }
    let mut granted: Vec<Value> =
        rbac::granted(core, user, namespace).into_iter().flat_map(|(rules, _)| rules).collect();
    if user.groups.iter().any(|group| group == "system:masters") {
        granted.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        granted.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    let (paths, resources): (Vec<Value>, Vec<Value>) =
        granted.into_iter().partition(|rule| rule.get("nonResourceURLs").is_some());
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

/// `POST …/serviceaccounts/NAME/token`.
pub(crate) fn token_request(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let decoded = body::decode(body::format(&call.headers)?, &call.body).map_err(Refusal::bad_request)?;
    let mut value = decoded.value;
    let account = update::stored(core, call)?.value();
    let spec = value.get("spec").cloned().unwrap_or_default();
    let mut audiences = texts(&spec, "/audiences");
    if audiences.is_empty() {
        audiences.push(token::default_audience(core));
    }
    let seconds = spec.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
    let too = |detail: &str| {
        let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), detail);
        Refusal::invalid_as("TokenRequest", "authentication.k8s.io", "", &[cause])
    };
    if seconds < token::LIFE_MIN {
        return Err(too("may not specify a duration less than 10 minutes"));
    }
    if seconds > token::LIFE_MAX {
        return Err(too("may not specify a duration larger than 2^32 seconds"));
    }
    let pod = bound_pod(core, call, &spec)?;
    let wanted = Wanted {
        namespace: &call.target.namespace,
        account: &call.target.name,
        account_uid: object::uid(&account),
        audiences: audiences.clone(),
        seconds,
        pod: pod.as_ref(),
    };
    let (token, expires) = token::issue(core, &wanted).map_err(|error| Refusal::internal(error.to_string()))?;
    let until = jiff::Timestamp::from_second(expires).map(clock::seconds).unwrap_or_default();
    let map = object::object(&mut value);
    map.insert("kind".to_owned(), "TokenRequest".into());
    map.insert("apiVersion".to_owned(), "authentication.k8s.io/v1".into());
    let metadata = json!({"name": call.target.name, "namespace": call.target.namespace, "creationTimestamp": clock::seconds(clock::now())});
    map.insert("metadata".to_owned(), metadata);
    let spec = object::member(&mut value, "spec");
    spec.insert("audiences".to_owned(), json!(audiences));
    spec.insert("expirationSeconds".to_owned(), seconds.into());
    object::object(&mut value).insert("status".to_owned(), json!({"token": token, "expirationTimestamp": until}));
    Ok(json_body(StatusCode::CREATED, &value))
}

/// The Pod that the token shall die with; it must be there and run as this account.
fn bound_pod(core: &Core, call: &Call, spec: &Value) -> Result<Option<Value>, Refusal> {
    let Some(bound) = spec.get("boundObjectRef").filter(|bound| !bound.is_null()) else { return Ok(None) };
    let (kind, name, uid) = (object::text(bound, "/kind"), object::text(bound, "/name"), object::text(bound, "/uid"));
    if kind != "Pod" {
        return Err(Refusal::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to object of kind {kind:?}",
            call.target.name
        )));
    }
    let served = core.registry.served();
    let pods = served.find("", "v1", "pods").ok_or_else(Refusal::unknown_resource)?;
    let pod =
        core.store.get("pods", &call.target.namespace, name).ok_or_else(|| Refusal::not_found(pods, name))?.value();
    if !uid.is_empty() && uid != object::uid(&pod) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Refusal::conflict(pods, name, &why));
    }
    if object::text(&pod, "/spec/serviceAccountName") != call.target.name {
        return Err(Refusal::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            call.target.name
        )));
    }
    Ok(Some(pod))
}
