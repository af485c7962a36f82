//! Serves an API server on 127.0.0.1 for trying it by hand.
//!
//! `serve FOLDER PORT`: writes FOLDER/kubeconfig and serves until it is killed. Commands that are executed "in a Pod"
//! run as plain processes here. Never here: a node. Run by developers.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use futures::future::BoxFuture;
use sandbox_server::{
    Attachment, Duplex, ExecRequest, Kubelet, LogRequest, Options, PodRef, Readable, Server, StreamError, User,
};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

/// Runs everything on this machine, whatever the Pod.
struct Here;

impl Kubelet for Here {
    fn logs(&self, pod: PodRef, request: LogRequest) -> BoxFuture<'static, Result<Readable, StreamError>> {
        let text = format!("{} {:?}\n", pod.name, request);
        Box::pin(async move { Ok(Box::pin(std::io::Cursor::new(text.into_bytes())) as Readable) })
    }

    fn exec(
        &self,
        _: PodRef,
        request: ExecRequest,
        streams: Attachment,
    ) -> BoxFuture<'static, Result<i32, StreamError>> {
        Box::pin(async move {
            let (program, arguments) =
                request.command.split_first().ok_or_else(|| StreamError::BadRequest("no command".to_owned()))?;
            let mut child = tokio::process::Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let feed = async {
                if let (Some(mut from), Some(mut to)) = (streams.stdin, stdin) {
                    tokio::io::copy(&mut from, &mut to).await.ok();
                    to.shutdown().await.ok();
                }
            };
            let out = async {
                if let (Some(mut from), Some(mut to)) = (stdout, streams.stdout) {
                    tokio::io::copy(&mut from, &mut to).await.ok();
                }
            };
            let err = async {
                if let (Some(mut from), Some(mut to)) = (stderr, streams.stderr) {
                    tokio::io::copy(&mut from, &mut to).await.ok();
                }
            };
            let work = async { tokio::join!(out, err) };
            tokio::select! {
                _ = async { feed.await; std::future::pending::<()>().await } => {}
                _ = work => {}
            }
            Ok(child.wait().await?.code().unwrap_or(137))
        })
    }

    fn attach(
        &self,
        pod: PodRef,
        mut request: ExecRequest,
        streams: Attachment,
    ) -> BoxFuture<'static, Result<i32, StreamError>> {
        request.command = vec!["cat".to_owned()];
        self.exec(pod, request, streams)
    }

    fn port_forward(&self, _: PodRef, port: u16) -> BoxFuture<'static, Result<Duplex, StreamError>> {
        Box::pin(async move { Ok(Box::pin(tokio::net::TcpStream::connect(("127.0.0.1", port)).await?) as Duplex) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve FOLDER PORT".into());
    };
    let address: SocketAddr = format!("127.0.0.1:{port}").parse()?;
    let server = Server::open(Options::new(&folder))?;
    server.set_kubelet(Arc::new(Here));
    server.bootstrap().await?;
    std::fs::write(format!("{folder}/kubeconfig"), server.kubeconfig(address)?)?;
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind(address).await?;
    let controllers = sandbox_server::controllers::run(server.client(User::system("controllers")), stop.clone());
    let (served, ()) = tokio::join!(server.serve(listener, stop), controllers);
    served?;
    Ok(())
}
