//! Streams of one connection, over one in memory.
//!
//! Never here: what streams mean. Called by `cargo test`.

use super::testing::{Client, Said};
use super::*;

#[tokio::test]
async fn a_stream_is_opened_read_and_answered() {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let mut client = Client::new(client);
    let (mut streams, frames, run) = start(server);
    let session = tokio::spawn(run);
    for (id, kind) in [(1_u32, "error"), (3, "stdin")] {
        client.open(id, &[("streamtype", kind)], false).await;
        let stream = streams.recv().await.unwrap();
        assert_eq!((stream.id, stream.headers["streamtype"].as_str()), (id, kind));
        assert_eq!(client.next().await, Said::Opened);
    }
    frames.data(1, b"bye", true).await.unwrap();
    assert_eq!(client.next().await, Said::Data { id: 1, bytes: b"bye".to_vec(), fin: true });
    drop((client, frames));
    session.await.unwrap().unwrap();
}

#[tokio::test]
async fn streams_that_nobody_reads_any_more_make_room_for_others() {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let mut client = Client::new(client);
    let (mut streams, _frames, run) = start(server);
    let _session = tokio::spawn(run);
    let ids: Vec<u32> = (0..=u32::try_from(STREAMS_MAX).unwrap()).map(|number| number * 2 + 1).collect();
    let (last, first) = ids.split_last().unwrap();
    let mut held = Vec::new();
    for id in first {
        client.open(*id, &[], false).await;
        assert_eq!(client.next().await, Said::Opened);
        held.push(streams.recv().await.unwrap());
    }
    client.open(*last, &[], false).await;
    assert_eq!(client.next().await, Said::Reset(*last, Reset::Refused as u32));
    held.pop();
    client.open(*last + 2, &[], false).await;
    assert_eq!(client.next().await, Said::Opened);
}
