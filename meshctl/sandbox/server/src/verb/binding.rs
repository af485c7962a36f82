//! Binding a Pod to a node, as a scheduler does.
//!
//! Never here: choosing the node. Called by `server` for `pods/NAME/binding` and `bindings`.

use http::{Response, StatusCode};
use serde_json::json;

use super::update::{self, Recorded};
use super::{Call, input};
use crate::core::Core;
use crate::reply::{Body, Refusal, json_body};
use crate::{body, clock, object};

pub(crate) async fn run(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let decoded = body::decode(body::format(&call.headers)?, &call.body).map_err(Refusal::bad_request)?;
    let node = object::text(&decoded.value, "/target/name").to_owned();
    if node.is_empty() {
        let cause = crate::reply::Cause::required("target.name", "");
        return Err(Refusal::invalid_as("Binding", "", &call.target.name, &[cause]));
    }
    let served = core.registry.served();
    let pods = served.find("", "v1", "pods").ok_or_else(Refusal::unknown_resource)?;
    let name = if call.target.name.is_empty() { object::name(&decoded.value) } else { &call.target.name };
    let inner = Call {
        target: crate::request::Target {
            kind: std::sync::Arc::clone(pods),
            namespace: call.target.namespace.clone(),
            name: name.to_owned(),
            subresource: "binding".to_owned(),
            verb: "update",
        },
        query: call.query.clone(),
        headers: call.headers.clone(),
        body: call.body.clone(),
        user: call.user.clone(),
    };
    update::change(core, &inner, &mut Vec::new(), Recorded::Update, |old| {
        let bound = object::text(old, "/spec/nodeName");
        if !bound.is_empty() && bound != node {
            let why = format!("pod {} is already assigned to node {bound:?}", object::name(old));
            return Err(Refusal::conflict(pods, object::name(old), &why));
        }
        if !object::text(old, "/metadata/deletionTimestamp").is_empty() {
            let why = format!("pod {} is being deleted, cannot be assigned to a host", object::name(old));
            return Err(Refusal::conflict(pods, object::name(old), &why));
        }
        let mut new = old.clone();
        object::member(&mut new, "spec").insert("nodeName".to_owned(), node.clone().into());
        Ok(new)
    })
    .await?;
    // The condition is status: a second step, as a status write keeps the rest.
    let mut status = inner;
    "status".clone_into(&mut status.target.subresource);
    update::change(core, &status, &mut Vec::new(), Recorded::Update, |old| {
        let mut new = old.clone();
        let conditions = object::member(&mut new, "status").entry("conditions").or_insert_with(|| json!([]));
        if let serde_json::Value::Array(list) = conditions {
            list.retain(|condition| object::text(condition, "/type") != "PodScheduled");
            list.push(json!({
                "type": "PodScheduled", "status": "True", "lastProbeTime": null,
                "lastTransitionTime": clock::seconds(clock::now()),
            }));
        }
        input::place(&status, &mut new)?;
        Ok(new)
    })
    .await?;
    Ok(json_body(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}
