//! Connections forwarded over SPDY, with a node in memory.
//!
//! Never here: the protocol's own cases (`spdy`). Called by `cargo test`.

use std::sync::Mutex;

use futures::future::BoxFuture;
use tokio::io::DuplexStream;

use super::super::spdy::testing::{Client, Said};
use super::*;
use crate::{Attachment, ExecRequest, LogRequest, Readable, StreamError};

/// Connects every port to the other end of a pipe, which the test has.
#[derive(Default)]
struct Node(Mutex<Vec<DuplexStream>>);

impl Kubelet for Node {
    fn logs(&self, _: PodRef, _: LogRequest) -> BoxFuture<'static, Result<Readable, StreamError>> {
        Box::pin(async { Err(StreamError::BadRequest("no logs".to_owned())) })
    }

    fn exec(&self, _: PodRef, _: ExecRequest, _: Attachment) -> BoxFuture<'static, Result<i32, StreamError>> {
        Box::pin(async { Ok(0) })
    }

    fn attach(&self, _: PodRef, _: ExecRequest, _: Attachment) -> BoxFuture<'static, Result<i32, StreamError>> {
        Box::pin(async { Ok(0) })
    }

    fn port_forward(&self, _: PodRef, _: u16) -> BoxFuture<'static, Result<Duplex, StreamError>> {
        let (near, far) = tokio::io::duplex(16);
        self.0.lock().unwrap().push(far);
        Box::pin(async { Ok(Box::pin(near) as Duplex) })
    }
}

fn client() -> (Client, Arc<Node>) {
    let node = Arc::new(Node::default());
    let pod = PodRef { namespace: "d".to_owned(), name: "p".to_owned(), uid: "u".to_owned() };
    let source = Source { kubelet: Arc::clone(&node) as Arc<dyn Kubelet>, pod };
    let (client, server) = tokio::io::duplex(64 * 1024);
    tokio::spawn(over_spdy(source, server));
    (Client::new(client), node)
}

async fn open(client: &mut Client, request: &str, error: u32, port: &str) {
    for (id, kind, fin) in [(error, "error", true), (error + 2, "data", false)] {
        client.open(id, &[("streamtype", kind), ("port", port), ("requestid", request)], fin).await;
        assert_eq!(client.told().await, Said::Opened);
    }
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let (mut client, node) = client();
    open(&mut client, "0", 1, "80").await;
    client.send(3, b"ping").await;
    assert_eq!(client.next().await, Said::Other(9));
    let mut pod = node.0.lock().unwrap().pop().unwrap();
    let mut bytes = [0; 4];
    pod.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
    pod.write_all(b"pong").await.unwrap();
    assert_eq!(client.told().await, Said::Data { id: 3, bytes: b"pong".to_vec(), fin: false });
    drop(pod);
    for id in [3, 1] {
        assert_eq!(client.told().await, Said::Data { id, bytes: Vec::new(), fin: true });
    }
}

#[tokio::test]
async fn a_port_that_is_none_is_told() {
    let (mut client, _node) = client();
    open(&mut client, "0", 1, "http").await;
    let text = b"unable to parse \"http\" as a port".to_vec();
    assert_eq!(client.told().await, Said::Data { id: 1, bytes: text, fin: true });
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_other_never_comes_is_given_up() {
    let (mut client, _node) = client();
    client.open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")], true).await;
    assert_eq!(client.told().await, Said::Opened);
    let began = tokio::time::Instant::now();
    assert_eq!(client.told().await, Said::Reset(1, Reset::Cancelled as u32));
    assert_eq!(began.elapsed().as_secs(), PAIR_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_read_holds_up_others_only_for_a_while() {
    let (mut client, node) = client();
    open(&mut client, "0", 1, "80").await;
    // More than the Pod and the queues between take, and less than the pipe to the client's side has room for.
    for _ in 0..100 {
        client.send(3, &[0; 64]).await;
    }
    client.open(5, &[("streamtype", "error"), ("port", "80"), ("requestid", "1")], true).await;
    let ended = Said::Data { id: 1, bytes: Vec::new(), fin: true };
    assert_eq!(client.told().await, ended, "a word here would end every connection of kubectl");
    assert_eq!(client.told().await, Said::Reset(3, Reset::Cancelled as u32));
    assert_eq!(client.told().await, Said::Opened, "the next connection goes on");
    drop(node);
}
