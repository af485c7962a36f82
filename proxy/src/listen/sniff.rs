//! Reads the first bytes of a connection until it is clear what is spoken, or patience ends.
//!
//! What was read is handed on with the socket; nothing is read where the listener looks for nothing.
//! Never here: what the bytes mean (`detect`). Called by `listen::serve`.

use std::time::Duration;

use api::spec::Detect;
use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::detect::{Spoken, Verdict, judge};

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
    let reading = async {
        loop {
            match socket.read_buf(&mut buf).await {
                Ok(0) | Err(_) => return if buf.is_empty() { None } else { Some(Spoken::Raw) },
                Ok(_) => {}
            }
            match judge(&buf, detect.tls, detect.http) {
                Verdict::Is(spoken) => return Some(spoken),
                Verdict::More => {}
            }
        }
    };
    let spoken = if detect.timeout == Duration::ZERO {
        reading.await?
    } else {
        match tokio::time::timeout(detect.timeout, reading).await {
            Ok(spoken) => spoken?,
            Err(_) => Spoken::Raw,
        }
    };
    Some(Sniffed { spoken, early: buf.freeze() })
}
