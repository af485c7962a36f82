//! Two candidates and one lease, on an API server that knows just that lease; time passes as the test says.
//!
//! Never here: what leaders do. Run by `cargo test`.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use api_rt::clock::Clock;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Candidate;

#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    down: Arc<Mutex<bool>>,
}

impl Server {
    fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        kube::Client::new(service, "istio-system")
    }

    async fn answer(&self, request: http::Request<Body>) -> http::Response<Full<Bytes>> {
        let method = request.method().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut lease = self.lease.lock().unwrap();
        let version =
            |value: &Value| value["metadata"]["resourceVersion"].as_str().unwrap_or("0").parse::<u64>().unwrap();
        let stored = lease.as_ref().map(version);
        let sent: Option<Value> = serde_json::from_slice(&body).ok();
        let code = match (method.as_str(), stored, &sent) {
            _ if *self.down.lock().unwrap() => 503,
            ("GET", None, _) => 404,
            ("POST", Some(_), _) => 409,
            ("PUT", Some(stored), Some(sent)) if version(sent) != stored => 409,
            _ => 200,
        };
        if let (200, "POST" | "PUT", Some(mut sent)) = (code, method.as_str(), sent) {
            sent["metadata"]["resourceVersion"] = json!((stored.unwrap_or(0) + 1).to_string());
            *lease = Some(sent);
        }
        let reply = match code {
            200 => lease.clone().unwrap(),
            code => json!({ "kind": "Status", "status": "Failure", "code": code, "reason": "x", "message": "x" }),
        };
        let mut response = http::Response::new(Full::new(Bytes::from(reply.to_string())));
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
        response
    }
}

struct Running {
    leads: tokio::sync::watch::Receiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn run(server: &Server, me: &str) -> Running {
    let clock = Clock::starting_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let candidate = Candidate::new(server.client(), "istio-system", "leader", me, clock);
    let (leads, stop) = (candidate.leads(), CancellationToken::new());
    let task = tokio::spawn(candidate.run(stop.clone()));
    Running { leads, stop, task }
}

impl Running {
    async fn becomes(&mut self, leads: bool) {
        self.leads.wait_for(|now| *now == leads).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_died_is_followed_when_its_lease_lapses() {
    let server = Server::default();
    let mut first = run(&server, "a");
    first.becomes(true).await;
    let mut second = run(&server, "b");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!*second.leads.borrow(), "the leader renews");
    first.task.abort();
    let died = tokio::time::Instant::now();
    second.becomes(true).await;
    let waited = died.elapsed();
    assert!((Duration::from_secs(15)..Duration::from_secs(21)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_gives_the_lease_back() {
    let server = Server::default();
    let mut first = run(&server, "a");
    first.becomes(true).await;
    let mut second = run(&server, "b");
    first.stop.cancel();
    first.task.await.unwrap();
    let ended = tokio::time::Instant::now();
    second.becomes(true).await;
    assert!(ended.elapsed() < Duration::from_secs(3));
    let lease = server.lease.lock().unwrap().clone().unwrap();
    assert_eq!((&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]), (&json!("b"), &json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_leading_before_another_may_begin() {
    let server = Server::default();
    let mut first = run(&server, "a");
    first.becomes(true).await;
    *server.down.lock().unwrap() = true;
    let since = tokio::time::Instant::now();
    first.becomes(false).await;
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    *server.down.lock().unwrap() = false;
    first.becomes(true).await;
}
