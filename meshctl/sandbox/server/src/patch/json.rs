//! JSON Patch (RFC 6902).
//!
//! Never here: the operations themselves (crate `json-patch`). Called by `verb::patch`, `verb::scale`, `admission`.

use serde_json::Value;

use crate::limits::PATCH_OPERATIONS_MAX;
use crate::reply::Refusal;

pub(crate) fn parse(body: &[u8]) -> Result<json_patch::Patch, Refusal> {
    let patch: json_patch::Patch =
        serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    if patch.0.len() > PATCH_OPERATIONS_MAX {
        return Err(Refusal::new(
            413,
            "RequestEntityTooLarge",
            format!("The allowed maximum operations in a JSON patch is {PATCH_OPERATIONS_MAX}, got {}", patch.0.len()),
        ));
    }
    Ok(patch)
}

pub(crate) fn apply(patch: &json_patch::Patch, old: &Value) -> Result<Value, Refusal> {
    let mut new = old.clone();
    match json_patch::patch(&mut new, patch) {
        Ok(()) => Ok(new),
        Err(_) => Err(Refusal::new(422, "Invalid", "the server rejected our request due to an error in our request")),
    }
}
