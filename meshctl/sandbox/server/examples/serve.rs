//! Serves an API server on 127.0.0.1 for trying it by hand.
//!
//! `serve FOLDER PORT`: writes FOLDER/kubeconfig and serves until it is killed. Never here: a node, controllers.
//! Run by developers.

use std::net::SocketAddr;

use sandbox_server::{Options, Server};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve FOLDER PORT".into());
    };
    let address: SocketAddr = format!("127.0.0.1:{port}").parse()?;
    let server = Server::open(Options::new(&folder))?;
    server.bootstrap().await?;
    std::fs::write(format!("{folder}/kubeconfig"), server.kubeconfig(address)?)?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    server.serve(listener, CancellationToken::new()).await?;
    Ok(())
}
