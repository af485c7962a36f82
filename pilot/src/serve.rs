//! Serves ADS: lets streams in, and says who may claim to be which node.
//!
//! Never here: how a stream goes on (`stream`), what is said (`session`), or of what (`world`). Started by `main` on 15010
//! and 15012.

mod places;
mod speech;
mod stream;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use api::spec::{Node, ResourceKind};
use api_rt::{clock::Clock, grpc::Peer};
use api_xds::{
    discovery::{
        self, Aggregated, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Opening,
        Requests, Responses,
    },
    node,
};
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use self::{
    places::Places,
    speech::Speech,
    stream::{Came, Stream},
};
use crate::{
    cache::Cache,
    limits::{FIRST_REQUEST_LIMIT, PLACE_LIMIT, PLACES, STREAM_AGE_MAX},
    push::Published,
    registry::Registry,
    rights::Rights,
};

/// Whom streams are served to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Anyone: a plaintext port. No certificates are handed out here.
    Open,
    /// Those whose certificate names the workload that they say they are.
    Proven,
}

/// The ADS service.
pub(crate) struct Control {
    worlds: Published,
    cache: Arc<Cache>,
    registry: Arc<Registry>,
    rights: Rights,
    places: Arc<Places>,
    clock: Clock,
    stop: CancellationToken,
}

impl Control {
    /// A service that tells of these snapshots until stopped.
    pub(crate) fn new(
        worlds: Published,
        cache: Arc<Cache>,
        registry: Arc<Registry>,
        rights: Rights,
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        Self { worlds, cache, registry, rights, places: Places::new(PLACES, PLACE_LIMIT), clock, stop }
    }

    /// The service as it stands behind one door.
    pub(crate) fn behind(self: &Arc<Self>, door: Door) -> Arc<Doorway> {
        Arc::new(Doorway { control: Arc::clone(self), door })
    }

    fn open<S: Speech>(self: &Arc<Self>, door: Door, request: Request<Requests<S::Request>>) -> Opened<S> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection has no peer"))?;
        if door == Door::Proven && peer.identity.is_none() {
            return Err(Status::unauthenticated("a client certificate of the mesh is needed"));
        }
        let ticket =
            self.registry.enter().ok_or_else(|| Status::resource_exhausted("too many streams; try another replica"))?;
        let age = STREAM_AGE_MAX.mul_f64(rand::rng().random_range(0.9..1.1));
        let ends = self.clock.instant() + age;
        let came = Came { control: Arc::clone(self), peer, door, ticket, ends };
        let replies = Stream::<S>::new(came, request.into_inner()).replies();
        Ok(Response::new(Box::pin(replies)))
    }
}

type Opened<S> = Result<Response<Responses<<S as Speech>::Response>>, Status>;

/// The service behind one door.
pub(crate) struct Doorway {
    control: Arc<Control>,
    door: Door,
}

impl Aggregated for Doorway {
    fn whole(self: Arc<Self>, request: Request<Requests<DiscoveryRequest>>) -> Opening<DiscoveryResponse> {
        Box::pin(async move { self.control.open::<speech::Whole>(self.door, request) })
    }

    fn delta(self: Arc<Self>, request: Request<Requests<DeltaDiscoveryRequest>>) -> Opening<DeltaDiscoveryResponse> {
        Box::pin(async move { self.control.open::<speech::Delta>(self.door, request) })
    }
}

/// The node that a client says it is, where it may say so.
fn who(stated: &discovery::Node, peer: &Peer, door: Door) -> Result<Node, Status> {
    let mut node = node::read(stated).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if let Some(identity) = &peer.identity {
        let says = node::service_account(stated);
        if identity.namespace() != node.namespace || says.is_some_and(|says| says != identity.service_account()) {
            return Err(Status::permission_denied(format!("{} is not {identity}", node.id)));
        }
        identity.service_account().clone_into(&mut node.service_account);
    } else if door == Door::Proven {
        return Err(Status::unauthenticated("a client certificate of the mesh is needed"));
    }
    Ok(node)
}

/// The name of a type in metrics and `debug`.
pub(crate) fn type_label(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Cluster => "cds",
        ResourceKind::Endpoints => "eds",
        ResourceKind::Listener => "lds",
        ResourceKind::Routes => "rds",
        ResourceKind::VirtualHost => "vhds",
        ResourceKind::Secret => "sds",
    }
}

fn reject_counter(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Cluster => "pilot_xds_cds_reject",
        ResourceKind::Endpoints => "pilot_xds_eds_reject",
        ResourceKind::Listener => "pilot_xds_lds_reject",
        ResourceKind::Routes => "pilot_xds_rds_reject",
        ResourceKind::VirtualHost => "pilot_xds_vhds_reject",
        ResourceKind::Secret => "pilot_xds_sds_reject",
    }
}

const _: () = assert!(FIRST_REQUEST_LIMIT.as_millis() < Duration::from_secs(60).as_millis());
