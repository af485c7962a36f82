//! tcp-echo-server: sends each line back behind a prefix.
//!
//! Never here: HTTP. Run by the tcp-echo sample on ports 9000, 9001 and 9002.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Listens on every port named in a comma list.
pub(crate) async fn serve(ports: &str, prefix: &str) -> io::Result<()> {
    let mut listeners = JoinSet::new();
    for port in ports.split(',') {
        let port: u16 = port.trim().parse().map_err(|_| io::Error::other(format!("{port:?} is not a port")))?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        listeners.spawn(accept(listener, prefix.to_owned()));
    }
    while let Some(ended) = listeners.join_next().await {
        ended.map_err(io::Error::other)?;
    }
    Ok(())
}

async fn accept(listener: TcpListener, prefix: String) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => { connections.spawn(echo(socket, prefix.clone())); }
                Err(error) => { eprintln!("accept: {error}"); tokio::time::sleep(Duration::from_millis(50)).await; }
            },
        }
    }
}

async fn echo(socket: TcpStream, prefix: String) {
    let (read, mut write) = socket.into_split();
    let mut lines = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) => break,
            Ok(_) => {
                let mut out = format!("{prefix} ").into_bytes();
                out.extend_from_slice(&line);
                if let Err(error) = write.write_all(&out).await {
                    eprintln!("write: {error}");
                    break;
                }
            }
            Err(error) => {
                eprintln!("read: {error}");
                break;
            }
        }
    }
}
