//! Blocking clients in the clear: requests at a fixed rate, bytes, idle connections.
//!
//! Blocking on purpose: a thread that sleeps until its turn wakes closer to it than a timer wheel of whole milliseconds.
//! Never here: more of HTTP/1 than the bench's application answers with. Called by `load`.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::Done;

const PATIENCE: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 256 * 1024;

/// An HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct Plain {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Plain {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buf: vec![0; 4096] })
    }

    /// Asks for a body of so many bytes, and reads it.
    pub(crate) fn get(&mut self, bytes: usize) -> Result<()> {
        self.stream.write_all(format!("GET /{bytes} HTTP/1.1\r\nHost: reviews\r\n\r\n").as_bytes())?;
        let mut filled = 0;
        loop {
            if filled == self.buf.len() {
                self.buf.resize(filled * 2, 0);
            }
            let count = self.stream.read(&mut self.buf[filled..])?;
            ensure!(count > 0, "the connection ended");
            filled += count;
            let Some(end) = self.buf[..filled].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            ensure!(self.buf.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.buf[..end]));
            if filled >= end + 4 + bytes {
                return Ok(());
            }
        }
    }
}

fn all<T>(threads: Vec<JoinHandle<Result<T>>>) -> Result<Vec<T>> {
    threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client died"))?).collect()
}

/// Sends a fixed number of requests a second. Latency counts from the time at which a request was due if the connection
/// was still busy then, and from its sending if not.
#[expect(clippy::disallowed_methods, reason = "a load client takes the time")]
pub(super) fn paced(address: SocketAddr, rate: u32, connections: u32, length: Duration) -> Result<Done> {
    let began = Instant::now();
    let step = Duration::from_secs(1) * connections / rate;
    let threads = (0..connections).map(|number| {
        std::thread::spawn(move || -> Result<(Vec<u32>, u64)> {
            let mut connection = Plain::connect(address)?;
            let mut latencies = Vec::new();
            let mut failed = 0;
            let mut due = began + step * number / connections;
            while due < began + length {
                let now = Instant::now();
                let from = if now > due {
                    due
                } else {
                    std::thread::sleep(due - now);
                    Instant::now()
                };
                match connection.get(64) {
                    Ok(()) => latencies.push(u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX)),
                    Err(_) => {
                        failed += 1;
                        connection = Plain::connect(address)?;
                    }
                }
                due += step;
            }
            Ok((latencies, failed))
        })
    });
    let done = all(threads.collect())?;
    let failed = done.iter().map(|(_, failed)| failed).sum();
    let latencies = done.into_iter().flat_map(|(latencies, _)| latencies).collect();
    Ok(Done::of(latencies, began.elapsed(), failed))
}

/// Reads as many bytes as come.
#[expect(clippy::disallowed_methods, reason = "a load client takes the time")]
pub(super) fn bytes(address: SocketAddr, connections: usize, length: Duration) -> Result<Done> {
    let began = Instant::now();
    let threads = (0..connections).map(|_| {
        std::thread::spawn(move || -> Result<u64> {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut buf = vec![0; READ_BYTES];
            let mut count = 0;
            while began.elapsed() < length {
                let read = stream.read(&mut buf)?;
                ensure!(read > 0, "the connection ended");
                count += read as u64;
            }
            Ok(count)
        })
    });
    let count = all(threads.collect())?.into_iter().sum();
    Ok(Done { count, took: began.elapsed(), ..Done::default() })
}

/// Waits for one byte.
pub(super) fn first_byte(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream.read_exact(&mut [0])?)
}

/// Connections that have each had one answer.
pub(crate) fn idle(address: SocketAddr, connections: usize) -> Result<Vec<Plain>> {
    (0..connections)
        .map(|number| {
            let mut connection = Plain::connect(address)?;
            connection.get(64).with_context(|| format!("connection {number}"))?;
            Ok(connection)
        })
        .collect()
}
