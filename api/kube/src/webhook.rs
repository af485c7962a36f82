//! An HTTPS server for admission webhooks: AdmissionReview in, verdict out.
//!
//! Speaks v1 and v1beta1; bodies, connections and times are bounded, and what cannot be read is refused with the reason.
//! Never here: the verdicts. Used by pilot (validation) and the injector (mutation).

use std::{collections::BTreeMap, convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};

use api_rt::drain;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Largest review, bytes: the new and the old object, at most 3 MiB each in an API server.
const LARGEST_BODY: usize = 6 << 20;
/// Most connections at once.
const MOST_CONNECTIONS: usize = 512;
/// How long a handshake, a request's head and its body may take, each, and all that is under way when ending.
const LIMIT: Duration = Duration::from_secs(10);

/// What the API server asks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Review {
    /// Names the question.
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// Group, version and kind of the object.
    pub kind: GroupVersionKind,
    /// Namespace of the request; empty for cluster-wide kinds.
    pub namespace: String,
    /// Name of the object; empty where the server will make one.
    pub name: String,
    /// The object; null on deletion.
    pub object: Value,
    /// The object before; null on creation.
    pub old_object: Value,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// Who asks.
    pub user_info: UserInfo,
    /// The path below the route that the review was sent to.
    #[serde(skip)]
    pub path: String,
}

/// Group, version and kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GroupVersionKind {
    /// Group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct UserInfo {
    /// Name of the user.
    pub username: String,
    /// Groups of the user.
    pub groups: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// None: the object may be stored. Otherwise the HTTP status and why not.
    pub refused: Option<(u16, String)>,
    /// Shown to the user, whatever the outcome.
    pub warnings: Vec<String>,
    /// JSON patch to apply first; empty: none.
    pub patch: Vec<Value>,
}

impl Verdict {
    /// The object may be stored as it is.
    pub fn allow() -> Self {
        Self { refused: None, warnings: Vec::new(), patch: Vec::new() }
    }

    /// The object must not be stored, because of what the user wrote (422 Invalid as Kubernetes counts).
    pub fn refuse(why: impl Into<String>) -> Self {
        Self { refused: Some((422, why.into())), ..Self::allow() }
    }
}

type Answer = Pin<Box<dyn Future<Output = Verdict> + Send>>;
type Handler = Arc<dyn Fn(Review) -> Answer + Send + Sync>;

/// The webhooks of a server, by path.
#[derive(Clone, Default)]
pub struct Webhooks(BTreeMap<String, Handler>);

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Webhooks {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a webhook at this path and below it.
    #[must_use]
    pub fn at<F: Future<Output = Verdict> + Send + 'static>(
        mut self,
        path: &str,
        answer: impl Fn(Review) -> F + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(path.to_owned(), Arc::new(move |review| Box::pin(answer(review))));
        self
    }

    fn find(&self, path: &str) -> Option<(&Handler, String)> {
        self.0.iter().rev().find_map(|(route, handler)| {
            let below = path.strip_prefix(route.as_str())?;
            (below.is_empty() || below.starts_with('/')).then(|| (handler, below.to_owned()))
        })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let Some((handler, below)) = self.find(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, format!("no webhook at {}\n", request.uri().path()));
        };
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "send an AdmissionReview by POST\n".to_owned());
        }
        let body = match tokio::time::timeout(LIMIT, Limited::new(request.into_body(), LARGEST_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                let status = if error.is::<http_body_util::LengthLimitError>() {
                    StatusCode::PAYLOAD_TOO_LARGE
                } else {
                    StatusCode::BAD_REQUEST
                };
                return text(status, format!("could not read the review: {error}\n"));
            }
            Err(_) => {
                return text(StatusCode::REQUEST_TIMEOUT, format!("the review did not arrive within {LIMIT:?}\n"));
            }
        };
        let (version, mut review) = match read(&body) {
            Ok(read) => read,
            Err(why) => return text(StatusCode::BAD_REQUEST, format!("not an AdmissionReview: {why}\n")),
        };
        review.path = below;
        let uid = review.uid.clone();
        let verdict = handler(review).await;
        json_reply(&write(&version, &uid, verdict))
    }
}

fn read(body: &[u8]) -> Result<(String, Review), String> {
    let mut whole: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let version = whole.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !matches!(version.as_str(), "admission.k8s.io/v1" | "admission.k8s.io/v1beta1") {
        return Err(format!("apiVersion {version:?} is neither admission.k8s.io/v1 nor v1beta1"));
    }
    let mut request = whole.get_mut("request").map(Value::take).ok_or("it has no request")?;
    // Absent and null mean the same to the server, but not to the reader.
    if let Value::Object(fields) = &mut request {
        fields.retain(|_, value| !value.is_null());
    }
    let review: Review = serde_json::from_value(request).map_err(|error| error.to_string())?;
    if review.uid.is_empty() { Err("its request has no uid".to_owned()) } else { Ok((version, review)) }
}

fn write(version: &str, uid: &str, verdict: Verdict) -> Value {
    let Verdict { refused, warnings, patch } = verdict;
    let mut response = json!({ "uid": uid, "allowed": refused.is_none() });
    if let Some((code, message)) = refused {
        // Without a reason kubectl prints the message as it is; with "Invalid" it would say "The request is invalid" twice.
        response["status"] = json!({ "status": "Failure", "code": code, "message": message });
    }
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    if !patch.is_empty() {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(Value::Array(patch).to_string()));
    }
    json!({ "apiVersion": version, "kind": "AdmissionReview", "response": response })
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(text.into()));
    *reply.status_mut() = status;
    reply
}

fn json_reply(value: &Value) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(value.to_string().into()));
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    reply
}

/// Serves until stopped; connections under way finish their current review.
pub async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, webhooks: Webhooks, stop: CancellationToken) {
    let webhooks = Arc::new(webhooks);
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((socket, address)) => {
                    let (acceptor, webhooks, stop) = (acceptor.clone(), Arc::clone(&webhooks), stop.child_token());
                    connections.spawn(async move {
                        match tokio::time::timeout(LIMIT, acceptor.accept(socket)).await {
                            Ok(Ok(stream)) => connection(stream, webhooks, stop).await,
                            Ok(Err(error)) => tracing::info!(%address, %error, "refused a webhook connection"),
                            Err(_) => tracing::info!(%address, "a webhook handshake took too long"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a webhook connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drain::finish(connections, LIMIT).await;
}

async fn connection(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    webhooks: Arc<Webhooks>,
    stop: CancellationToken,
) {
    let service = hyper::service::service_fn(move |request| {
        let webhooks = Arc::clone(&webhooks);
        async move { Ok::<_, Infallible>(webhooks.answer(request).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(LIMIT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64).keep_alive_interval(Duration::from_secs(30));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a webhook connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_is_read_and_the_answer_repeats_version_and_uid() {
        let body = json!({ "apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {
            "uid": "1", "operation": "CREATE", "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "object": { "a": 1 }, "oldObject": null, "dryRun": null, "options": null,
        }});
        let (version, review) = read(body.to_string().as_bytes()).unwrap();
        assert_eq!((review.kind.kind.as_str(), review.old_object.is_null()), ("Pod", true));
        let patch = vec![json!({ "op": "add", "path": "/a", "value": 2 })];
        let answer = write(&version, &review.uid, Verdict { patch, warnings: vec!["w".into()], ..Verdict::allow() });
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1beta1");
        assert_eq!(answer["response"]["uid"], "1");
        assert_eq!(answer["response"]["allowed"], true);
        assert_eq!(
            STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap(),
            br#"[{"op":"add","path":"/a","value":2}]"#
        );
        let refused = write(&version, "1", Verdict::refuse("no"));
        assert_eq!(
            (&refused["response"]["allowed"], &refused["response"]["status"]["message"]),
            (&json!(false), &json!("no"))
        );
    }

    #[test]
    fn what_is_no_review_is_refused_with_the_reason() {
        for (body, says) in [
            ("{}".to_owned(), "apiVersion"),
            (r#"{"apiVersion":"admission.k8s.io/v1"}"#.to_owned(), "no request"),
            (r#"{"apiVersion":"admission.k8s.io/v1","request":{}}"#.to_owned(), "no uid"),
            ("[".repeat(10_000), "recursion limit"),
        ] {
            let why = read(body.as_bytes()).unwrap_err();
            assert!(why.contains(says), "{why} should say {says}");
        }
    }

    /// A certificate of its own for one name, trusted as its own root.
    fn identity() -> api_rt::identity::Identity {
        let made = rcgen::generate_simple_self_signed(vec!["hook.istio-system.svc".to_owned()]).unwrap();
        let pem = made.cert.pem();
        let certificate = api_rt::tls::Certificate::from_pem(&pem, &made.signing_key.serialize_pem()).unwrap();
        api_rt::identity::Identity::holding(certificate, api_rt::tls::Roots::from_pem(pem.as_bytes()).unwrap())
    }

    async fn ask(address: std::net::SocketAddr, path: &str, length: usize, body: &[u8]) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let expect = api_rt::tls::Expect { peers: api_rt::tls::Peers::Unchecked, ..api_rt::tls::Expect::default() };
        let options = api_rt::tls::ClientOptions { expect, ..api_rt::tls::ClientOptions::default() };
        let connector = tokio_rustls::TlsConnector::from(api_rt::tls::client_config(options).unwrap());
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = "hook.istio-system.svc".try_into().unwrap();
        let mut stream = connector.connect(name, socket).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses early stops reading.
        let _sent = stream.write_all(body).await.is_ok();
        let mut reply = Vec::new();
        let _closed = stream.read_to_end(&mut reply).await.is_ok();
        String::from_utf8_lossy(&reply).into_owned()
    }

    #[tokio::test]
    async fn reviews_come_over_tls_and_what_is_too_large_or_unknown_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let webhooks = Webhooks::new().at("/judge", |review: Review| {
            let refused = (422, format!("{} is not wanted", review.name));
            std::future::ready(Verdict { refused: Some(refused), ..Verdict::allow() })
        });
        let tls = identity().anonymous_server_config(vec![b"http/1.1".to_vec()]).unwrap();
        let serving = tokio::spawn(serve(listener, tls, webhooks, stop.clone()));
        let body = json!({ "apiVersion": "admission.k8s.io/v1", "request": { "uid": "7", "name": "it" } }).to_string();
        let reply = ask(address, "/judge", body.len(), body.as_bytes()).await;
        assert!(
            reply.starts_with("HTTP/1.1 200") && reply.contains("it is not wanted") && reply.contains("\"uid\":\"7\""),
            "{reply}"
        );
        assert!(ask(address, "/other", 2, b"{}").await.starts_with("HTTP/1.1 404"));
        assert!(ask(address, "/judge", 2, b"{}").await.starts_with("HTTP/1.1 400"));
        let large = vec![b' '; LARGEST_BODY + 1];
        assert!(ask(address, "/judge", large.len(), &large).await.starts_with("HTTP/1.1 413"));
        stop.cancel();
        serving.await.unwrap();
    }

    #[test]
    fn a_webhook_answers_below_its_path_only() {
        let webhooks = Webhooks::new().at("/inject", |_| std::future::ready(Verdict::allow()));
        assert_eq!(webhooks.find("/inject/cluster/a").unwrap().1, "/cluster/a");
        assert!(webhooks.find("/injection").is_none());
    }
}
