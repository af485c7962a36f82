//! The verbs of the API on objects.
//!
//! One file a verb; [`Call`] is what they get. Never here: paths, authorization, TLS. Called by `server`.

pub(crate) mod binding;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod input;
pub(crate) mod page;
pub(crate) mod patch;
pub(crate) mod read;
pub(crate) mod scale;
pub(crate) mod update;
pub(crate) mod watch;

use bytes::Bytes;
use http::HeaderMap;

use crate::User;
use crate::reply::Refusal;
use crate::request::{Query, Target};

/// A request for a resource with all that came along.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) user: User,
}

impl Call {
    /// `dryRun=All`, or nothing.
    pub(crate) fn dry_run(&self) -> Result<bool, Refusal> {
        match self.query.all("dryRun").iter().map(String::as_str).find(|value| !value.is_empty()) {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                let cause = crate::reply::Cause::unsupported("dryRun", &other.into(), &["All"]);
                Err(Refusal::invalid_as("CreateOptions", "meta.k8s.io", "", &[cause]))
            }
        }
    }

    /// Who is recorded as the manager of the fields written.
    pub(crate) fn manager(&self) -> String {
        if let Some(manager) = self.query.filled("fieldManager") {
            return manager.to_owned();
        }
        let agent =
            self.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = agent.split('/').next().unwrap_or_default();
        if name.is_empty() { "unknown".to_owned() } else { name.chars().take(128).collect() }
    }
}
