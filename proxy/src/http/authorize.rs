//! May this caller do this? Asked before routing, so that a refusal does not tell which routes exist.
//!
//! Never here: the rules (`api::authz`). Called by `http::handle`.

use api::{
    authz::{self, Peer, Policies, Verdict},
    head::Head,
};

use super::{Conn, reply::Failure};

/// The caller as rules see it.
pub(crate) fn peer<'c>(downstream: &'c crate::access::Downstream, port: u16) -> Peer<'c> {
    Peer {
        principal: downstream.principal.as_deref(),
        namespace: downstream.identity.as_ref().map(api::name::SpiffeId::namespace),
        address: downstream.remote.ip(),
        port,
    }
}

/// Refuses what the policies of the chain do not let pass.
pub(super) fn check(policies: &Policies, conn: &Conn, head: &Head<'_>) -> Result<(), Failure> {
    if policies.is_empty() {
        return Ok(());
    }
    let peer = peer(&conn.downstream, conn.original.port());
    match authz::check(policies, &peer, Some(head), &mut ()) {
        Verdict::Allowed => Ok(()),
        Verdict::Denied { rule } => {
            tracing::debug!(rule, peer = %conn.downstream.remote, "request denied");
            Err(Failure::Denied)
        }
    }
}
