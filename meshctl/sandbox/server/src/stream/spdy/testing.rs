//! The client's side of SPDY/3.1, for tests of what is built on it.
//!
//! Never here: a case. Used by the tests of `spdy` and `forward`.

use bytes::{BufMut, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::{DICTIONARY, FLAG_FIN, Frames, RST_STREAM, SYN_REPLY, SYN_STREAM, VERSION};

/// What the server says, as far as a test looks.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::stream) enum Said {
    Opened,
    Reset(u32, u32),
    Data { id: u32, bytes: Vec<u8>, fin: bool },
    Other(u16),
}

pub(in crate::stream) struct Client {
    io: DuplexStream,
    packer: Compress,
}

impl Client {
    pub(in crate::stream) fn new(io: DuplexStream) -> Self {
        let mut packer = Compress::new(Compression::default(), true);
        packer.set_dictionary(DICTIONARY).unwrap();
        Self { io, packer }
    }

    fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = BytesMut::new();
        plain.put_u32(u32::try_from(headers.len()).unwrap());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(u32::try_from(text.len()).unwrap());
            plain.put_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(4096);
        self.packer.compress_vec(&plain, &mut out, FlushCompress::Sync).unwrap();
        out
    }

    /// Opens a stream; `fin` says that nothing will be sent on it.
    pub(in crate::stream) async fn open(&mut self, id: u32, headers: &[(&str, &str)], fin: bool) {
        let mut body = BytesMut::new();
        body.put_u32(id);
        body.put_u32(0);
        body.put_u16(0);
        body.put_slice(&self.block(headers));
        let flags = if fin { FLAG_FIN } else { 0 };
        self.io.write_all(&Frames::control(SYN_STREAM, flags, &body)).await.unwrap();
    }

    pub(in crate::stream) async fn send(&mut self, id: u32, bytes: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u32(id);
        frame.put_u32(u32::try_from(bytes.len()).unwrap());
        frame.put_slice(bytes);
        self.io.write_all(&frame).await.unwrap();
    }

    /// The next frame.
    pub(in crate::stream) async fn next(&mut self) -> Said {
        let mut head = [0; 8];
        self.io.read_exact(&mut head).await.unwrap();
        let [a, b, c, d, flags, e, f, g] = head;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes([0, e, f, g])).unwrap()];
        self.io.read_exact(&mut body).await.unwrap();
        if a & 0x80 == 0 {
            return Said::Data { id: u32::from_be_bytes([a, b, c, d]), bytes: body, fin: flags & FLAG_FIN != 0 };
        }
        assert_eq!(u16::from_be_bytes([a, b]), VERSION);
        let word = |at: usize| super::word(&body, at).unwrap();
        match u16::from_be_bytes([c, d]) {
            SYN_REPLY => Said::Opened,
            RST_STREAM => Said::Reset(word(0), word(4)),
            kind => Said::Other(kind),
        }
    }

    /// The next frame that is no update of a window.
    pub(in crate::stream) async fn told(&mut self) -> Said {
        loop {
            let said = self.next().await;
            if said != Said::Other(super::WINDOW_UPDATE) {
                return said;
            }
        }
    }
}
