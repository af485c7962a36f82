//! The two bodies of an exchange: what is sent upstream (and may be sent again) and what is sent back.
//!
//! A request's bytes are kept while a retry may need them, up to a limit of bytes and of pieces; past it they stream
//! through and the request is final.
//! Never here: deciding about retries. Used by `attempt`, `mirror`, `reply` and `upstream`.

mod reply;

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{
    h1::{response, spelling::Spelling},
    headers,
    incoming::{Fault, Incoming, IncomingError},
};
use crate::{access::Received, limits::KEPT_PIECES_MAX};
pub(crate) use reply::Reply;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the client's request ended early: {0}")]
    Request(IncomingError),
    #[error("the upstream's reply ended early: {0}")]
    Reply(IncomingError),
    #[error("another try reads the request's body now")]
    Superseded,
    #[error("the exchange took longer than its limit")]
    TimedOut,
}

/// The body of a request on its way upstream.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Empty,
    Whole(Option<Bytes>),
    Kept(Replay),
}

/// A request's body as it comes from the client, with what is kept of it.
#[derive(Debug)]
struct Source {
    incoming: Incoming,
    empty: bool,
    /// What its head announced: every try announces the same.
    length: SizeHint,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    limit: usize,
    trailers: Option<HeaderMap>,
    ended: Option<Instant>,
    gone: bool,
    fault: Option<Fault>,
    /// The number of the latest reading; older ones may not take bytes away from it.
    reading: u32,
    received: Option<Rc<Cell<u64>>>,
}

/// A request's body; each try reads it from the beginning.
#[derive(Debug, Clone)]
pub(crate) struct Upload(Rc<RefCell<Source>>);

/// One reading of an upload.
#[derive(Debug)]
pub(crate) struct Replay {
    source: Rc<RefCell<Source>>,
    at: usize,
    reading: u32,
    hint: SizeHint,
    trailers_sent: bool,
}

impl Upload {
    /// Keeps at most `limit` bytes for a second reading; 0: none.
    pub(crate) fn new(incoming: Incoming, limit: usize, received: &mut Received) -> Self {
        let empty = incoming.is_end_stream();
        let received = (!empty).then(|| Rc::clone(received.shared()));
        Self(Rc::new(RefCell::new(Source {
            empty,
            length: incoming.size_hint(),
            incoming,
            kept: Vec::new(),
            kept_bytes: 0,
            limit,
            trailers: None,
            ended: None,
            gone: false,
            fault: None,
            reading: 0,
            received,
        })))
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().empty
    }

    /// Whether it can be read from the beginning.
    pub(crate) fn is_held(&self) -> bool {
        !self.0.borrow().gone
    }

    /// How the client spelt the names of the head.
    pub(crate) fn with_spelling<T>(&self, then: impl FnOnce(&Spelling) -> T) -> T {
        then(self.0.borrow().incoming.spelling())
    }

    /// Passes an interim reply on (RFC 9110, 15.2); our HTTP/2 sends none.
    pub(crate) fn inform(&self, mut interim: response::Response, cx: &mut Context<'_>) {
        let source = self.0.borrow();
        if let Some(wire) = source.incoming.wire() {
            headers::end_hop(&mut interim.parts.headers);
            wire.borrow_mut().inform(&interim, cx);
        }
    }

    /// What the client did to it, where it will never be whole.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.borrow().fault
    }

    /// When its last byte came.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.0.borrow().ended
    }

    /// All of it, where all has come and is held.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let source = self.0.borrow();
        let complete = source.ended.is_some() && !source.gone;
        complete.then(|| match source.kept.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => Bytes::from(many.concat()),
        })
    }

    /// A reading from the beginning.
    pub(crate) fn read(&self) -> Outgoing {
        if self.is_empty() {
            return Outgoing::Empty;
        }
        let (hint, reading) = {
            let mut source = self.0.borrow_mut();
            source.reading += 1;
            (source.length, source.reading)
        };
        Outgoing::Kept(Replay { source: Rc::clone(&self.0), at: 0, reading, hint, trailers_sent: false })
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        let frame = match std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            None => {
                self.ended = Some(Instant::now());
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.fault = Some(error.fault());
                return Poll::Ready(Some(Err(BodyError::Request(error))));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            if let Some(received) = &self.received {
                received.set(received.get() + data.len() as u64);
            }
            if !self.gone {
                if self.kept_bytes + data.len() <= self.limit && self.kept.len() < KEPT_PIECES_MAX {
                    self.kept_bytes += data.len();
                    self.kept.push(data.clone());
                } else {
                    self.gone = true;
                    self.kept = Vec::new();
                }
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        if self.incoming.is_end_stream() {
            self.ended = Some(Instant::now());
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Outgoing {
    /// Goes back to the beginning, where all of it is still there.
    pub(crate) fn rewind(&mut self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_some(),
            Self::Kept(replay) => {
                (replay.at, replay.trailers_sent) = (0, false);
                !replay.source.borrow().gone
            }
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Self::Kept(replay) => replay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Kept(replay) => {
                let source = replay.source.borrow();
                let read = source.gone || replay.at >= source.kept.len();
                source.ended.is_some() && read && (replay.trailers_sent || source.trailers.is_none())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Kept(replay) => replay.hint,
        }
    }
}

impl Replay {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = self.source.borrow_mut();
        if source.reading != self.reading {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if !source.gone
            && let Some(data) = source.kept.get(self.at)
        {
            self.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if source.ended.is_some() {
            let trailers = source.trailers.clone().filter(|_| !self.trailers_sent);
            self.trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = std::task::ready!(source.poll(cx));
        match &frame {
            Some(Ok(frame)) if frame.is_data() => self.at += 1,
            Some(Ok(_)) => self.trailers_sent = true,
            Some(Err(_)) | None => {}
        }
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::{
        super::h1::{framing::Framing, incoming::Incoming as Http1, wire::Wire},
        *,
    };
    use crate::io::{Io, Raw, Socket};

    /// Whether a body of so many chunks can be read again after it was read to its end.
    async fn check(chunks: usize, bytes: &str, limit: usize, held: bool) {
        let text = [format!("{:x}\r\n{bytes}\r\n", bytes.len()).repeat(chunks).as_str(), "0\r\n\r\n"].concat();
        let (_far, near) = tokio::io::duplex(1);
        let wire = Wire::shared(Io::plain(Raw::new(Socket::Memory(near), Bytes::from(text))), None);
        let incoming = Incoming::http1(Http1::begin(&wire, Framing::Chunked), Spelling::default());
        let upload = Upload::new(incoming, limit, &mut Received::default());
        let mut reading = upload.read();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut reading).poll_frame(cx)).await {
            assert!(frame.unwrap().is_data());
        }
        assert_eq!((upload.is_held(), reading.rewind()), (held, held), "{chunks} of {bytes}, {limit}");
        assert_eq!(upload.whole(), held.then(|| bytes.repeat(chunks).into()));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_in_bytes_and_in_pieces() {
        check(2, "abc", 6, true).await;
        check(2, "abc", 5, false).await;
        check(KEPT_PIECES_MAX, "a", usize::MAX, true).await;
        check(KEPT_PIECES_MAX + 1, "a", usize::MAX, false).await;
    }
}
