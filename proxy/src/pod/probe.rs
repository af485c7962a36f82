//! Asks the application what the kubelet would have asked it.
//!
//! The kubelet speaks no mTLS, so the injector points its probes here; the application is asked at the pod's own
//! address, from an address that capture lets pass.
//! Never here: what follows from the answer. Called by `pod`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use api_rt::tls::{ClientOptions, Expect, Peers, TlsError, client_config};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;

use crate::{
    env::probers::{Check, Prober},
    io::Io,
    upstream::{
        connect::{ConnectError, Options, Secured, connect},
        live::Place,
    },
};

/// Why the application is not well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the exchange failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the probe cannot be sent: {0}")]
    Request(#[from] http::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] TlsError),
    #[error("the health service says {0}")]
    NotServing(String),
}

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 10 * 1024;

/// Runs a probe; gives the status that the kubelet is told.
pub(crate) async fn run(prober: &Prober, address: IpAddr, headers: &HeaderMap) -> Result<StatusCode, ProbeError> {
    let asking = async {
        match &prober.check {
            Check::Tcp { port } => dial(address, *port, prober.timeout, None).await.map(|_| StatusCode::OK),
            Check::Http { tls, port, path, host, headers: own } => {
                let secured = if *tls { Some(unchecked(address)?) } else { None };
                let io = dial(address, *port, prober.timeout, secured.as_ref()).await?;
                http(io, address, *port, path, host.as_deref(), own, headers).await
            }
            Check::Grpc { port, service } => {
                let io = dial(address, *port, prober.timeout, None).await?;
                grpc(io, address, *port, service).await
            }
        }
    };
    tokio::time::timeout(prober.timeout, asking).await.map_err(|_| ProbeError::Late(prober.timeout))?
}

/// The kubelet does not check certificates of HTTPS probes either.
fn unchecked(address: IpAddr) -> Result<Secured, TlsError> {
    let expect = Expect { peers: Peers::Unchecked, ..Expect::default() };
    let options = ClientOptions { expect, alpn: vec![b"http/1.1".to_vec()], ..ClientOptions::default() };
    Ok(Secured { config: Arc::clone(&client_config(options)?), name: ServerName::IpAddress(address.into()) })
}

async fn dial(address: IpAddr, port: u16, timeout: Duration, secured: Option<&Secured>) -> Result<Io, ProbeError> {
    let bind = (address.is_ipv4() && !address.is_loopback()).then(|| IpAddr::from(Ipv4Addr::new(127, 0, 0, 6)));
    let options = Options { timeout, bind, keepalive: None, header: None };
    let place = Place::Socket(SocketAddr::new(address, port));
    Ok(connect(&place, options, secured).await?.0)
}

async fn http(
    io: Io,
    address: IpAddr,
    port: u16,
    path: &str,
    host: Option<&str>,
    own: &[(String, String)],
    came: &HeaderMap,
) -> Result<StatusCode, ProbeError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let mut request = Request::get(path);
    let authority = host.map_or_else(|| SocketAddr::new(address, port).to_string(), str::to_owned);
    request = request.header(header::HOST, authority);
    if let Some(agent) = came.get(header::USER_AGENT) {
        request = request.header(header::USER_AGENT, agent);
    }
    for (name, value) in own {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) else {
            continue;
        };
        if name == header::HOST
            && let Some(headers) = request.headers_mut()
        {
            headers.insert(name, value);
        } else {
            request = request.header(name, value);
        }
    }
    let request = request.header(header::CONNECTION, "close").body(Full::new(Bytes::new()))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        // Read to its end, so that the application sees no broken connection; what it says does not matter.
        let _read = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.is_ok();
        Ok::<_, ProbeError>(status)
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        status = &mut answer => status,
        _ = &mut connection => answer.await,
    }
}

async fn grpc(io: Io, address: IpAddr, port: u16, service: &str) -> Result<StatusCode, ProbeError> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        prost::encoding::encode_varint(service.len() as u64, &mut message);
        message.put_slice(service.as_bytes());
    }
    let mut body = BytesMut::with_capacity(5 + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    let authority = SocketAddr::new(address, port);
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(body.freeze()))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
        // Five bytes of frame, then field 1: the serving status; 1 is SERVING.
        match bytes.get(5..) {
            Some([0x08, 1, ..]) => Ok(StatusCode::OK),
            Some([0x08, code, ..]) => Err(ProbeError::NotServing(format!("status {code}"))),
            Some(_) | None => Err(ProbeError::NotServing("nothing".to_owned())),
        }
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        status = &mut answer => status,
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn app(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buf = vec![0; 1024];
            let count = socket.read(&mut buf).await.unwrap();
            assert!(buf[..count].starts_with(b"GET /live HTTP/1.1\r\n"));
            socket.write_all(answer.as_bytes()).await.unwrap();
        });
        port
    }

    async fn check(answer: &'static str) -> StatusCode {
        let port = app(answer).await;
        let check = Check::Http { tls: false, port, path: "/live".into(), host: None, headers: Vec::new() };
        let prober = Prober { check, timeout: Duration::from_secs(5) };
        run(&prober, IpAddr::from([127, 0, 0, 1]), &HeaderMap::new()).await.unwrap()
    }

    #[tokio::test]
    async fn the_applications_status_is_told() {
        assert_eq!(check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await, StatusCode::OK);
        assert_eq!(check("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_port_without_listener_is_an_error() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let prober = Prober { check: Check::Tcp { port }, timeout: Duration::from_secs(5) };
        assert!(run(&prober, IpAddr::from([127, 0, 0, 1]), &HeaderMap::new()).await.is_err());
    }
}
