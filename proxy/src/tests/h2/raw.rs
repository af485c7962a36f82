//! A client that writes frames byte by byte, and reads only as much as a test must know.
//!
//! Header blocks are written without compression; of replies the status is read.
//! Never here: expectations. Used by the tests of HTTP/2.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// END_STREAM and END_HEADERS.
pub(crate) const WHOLE: u8 = 5;
pub(crate) const PADDED: u8 = 8;
pub(crate) const DEPENDENT: u8 = 0x20;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn number(out: &mut Vec<u8>, value: usize) {
    match u8::try_from(value) {
        Ok(small @ ..127) => out.push(small),
        _ => {
            out.push(127);
            let mut rest = value - 127;
            while rest >= 128 {
                out.push(u8::try_from(rest % 128).unwrap() | 0x80);
                rest /= 128;
            }
            out.push(u8::try_from(rest).unwrap());
        }
    }
}

/// A header block: fields as they are, none kept in a table.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        number(&mut out, name.len());
        out.extend_from_slice(name.as_bytes());
        number(&mut out, value.len());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// The pseudo-headers of a plain request.
pub(crate) const PLAIN: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];

/// A whole request on a stream, with more fields than the plain ones.
pub(crate) fn request(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &block(&[&PLAIN, more].concat()))
}

/// A request whose body is to come.
pub(crate) fn upload(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [&[(":method", "POST")], &PLAIN[1..], more].concat();
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Code of RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// `:status` of a first reply on its connection.
    pub(crate) fn status(&self) -> u16 {
        let block = match self.payload.iter().position(|byte| !(0x20..0x40).contains(byte)) {
            Some(at) => &self.payload[at..],
            None => &[],
        };
        match block {
            [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            [0x48 | 0x08, length, text @ ..] if length & 0x80 != 0 => {
                let bits: String = text[..usize::from(length & 0x7f)].iter().map(|b| format!("{b:08b}")).collect();
                let (mut rest, mut status) = (bits.as_str(), 0);
                for _ in 0..3 {
                    // Digits 0 to 2 have five bits, the others six (RFC 7541, appendix B).
                    let size = if rest.starts_with("000") { 5 } else { 6 };
                    let code = u16::from_str_radix(&rest[..size], 2).unwrap();
                    status = status * 10 + if size == 5 { code } else { code - 0x19 + 3 };
                    rest = &rest[size..];
                }
                status
            }
            [0x48 | 0x08, 3, text @ ..] => std::str::from_utf8(&text[..3]).unwrap().parse().unwrap(),
            other => panic!("no status in {other:?}"),
        }
    }
}

/// A peer.
pub(crate) struct Peer {
    io: DuplexStream,
    buf: Vec<u8>,
}

impl Peer {
    /// A peer that has said nothing.
    pub(crate) fn silent(io: DuplexStream) -> Self {
        Self { io, buf: Vec::new() }
    }

    /// A peer that has agreed on settings.
    pub(crate) async fn greet(io: DuplexStream, settings: &[u8]) -> Self {
        let mut peer = Self::silent(io);
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings), &frame(SETTINGS, ACK, 0, &[])].concat()).await;
        // Its settings, and the acknowledgement of ours.
        let mut seen = 0;
        while seen < 2 {
            seen += usize::from(peer.next().await.unwrap().kind == SETTINGS);
        }
        peer
    }

    /// Writes; the server may have left.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.io.write_all(bytes).await.is_ok()
    }

    /// The next frame; pings are answered. None: the server has closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                if frame.kind == PING && frame.flags & ACK == 0 {
                    let _sent = self.send(&super::raw::frame(PING, ACK, 0, &frame.payload)).await;
                    continue;
                }
                return Some(frame);
            }
            if self.io.read_buf(&mut self.buf).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let (head, rest) = self.buf.split_first_chunk::<9>()?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
        let payload = rest.get(..length)?.to_vec();
        self.buf.drain(..9 + length);
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
    }

    /// What the next thing of meaning is: a status, `RST code`, `GOAWAY code`, `closed`.
    pub(crate) async fn outcome(&mut self) -> String {
        loop {
            match self.next().await {
                None => return "closed".into(),
                Some(frame) if frame.kind == HEADERS => return frame.status().to_string(),
                Some(frame) if frame.kind == RST_STREAM => return format!("RST {}", frame.code()),
                Some(frame) if frame.kind == GOAWAY => return format!("GOAWAY {}", frame.code()),
                Some(_) => {}
            }
        }
    }

    /// Reads until the server has closed; gives the last GOAWAY's code.
    pub(crate) async fn farewell(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }

    /// Writes while it reads, as long as the server takes it; gives the last GOAWAY's code when the server has closed.
    pub(crate) async fn flood(self, bytes: &[u8]) -> Option<u32> {
        let (mut read, mut write) = tokio::io::split(self.io);
        let mut seen = self.buf;
        let reading = async { while read.read_buf(&mut seen).await.unwrap_or(0) > 0 {} };
        // The server may leave in the middle of it.
        let (_, _left) = tokio::join!(reading, write.write_all(bytes));
        let mut rest = Self { io: tokio::io::duplex(1).0, buf: seen };
        let mut code = None;
        while let Some(frame) = rest.take() {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }
}
