//! Reads the first bytes of a connection until it is clear what is spoken, or patience ends.
//!
//! What was read is handed on with the socket; nothing is read where the listener looks for nothing.
//! A header of the PROXY protocol comes before all that and is taken out; a connection that should have one and has none
//! is refused.
//! Never here: what the bytes mean (`detect`, `proxy_header`). Called by `listen::serve`.

use api::spec::Detect;
use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};

use super::detect::{Spoken, Verdict, judge};
use crate::{
    limits::{HEAD_TIMEOUT, PROXY_HEADER_BYTES_MAX, PROXY_HEADER_TIMEOUT, SILENCE_MAX},
    proxy_header::{self, Ends},
};

/// First read of a connection whose protocol is looked for: a ClientHello with a post-quantum key share fits.
const FIRST_READ_BYTES: usize = 2048;

/// What is spoken, and the bytes that were read to find out.
#[derive(Debug)]
pub(crate) struct Sniffed {
    pub(crate) spoken: Spoken,
    pub(crate) early: Bytes,
}

/// Takes the PROXY header from the start of a connection; what came after it is left in `early`.
///
/// # Errors
/// There is none, or it is broken or late: why, in words.
pub(crate) async fn proxy_header(socket: &mut TcpStream, early: &mut BytesMut) -> Result<Option<Ends>, &'static str> {
    let reading = async {
        loop {
            if early.capacity() == early.len() {
                early.reserve(FIRST_READ_BYTES.min(PROXY_HEADER_BYTES_MAX));
            }
            match socket.read_buf(early).await {
                Ok(0) | Err(_) => return Err("the connection ended"),
                Ok(_) => {}
            }
            match proxy_header::judge(early) {
                proxy_header::Verdict::Is { length, ends } => {
                    drop(early.split_to(length));
                    return Ok(ends);
                }
                proxy_header::Verdict::More => {}
                proxy_header::Verdict::Wrong(reason) => return Err(reason),
            }
        }
    };
    tokio::time::timeout(PROXY_HEADER_TIMEOUT, reading).await.unwrap_or(Err("the header did not come in time"))
}

/// Finds out what is spoken; none: the peer closed before it said anything, or broke off. `buf`: what was read already.
pub(crate) async fn sniff(socket: &mut TcpStream, detect: Detect, mut buf: BytesMut) -> Option<Sniffed> {
    if !detect.tls && !detect.http {
        return Some(Sniffed { spoken: Spoken::Raw, early: buf.freeze() });
    }
    let forever = detect.timeout.is_zero();
    let mut until = Instant::now() + if forever { SILENCE_MAX } else { detect.timeout };
    let spoken = loop {
        if let Verdict::Is(spoken) = judge(&buf, detect.tls, detect.http) {
            break spoken;
        }
        let quiet = buf.is_empty();
        if !quiet {
            // Silence may last; what has begun goes on soon.
            until = until.min(Instant::now() + HEAD_TIMEOUT);
        }
        buf.reserve(FIRST_READ_BYTES);
        match tokio::time::timeout_at(until, socket.read_buf(&mut buf)).await {
            Ok(Ok(1..)) => {}
            // Who broke off is not there for an answer; who only stopped to speak may be.
            Ok(Err(_)) => return None,
            Ok(Ok(0)) if quiet => return None,
            Err(_) if quiet && forever => return None,
            Ok(Ok(0)) | Err(_) => break Spoken::Raw,
        }
    };
    Some(Sniffed { spoken, early: buf.freeze() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    enum End {
        Clean,
        Reset,
    }

    /// What is found where a client says this and ends: the bytes that are handed on as raw ones; none: nothing.
    async fn check(said: &str, end: End, want: Option<&str>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        client.write_all(said.as_bytes()).await.unwrap();
        // What was said has arrived: a reset would take it away.
        let mut first = BytesMut::new();
        while first.len() < said.len() {
            socket.read_buf(&mut first).await.unwrap();
        }
        match end {
            End::Clean => client.shutdown().await.unwrap(),
            End::Reset => {
                socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
                drop(client);
            }
        }
        let detect = Detect { tls: true, http: true, ..Detect::default() };
        let found = sniff(&mut socket, detect, first).await.map(|sniffed| (sniffed.spoken, sniffed.early));
        assert_eq!(found, want.map(|early| (Spoken::Raw, Bytes::from(early.to_owned()))));
    }

    #[tokio::test]
    async fn half_a_head_that_ends_is_bytes() {
        check("GET / HT", End::Clean, Some("GET / HT")).await;
    }

    #[tokio::test]
    async fn half_a_head_that_breaks_off_is_nothing() {
        check("GET / HT", End::Reset, None).await;
    }

    #[tokio::test]
    async fn silence_that_ends_is_nothing() {
        check("", End::Clean, None).await;
        check("", End::Reset, None).await;
    }
}
