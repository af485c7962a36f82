//! From a request to the handler that answers it.
//!
//! Impersonation, authorization, then by path and verb. Never here: TLS and credentials (see `serve`), the verbs.
//! Called by `Server::handle`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::auth::rbac::{self, Deed};
use crate::auth::{review, token};
use crate::core::Core;
use crate::limits::BODY_BYTES_MAX;
use crate::reply::{self, Body, Refusal};
use crate::request::{self, Query};
use crate::stream::sessions::Upgrade;
use crate::verb::{self, Call};
use crate::{User, discovery, openapi, stream};

pub(crate) async fn answer(core: &Arc<Core>, request: Request<Bytes>, user: User) -> Response<Body> {
    match route(core, request, user).await {
        Ok(response) => response,
        Err(refusal) => refusal.response(),
    }
}

async fn route(core: &Arc<Core>, mut request: Request<Bytes>, user: User) -> Result<Response<Body>, Refusal> {
    let upgrade = request.extensions_mut().remove::<Upgrade>();
    let (head, body) = request.into_parts();
    if body.len() > BODY_BYTES_MAX {
        let text = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
        return Err(Refusal::new(413, "RequestEntityTooLarge", text));
    }
    let user = impersonate(core, &head.headers, user)?;
    let path = head.uri.path().to_owned();
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let Some(resource) = request::resource_path(&path) else {
        return Box::pin(other(core, &path, &head.method, &head.headers, &user)).await;
    };
    let served = core.registry.served();
    let target = match request::target(resource, &head.method, &query, &served) {
        Ok(target) => target,
        Err(refusal) => {
            authorize(core, &user, &path_deed(&head.method, &path))?;
            return Err(refusal);
        }
    };
    drop(served);
    let deed = Deed {
        verb: target.verb.to_owned(),
        group: target.kind.group.clone(),
        resource: target.kind.plural.clone(),
        subresource: target.subresource.clone(),
        namespace: if target.kind.is("", "namespaces") { target.name.clone() } else { target.namespace.clone() },
        name: target.name.clone(),
        path: String::new(),
    };
    authorize(core, &user, &deed)?;
    let call = Call { target, query, headers: head.headers, body, user };
    Box::pin(resource_call(core, call, upgrade)).await
}

async fn resource_call(core: &Arc<Core>, call: Call, upgrade: Option<Upgrade>) -> Result<Response<Body>, Refusal> {
    let target = &call.target;
    if target.kind.review {
        return match (target.verb, target.kind.plural.as_str()) {
            ("create", "bindings") => verb::binding::run(core, &call).await,
            ("create", _) => review::run(core, &call),
            _ => Err(Refusal::method_not_allowed()),
        };
    }
    if target.verb == "create" && target.kind.namespaced && target.namespace.is_empty() {
        return Err(Refusal::method_not_allowed());
    }
    match (target.subresource.as_str(), target.verb) {
        ("", "get") => verb::read::get(core, &call),
        ("", "list") => verb::read::list(core, &call),
        ("", "watch") => verb::watch::run(core, &call),
        ("", "create") if target.name.is_empty() => verb::create::run(core, &call).await,
        ("" | "status" | "finalize" | "ephemeralcontainers", "update") if !target.name.is_empty() => {
            verb::update::run(core, &call).await
        }
        ("" | "status" | "ephemeralcontainers", "patch") if !target.name.is_empty() => {
            verb::patch::run(core, &call).await
        }
        ("status" | "ephemeralcontainers", "get") => verb::read::get(core, &call),
        ("", "delete") => verb::delete::run(core, &call).await,
        ("", "deletecollection") => verb::delete::collection(core, &call).await,
        ("scale", _) => verb::scale::run(core, &call).await,
        ("eviction", "create") => verb::delete::evict(core, &call).await,
        ("binding", "create") => verb::binding::run(core, &call).await,
        ("token", "create") => review::token_request(core, &call),
        ("log", "get") => stream::log::run(core, &call).await,
        ("exec" | "attach", "create" | "get") => stream::exec::run(core, &call, upgrade),
        ("portforward", "create" | "get") => stream::forward::run(core, &call, upgrade),
        _ => Err(Refusal::method_not_allowed()),
    }
}

fn path_deed(method: &Method, path: &str) -> Deed {
    Deed { verb: method.as_str().to_lowercase(), path: path.to_owned(), ..Deed::default() }
}

fn authorize(core: &Core, user: &User, deed: &Deed) -> Result<(), Refusal> {
    rbac::allowed(core, user, deed).map(drop).ok_or_else(|| deed.refusal(user))
}

/// Paths that name no resource.
async fn other(
    core: &Core,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
    user: &User,
) -> Result<Response<Body>, Refusal> {
    authorize(core, user, &path_deed(method, path))?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refusal::method_not_allowed());
    }
    let served = core.registry.served();
    if let Some(answer) = discovery::answer(path, headers, &served) {
        return answer;
    }
    if let Some(answer) = openapi::answer(path, &served, &core.store) {
        return answer;
    }
    match path.trim_end_matches('/') {
        "/version" => Ok(reply::json_body(StatusCode::OK, &discovery::version())),
        "/healthz" | "/livez" | "/readyz" => Ok(reply::text(StatusCode::OK, "ok")),
        "/.well-known/openid-configuration" => Ok(reply::json_body(StatusCode::OK, &token::configuration(core))),
        "/openid/v1/jwks" => Ok(reply::json_body(StatusCode::OK, &token::jwks(core))),
        "" => Ok(reply::json_body(
            StatusCode::OK,
            &serde_json::json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
        )),
        _ => Ok(reply::text(StatusCode::NOT_FOUND, "404 page not found\n")),
    }
}

/// `Impersonate-*` headers: the caller acts as another, if a role allows it.
fn impersonate(core: &Core, headers: &HeaderMap, user: User) -> Result<User, Refusal> {
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let Some(name) = headers.get("impersonate-user").map(text) else {
        if headers.contains_key("impersonate-group") {
            return Err(Refusal::internal("requested [{Group }] without impersonating a user"));
        }
        return Ok(user);
    };
    let mut groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
    let may = |resource: &str, namespace: &str, name: &str| {
        let deed = Deed {
            verb: "impersonate".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Deed::default()
        };
        authorize(core, &user, &deed)
    };
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => {
            may("serviceaccounts", namespace, account)?;
            if groups.is_empty() {
                groups.push("system:serviceaccounts".to_owned());
                groups.push(format!("system:serviceaccounts:{namespace}"));
            }
        }
        None => may("users", "", &name)?,
    }
    for group in &groups {
        if !group.starts_with("system:serviceaccounts") {
            may("groups", "", group)?;
        }
    }
    let anonymous = name == "system:anonymous";
    let class = if anonymous { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|group| group == class) {
        groups.push(class.to_owned());
    }
    Ok(User { name, groups, ..User::default() })
}
