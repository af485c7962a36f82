//! A small HTTP server for operators: `/ready`, `/metrics`, `/logging`, `/version`, and what the program adds.
//!
//! Never here: anything on the path of users' requests. Each program binds it to its own address and owns its task.

use std::{collections::BTreeMap, convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{drain, log::Log, ready::Readiness};

/// Largest body of a request, bytes.
const LARGEST_BODY: usize = 1 << 20;
/// Most connections at once.
const MOST_CONNECTIONS: usize = 256;
/// How long a client may take over its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take over its body; over: 408.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers under way may take when ending; over: they are cut.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A request with its body read; the peer's `SocketAddr` is among its extensions.
pub type Ask = Request<Bytes>;
/// A whole reply.
pub type Reply = Response<Full<Bytes>>;
type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;
type Route = Arc<dyn Fn(Ask) -> Answer + Send + Sync>;

/// A reply of plain text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    body(status, "text/plain; charset=utf-8", text.into())
}

/// A reply of JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
    body(status, "application/json", value.to_string())
}

/// A reply of any content type.
pub fn body(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(bytes.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    reply
}

/// The routes of the server.
#[derive(Clone, Default)]
pub struct Admin {
    exact: BTreeMap<String, Route>,
    prefixes: BTreeMap<String, Route>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.exact.keys()).entries(self.prefixes.keys()).finish()
    }
}

impl Admin {
    /// `/ready` (and `/healthz/ready`) and `/version` of this program.
    pub fn new(program: &'static str, version: &'static str, ready: &Readiness) -> Self {
        let state = ready.clone();
        let answer = move |_: Ask| {
            let waiting = state.waiting_for();
            let reply = if waiting.is_empty() {
                text(StatusCode::OK, "ready\n")
            } else {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", waiting.join("; ")))
            };
            std::future::ready(reply)
        };
        let about = serde_json::json!({ "program": program, "version": version });
        Self::default()
            .route("/ready", answer.clone())
            .route("/healthz/ready", answer)
            .route("/version", move |_| std::future::ready(json(StatusCode::OK, &about)))
    }

    /// Adds a path.
    #[must_use]
    pub fn route<F: Future<Output = Reply> + Send + 'static>(
        mut self,
        path: &str,
        answer: impl Fn(Ask) -> F + Send + Sync + 'static,
    ) -> Self {
        self.exact.insert(path.to_owned(), Arc::new(move |ask| Box::pin(answer(ask))));
        self
    }

    /// Adds everything below a path, which ends with a slash.
    #[must_use]
    pub fn below<F: Future<Output = Reply> + Send + 'static>(
        mut self,
        prefix: &str,
        answer: impl Fn(Ask) -> F + Send + Sync + 'static,
    ) -> Self {
        self.prefixes.insert(prefix.to_owned(), Arc::new(move |ask| Box::pin(answer(ask))));
        self
    }

    /// Adds `/metrics` (and `/stats/prometheus`), printed by this function.
    #[must_use]
    pub fn metrics(self, print: impl Fn() -> String + Send + Sync + Clone + 'static) -> Self {
        let other = print.clone();
        let reply = |page: String| std::future::ready(body(StatusCode::OK, "text/plain; version=0.0.4", page));
        self.route("/metrics", move |_| reply(print())).route("/stats/prometheus", move |_| reply(other()))
    }

    /// Adds `/logging`: GET shows the levels; POST or PUT with `?level=…` (or a body) changes them.
    #[must_use]
    pub fn logging(self, log: Log) -> Self {
        self.route("/logging", move |ask| std::future::ready(change_levels(&log, &ask)))
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().to_owned();
        let route = self.exact.get(&path).or_else(|| {
            self.prefixes.iter().rev().find(|(prefix, _)| path.starts_with(prefix.as_str())).map(|(_, route)| route)
        });
        let Some(route) = route else {
            let known: Vec<&str> = self.exact.keys().chain(self.prefixes.keys()).map(String::as_str).collect();
            return text(StatusCode::NOT_FOUND, format!("no such page; there are: {}\n", known.join(" ")));
        };
        let (head, body) = request.into_parts();
        match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, LARGEST_BODY).collect()).await {
            Ok(Ok(whole)) => route(Request::from_parts(head, whole.to_bytes())).await,
            Ok(Err(error)) => text(StatusCode::BAD_REQUEST, format!("could not read the request: {error}\n")),
            Err(_) => text(StatusCode::REQUEST_TIMEOUT, format!("its body did not come within {BODY_TIMEOUT:?}\n")),
        }
    }

    /// Serves until stopped. Connections under way are then closed after their current answer.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let admin = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                    Ok((socket, _)) => { connections.spawn(connection(Arc::clone(&admin), socket, stop.child_token())); }
                    Err(error) => {
                        tracing::warn!(%error, "could not accept an operator's connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drain::finish(connections, END_TIMEOUT).await;
    }
}

async fn connection(admin: Arc<Admin>, socket: tokio::net::TcpStream, stop: CancellationToken) {
    let peer = socket.peer_addr().ok();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an operator's connection ended early");
    }
}

fn change_levels(log: &Log, ask: &Ask) -> Reply {
    if ask.method() == Method::GET && ask.uri().query().is_none() {
        return text(StatusCode::OK, log.levels() + "\n");
    }
    let query = ask.uri().query().unwrap_or_default();
    let levels = match query.split('&').find_map(|pair| pair.strip_prefix("level=")) {
        Some(levels) => levels.replace("%2C", ",").replace("%3A", ":").replace("%3D", "="),
        None => String::from_utf8_lossy(ask.body()).trim().to_owned(),
    };
    match log.set(&levels) {
        Ok(()) => text(StatusCode::OK, log.levels() + "\n"),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        socket.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_go_on_holds_nothing_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let admin = Admin::new("test", "1", &Readiness::new());
        let serving = tokio::spawn(admin.serve(listener, stop.clone()));
        let half = b"POST /ready HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
        let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
        slow.write_all(half).await.unwrap();
        let mut reply = [0; 12];
        slow.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"HTTP/1.1 408");
        let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
        slow.write_all(half).await.unwrap();
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn readiness_names_what_is_waited_for() {
        let ready = Readiness::new();
        let gate = ready.blocked_by("first configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let admin = Admin::new("test", "1", &ready).metrics(|| "up 1\n".to_owned());
        let serving = tokio::spawn(admin.serve(listener, stop.clone()));
        let before = get(address, "/ready").await;
        assert!(before.starts_with("HTTP/1.1 503") && before.contains("first configuration"), "{before}");
        gate.open();
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.ends_with("up 1\n"));
        assert!(get(address, "/nothing").await.contains("there are: "));
        stop.cancel();
        serving.await.unwrap();
    }
}
