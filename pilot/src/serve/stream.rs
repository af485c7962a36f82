//! One stream: reads requests, watches snapshots, and says what its session says.
//!
//! It is a future of its own connection, and ends with it.
//! Never here: who may say to be whom (`serve`), what is said (`session`), or of what (`world`). Made by `serve`.

use std::{collections::BTreeMap, sync::Arc};

use api::spec::{Node, ProxyKind};
use api_rt::grpc::Peer;
use api_xds::{discovery::Requests, node};
use futures::stream;
use tokio::time::Instant;
use tonic::Status;

use super::{Control, Door, places::Place, reject_counter, speech::Speech, type_label, who};
use crate::{
    limits::{AUDIENCES_MAX, AUDIENCES_UNPROVEN_MAX, FIRST_REQUEST_LIMIT, MUCH_BYTES, PLACE_QUIET},
    push::Published,
    registry::{Client, Ticket},
    rights::Right,
    session::{Heard, Progress, Reply, Session},
    world::{Crowded, Sight},
};

/// A conversation under way.
struct Talk {
    node: Node,
    session: Session,
    sight: Sight,
    /// Whether certificates may be sent.
    right: Right,
    /// When that is to be asked again.
    review: Option<Instant>,
    /// True: more may be due now.
    due: bool,
    /// Held while it is told much.
    place: Option<Place>,
    /// When the oldest change was seen that the client has not been told of yet.
    behind: Option<Instant>,
}

/// Who has come, and until when.
pub(super) struct Came {
    pub(super) control: Arc<Control>,
    pub(super) peer: Peer,
    pub(super) door: Door,
    pub(super) ticket: Ticket,
    /// When the client is asked to come again.
    pub(super) ends: Instant,
}

/// One stream.
pub(super) struct Stream<S: Speech> {
    came: Came,
    worlds: Published,
    inbound: Requests<S::Request>,
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
    /// A stream whose client has said nothing yet.
    pub(super) fn new(came: Came, inbound: Requests<S::Request>) -> Self {
        Self { worlds: came.control.worlds.clone(), came, inbound, talk: None, over: false }
    }

    /// What the client is told, as long as it is asked for.
    pub(super) fn replies(self) -> impl futures::Stream<Item = Result<S::Response, Status>> + Send {
        stream::unfold(self, |mut stream| async move {
            let next = stream.next().await?;
            Some((next, stream))
        })
    }

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
            if let Some(reply) = self.due().await? {
                return Ok(Some(reply));
            }
            match self.happens().await {
                Happened::Asked(None) => return Ok(None),
                Happened::Asked(Some(request)) => self.hear(&request)?,
                Happened::Published => self.look()?,
                Happened::Waited => self.waited().await,
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
        let node = who(stated, &self.came.peer, self.came.door)?;
        let world = tokio::select! {
            world = self.worlds.wait_for(Option::is_some) => world.ok().and_then(|world| world.clone()),
            status = self.came.ended() => return Err(status),
        };
        let world = world.ok_or_else(ending)?;
        let right = self.came.right(&node, Right::None).await;
        self.came.ticket.introduce(Client {
            stream: self.came.ticket.stream(),
            node: node.clone(),
            identity: self.came.peer.identity.clone(),
            version: node::version(stated),
            address: self.came.peer.address,
            protocol: S::PROTOCOL,
            since: self.came.control.clock.now(),
            right,
            watched: BTreeMap::new(),
        });
        tracing::info!(node = %node.id, address = %self.came.peer.address, "a proxy connected");
        let proven = self.came.peer.identity.is_some();
        let audiences = if proven { AUDIENCES_MAX } else { AUDIENCES_UNPROVEN_MAX };
        let mut sight = Sight::new(world, Arc::clone(&self.came.control.cache), &node, audiences).map_err(no_room)?;
        sight.may_see_secrets(right == Right::Granted);
        let session = Session::new(S::PROTOCOL);
        let review = self.came.control.rights.hold(right).map(|length| self.came.control.clock.instant() + length);
        self.talk = Some(Talk { node, session, sight, right, review, due: false, place: None, behind: None });
        self.hear(&request)?;
        Ok(true)
    }

    fn hear(&mut self, request: &S::Request) -> Result<(), Status> {
        let Some(talk) = &mut self.talk else { return Ok(()) };
        let heard = S::hear(&mut talk.session, request, &talk.sight);
        let heard = heard.map_err(|full| Status::resource_exhausted(full.to_string()))?;
        if let Some(place) = &mut talk.place {
            place.quiet = self.came.control.clock.instant() + PLACE_QUIET;
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
        self.came.ticket.update(talk.session.watched());
        Ok(())
    }

    fn look(&mut self) -> Result<(), Status> {
        let world = self.worlds.borrow_and_update().clone();
        let (Some(talk), Some(world)) = (&mut self.talk, world) else { return Ok(()) };
        talk.behind.get_or_insert(world.since);
        for names in talk.sight.look(world, &talk.node).map_err(no_room)? {
            talk.session.changed(&names);
        }
        talk.due = true;
        Ok(())
    }

    async fn waited(&mut self) {
        let now = self.came.control.clock.instant();
        let Some(talk) = &mut self.talk else { return };
        talk.due |= talk.session.wake_at().is_some_and(|then| then <= now);
        let progress = talk.session.progress();
        talk.place.take_if(|place| place.ends(progress) <= now);
        if talk.review.is_some_and(|then| then <= now) {
            self.review().await;
        }
    }

    /// Asks again whether certificates may be sent, and tells of them what changes by it.
    async fn review(&mut self) {
        let Some((node, before)) = self.talk.as_ref().map(|talk| (talk.node.clone(), talk.right)) else { return };
        let right = self.came.right(&node, before).await;
        let Some(talk) = &mut self.talk else { return };
        let names = talk.sight.may_see_secrets(right == Right::Granted);
        talk.due |= !names.is_empty();
        talk.session.changed(&names);
        talk.right = right;
        talk.review = self.came.control.rights.hold(right).map(|length| self.came.control.clock.instant() + length);
        self.came.ticket.permit(right);
    }

    /// Takes a place among those that are told much, oldest first; one that is held already stays.
    async fn take_place(&mut self) -> Result<(), Status> {
        let Some(talk) = self.talk.as_mut().filter(|talk| talk.place.is_none()) else { return Ok(()) };
        talk.place = tokio::select! {
            place = self.came.control.places.take() => Some(place),
            status = self.came.ended() => return Err(status),
        };
        Ok(())
    }

    /// What the session says now. Where many are to be told much, they are told one after the other, oldest first: each is
    /// done with sooner, and what is on its way takes bounded memory.
    async fn due(&mut self) -> Result<Option<Reply>, Status> {
        if self.talk.as_ref().is_some_and(|talk| talk.due && talk.session.much()) {
            self.take_place().await?;
        }
        let Some(talk) = self.talk.as_mut().filter(|talk| talk.due) else { return Ok(None) };
        let reply = talk.session.next(&talk.sight, self.came.control.clock.instant());
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
                    let spread = self.came.control.clock.instant().saturating_duration_since(since);
                    metrics::histogram!("pilot_proxy_convergence_time").record(spread.as_secs_f64());
                }
            }
        }
        self.came.ticket.update(talk.session.watched());
        if reply.as_ref().is_some_and(|reply| reply.bytes() >= MUCH_BYTES) {
            self.take_place().await?;
            if let Some(place) = self.talk.as_mut().and_then(|talk| talk.place.as_mut()) {
                place.used = true;
            }
        }
        Ok(reply)
    }

    async fn happens(&mut self) -> Happened<S::Request> {
        let wake = self.talk.as_ref().and_then(|talk| {
            let place = talk.place.as_ref().map(|place| place.ends(talk.session.progress()));
            talk.session.wake_at().into_iter().chain(place).chain(talk.review).min()
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
                    tracing::debug!(address = %self.came.peer.address, status = %api_rt::grpc::reason(&status), "a stream broke");
                    Happened::Asked(None)
                }
            },
            changed = self.worlds.changed() => match changed {
                Ok(()) => Happened::Published,
                Err(_) => Happened::Ended(ending()),
            },
            () = wait => Happened::Waited,
            status = self.came.ended() => Happened::Ended(status),
        }
    }
}

impl Came {
    /// Whether this client may be sent certificates: none but a gateway that proved who it is.
    async fn right(&self, node: &Node, before: Right) -> Right {
        match &self.peer.identity {
            Some(identity) if node.kind == ProxyKind::Gateway => {
                self.control.rights.of(identity, before, self.control.clock.instant()).await
            }
            Some(_) | None => Right::None,
        }
    }

    /// Waits until the stream has to end, and says why.
    async fn ended(&self) -> Status {
        tokio::select! {
            () = tokio::time::sleep_until(self.ends) => {
                Status::unavailable("the stream is old; come again, so that replicas share the load")
            }
            () = self.control.stop.cancelled() => ending(),
        }
    }
}

fn no_room(crowded: Crowded) -> Status {
    Status::resource_exhausted(crowded.to_string())
}

fn ending() -> Status {
    Status::unavailable("pilot is ending; come again")
}
