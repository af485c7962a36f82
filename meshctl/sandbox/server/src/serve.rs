//! The rim: TLS, credentials, HTTP.
//!
//! Accepts connections, finds out who asks (client certificate or bearer token), reads the body within its limit.
//! Never here: what requests mean. Called by `Server::serve`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::auth::{Keys, user_of_certificate};
use crate::limits::{ACCEPT_PAUSE, BODY_BYTES_MAX, CONNECTIONS_MAX, H2_STREAMS_MAX, HANDSHAKE_TIMEOUT, HEAD_TIMEOUT};
use crate::reply::{Body, Refusal};
use crate::stream::sessions::{Sessions, Upgrade};
use crate::{Server, User};

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the certificate or key is unusable")]
    Rustls(#[from] rustls::Error),
    #[error("the certificate or key is no PEM")]
    Pem(#[from] rustls_pki_types::pem::Error),
    #[error("client certificates cannot be verified")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

pub(crate) fn tls(keys: &Keys) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(keys.root().as_bytes())?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let chain = vec![
        CertificateDer::from_pem_slice(keys.server.certificate.as_bytes())?,
        CertificateDer::from_pem_slice(keys.root().as_bytes())?,
    ];
    let key = PrivateKeyDer::from_pem_slice(keys.server.key.as_bytes())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(crate) async fn run(
    server: Server,
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let acceptor = TlsAcceptor::from(config);
    let (mut connections, sessions) = (JoinSet::new(), Sessions::default());
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(%error, "a connection's task failed");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((socket, peer)) => {
                    connections.spawn(connection(server.clone(), acceptor.clone(), sessions.clone(), socket, peer));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
    sessions.end().await;
    Ok(())
}

async fn connection(server: Server, acceptor: TlsAcceptor, sessions: Sessions, socket: TcpStream, peer: SocketAddr) {
    socket.set_nodelay(true).ok();
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "handshake failed");
            return;
        }
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let known = certificate.and_then(|certificate| user_of_certificate(certificate));
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, known, sessions) = (server.clone(), known.clone(), sessions.clone());
        async move { Ok::<_, Infallible>(request_of(&server, known, &sessions, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(H2_STREAMS_MAX);
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%peer, error = &*error, "connection ended");
    }
}

async fn request_of(
    server: &Server,
    known: Option<User>,
    sessions: &Sessions,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")))
        .map(|(_, token)| token.trim().to_owned());
    let user = match (known, token) {
        (Some(user), _) => user,
        (None, Some(token)) => match server.user_of_token(&token) {
            Some(user) => user,
            None => return Refusal::unauthorized().response(),
        },
        (None, None) => User::anonymous(),
    };
    let upgrade = request.headers().contains_key(http::header::UPGRADE).then(|| Upgrade::of(&mut request, sessions));
    let (mut head, body) = request.into_parts();
    if let Some(upgrade) = upgrade {
        head.extensions.insert(upgrade);
    }
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let text = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
            return Refusal::new(413, "RequestEntityTooLarge", text).response();
        }
        Err(_) => return Refusal::bad_request("the body could not be read").response(),
    };
    server.handle(Request::from_parts(head, body), user).await
}
