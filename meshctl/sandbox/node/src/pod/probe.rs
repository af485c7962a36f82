//! Probes: asking a container whether it has started, serves, lives.
//!
//! The counting is pure; the asking goes from the sandbox's network to the Pod's address, as a kubelet's does.
//! Never here: what follows from an answer. Called by `container`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::live::Runner;
use crate::keeper::wire::Place;
use crate::limits::PROBE_SHOWN_BYTES_MAX;
use crate::link::{Link, LinkError};

const FIRST_OK: u16 = 200;
const FIRST_BAD: u16 = 400;

/// Why a probe did not succeed; the text is the event's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("HTTP probe failed with statuscode: {0}")]
    Status(u16),
    #[error("Get \"{url}\": {cause}")]
    Http { url: String, cause: String },
    #[error("dial tcp {to}: {cause}")]
    Tcp { to: SocketAddrV4, cause: String },
    #[error("command exited with code {code}: {text}")]
    Exec { code: i32, text: String },
    #[error("service unhealthy (responded with \"{0}\")")]
    Grpc(String),
    #[error("probe timed out after {0:?}")]
    TimedOut(Duration),
    #[error("no port named \"{0}\"")]
    NoPort(String),
    #[error("{0}")]
    Link(#[from] LinkError),
    #[error("the probe names nothing to ask")]
    Nothing,
}

/// Counts answers until they mean something.
#[derive(Debug)]
pub(crate) struct Counter {
    success: u32,
    failure: u32,
    last: Option<bool>,
    run: u32,
}

impl Counter {
    pub(crate) fn new(probe: &Probe) -> Self {
        let at_least_one =
            |value: Option<i32>, default| value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1);
        Self {
            success: at_least_one(probe.success_threshold, 1),
            failure: at_least_one(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// Takes an answer; gives the verdict once enough of a kind came in a row.
    pub(crate) fn take(&mut self, well: bool) -> Option<bool> {
        if self.last == Some(well) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(well);
            self.run = 1;
        }
        (self.run >= if well { self.success } else { self.failure }).then_some(well)
    }
}

/// Times of a probe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rhythm {
    pub(crate) delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
}

impl Rhythm {
    pub(crate) fn new(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
        }
    }
}

/// A container to be asked.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) link: Link,
    pub(crate) container: Container,
    pub(crate) address: Ipv4Addr,
    pub(crate) runner: Runner,
}

/// A port by number or by name.
pub(crate) fn port(container: &Container, port: &IntOrString) -> Result<u16, ProbeError> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).map_err(|_| ProbeError::NoPort(number.to_string())),
        IntOrString::String(name) => {
            let found = container.ports.iter().flatten().find(|found| found.name.as_deref() == Some(name));
            let number = found.map(|found| found.container_port).or_else(|| name.parse().ok());
            number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| ProbeError::NoPort(name.clone()))
        }
    }
}

impl Asked {
    /// Asks once.
    pub(crate) async fn ask(&self, probe: &Probe) -> Result<(), ProbeError> {
        let timeout = Rhythm::new(probe).timeout;
        tokio::time::timeout(timeout, self.ask_for_long(probe)).await.unwrap_or(Err(ProbeError::TimedOut(timeout)))
    }

    async fn ask_for_long(&self, probe: &Probe) -> Result<(), ProbeError> {
        if let Some(get) = &probe.http_get {
            return self.http_get(get).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            let to = self.target(tcp.host.as_deref(), port(&self.container, &tcp.port)?);
            return self.connect(to).await.map(drop);
        }
        if let Some(exec) = &probe.exec {
            return self.exec(exec.command.as_deref().unwrap_or_default()).await;
        }
        if let Some(grpc) = &probe.grpc {
            return self.grpc(grpc).await;
        }
        Err(ProbeError::Nothing)
    }

    fn target(&self, host: Option<&str>, port: u16) -> SocketAddrV4 {
        let address = host.and_then(|host| host.parse().ok()).unwrap_or(self.address);
        SocketAddrV4::new(address, port)
    }

    async fn connect(&self, to: SocketAddrV4) -> Result<TcpStream, ProbeError> {
        let connected = self.link.connect(Place::Sandbox, to).await;
        connected.map_err(|error| ProbeError::Tcp { to, cause: error.to_string() })
    }

    /// GETs; any status from 200 to 399 is well.
    pub(crate) async fn http_get(&self, get: &HTTPGetAction) -> Result<(), ProbeError> {
        let to = self.target(get.host.as_deref(), port(&self.container, &get.port)?);
        let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
        let url = format!("{scheme}://{to}{path}");
        let failed = |cause: String| ProbeError::Http { url: url.clone(), cause };
        let mut request =
            http::Request::get(path.as_str()).header("user-agent", "kube-probe/1.33").header("accept", "*/*");
        let mut host = to.to_string();
        for header in get.http_headers.iter().flatten() {
            if header.name.eq_ignore_ascii_case("host") {
                host.clone_from(&header.value);
            } else {
                request = request.header(&header.name, &header.value);
            }
        }
        let request = request.header("host", host).header("connection", "close");
        let request = request.body(Full::<Bytes>::default()).map_err(|error| failed(error.to_string()))?;
        let stream = self.connect(to).await?;
        let status = if scheme == "https" {
            let stream = super::tls::unverified(stream, to.ip()).await.map_err(|error| failed(error.to_string()))?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        };
        match status.map_err(|error| failed(error.to_string()))? {
            FIRST_OK..FIRST_BAD => Ok(()),
            status => Err(ProbeError::Status(status)),
        }
    }

    /// Runs a command in the container.
    pub(crate) async fn exec(&self, command: &[String]) -> Result<(), ProbeError> {
        let mut launched = self.runner.exec(command.to_vec(), false, false).await?;
        // A probe that takes too long is dropped here, and must not leave its process behind.
        let guard = KillOnDrop { link: self.link.clone(), process: Some(launched.process) };
        launched.begun().await?;
        let mut text = Vec::new();
        if let crate::link::Streams::Pipes { stdout, stderr, .. } = &mut launched.streams {
            let mut out = stdout.take(PROBE_SHOWN_BYTES_MAX as u64);
            let mut errors = stderr.take(PROBE_SHOWN_BYTES_MAX as u64);
            let mut more = Vec::new();
            let (first, second) = tokio::join!(out.read_to_end(&mut text), errors.read_to_end(&mut more));
            first.map_err(LinkError::from)?;
            second.map_err(LinkError::from)?;
            text.extend(more);
        }
        let exit = launched.exit.await.map_err(|_| LinkError::Gone)?;
        guard.ended();
        if exit.code == 0 {
            Ok(())
        } else {
            Err(ProbeError::Exec { code: exit.code, text: String::from_utf8_lossy(&text).trim().to_owned() })
        }
    }

    async fn grpc(&self, grpc: &GRPCAction) -> Result<(), ProbeError> {
        let number = u16::try_from(grpc.port).map_err(|_| ProbeError::NoPort(grpc.port.to_string()))?;
        let to = self.target(None, number);
        let stream = self.connect(to).await?;
        let failed = |error: hyper::Error| ProbeError::Http { url: format!("grpc://{to}"), cause: error.to_string() };
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(failed)?;
        let service = grpc.service.clone().unwrap_or_default();
        let request = http::Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(health_request(&service)))
            .map_err(|error| ProbeError::Grpc(error.to_string()))?;
        let answer = async {
            let body = sender.send_request(request).await?.into_body().collect().await?;
            Ok::<_, hyper::Error>(body.to_bytes())
        };
        let body = tokio::select! {
            answer = answer => answer.map_err(failed)?,
            ended = connection => {
                ended.map_err(failed)?;
                return Err(ProbeError::Grpc("connection closed".to_owned()));
            }
        };
        match serving(&body) {
            Some(1) => Ok(()),
            Some(2) => Err(ProbeError::Grpc("NOT_SERVING".to_owned())),
            _ => Err(ProbeError::Grpc("UNKNOWN".to_owned())),
        }
    }
}

struct KillOnDrop {
    link: Link,
    process: Option<u64>,
}

impl KillOnDrop {
    fn ended(mut self) {
        self.process = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let link = self.link.clone();
            // Ends by itself with one message; nobody is left to wait for it.
            tokio::spawn(async move { link.signal(process, nix::sys::signal::Signal::SIGKILL).await });
        }
    }
}

async fn exchange<S>(stream: S, request: http::Request<Full<Bytes>>) -> Result<u16, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async { Ok(sender.send_request(request).await?.status().as_u16()) };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        status = &mut answer => status,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}

/// `HealthCheckRequest { service }` in a gRPC frame.
fn health_request(service: &str) -> Bytes {
    let service = service.as_bytes().get(..service.len().min(127)).unwrap_or_default();
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        message.push(u8::try_from(service.len()).unwrap_or_default());
        message.extend_from_slice(service);
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// `HealthCheckResponse.status` of a gRPC frame.
fn serving(frame: &[u8]) -> Option<u8> {
    match frame.get(5..)? {
        [0x08, status, ..] => Some(*status),
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(success: i32, failure: i32, answers: &[bool], expected: &[Option<bool>]) {
        let probe = Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() };
        let mut counter = Counter::new(&probe);
        let found: Vec<_> = answers.iter().map(|well| counter.take(*well)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn failures_count_in_a_row() {
        check(1, 3, &[false, false, true, false, false, false], &[None, None, Some(true), None, None, Some(false)]);
    }

    #[test]
    fn successes_may_need_more_than_one() {
        check(2, 1, &[true, true, false], &[None, Some(true), Some(false)]);
    }

    #[test]
    fn a_health_frame_is_as_grpc_has_it() {
        assert_eq!(&health_request("a")[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
    }
}
