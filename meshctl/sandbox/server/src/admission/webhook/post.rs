//! One HTTPS request to a webhook.
//!
//! A Service is dialled at its ClusterIP through the sandbox's network; only the configured CA is trusted. Never
//! here: what is asked. Called by `webhook`.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio_rustls::TlsConnector;

use crate::core::Core;
use crate::kubelet::Duplex;
use crate::limits::WEBHOOK_ANSWER_BYTES_MAX;
use crate::object;

struct Destination {
    /// Host of the URL and name in TLS.
    host: String,
    url: String,
    path: String,
    address: Result<SocketAddr, String>,
}

/// Posts the review; gives the answer, or why there is none in the real server's words.
pub(super) async fn post(core: &Core, webhook: &Value, review: &Value) -> Result<Value, String> {
    let seconds = webhook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(10).clamp(1, 30);
    let config = webhook.get("clientConfig").unwrap_or(&Value::Null);
    let to = destination(core, config, seconds);
    let failed = |why: &str| format!("failed to call webhook: Post {:?}: {why}", to.url);
    match tokio::time::timeout(Duration::from_secs(seconds), exchange(core, config, &to, review)).await {
        Ok(answer) => answer.map_err(|error| match error {
            Failed::Call(why) => failed(&why),
            Failed::Answer(why) => format!("failed to call webhook: {why}"),
        }),
        Err(_) => Err(failed("context deadline exceeded")),
    }
}

enum Failed {
    Call(String),
    Answer(String),
}

fn destination(core: &Core, config: &Value, seconds: u64) -> Destination {
    if let Some(service) = config.get("service") {
        let text = |name: &str| object::text(service, &format!("/{name}")).to_owned();
        let (name, namespace) = (text("name"), text("namespace"));
        let port = service.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let mut path = text("path");
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        let path = format!("{path}?timeout={seconds}s");
        let host = format!("{name}.{namespace}.svc");
        let address = service_address(core, &namespace, &name, port);
        return Destination { url: format!("https://{host}:{port}{path}"), host, path, address };
    }
    let url = object::text(config, "/url");
    let parsed: Option<http::Uri> = url.parse().ok();
    let host = parsed.as_ref().and_then(|url| url.host()).unwrap_or_default().to_owned();
    let port = parsed.as_ref().and_then(http::Uri::port_u16).unwrap_or(443);
    let path = format!("{}?timeout={seconds}s", parsed.as_ref().map_or("/", |url| url.path()));
    let plain = host.trim_matches(['[', ']']);
    let address = if plain == "localhost" { "127.0.0.1" } else { plain };
    let address = address
        .parse()
        .map(|ip| SocketAddr::new(ip, port))
        .map_err(|_| format!("dial tcp: lookup {plain}: only addresses are dialled outside the cluster"));
    Destination { url: format!("{}?timeout={seconds}s", url), host: plain.to_owned(), path, address }
}

fn service_address(core: &Core, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, String> {
    let service =
        core.store.get("services", namespace, name).ok_or_else(|| format!("service {name:?} not found"))?.value();
    if !object::items(&service, "/spec/ports")
        .iter()
        .any(|known| known.get("port").and_then(Value::as_u64) == Some(port.into()))
    {
        return Err(format!("no service port {port} found for service {name:?}"));
    }
    let address = object::text(&service, "/spec/clusterIP");
    address.parse().map(|ip| SocketAddr::new(ip, port)).map_err(|_| format!("service {name:?} has no cluster IP"))
}

async fn exchange(core: &Core, config: &Value, to: &Destination, review: &Value) -> Result<Value, Failed> {
    let address = to.address.clone().map_err(Failed::Call)?;
    let refused = |error: std::io::Error| {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's enum is open")]
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            _ => error.to_string(),
        };
        Failed::Call(format!("dial tcp {address}: {why}"))
    };
    let stream: Duplex = match core.dial() {
        Some(dial) if config.get("service").is_some() => dial.dial(address).await.map_err(refused)?,
        _ => Box::pin(tokio::net::TcpStream::connect(address).await.map_err(refused)?),
    };
    let name = ServerName::try_from(to.host.clone()).map_err(|error| Failed::Call(error.to_string()))?;
    let connector = TlsConnector::from(Arc::new(client(config)?));
    let tls = connector.connect(name, stream).await.map_err(|error| Failed::Call(tls_failure(&error)))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
        .await
        .map_err(|error| Failed::Call(error.to_string()))?;
    let request = http::Request::post(&to.path)
        .header(HOST, to.url.split('/').nth(2).unwrap_or_default())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(|error| Failed::Call(error.to_string()))?;
    // The connection is driven beside the request and ends with it.
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| Failed::Call(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), WEBHOOK_ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Failed::Call(error.to_string()))?.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            let text = text.trim();
            return Err(Failed::Answer(if text.is_empty() {
                format!(
                    "the server responded with the status code {} but did not return more information",
                    status.as_u16()
                )
            } else {
                format!("an error on the server ({text:?}) has prevented the request from succeeding")
            }));
        }
        serde_json::from_slice(&body).map_err(|error| Failed::Answer(error.to_string()))
    };
    tokio::pin!(answer);
    tokio::pin!(connection);
    let mut connected = true;
    loop {
        tokio::select! {
            done = &mut answer => return done,
            _ = &mut connection, if connected => connected = false,
        }
    }
}

fn client(config: &Value) -> Result<rustls::ClientConfig, Failed> {
    let mut roots = RootCertStore::empty();
    let unusable = |why: String| Failed::Answer(format!("unable to load root certificates: {why}"));
    let bundle = object::text(config, "/caBundle");
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|error| unusable(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() && !bundle.is_empty() {
        return Err(unusable("unable to parse bytes as PEM block".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failed::Call(error.to_string()))?;
    let mut client = builder.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(client)
}

/// The words that Go's client uses.
fn tls_failure(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let x509 = match inner {
        #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' enum is open")]
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature => {
                "certificate signed by unknown authority".to_owned()
            }
            rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. } => {
                "certificate has expired or is not yet valid".to_owned()
            }
            rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. } => {
                "certificate is valid for other names".to_owned()
            }
            other => format!("{other:?}"),
        },
        Some(other) => return format!("tls: {other}"),
        None => {
            return match error.source() {
                Some(source) => format!("{error}: {source}"),
                None if error.kind() == std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
                None => error.to_string(),
            };
        }
    };
    format!("tls: failed to verify certificate: x509: {x509}")
}
