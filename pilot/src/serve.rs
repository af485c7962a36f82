//! Serves ADS: lets streams in, checks who they are, and carries their conversations.
//!
//! A stream is a future of its own connection: it reads requests, watches snapshots, and says what its session says.
//! Never here: what is said (`session`), or of what (`world`). Started by `main` on 15010 and 15012.

mod speech;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use api::spec::{Node, ProxyKind, ResourceKind};
use api_rt::{clock::Clock, grpc::Peer};
use api_xds::{
    discovery::{
        self, Aggregated, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Opening,
        Requests, Responses,
    },
    node,
};
use futures::stream;
use rand::RngExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

use self::speech::Speech;
use crate::{
    cache::Cache,
    limits::{FIRST_REQUEST_LIMIT, MUCH_BYTES, PLACE_LIMIT, PLACE_QUIET, PLACES, STREAM_AGE_MAX},
    push::Published,
    registry::{Client, Registry, Ticket},
    session::{Heard, Progress, Reply, Session},
    world::Sight,
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
    places: Arc<Semaphore>,
    clock: Clock,
    stop: CancellationToken,
}

impl Control {
    /// A service that tells of these snapshots until stopped.
    pub(crate) fn new(
        worlds: Published,
        cache: Arc<Cache>,
        registry: Arc<Registry>,
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        let places = Arc::new(Semaphore::new(PLACES));
        Self { worlds, cache, registry, places, clock, stop }
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
        let stream = Stream::<S> {
            control: Arc::clone(self),
            worlds: self.worlds.clone(),
            inbound: request.into_inner(),
            peer,
            door,
            ticket,
            ends: self.clock.instant() + age,
            talk: None,
            over: false,
        };
        let replies = stream::unfold(stream, |mut stream| async move {
            let next = stream.next().await?;
            Some((next, stream))
        });
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

/// A conversation under way.
struct Talk {
    node: Node,
    session: Session,
    sight: Sight,
    /// True: more may be due now.
    due: bool,
    /// Held while it is told much.
    place: Option<Place>,
    /// When the oldest change was seen that the client has not been told of yet.
    behind: Option<Instant>,
}

/// A place among those that are told much.
struct Place {
    /// Dropped: the place is free.
    _release: DropGuard,
    /// When it is given back, whatever the client does.
    until: Instant,
    /// When it is given back if nothing happens any more.
    quiet: Instant,
    /// True: something was told since it was taken.
    used: bool,
}

impl Place {
    /// When to look whether it is to be given back.
    fn ends(&self, progress: Progress) -> Instant {
        match progress {
            Progress::Busy => self.until,
            Progress::Waiting | Progress::Configured => self.until.min(self.quiet),
        }
    }
}

/// Keeps a permit until the guard is dropped, and no longer than this: the stream itself is not asked for anything while its
/// client takes nothing.
fn hold(permit: OwnedSemaphorePermit, until: Instant) -> DropGuard {
    let released = CancellationToken::new();
    let ended = released.clone().cancelled_owned();
    tokio::spawn(async move {
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep_until(until) => {}
        }
        drop(permit);
    });
    released.drop_guard()
}

struct Stream<S: Speech> {
    control: Arc<Control>,
    worlds: Published,
    inbound: Requests<S::Request>,
    peer: Peer,
    door: Door,
    ticket: Ticket,
    ends: Instant,
    talk: Option<Talk>,
    over: bool,
}

enum Happened<R> {
    Asked(Option<R>),
    Published,
    Waited,
    Ended(Status),
}

impl<S: Speech> Stream<S> {
    /// The next response, or how the stream ends.
    async fn next(&mut self) -> Option<Result<S::Response, Status>> {
        if self.over {
            return None;
        }
        match self.step().await {
            Ok(Some(reply)) => Some(Ok(S::say(reply))),
            Ok(None) => None,
            Err(status) => {
                self.over = true;
                Some(Err(status))
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Reply>, Status> {
        if self.talk.is_none() && !self.begin().await? {
            return Ok(None);
        }
        loop {
            if let Some(reply) = self.due().await {
                return Ok(Some(reply));
            }
            match self.happens().await {
                Happened::Asked(None) => return Ok(None),
                Happened::Asked(Some(request)) => self.hear(&request)?,
                Happened::Published => self.look(),
                Happened::Waited => self.waited(),
                Happened::Ended(status) => return Err(status),
            }
        }
    }

    /// Hears the first request, which says who asks; false: the client left.
    async fn begin(&mut self) -> Result<bool, Status> {
        let first = tokio::time::timeout(FIRST_REQUEST_LIMIT, self.inbound.message()).await;
        let Some(request) = first.map_err(|_| Status::deadline_exceeded("nothing was asked for"))?? else {
            return Ok(false);
        };
        let stated = S::node(&request).ok_or_else(|| Status::invalid_argument("the first request names no node"))?;
        let node = who(stated, &self.peer, self.door)?;
        let world = tokio::select! {
            world = self.worlds.wait_for(Option::is_some) => world.ok().and_then(|world| world.clone()),
            () = self.control.stop.cancelled() => None,
        };
        let world = world.ok_or_else(ending)?;
        let secrets = self.peer.identity.is_some() && node.kind == ProxyKind::Gateway;
        self.ticket.introduce(Client {
            stream: self.ticket.stream(),
            node: node.clone(),
            identity: self.peer.identity.clone(),
            version: node::version(stated),
            address: self.peer.address,
            protocol: S::PROTOCOL,
            since: self.control.clock.now(),
            watched: std::collections::BTreeMap::new(),
        });
        tracing::info!(node = %node.id, address = %self.peer.address, "a proxy connected");
        let sight = Sight::new(world, Arc::clone(&self.control.cache), &node, secrets);
        let session = Session::new(S::PROTOCOL);
        self.talk = Some(Talk { node, session, sight, due: false, place: None, behind: None });
        self.hear(&request)?;
        Ok(true)
    }

    fn hear(&mut self, request: &S::Request) -> Result<(), Status> {
        let Some(talk) = &mut self.talk else { return Ok(()) };
        let heard = S::hear(&mut talk.session, request, &talk.sight);
        let heard = heard.map_err(|full| Status::resource_exhausted(full.to_string()))?;
        if let Some(place) = &mut talk.place {
            place.quiet = self.control.clock.instant() + PLACE_QUIET;
        }
        match heard {
            Heard::Asked(_) => talk.due = true,
            Heard::Took(_) => {}
            Heard::Refused(kind, text) => {
                tracing::warn!(node = %talk.node.id, ?kind, refusal = %text, "a proxy refused what it was sent");
                metrics::counter!("pilot_total_xds_rejects", "type" => type_label(kind)).increment(1);
                metrics::counter!(reject_counter(kind)).increment(1);
            }
            Heard::Stale(_) => metrics::counter!("pilot_xds_expired_nonce").increment(1),
            Heard::Unknown(type_url) => {
                tracing::debug!(node = %talk.node.id, %type_url, "a proxy asks for a type that is not served");
            }
        }
        if talk.place.is_some() && !talk.due && talk.session.progress() == Progress::Configured {
            talk.place = None;
        }
        self.ticket.update(talk.session.watched());
        Ok(())
    }

    fn look(&mut self) {
        let world = self.worlds.borrow_and_update().clone();
        let (Some(talk), Some(world)) = (&mut self.talk, world) else { return };
        talk.behind.get_or_insert(world.since);
        for names in talk.sight.look(world, &talk.node) {
            talk.session.changed(&names);
        }
        talk.due = true;
    }

    fn waited(&mut self) {
        let now = self.control.clock.instant();
        let Some(talk) = &mut self.talk else { return };
        talk.due |= talk.session.wake_at().is_some_and(|then| then <= now);
        let progress = talk.session.progress();
        talk.place.take_if(|place| place.ends(progress) <= now);
    }

    /// Takes a place among those that are told much, oldest first; one that is held already stays.
    async fn take_place(&mut self) {
        let Some(talk) = self.talk.as_mut().filter(|talk| talk.place.is_none()) else { return };
        let Ok(permit) = Arc::clone(&self.control.places).acquire_owned().await else { return };
        let now = self.control.clock.instant();
        let (until, quiet) = (now + PLACE_LIMIT, now + PLACE_QUIET);
        talk.place = Some(Place { _release: hold(permit, until), until, quiet, used: false });
    }

    /// What the session says now. Where many are to be told much, they are told one after the other, oldest first: each is
    /// done with sooner, and what is on its way takes bounded memory.
    async fn due(&mut self) -> Option<Reply> {
        if self.talk.as_ref().is_some_and(|talk| talk.due && talk.session.much()) {
            self.take_place().await;
        }
        let talk = self.talk.as_mut().filter(|talk| talk.due)?;
        let reply = talk.session.next(&talk.sight, self.control.clock.instant());
        match &reply {
            Some(reply) => {
                metrics::counter!("pilot_xds_pushes", "type" => type_label(reply.kind)).increment(1);
                tracing::debug!(node = %talk.node.id, kind = ?reply.kind, resources = reply.len(), "told");
            }
            None => {
                talk.due = false;
                if talk.session.wake_at().is_none() {
                    talk.sight.forget_before();
                }
                talk.place.take_if(|place| !place.used);
                if let Some(since) = talk.behind.take() {
                    let spread = self.control.clock.instant().saturating_duration_since(since);
                    metrics::histogram!("pilot_proxy_convergence_time").record(spread.as_secs_f64());
                }
            }
        }
        self.ticket.update(talk.session.watched());
        if reply.as_ref().is_some_and(|reply| reply.bytes() >= MUCH_BYTES) {
            self.take_place().await;
            if let Some(place) = self.talk.as_mut().and_then(|talk| talk.place.as_mut()) {
                place.used = true;
            }
        }
        reply
    }

    async fn happens(&mut self) -> Happened<S::Request> {
        let wake = self.talk.as_ref().and_then(|talk| {
            let place = talk.place.as_ref().map(|place| place.ends(talk.session.progress()));
            talk.session.wake_at().into_iter().chain(place).min()
        });
        let wait = async {
            match wake {
                Some(then) => tokio::time::sleep_until(then).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = self.inbound.message() => match request {
                Ok(request) => Happened::Asked(request),
                Err(status) => {
                    tracing::debug!(address = %self.peer.address, status = %api_rt::grpc::reason(&status), "a stream broke");
                    Happened::Asked(None)
                }
            },
            changed = self.worlds.changed() => match changed {
                Ok(()) => Happened::Published,
                Err(_) => Happened::Ended(ending()),
            },
            () = wait => Happened::Waited,
            () = tokio::time::sleep_until(self.ends) => {
                Happened::Ended(Status::unavailable("the stream is old; come again, so that replicas share the load"))
            }
            () = self.control.stop.cancelled() => Happened::Ended(ending()),
        }
    }
}

fn ending() -> Status {
    Status::unavailable("pilot is ending; come again")
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
