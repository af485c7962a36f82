//! `proxy request` and `proxy wait`: small clients of the proxy's own pages, as Istio's agent has them.
//!
//! Blocking and plain: they run as hooks of a pod, beside the proxy.
//! Never here: serving. Called by `main`.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::env::flags::pairs;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("{0}")]
    Arguments(String),
    #[error("no answer from {address}")]
    Exchange { address: SocketAddr, source: io::Error },
    #[error("the proxy answered {status}: {body}")]
    Status { status: u16, body: String },
    #[error("the proxy is not ready after {0:?}: {1}")]
    NotReady(Duration, String),
}

fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> Result<(u16, String), RequestError> {
    let failed = |source| RequestError::Exchange { address, source };
    let mut stream = TcpStream::connect_timeout(&address, limit).map_err(failed)?;
    stream.set_read_timeout(Some(limit)).map_err(failed)?;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(failed)?;
    stream.write_all(body.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let bad = || failed(io::Error::from(io::ErrorKind::InvalidData));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(bad)?;
    Ok((status, body.to_owned()))
}

/// `proxy request METHOD PATH [BODY]`.
pub(crate) fn send(args: &[String], print: impl FnOnce(&str)) -> Result<(), RequestError> {
    let (words, flags): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| !arg.starts_with("--"));
    let (method, path, body) = match words.as_slice() {
        [method, path] => (method, path, ""),
        [method, path, body] => (method, path, body.as_str()),
        _ => {
            return Err(RequestError::Arguments("expected: request METHOD PATH [BODY] [--debug-port=PORT]".to_owned()));
        }
    };
    let mut port = 15000;
    for flag in flags {
        match flag.split_once('=') {
            Some(("--debug-port", value)) => {
                port = value.parse().map_err(|_| RequestError::Arguments(format!("{value:?} is not a port")))?;
            }
            _ => return Err(RequestError::Arguments(format!("{flag}: no such flag"))),
        }
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // `pilot-agent request POST drain` is answered by the status port.
    let address =
        if path.trim_start_matches('/') == "drain" { SocketAddr::from(([127, 0, 0, 1], 15020)) } else { address };
    let (status, answer) = exchange(address, method, &format!("{slash}{path}"), body, Duration::from_secs(60))?;
    if status >= 300 {
        return Err(RequestError::Status { status, body: answer });
    }
    print(&answer);
    Ok(())
}

/// `proxy wait`.
#[expect(clippy::disallowed_methods, reason = "a blocking client with no runtime to ask for the time")]
pub(crate) fn wait(args: &[String]) -> Result<(), RequestError> {
    let found = pairs(args, &[]).map_err(|errors| RequestError::Arguments(errors.join("; ")))?;
    let mut limit = Duration::from_secs(60);
    let mut period = Duration::from_millis(500);
    let mut one = Duration::from_millis(500);
    let mut address = SocketAddr::from(([127, 0, 0, 1], 15021));
    for (name, value) in found {
        let bad = || RequestError::Arguments(format!("{name}: {value:?} is not a number"));
        match name.as_str() {
            "--timeoutSeconds" => limit = Duration::from_secs(value.parse().map_err(|_| bad())?),
            "--periodMillis" => period = Duration::from_millis(value.parse().map_err(|_| bad())?),
            "--requestTimeoutMillis" => one = Duration::from_millis(value.parse().map_err(|_| bad())?),
            "--port" => address.set_port(value.parse().map_err(|_| bad())?),
            _ => return Err(RequestError::Arguments(format!("{name}: no such flag"))),
        }
    }
    let began = Instant::now();
    loop {
        let reason = match exchange(address, "GET", "/healthz/ready", "", one) {
            Ok((200, _)) => return Ok(()),
            Ok((_, body)) => body.trim().to_owned(),
            Err(error) => error.to_string(),
        };
        if began.elapsed() + period > limit {
            return Err(RequestError::NotReady(limit, reason));
        }
        std::thread::sleep(period);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut buf = [0; 1024];
            let count = socket.read(&mut buf).unwrap();
            socket.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nwait").unwrap();
            String::from_utf8_lossy(&buf[..count]).into_owned()
        });
        let answer = exchange(address, "GET", "/x", "", Duration::from_secs(5)).unwrap();
        assert_eq!(answer, (503, "wait".to_owned()));
        assert!(server.join().unwrap().starts_with("GET /x HTTP/1.1\r\n"));
    }
}
