//! A driver that speaks xDS to the service without a socket, as Envoy, our proxy and gRPC do.
//!
//! Objects go in as JSON, responses come out as `CDS name name -gone`. What differs between two dialects is not looked at.
//! Never here: conversations by table (`session::tests`).

mod certificates;

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    task::{Context, Poll},
};

use api::name::SpiffeId;
use api_kube::source::Event;
use api_mesh::{
    model::{Catalog, Settings},
    object::{Strictness, from_json},
};
use api_xds::discovery::{AggregatedClient, AggregatedServer};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, body::Body};
use tower::Service;

use super::*;
use crate::push::Push;

/// The server as a client's channel.
#[derive(Clone)]
struct Channel {
    server: AggregatedServer<Doorway>,
    peer: Peer,
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = <AggregatedServer<Doorway> as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.server.call(request)
    }
}

struct Pilot {
    push: Push,
    control: Arc<Control>,
    now: Instant,
}

impl Pilot {
    fn new(objects: Vec<Value>) -> Self {
        Self::with(objects, Rights::ByIdentity)
    }

    fn with(objects: Vec<Value>, rights: Rights) -> Self {
        let now = Instant::now();
        let cache = Arc::new(Cache::default());
        let push = Push::new(Catalog::new(Settings::default()), Arc::clone(&cache), now);
        let registry = Arc::new(Registry::default());
        let control = Control::new(push.worlds(), cache, registry, rights, Clock::system(), CancellationToken::new());
        let mut pilot = Self { push, control: Arc::new(control), now };
        let mut events: Vec<Event> = objects.into_iter().map(apply).collect();
        events.push(Event::Synced);
        pilot.push.take_in(&mut events, now);
        pilot.push.publish_due(now);
        pilot
    }

    fn store(&mut self, object: Value) {
        self.now += Duration::from_secs(2);
        self.push.take_in(&mut vec![apply(object)], self.now);
        self.push.publish_due(self.now + Duration::from_secs(2));
    }

    fn delete(&mut self, kind: &str, name: &str) {
        self.now += Duration::from_secs(2);
        let gone = api::note::ObjectRef::new(kind, "default", name);
        self.push.take_in(&mut vec![Event::Delete(gone)], self.now);
        self.push.publish_due(self.now + Duration::from_secs(2));
    }

    fn channel(&self, identity: Option<&str>, door: Door) -> Channel {
        let identity = identity.map(|text| text.parse::<SpiffeId>().unwrap());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let peer = Peer { secure: identity.is_some(), identity, address };
        Channel { server: AggregatedServer::new(self.control.behind(door)), peer }
    }

    async fn delta(&self, id: &str) -> Client<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
        let (requests, receiver) = mpsc::channel(8);
        let mut client = AggregatedClient::new(self.channel(None, Door::Open));
        let responses = client.delta(ReceiverStream::new(receiver)).await.unwrap();
        Client { id: id.to_owned(), requests, responses, greeted: false }
    }

    async fn whole(&self, id: &str) -> Client<DiscoveryRequest, DiscoveryResponse> {
        let (requests, receiver) = mpsc::channel(8);
        let mut client = AggregatedClient::new(self.channel(None, Door::Open));
        let responses = client.whole(ReceiverStream::new(receiver)).await.unwrap();
        Client { id: id.to_owned(), requests, responses, greeted: false }
    }
}

fn apply(object: Value) -> Event {
    Event::Apply(from_json(object, Strictness::Refuse).unwrap().0)
}

struct Client<Q, R> {
    id: String,
    requests: mpsc::Sender<Q>,
    responses: Streaming<R>,
    greeted: bool,
}

impl<Q, R> Client<Q, R> {
    fn node(&mut self) -> Option<discovery::Node> {
        let first = !std::mem::replace(&mut self.greeted, true);
        first.then(|| discovery::Node { id: self.id.clone(), ..Default::default() })
    }
}

impl Client<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
    async fn ask(&mut self, kind: ResourceKind, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            node: self.node(),
            type_url: api_xds::type_url(kind).into(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response, which is taken.
    async fn hears(&mut self) -> String {
        let response = self.responses.message().await.unwrap().expect("the stream goes on");
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.requests.send(answer).await.unwrap();
        let mut names: Vec<String> = response.decoded().map(|resource| resource.unwrap().name).collect();
        names.sort();
        names.extend(response.removed_resources.iter().map(|name| format!("-{name}")));
        format!("{} {}", type_label(api_xds::kind(&response.type_url).unwrap()), names.join(" "))
    }

    /// Nothing more is said, although something else is asked for and answered.
    async fn hears_nothing(&mut self) {
        self.ask(ResourceKind::Routes, &["nothing-of-this-name"]).await;
        assert_eq!(self.hears().await, "rds -nothing-of-this-name");
    }
}

impl Client<DiscoveryRequest, DiscoveryResponse> {
    async fn ask(&mut self, kind: ResourceKind, names: &[&str], nonce: &str) {
        let request = DiscoveryRequest {
            node: self.node(),
            type_url: api_xds::type_url(kind).into(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: nonce.into(),
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }

    async fn hears(&mut self) -> (ResourceKind, usize, String) {
        let response = self.responses.message().await.unwrap().expect("the stream goes on");
        assert!(response.decoded().all(|any| any.unwrap().type_url == response.type_url));
        (api_xds::kind(&response.type_url).unwrap(), response.resources.len(), response.nonce)
    }

    /// Of the next response, whether it is of clusters and names this one.
    async fn hears_of_cluster(&mut self, name: &str) -> bool {
        let response = self.responses.message().await.unwrap().expect("the stream goes on");
        assert_eq!(api_xds::kind(&response.type_url), Some(ResourceKind::Cluster));
        self.ask(ResourceKind::Cluster, &[], &response.nonce).await;
        response.decoded().any(|any| any.unwrap().value.windows(name.len()).any(|at| at == name.as_bytes()))
    }
}

fn service(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default" },
            "spec": { "clusterIP": "198.19.0.9", "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } })
}

fn slice(name: &str, addresses: &[&str]) -> Value {
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": format!("{name}-1"), "namespace": "default",
                          "labels": { "kubernetes.io/service-name": name } },
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": addresses.iter().map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true } })).collect::<Vec<_>>() })
}

const SIDECAR: &str = "sidecar~198.18.0.7~web-1.default~default.svc.cluster.local";
const A: &str = "outbound|80||a.default.svc.cluster.local";
const B: &str = "outbound|80||b.default.svc.cluster.local";

fn mesh() -> Vec<Value> {
    vec![service("a"), service("b"), slice("a", &["198.18.0.1"]), slice("b", &["198.18.0.2"])]
}

#[tokio::test]
async fn one_endpoint_change_is_one_resource_and_nothing_else() {
    let mut pilot = Pilot::new(mesh());
    let mut client = pilot.delta(SIDECAR).await;
    client.ask(ResourceKind::Cluster, &[]).await;
    let clusters = client.hears().await;
    assert!(clusters.contains(A) && clusters.contains(B), "{clusters}");
    client.ask(ResourceKind::Endpoints, &[A, B]).await;
    assert_eq!(client.hears().await, format!("eds {A} {B}"));
    client.ask(ResourceKind::Listener, &[]).await;
    assert!(client.hears().await.contains("virtualOutbound"));
    client.ask(ResourceKind::Routes, &["80"]).await;
    assert_eq!(client.hears().await, "rds 80");

    pilot.store(slice("a", &["198.18.0.1", "198.18.0.3"]));
    assert_eq!(client.hears().await, format!("eds {A}"));
    client.hears_nothing().await;
}

#[tokio::test]
async fn an_object_stored_again_unchanged_says_nothing() {
    let mut pilot = Pilot::new(mesh());
    let mut client = pilot.delta(SIDECAR).await;
    client.ask(ResourceKind::Endpoints, &[A]).await;
    assert_eq!(client.hears().await, format!("eds {A}"));
    pilot.store(slice("a", &["198.18.0.1"]));
    pilot.store(service("a"));
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_new_service_comes_and_goes_by_itself() {
    let mut pilot = Pilot::new(mesh());
    let mut client = pilot.delta(SIDECAR).await;
    client.ask(ResourceKind::Cluster, &[]).await;
    client.hears().await;
    pilot.store(service("c"));
    assert_eq!(client.hears().await, "cds outbound|80||c.default.svc.cluster.local");
    pilot.delete("Service", "c");
    assert_eq!(client.hears().await, "cds -outbound|80||c.default.svc.cluster.local");
}

#[tokio::test]
async fn the_state_of_the_world_is_served_too() {
    let mut pilot = Pilot::new(mesh());
    let mut client = pilot.whole(SIDECAR).await;
    client.ask(ResourceKind::Cluster, &[], "").await;
    let (kind, clusters, nonce) = client.hears().await;
    assert!(kind == ResourceKind::Cluster && clusters >= 2);
    client.ask(ResourceKind::Cluster, &[], &nonce).await;
    client.ask(ResourceKind::Endpoints, &[A, B], "").await;
    let (kind, two, nonce) = client.hears().await;
    assert_eq!((kind, two), (ResourceKind::Endpoints, 2));
    client.ask(ResourceKind::Endpoints, &[A, B], &nonce).await;
    pilot.store(slice("a", &["198.18.0.1", "198.18.0.3"]));
    let (kind, one, _) = client.hears().await;
    assert_eq!((kind, one), (ResourceKind::Endpoints, 1));
}

#[tokio::test]
async fn a_cluster_that_is_going_stays_until_routes_have_left_it_whatever_else_comes() {
    let mut pilot = Pilot::new(mesh());
    let mut client = pilot.whole(SIDECAR).await;
    client.ask(ResourceKind::Cluster, &[], "").await;
    assert!(client.hears_of_cluster(B).await);
    client.ask(ResourceKind::Endpoints, &[A, B], "").await;
    let (_, _, nonce) = client.hears().await;
    client.ask(ResourceKind::Endpoints, &[A, B], &nonce).await;
    // B goes; C comes, and routes wait for its endpoints, which the client does not ask for yet
    pilot.delete("Service", "b");
    pilot.store(service("c"));
    assert!(client.hears_of_cluster(B).await, "routes still lead there");
    pilot.store(service("d"));
    assert!(client.hears_of_cluster(B).await, "routes still lead there, one snapshot later too");
    assert!(!client.hears_of_cluster(B).await, "now they have left it");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_for_its_place_ends_when_pilot_does() {
    let pilot = Pilot::new(mesh());
    let mut taken = Vec::new();
    for _ in 0..PLACES {
        taken.push(pilot.control.places.take().await);
    }
    let mut client = pilot.delta(SIDECAR).await;
    client.ask(ResourceKind::Cluster, &[]).await;
    tokio::select! {
        biased;
        _ = client.responses.message() => panic!("it waits"),
        () = tokio::task::yield_now() => {}
    }
    pilot.control.stop.cancel();
    let ended = client.responses.message().await.unwrap_err();
    assert_eq!(ended.code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn a_client_waits_for_the_first_snapshot() {
    let now = Instant::now();
    let cache = Arc::new(Cache::default());
    let mut push = Push::new(Catalog::new(Settings::default()), Arc::clone(&cache), now);
    let registry = Arc::new(Registry::default());
    let (stop, rights) = (CancellationToken::new(), Rights::ByIdentity);
    let control = Control::new(push.worlds(), cache, registry, rights, Clock::system(), stop);
    push.take_in(&mut mesh().into_iter().map(apply).collect(), now);
    push.publish_due(now + Duration::from_secs(60));
    assert!(push.worlds().borrow().is_none());
    let mut pilot = Pilot { push, control: Arc::new(control), now };
    let mut client = pilot.delta(SIDECAR).await;
    client.ask(ResourceKind::Endpoints, &[A]).await;
    tokio::task::yield_now().await;
    pilot.push.take_in(&mut vec![Event::Synced], now);
    pilot.push.publish_due(now);
    assert_eq!(client.hears().await, format!("eds {A}"));
}

#[tokio::test]
async fn many_at_once_are_all_served_and_told_of_a_change_alike() {
    let mut pilot = Pilot::new(mesh());
    let mut clients = Vec::new();
    for number in 0..200 {
        let id = format!("sidecar~198.18.1.{number}~web-{number}.ns-{}~ns.svc.cluster.local", number % 7);
        let mut client = pilot.delta(&id).await;
        client.ask(ResourceKind::Cluster, &[]).await;
        client.ask(ResourceKind::Endpoints, &[A, B]).await;
        clients.push(client);
    }
    for client in &mut clients {
        assert!(client.hears().await.contains(A));
        assert_eq!(client.hears().await, format!("eds {A} {B}"));
    }
    let (built, _) = pilot.control.cache.size();
    assert!(built <= 32, "built once for all, not {built} times");
    pilot.store(slice("b", &["198.18.0.2", "198.18.0.3"]));
    for client in &mut clients {
        assert_eq!(client.hears().await, format!("eds {B}"));
    }
}

async fn refusal(identity: Option<&str>, door: Door, node: Option<&str>) -> Option<tonic::Code> {
    let pilot = Pilot::new(mesh());
    let mut client = AggregatedClient::new(pilot.channel(identity, door));
    let (requests, receiver) = mpsc::channel(8);
    let request = DeltaDiscoveryRequest {
        node: node.map(|id| discovery::Node { id: id.to_owned(), ..Default::default() }),
        type_url: api_xds::type_url(ResourceKind::Cluster).into(),
        ..Default::default()
    };
    requests.send(request).await.unwrap();
    match client.delta(ReceiverStream::new(receiver)).await {
        Err(status) => Some(status.code()),
        Ok(mut responses) => responses.message().await.err().map(|status| status.code()),
    }
}

#[tokio::test]
async fn only_who_one_proved_to_be_may_one_say_to_be() {
    use tonic::Code;
    let own = Some("spiffe://cluster.local/ns/default/sa/web");
    let other = Some("spiffe://cluster.local/ns/other/sa/web");
    assert_eq!(refusal(own, Door::Proven, Some(SIDECAR)).await, None);
    assert_eq!(refusal(other, Door::Proven, Some(SIDECAR)).await, Some(Code::PermissionDenied));
    assert_eq!(refusal(None, Door::Proven, Some(SIDECAR)).await, Some(Code::Unauthenticated));
    assert_eq!(refusal(None, Door::Open, Some(SIDECAR)).await, None);
    assert_eq!(refusal(None, Door::Open, None).await, Some(Code::InvalidArgument));
    assert_eq!(refusal(None, Door::Open, Some("who~knows")).await, Some(Code::InvalidArgument));
}

#[tokio::test]
async fn who_is_connected_is_on_show_until_it_leaves() {
    let pilot = Pilot::new(mesh());
    let mut client = pilot.delta(SIDECAR).await;
    client.ask(ResourceKind::Endpoints, &[A]).await;
    client.hears().await;
    client.hears_nothing().await;
    let shown = pilot.control.registry.find("web-1.default").unwrap();
    let watched = &shown.watched[&ResourceKind::Endpoints];
    assert_eq!((watched.sent, watched.answered, watched.refusal.as_deref()), (1, 1, None));
    drop(client);
    assert_eq!(pilot.control.registry.all().len(), 0);
}
