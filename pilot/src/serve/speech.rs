//! The two protocols' messages, as one thing that streams are generic over.
//!
//! Never here: conversations. Used by `serve`.

use api_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Node};

use crate::session::{Heard, Offer, Overfull, Protocol, Reply, Session};

/// One protocol's messages.
pub(super) trait Speech: Send + 'static {
    /// The protocol.
    const PROTOCOL: Protocol;
    /// What clients send.
    type Request: prost::Message + Default + 'static;
    /// What they are sent.
    type Response: Send + 'static;

    /// Who asks.
    fn node(request: &Self::Request) -> Option<&Node>;
    /// Passes a request to the session.
    fn hear(session: &mut Session, request: &Self::Request, offer: &impl Offer) -> Result<Heard, Overfull>;
    /// The message of a reply.
    fn say(reply: Reply) -> Self::Response;
}

/// State of the world.
pub(super) struct Whole;

impl Speech for Whole {
    const PROTOCOL: Protocol = Protocol::Whole;
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn hear(session: &mut Session, request: &DiscoveryRequest, offer: &impl Offer) -> Result<Heard, Overfull> {
        session.hear_whole(request, offer)
    }

    fn say(reply: Reply) -> DiscoveryResponse {
        reply.whole()
    }
}

/// Delta.
pub(super) struct Delta;

impl Speech for Delta {
    const PROTOCOL: Protocol = Protocol::Delta;
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn hear(session: &mut Session, request: &DeltaDiscoveryRequest, offer: &impl Offer) -> Result<Heard, Overfull> {
        session.hear_delta(request, offer)
    }

    fn say(reply: Reply) -> DeltaDiscoveryResponse {
        reply.delta()
    }
}
