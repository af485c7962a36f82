//! May this caller do this? Asked before routing, so that a refusal does not tell which routes exist.
//!
//! Never here: the rules (`api::authz`). Called by `http::handle`.

use std::net::SocketAddr;

use api::{
    authz::{self, Peer, Policies, Verdict},
    head::Head,
    name::SpiffeId,
};

use super::{Conn, failure::Failure};
use crate::access::Downstream;

/// The caller as rules see it.
pub(crate) fn peer(downstream: &Downstream, destination: SocketAddr) -> Peer<'_> {
    Peer {
        principal: downstream.principal.as_deref(),
        namespace: downstream.identity.as_ref().map(SpiffeId::namespace),
        address: downstream.direct.ip(),
        destination,
        server_name: downstream.server_name.as_deref(),
    }
}

/// Refuses what the policies of the chain do not let pass.
pub(super) fn check(policies: &Policies, conn: &Conn, head: &Head<'_>) -> Result<(), Failure> {
    if policies.is_empty() {
        return Ok(());
    }
    let peer = peer(&conn.downstream, conn.original);
    match authz::check(policies, &peer, Some(head), &mut ()) {
        Verdict::Allowed => Ok(()),
        Verdict::Denied { rule } => {
            tracing::debug!(rule = rule.map(|rule| &**rule), peer = %conn.downstream.remote, "request denied");
            Err(Failure::Denied(rule.cloned()))
        }
    }
}
