//! Reads the first bytes of a connection until it is clear what is spoken, or patience ends.
//!
//! What was read is handed on with the socket; nothing is read where the listener looks for nothing.
//! Never here: what the bytes mean (`detect`). Called by `listen::serve`.

use api::spec::Detect;
use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};

use super::detect::{Spoken, Verdict, judge};
use crate::limits::{HEAD_TIMEOUT, SILENCE_MAX};

/// First read of a connection whose protocol is looked for: a ClientHello with a post-quantum key share fits.
const FIRST_READ_BYTES: usize = 2048;

/// What is spoken, and the bytes that were read to find out.
#[derive(Debug)]
pub(crate) struct Sniffed {
    pub(crate) spoken: Spoken,
    pub(crate) early: Bytes,
}

/// Finds out what is spoken; none: the peer closed before it said anything.
pub(crate) async fn sniff(socket: &mut TcpStream, detect: Detect) -> Option<Sniffed> {
    if !detect.tls && !detect.http {
        return Some(Sniffed { spoken: Spoken::Raw, early: Bytes::new() });
    }
    let mut buf = BytesMut::with_capacity(FIRST_READ_BYTES);
    let forever = detect.timeout.is_zero();
    let mut until = Instant::now() + if forever { SILENCE_MAX } else { detect.timeout };
    let spoken = loop {
        let quiet = buf.is_empty();
        match tokio::time::timeout_at(until, socket.read_buf(&mut buf)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) if quiet => return None,
            Err(_) if quiet && forever => return None,
            Ok(Ok(0) | Err(_)) | Err(_) => break Spoken::Raw,
        }
        if let Verdict::Is(spoken) = judge(&buf, detect.tls, detect.http) {
            break spoken;
        }
        if quiet {
            // Silence may last; what has begun goes on soon.
            until = until.min(Instant::now() + HEAD_TIMEOUT);
        }
    };
    Some(Sniffed { spoken, early: buf.freeze() })
}
