//! SPDY/3.1, as far as `kubectl` uses it: many streams over one connection.
//!
//! Reads frames, hands out streams that the client opens, writes frames in order. Never here: what streams mean.
//! Called by `exec` and `forward`, over a TCP connection or a WebSocket that carries the same bytes.

use std::collections::HashMap;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::limits::{
    FRAME_BYTES_MAX, HEADER_BYTES_MAX, OPEN_STREAMS_MAX, STREAM_FRAMES_MAX, STREAMS_MAX, WRITE_FRAMES_MAX,
};

/// The dictionary that header blocks are compressed with.
static DICTIONARY: &[u8] = include_bytes!("spdy3.dictionary");

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const WINDOW_UPDATE: u16 = 9;
const FLAG_FIN: u8 = 1;

/// Why a stream is ended early; the numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// There is no room for it.
    Refused = 3,
    /// It is of no use any more.
    Cancelled = 5,
}

/// A stream that the client has opened.
pub(super) struct Incoming {
    pub(super) id: u32,
    pub(super) headers: HashMap<String, String>,
    /// What the client sends; ends with its FIN.
    pub(super) data: mpsc::Receiver<Bytes>,
}

impl Incoming {
    /// Whether what waits here holds up the other streams of the connection.
    pub(super) fn holds_up_others(&self) -> bool {
        self.data.len() >= STREAM_FRAMES_MAX
    }
}

/// Writes frames of any stream.
#[derive(Clone)]
pub(super) struct Frames(mpsc::Sender<Bytes>);

impl Frames {
    async fn send(&self, frame: Bytes) -> io::Result<()> {
        self.0.send(frame).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Data on a stream, and perhaps its end.
    pub(super) async fn data(&self, id: u32, bytes: &[u8], fin: bool) -> io::Result<()> {
        let mut frame = BytesMut::with_capacity(8 + bytes.len());
        frame.put_u32(id & 0x7fff_ffff);
        frame.put_u32(u32::from(if fin { FLAG_FIN } else { 0 }) << 24 | length(bytes.len()));
        frame.put_slice(bytes);
        self.send(frame.freeze()).await
    }

    /// Ends a stream early.
    pub(super) async fn reset(&self, id: u32, why: Reset) -> io::Result<()> {
        let mut body = BytesMut::with_capacity(8);
        body.put_u32(id & 0x7fff_ffff);
        body.put_u32(why as u32);
        self.send(Self::control(RST_STREAM, 0, &body)).await
    }

    fn control(kind: u16, flags: u8, body: &[u8]) -> Bytes {
        let mut frame = BytesMut::with_capacity(8 + body.len());
        frame.put_u16(VERSION);
        frame.put_u16(kind);
        frame.put_u32(u32::from(flags) << 24 | length(body.len()));
        frame.put_slice(body);
        frame.freeze()
    }
}

/// Frames hold at most 24 bits of length; ours are far smaller.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX) & 0x00ff_ffff
}

/// Runs the connection until either side closes it; streams come out of the receiver.
pub(super) fn start<S>(socket: S) -> (mpsc::Receiver<Incoming>, Frames, impl Future<Output = io::Result<()>> + Send)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(socket);
    let (frames, queue) = mpsc::channel(WRITE_FRAMES_MAX);
    let (opened, streams) = mpsc::channel(OPEN_STREAMS_MAX);
    let frames = Frames(frames);
    let session =
        Session { frames: frames.clone(), opened, streams: HashMap::new(), headers: Headers::new(), packed: false };
    let run = async move {
        // The writer ends when every `Frames` is gone, so that what was queued is still sent.
        let write = write_all(writer, queue);
        let read = session.read_all(reader);
        tokio::pin!(read);
        tokio::pin!(write);
        tokio::select! {
            done = &mut write => done,
            done = &mut read => done,
        }
    };
    (streams, frames, run)
}

async fn write_all(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        writer.write_all(&frame).await?;
        if queue.is_empty() {
            writer.flush().await?;
        }
    }
    writer.flush().await?;
    writer.shutdown().await
}

struct Session {
    frames: Frames,
    opened: mpsc::Sender<Incoming>,
    streams: HashMap<u32, mpsc::Sender<Bytes>>,
    headers: Headers,
    /// Whether our own header stream has begun.
    packed: bool,
}

fn broken(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

impl Session {
    async fn read_all(mut self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        loop {
            let mut head = [0_u8; 8];
            if let Err(error) = reader.read_exact(&mut head).await {
                return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) };
            }
            let [a, b, c, d, flags, e, f, g] = head;
            let size = usize::try_from(u32::from_be_bytes([0, e, f, g])).unwrap_or(usize::MAX);
            if size > FRAME_BYTES_MAX {
                return Err(broken("a SPDY frame is too large"));
            }
            let mut body = vec![0; size];
            reader.read_exact(&mut body).await?;
            if a & 0x80 == 0 {
                self.data(u32::from_be_bytes([a, b, c, d]), flags, body).await?;
                continue;
            }
            if u16::from_be_bytes([a, b]) != VERSION {
                return Err(broken("not SPDY/3"));
            }
            match u16::from_be_bytes([c, d]) {
                SYN_STREAM => self.open(flags, &body).await?,
                RST_STREAM => {
                    if let Some(id) = word(&body, 0) {
                        self.streams.remove(&id);
                    }
                }
                PING => self.frames.send(Frames::control(PING, 0, &body)).await?,
                GOAWAY => return Ok(()),
                _ => {}
            }
        }
    }

    async fn data(&mut self, id: u32, flags: u8, body: Vec<u8>) -> io::Result<()> {
        let size = body.len();
        if let Some(stream) = self.streams.get(&id)
            && size > 0
        {
            // A reader that has gone does not end the others' streams.
            if stream.send(Bytes::from(body)).await.is_err() {
                self.streams.remove(&id);
            }
            let mut update = BytesMut::with_capacity(8);
            update.put_u32(id);
            update.put_u32(length(size));
            self.frames.send(Frames::control(WINDOW_UPDATE, 0, &update)).await?;
        }
        if flags & FLAG_FIN != 0 {
            self.streams.remove(&id);
        }
        Ok(())
    }

    async fn open(&mut self, flags: u8, body: &[u8]) -> io::Result<()> {
        let id = word(body, 0).ok_or_else(|| broken("a SYN_STREAM is too short"))? & 0x7fff_ffff;
        let block = body.get(10..).ok_or_else(|| broken("a SYN_STREAM is too short"))?;
        let headers = self.headers.unpack(block)?;
        if self.streams.len() >= STREAMS_MAX {
            // Those that nobody here reads any more only wait for the client's end.
            self.streams.retain(|_, reader| !reader.is_closed());
        }
        if self.streams.len() >= STREAMS_MAX {
            return self.frames.reset(id, Reset::Refused).await;
        }
        let (sender, data) = mpsc::channel(STREAM_FRAMES_MAX);
        if flags & FLAG_FIN == 0 {
            self.streams.insert(id, sender);
        }
        let mut reply = BytesMut::new();
        reply.put_u32(id);
        self.pack_nothing(&mut reply);
        self.frames.send(Frames::control(SYN_REPLY, 0, &reply)).await?;
        self.opened.send(Incoming { id, headers, data }).await.ok();
        Ok(())
    }

    /// An empty header block, stored rather than compressed: a zlib stream needs its head only once.
    fn pack_nothing(&mut self, out: &mut BytesMut) {
        if !self.packed {
            out.put_slice(&[0x78, 0x01]);
            self.packed = true;
        }
        // One stored block of the four bytes that count no pairs; then an empty one, as a flush writes it.
        out.put_slice(&[0x00, 0x04, 0x00, 0xfb, 0xff, 0, 0, 0, 0]);
        out.put_slice(&[0x00, 0x00, 0x00, 0xff, 0xff]);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes)
}

/// Header blocks of one direction: one zlib stream for the whole connection.
struct Headers(Decompress);

impl Headers {
    fn new() -> Self {
        Self(Decompress::new(true))
    }

    fn unpack(&mut self, mut block: &[u8]) -> io::Result<HashMap<String, String>> {
        let mut out = Vec::new();
        let mut buffer = [0_u8; 4096];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            match self.0.decompress(block, &mut buffer, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| broken("the header dictionary does not fit"))?;
                }
                // No progress is possible: the block is at its end.
                Err(_) if block.is_empty() => break,
                Err(_) => return Err(broken("a header block cannot be unpacked")),
            }
            let read = usize::try_from(self.0.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.0.total_out() - written).unwrap_or(usize::MAX);
            out.extend_from_slice(&buffer[..written.min(buffer.len())]);
            block = block.get(read..).unwrap_or_default();
            if out.len() > HEADER_BYTES_MAX {
                return Err(broken("a header block is too large"));
            }
            if block.is_empty() && written < buffer.len() {
                break;
            }
        }
        pairs(&out).ok_or_else(|| broken("a header block is malformed"))
    }
}

fn pairs(bytes: &[u8]) -> Option<HashMap<String, String>> {
    let mut at = 4;
    let mut all = HashMap::new();
    let text = |at: &mut usize| -> Option<String> {
        let size = usize::try_from(word(bytes, *at)?).ok()?;
        let text = bytes.get(*at + 4..(*at + 4).checked_add(size)?)?;
        *at += 4 + size;
        String::from_utf8(text.to_vec()).ok()
    };
    for _ in 0..word(bytes, 0)? {
        let name = text(&mut at)?;
        let value = text(&mut at)?;
        all.insert(name, value);
    }
    Some(all)
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
