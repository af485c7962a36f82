//! Admission: what changes or refuses a write between decoding and storing.
//!
//! Built-in plugins first, then mutating webhooks, later validating ones. Never here: schema checks.
//! Called by create, update and delete.

mod plugins;
mod webhook;

use serde_json::Value;

use crate::User;
use crate::core::Core;
use crate::reply::Refusal;
use crate::request::Target;
use crate::verb::Call;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// A write as admission sees it.
pub(crate) struct Ask<'a> {
    pub(crate) target: &'a Target,
    pub(crate) user: &'a User,
    pub(crate) operation: Operation,
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
    /// What webhooks want the client to know.
    pub(crate) warnings: Vec<String>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(call: &'a Call, operation: Operation, dry_run: bool) -> Self {
        Self::for_target(call, &call.target, operation, dry_run)
    }

    pub(crate) fn for_target(call: &'a Call, target: &'a Target, operation: Operation, dry_run: bool) -> Self {
        let manager = call.query.filled("fieldManager").unwrap_or_default().to_owned();
        Self { target, user: &call.user, operation, dry_run, manager, warnings: Vec::new() }
    }
}

/// Plugins and mutating webhooks.
pub(crate) async fn mutate(
    core: &Core,
    ask: &mut Ask<'_>,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    plugins::mutate(core, ask, new, old)?;
    let result = webhook::mutate(core, ask, new, old).await;
    result.map_err(|refusal| with_warnings(refusal, ask))
}

/// Validating webhooks.
pub(crate) async fn validate(
    core: &Core,
    ask: &mut Ask<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let result = webhook::validate(core, ask, new, old).await;
    result.map_err(|refusal| with_warnings(refusal, ask))
}

/// Once more before an object is stored: while webhooks were asked, its namespace may have gone, and what is stored
/// then stays for ever.
pub(crate) fn namespace_still_there(core: &Core, ask: &Ask<'_>, new: &Value) -> Result<(), Refusal> {
    if ask.target.kind.namespaced { plugins::namespace(core, ask, new) } else { Ok(()) }
}

/// What may forbid a deletion.
pub(crate) async fn validate_deletion(core: &Core, ask: &mut Ask<'_>, old: &Value) -> Result<(), Refusal> {
    validate(core, ask, None, Some(old)).await
}

fn with_warnings(mut refusal: Refusal, ask: &mut Ask<'_>) -> Refusal {
    refusal.warnings.append(&mut ask.warnings);
    refusal
}
