//! The watch against a small API server in memory that lists, streams, breaks off and forgets.
//!
//! Never here: what events mean. Run by `cargo test`.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use api::note::ObjectRef;
use api_mesh::object::Kind;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Event, Selection};
use crate::source::Source;

type Reply = http::Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What the next list answers (or an HTTP error), and what the watch after it streams.
enum Round {
    List(Vec<Value>, mpsc::UnboundedReceiver<Value>),
    Fails(u16),
}

#[derive(Clone, Default)]
struct Server {
    rounds: Arc<Mutex<VecDeque<Round>>>,
    watch: Arc<Mutex<Option<mpsc::UnboundedReceiver<Value>>>>,
    lists: Arc<Mutex<Vec<String>>>,
}

fn whole(code: u16, value: &Value) -> Reply {
    let mut reply = http::Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *reply.status_mut() = http::StatusCode::from_u16(code).unwrap();
    reply
}

impl Server {
    fn then(&self, objects: Vec<Value>) -> mpsc::UnboundedSender<Value> {
        let (events, stream) = mpsc::unbounded_channel();
        self.rounds.lock().unwrap().push_back(Round::List(objects, stream));
        events
    }

    fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request.uri())) }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, uri: &http::Uri) -> Reply {
        if uri.query().is_some_and(|query| query.contains("watch=true")) {
            let Some(events) = self.watch.lock().unwrap().take() else {
                // Nothing more to tell: a watch that stays silent.
                return http::Response::new(StreamBody::new(futures::stream::pending()).boxed_unsync());
            };
            let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(events)
                .map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
            return http::Response::new(StreamBody::new(stream).boxed_unsync());
        }
        self.lists.lock().unwrap().push(uri.to_string());
        match self.rounds.lock().unwrap().pop_front() {
            Some(Round::List(items, stream)) => {
                *self.watch.lock().unwrap() = Some(stream);
                let metadata = json!({ "resourceVersion": "100" });
                whole(
                    200,
                    &json!({ "apiVersion": "v1", "kind": "NamespaceList", "metadata": metadata, "items": items }),
                )
            }
            Some(Round::Fails(code)) => {
                let status =
                    json!({ "kind": "Status", "status": "Failure", "code": code, "reason": "x", "message": "x" });
                whole(code, &status)
            }
            None => whole(503, &json!({ "kind": "Status", "status": "Failure", "code": 503 })),
        }
    }
}

fn namespace(name: &str, version: &str) -> Value {
    let fields = json!([{ "manager": "kubectl", "operation": "Apply", "fieldsV1": {} }]);
    let metadata = json!({ "name": name, "resourceVersion": version, "managedFields": fields });
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
}

fn told(event: Option<Event>) -> String {
    match event {
        Some(Event::Apply(stored)) => {
            format!("apply {} {}", stored.metadata().name, stored.metadata().resource_version)
        }
        Some(Event::Delete(object)) => format!("delete {}", object.name),
        Some(Event::Synced) => "synced".to_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn outages_and_new_lists_tell_only_what_changed() {
    let server = Server::default();
    server.rounds.lock().unwrap().push_back(Round::Fails(500));
    let first = server.then(vec![namespace("a", "1"), namespace("b", "2")]);
    let mut source = Source::cluster(&server.client(), vec![Selection::of(Kind::Namespace).labelled("x=y")]);
    let mut begin = vec![told(source.next().await), told(source.next().await), told(source.next().await)];
    begin.sort();
    assert_eq!(begin, ["apply a 1", "apply b 2", "synced"]);
    assert!(server.lists.lock().unwrap()[0].contains("labelSelector=x%3Dy"));

    first.send(json!({ "type": "MODIFIED", "object": namespace("a", "3") })).unwrap();
    first.send(json!({ "type": "BOOKMARK", "object": namespace("", "9") })).unwrap();
    assert_eq!(told(source.next().await), "apply a 3");

    // While nobody listened b went and c came; a is as it was.
    let second = server.then(vec![namespace("a", "3"), namespace("c", "4")]);
    let gone = json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old" });
    first.send(json!({ "type": "ERROR", "object": gone })).unwrap();
    drop(first);
    assert_eq!(told(source.next().await), "apply c 4");
    assert_eq!(told(source.next().await), "delete b");
    second.send(json!({ "type": "DELETED", "object": namespace("c", "5") })).unwrap();
    assert_eq!(told(source.next().await), "delete c");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_the_cluster_does_not_have_is_empty_until_it_comes() {
    let server = Server::default();
    server.rounds.lock().unwrap().push_back(Round::Fails(404));
    server.rounds.lock().unwrap().push_back(Round::Fails(404));
    let _events = server.then(vec![namespace("late", "1")]);
    let mut source = Source::cluster(&server.client(), vec![Selection::of(Kind::Namespace)]);
    assert_eq!(told(source.next().await), "synced");
    assert_eq!(told(source.next().await), "apply late 1");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_is_told_and_mended() {
    let server = Server::default();
    let service =
        json!({ "metadata": { "name": "s", "namespace": "n", "resourceVersion": "1" }, "spec": { "ports": 3 } });
    let events = server.then(vec![service.clone()]);
    let mut source = Source::cluster(&server.client(), vec![Selection::of(Kind::Service)]);
    match source.next().await {
        Some(Event::Broken(problem)) => {
            assert_eq!(problem.note.object, ObjectRef::new("Service", "n", "s"));
            assert!(problem.note.path.contains("ports"), "{problem:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(told(source.next().await), "synced");
    let mut good = service;
    good["spec"] = json!({});
    good["metadata"]["resourceVersion"] = json!("2");
    events.send(json!({ "type": "MODIFIED", "object": good })).unwrap();
    assert_eq!(source.next().await, Some(Event::Mended(ObjectRef::new("Service", "n", "s"))));
    assert_eq!(told(source.next().await), "apply s 2");
}
