//! Streams of a running Pod: logs, exec, attach, port-forward.
//!
//! Never here: running anything (see `Kubelet`). Called by `dispatch`.

pub(crate) mod exec;
pub(crate) mod forward;
pub(crate) mod log;
pub(crate) mod sessions;
mod spdy;
mod websocket;

use serde_json::Value;

use crate::core::Core;
use crate::object;
use crate::reply::Refusal;
use crate::verb::{Call, update};
use crate::{PodRef, StreamError};

/// The Pod that a request names.
fn pod(core: &Core, call: &Call) -> Result<(PodRef, Value), Refusal> {
    let value = update::stored(core, call)?.value();
    let reference = PodRef {
        namespace: call.target.namespace.clone(),
        name: call.target.name.clone(),
        uid: object::uid(&value).to_owned(),
    };
    Ok((reference, value))
}

/// The container that is meant: named, the annotated default, or the only one.
fn container(call: &Call, pod: &Value) -> Result<String, Refusal> {
    let names = |list: &str| -> Vec<String> {
        object::items(pod, &format!("/spec/{list}")).iter().map(|item| object::text(item, "/name").to_owned()).collect()
    };
    let (own, init, extra) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = &call.target.name;
    if let Some(wanted) = call.query.filled("container") {
        if own.iter().chain(&init).chain(&extra).any(|name| name == wanted) {
            return Ok(wanted.to_owned());
        }
        return Err(Refusal::bad_request(format!("container {wanted} is not valid for pod {pod_name}")));
    }
    let default = object::members(pod, "/metadata/annotations")
        .and_then(|map| map.get("kubectl.kubernetes.io/default-container"))
        .and_then(Value::as_str);
    match (default, &own[..]) {
        (Some(name), _) if own.iter().any(|known| known == name) => Ok(name.to_owned()),
        (_, [only]) => Ok(only.clone()),
        _ => {
            let mut text =
                format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", own.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Refusal::bad_request(text))
        }
    }
}

fn no_node() -> Refusal {
    Refusal::new(503, "ServiceUnavailable", "the server is currently unable to handle the request: no node is running")
}

fn refuse(error: &StreamError) -> Refusal {
    match error {
        StreamError::NotFound(text) => Refusal::new(404, "NotFound", text.clone()),
        StreamError::BadRequest(text) => Refusal::bad_request(text.clone()),
        StreamError::CannotStart(text) => Refusal::internal(text),
        StreamError::Io(error) => Refusal::internal(error.to_string()),
    }
}
