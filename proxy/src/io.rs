//! One type for every byte stream of the proxy: plain or TLS, with bytes that were read early given back first.
//!
//! An enum instead of trait objects, so that the request path stays one monomorphic future.
//! Never here: handshakes or protocols. Used by `listen`, `upstream`, `tcp` and the codecs.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsStream;

/// A socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

/// A socket whose first bytes were read already.
#[derive(Debug)]
pub(crate) struct Raw {
    early: Bytes,
    socket: Socket,
}

impl Raw {
    pub(crate) fn new(socket: Socket, early: Bytes) -> Self {
        Self { early, socket }
    }
}

/// A stream of bytes, decrypted where it was encrypted; bytes that were looked at already come first.
#[derive(Debug)]
pub(crate) struct Io {
    early: Bytes,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Plain(Raw),
    Tls(Box<TlsStream<Raw>>),
}

impl Io {
    /// A stream without TLS.
    pub(crate) fn plain(raw: Raw) -> Self {
        Self { early: Bytes::new(), stream: Stream::Plain(raw) }
    }

    /// A stream over TLS.
    pub(crate) fn secured(stream: TlsStream<Raw>) -> Self {
        Self { early: Bytes::new(), stream: Stream::Tls(Box::new(stream)) }
    }

    /// Gives bytes back that were read from it.
    pub(crate) fn give_back(&mut self, early: Bytes) {
        self.early = early;
    }

    /// Its socket, where its bytes are those of a TCP connection just as they are, with none read early.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Plain(Raw { early, socket: Socket::Tcp(socket) }) => {
                (early.is_empty() && self.early.is_empty()).then_some(socket)
            }
            Stream::Plain(_) | Stream::Tls(_) => None,
        }
    }

    /// Makes its end a reset: what the peer has got is not all there was.
    pub(crate) fn reset_at_close(&self) {
        let raw = match &self.stream {
            Stream::Plain(raw) => raw,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        if let Socket::Tcp(socket) = &raw.socket
            && let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO))
        {
            tracing::trace!(%error, "connection has gone");
        }
    }

    /// The state of its TLS session, where there is one.
    pub(crate) fn tls(&self) -> Option<&rustls::CommonState> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => Some(stream.get_ref().1),
        }
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
            #[cfg(test)]
            Socket::Memory($stream) => $call,
        }
    };
}

fn take_early(early: &mut Bytes, buf: &mut ReadBuf<'_>) {
    let count = early.len().min(buf.remaining());
    buf.put_slice(&early[..count]);
    early.advance(count);
    if early.is_empty() {
        // Lets go of the buffer that held them.
        *early = Bytes::new();
    }
}

impl AsyncRead for Raw {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            take_early(&mut self.early, buf);
            return Poll::Ready(Ok(()));
        }
        each!(&mut self.socket, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Raw {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(&mut self.socket, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.socket, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.socket, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut self.socket, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.socket, stream => stream.is_write_vectored())
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            take_early(&mut this.early, buf);
            return Poll::Ready(Ok(()));
        }
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_read_early_come_first() {
        let (mut far, near) = tokio::io::duplex(64);
        far.write_all(b" world").await.unwrap();
        drop(far);
        let mut io = Io::plain(Raw::new(Socket::Memory(near), Bytes::from_static(b"lo")));
        io.give_back(Bytes::from_static(b"hel"));
        let mut text = String::new();
        io.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello world");
    }
}
