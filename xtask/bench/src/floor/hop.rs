//! One bare hop: requests or bytes from one side to one upstream.
//!
//! A pool of HTTP/1 connections, or one HTTP/2 connection for all. Windows and frames as our proxy has them.
//! Never here: retries, timeouts, limits, or anything of this package: the proxy's own tests count allocations against
//! this very file. Run by `floor::run`.

use std::{
    cell::RefCell,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, Uri, header, uri};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{http1 as client1, http2 as client2},
    server::conn::{http1 as server1, http2 as server2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::OnceCell,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The name in HTTP/2 requests, and in HTTP/1 requests that came without one.
const AUTHORITY: &str = "bench.test";

const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const FRAME_BYTES: u32 = 64 * 1024;
const COPY_BYTES: usize = 64 * 1024;

/// What a hop takes.
#[derive(Clone)]
pub(crate) enum Inward {
    /// HTTP/1 in the clear.
    Http1,
    /// HTTP/2 in the clear.
    Http2,
    /// TLS, with HTTP/2 where the client offers it.
    Tls(TlsAcceptor),
}

/// What a hop sends.
pub(crate) enum Outward {
    /// HTTP/1 in the clear.
    Http1,
    /// HTTP/2 in the clear.
    Http2,
    /// HTTP/2 over TLS.
    Tls(TlsConnector, ServerName<'static>),
}

/// Runs futures on this thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here;

impl<F> hyper::rt::Executor<F> for Here
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

type Sender1 = client1::SendRequest<Incoming>;
type Sender2 = client2::SendRequest<Incoming>;

struct Upstream {
    address: SocketAddr,
    speaks: Outward,
    idle: RefCell<Vec<Sender1>>,
    shared: OnceCell<Sender2>,
    authority: uri::Authority,
}

/// A reply's body, which gives its connection back when it has ended.
struct Lent {
    body: Incoming,
    back: Option<(Sender1, Rc<Upstream>)>,
}

impl Lent {
    fn give_back(&mut self) {
        if let Some((sender, upstream)) = self.back.take() {
            upstream.idle.borrow_mut().push(sender);
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.give_back();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Upstream {
    async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn one(&self) -> Result<Sender1> {
        while let Some(idle) = { self.idle.borrow_mut().pop() } {
            if idle.is_ready() {
                return Ok(idle);
            }
        }
        let (sender, connection) = client1::handshake(TokioIo::new(self.connect().await?)).await?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }

    async fn two(&self) -> Result<Sender2> {
        let stream = self.connect().await?;
        match &self.speaks {
            Outward::Tls(connector, name) => handshake(connector.connect(name.clone(), stream).await?).await,
            Outward::Http1 | Outward::Http2 => handshake(stream).await,
        }
    }

    async fn send(self: Rc<Self>, mut request: Request<Incoming>) -> Result<Response<Lent>> {
        let path = request.uri().path_and_query().cloned();
        let mut parts = uri::Parts::default();
        parts.path_and_query = path;
        if matches!(self.speaks, Outward::Http1) {
            if !request.headers().contains_key(header::HOST) {
                let host = request.uri().host().unwrap_or(AUTHORITY).parse()?;
                request.headers_mut().insert(header::HOST, host);
            }
            *request.uri_mut() = Uri::from_parts(parts)?;
            *request.version_mut() = http::Version::HTTP_11;
            let mut sender = self.one().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            let mut lent = Lent { body, back: Some((sender, self)) };
            if lent.body.is_end_stream() {
                lent.give_back();
            }
            return Ok(Response::from_parts(head, lent));
        }
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        request.headers_mut().remove(header::HOST);
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.version_mut() = http::Version::HTTP_2;
        let mut sender = self.shared.get_or_try_init(|| self.two()).await?.clone();
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, Lent { body, back: None }))
    }
}

async fn handshake(io: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Result<Sender2> {
    let (sender, connection) = client2::Builder::new(Here)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn requests(upstream: Rc<Upstream>, http2: bool, io: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let service = service_fn(move |request| Rc::clone(&upstream).send(request));
    let io = TokioIo::new(io);
    // Whoever measures sees what failed: replies that are missing.
    let _ended = if http2 {
        let mut builder = server2::Builder::new(Here);
        builder
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_concurrent_streams(1024);
        builder.serve_connection(io, service).await.is_ok()
    } else {
        server1::Builder::new().serve_connection(io, service).await.is_ok()
    };
}

/// Serves requests until ended from outside.
pub(crate) async fn serve(listener: TcpListener, inward: Inward, outward: Outward, upstream: SocketAddr) -> Result<()> {
    let upstream = Rc::new(Upstream {
        address: upstream,
        speaks: outward,
        idle: RefCell::default(),
        shared: OnceCell::new(),
        authority: uri::Authority::from_static(AUTHORITY),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (upstream, inward) = (Rc::clone(&upstream), inward.clone());
        tokio::task::spawn_local(async move {
            match inward {
                Inward::Http1 => requests(upstream, false, stream).await,
                Inward::Http2 => requests(upstream, true, stream).await,
                Inward::Tls(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    requests(upstream, http2, stream).await;
                }
            }
        });
    }
}

/// Listens with room for many connections at once.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(4096)?)
}

/// Passes bytes both ways until ended from outside.
pub(crate) async fn pass(address: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let listener = listen(address)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            let Ok(mut other) = TcpStream::connect(upstream).await else { return };
            let copied = tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut other, COPY_BYTES, COPY_BYTES);
            let _ended = copied.await.is_ok();
        });
    }
}
