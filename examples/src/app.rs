//! The little that every sample application shares: a server, a client, and the headers passed on.
//!
//! Never here: anything of one application. Called by each of them.

use std::{convert::Infallible, io, net::Ipv6Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

/// A request with its body read.
pub(crate) type Ask = Request<Bytes>;
/// A reply.
pub(crate) type Answer = Response<Full<Bytes>>;

const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long new connections are still taken after SIGTERM: callers learn a little later that this Pod ends.
const LAME_DUCK: Duration = Duration::from_secs(3);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Headers that tie the spans of one trace together (W3C, B3, and the vendors' that Istio's samples pass on).
const TRACE_HEADERS: [&str; 19] = [
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "end-user",
    "user-agent",
    "authorization",
    "cookie",
];

/// One application.
pub(crate) trait App: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, ask: Ask) -> impl Future<Output = Answer> + Send;
}

/// An environment variable, if it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the samples know nothing of the mesh's own crates")]
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// This machine's (or Pod's) name.
pub(crate) fn hostname() -> String {
    env("HOSTNAME")
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// Serves an application on all addresses until SIGTERM, then ends what is under way.
pub(crate) async fn serve(port: u16, app: impl App) -> io::Result<()> {
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await?,
    };
    println_ready(port);
    let app = Arc::new(app);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut connections = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let told_to_end = async move {
        terminate.recv().await;
        tokio::time::sleep(LAME_DUCK).await;
    };
    tokio::pin!(told_to_end);
    loop {
        tokio::select! {
            () = &mut told_to_end => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => { connections.spawn(connection(socket, Arc::clone(&app), stopped.clone())); }
                Err(error) => { eprintln!("accept: {error}"); tokio::time::sleep(Duration::from_millis(50)).await; }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    if tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        eprintln!("some requests were still under way after {DRAIN_TIMEOUT:?}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a sample's log is its standard output")]
fn println_ready(port: u16) {
    println!("listening on port {port}");
}

async fn connection(socket: TcpStream, app: Arc<impl App>, mut stopped: tokio::sync::watch::Receiver<bool>) {
    if let Err(error) = socket.set_nodelay(true) {
        eprintln!("nodelay: {error}");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(one(&*app, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(served);
    let done = tokio::select! {
        done = served.as_mut() => done,
        () = async { if stopped.wait_for(|stop| *stop).await.is_err() { std::future::pending().await } } => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = done
        && !error.is_incomplete_message()
    {
        eprintln!("connection: {error}");
    }
}

async fn one(app: &impl App, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => app.answer(Request::from_parts(parts, body.to_bytes())).await,
        Err(error) => text(StatusCode::BAD_REQUEST, &format!("could not read the body: {error}\n")),
    }
}

/// A reply of plain text.
pub(crate) fn text(status: StatusCode, body: &str) -> Answer {
    reply(status, "text/plain; charset=utf-8", body.to_owned())
}

/// A reply of JSON.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    reply(status, "application/json", value.to_string())
}

/// A reply of any type.
pub(crate) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

/// The headers of a request that go with the calls it causes.
pub(crate) fn passed_on(from: &HeaderMap) -> HeaderMap {
    TRACE_HEADERS
        .iter()
        .flat_map(|name| from.get_all(*name).iter().map(|value| (header::HeaderName::from_static(name), value.clone())))
        .collect()
}

/// Calls another service; any failure is told as text.
pub(crate) async fn call(
    method: Method,
    host: &str,
    port: u16,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Bytes), String> {
    let exchange = async {
        let socket =
            TcpStream::connect((host, port)).await.map_err(|error| format!("connect to {host}:{port}: {error}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(|error| error.to_string())?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| format!("path {path:?}: {error}"))?;
        *request.headers_mut() = headers;
        let authority = header::HeaderValue::from_str(&format!("{host}:{port}")).map_err(|error| error.to_string())?;
        request.headers_mut().insert(header::HOST, authority);
        let answered = async {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let body =
                Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answered);
        tokio::pin!(connection);
        // The connection must be driven while the answer is awaited; it may end first, with the answer already read.
        tokio::select! {
            answer = &mut answered => answer,
            ended = &mut connection => match ended {
                Ok(()) => answered.await,
                Err(error) => Err(error.to_string()),
            },
        }
    };
    tokio::time::timeout(CALL_TIMEOUT, exchange)
        .await
        .map_err(|_| format!("no answer from {host}:{port} within {CALL_TIMEOUT:?}"))?
}
