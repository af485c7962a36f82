//! The stream to pilot: opened, kept, opened again; what it carries goes through the session into tables.
//!
//! A lost pilot stops nothing: what serves goes on, and the new stream says what is held already.
//! Never here: what to subscribe to (`session`). Run as one task by `run`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::note::Notes;
use api_rt::{
    grpc::{self, Target},
    identity::Identity,
    retry::BackOff,
    tls::Peers,
};
use api_xds::discovery::{AggregatedClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse, ErrorDetail, Node};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::session::{Received, Request, Response, Session};
use crate::{capture::MARK, control::Control, limits::XDS_BACKOFF, metrics::proxy::ProxyStats};

/// How long a table waits for resources that it names and that have not come.
const PATIENCE: Duration = Duration::from_secs(2);
/// Requests waiting to be sent; more than one stream ever has under way.
const REQUESTS_MAX: usize = 256;
/// gRPC's code for a resource that cannot be used.
const INVALID_ARGUMENT: i32 = 3;

/// Where pilot is and who asks.
#[derive(Debug, Clone)]
pub(crate) struct Pilot {
    pub(crate) address: String,
    pub(crate) tls: bool,
    pub(crate) name: String,
    pub(crate) node: Node,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("pilot cannot be called: {0}")]
    Target(#[from] grpc::TargetError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] api_rt::tls::TlsError),
    #[error("{0}")]
    Refused(String),
    #[error("pilot ended the stream")]
    Ended,
}

/// Serves what pilot says until stopped.
pub(crate) async fn run(
    pilot: Pilot,
    identity: Identity,
    mut control: Control,
    stats: Arc<ProxyStats>,
    stop: CancellationToken,
) {
    let mut session = Session::default();
    let mut back_off = BackOff::new(XDS_BACKOFF.0, XDS_BACKOFF.1);
    let keep = async {
        if pilot.tls {
            identity.wait().await;
        }
        loop {
            let began = Instant::now();
            let error = match follow(&pilot, &identity, &mut session, &mut control, &stats).await {
                Ok(()) => StreamError::Ended,
                Err(error) => error,
            };
            stats.xds_connected.set(0);
            if began.elapsed() > XDS_BACKOFF.1 {
                back_off.reset();
            }
            let wait = back_off.next_wait();
            control.waiting(&error.to_string());
            tracing::info!(pilot = pilot.address, %error, again_in = ?wait, "no stream to pilot; serving on");
            let waited = tokio::time::sleep(wait);
            tokio::pin!(waited);
            loop {
                tokio::select! {
                    () = &mut waited => break,
                    () = control.names_changed() => drop(control.apply(session.spec())),
                }
            }
        }
    };
    stop.run_until_cancelled(keep).await;
}

fn to_wire(request: Request, node: Option<Node>) -> DeltaDiscoveryRequest {
    let Request { kind, subscribe, unsubscribe, held, nonce, refused } = request;
    DeltaDiscoveryRequest {
        node,
        type_url: api_xds::type_url(kind).to_owned(),
        resource_names_subscribe: subscribe,
        resource_names_unsubscribe: unsubscribe,
        initial_resource_versions: held.into_iter().collect::<HashMap<_, _>>(),
        response_nonce: nonce,
        error_detail: refused.map(|message| ErrorDetail { code: INVALID_ARGUMENT, message }),
    }
}

fn from_wire(wire: &DeltaDiscoveryResponse) -> Option<Response> {
    let kind = api_xds::kind(&wire.type_url)?;
    let resources = wire
        .decoded()
        .map(|decoded| match decoded {
            Err(error) => Received { name: String::new(), version: String::new(), resource: Err(error.to_string()) },
            Ok(resource) => {
                let decoded = match &resource.resource {
                    None => Err("it is empty".to_owned()),
                    Some(any) => {
                        let mut notes = Notes::new();
                        let decoded = api_xds::decode(&any.type_url, &any.value, &mut notes);
                        for note in &notes {
                            tracing::debug!(%note, "not honoured");
                        }
                        decoded.map_err(|error| error.to_string())
                    }
                };
                Received { name: resource.name, version: resource.version, resource: decoded }
            }
        })
        .collect();
    Some(Response { kind, nonce: wire.nonce.clone(), resources, removed: wire.removed_resources.clone() })
}

async fn follow(
    pilot: &Pilot,
    identity: &Identity,
    session: &mut Session,
    control: &mut Control,
    stats: &ProxyStats,
) -> Result<(), StreamError> {
    let tls = match pilot.tls {
        false => None,
        true => Some((identity.client_config(Peers::ServerName, vec![b"h2".to_vec()])?, pilot.name.clone())),
    };
    let channel = grpc::channel(&Target { address: pilot.address.clone(), tls, mark: Some(MARK) })?;
    let (out, requests) = mpsc::channel(REQUESTS_MAX);
    let mut node = Some(pilot.node.clone());
    for request in session.open() {
        send(&out, to_wire(request, node.take())).await?;
    }
    let refused = |status: &tonic::Status| StreamError::Refused(grpc::reason(status));
    let mut responses: Streaming<DeltaDiscoveryResponse> =
        AggregatedClient::new(channel).delta(ReceiverStream::new(requests)).await.map_err(|s| refused(&s))?;
    stats.xds_connected.set(1);
    tracing::info!(pilot = pilot.address, "stream to pilot open");
    let mut deadline: Option<Instant> = None;
    loop {
        let patience = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = responses.message() => {
                let Some(wire) = message.map_err(|s| refused(&s))? else { return Err(StreamError::Ended) };
                let Some(response) = from_wire(&wire) else {
                    tracing::debug!(type_url = wire.type_url, "a type that was not asked for");
                    continue;
                };
                for request in session.on_response(response) {
                    send(&out, to_wire(request, None)).await?;
                }
                deadline = deadline.or_else(|| Some(Instant::now() + PATIENCE));
            }
            () = patience => {
                tracing::debug!(awaited = session.awaited(), "not everything has come; serving what has");
                session.give_up();
            }
            () = control.names_changed() => {
                if session.started() {
                    drop(control.apply(session.spec()));
                }
                continue;
            }
        }
        if session.started() && session.changed() && session.awaited() == 0 {
            deadline = None;
            let faults = control.apply(session.spec());
            stats.xds_updates.add(1);
            for answer in session.served(&faults) {
                if answer.refused.is_some() {
                    stats.xds_rejected.add(1);
                }
                send(&out, to_wire(answer, None)).await?;
            }
        } else if !session.started() {
            // Before the first listeners there is nothing to serve, however long it takes.
            deadline = None;
        }
    }
}

async fn send(out: &mpsc::Sender<DeltaDiscoveryRequest>, request: DeltaDiscoveryRequest) -> Result<(), StreamError> {
    out.send(request).await.map_err(|_| StreamError::Ended)
}
