//! HTTP/2 as a peer could speak it: raw frames, in memory, against the whole server.
//!
//! Never here: what the frames look like (`raw`). Run by `cargo test`.

mod abuse;
pub(crate) mod raw;
mod rows;
mod rules;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use api::{
    spec::{Action, HttpServer, Network, Transport},
    table::Arrival,
};
use api_rt::identity::Identity;
use bytes::Bytes;
use tokio::io::DuplexStream;

use super::{
    Proxy,
    spec::{chain, http, listener, route, server, spec},
};
use crate::{
    access::Downstream,
    http::{Conn, View, codec},
    io::{Io, Socket},
};

/// Bytes under way in memory.
const PIPE_BYTES: usize = 64 * 1024;

/// A proxy that answers every request itself.
fn answering(body: &str) -> Proxy {
    serving(&http(vec![route(Action::Reply { status: 200, body: body.into() })], vec![]))
}

/// The same at the mesh's edge.
fn at_the_edge() -> Proxy {
    let edge = HttpServer { edge: true, ..server(vec![route(Action::Reply { status: 200, body: String::new() })]) };
    serving(&spec(listener(chain(Network::Http(Box::new(edge)))), vec![]))
}

pub(super) fn serving(spec: &api::spec::Spec) -> Proxy {
    let mut proxy = Proxy::new(Identity::new());
    let faults = proxy.apply(spec);
    assert!(faults.is_empty(), "{faults:?}");
    proxy
}

impl Proxy {
    /// A connection to the only listener, in memory, and its far end.
    pub(super) fn connection(&self) -> (Rc<Conn>, Io, DuplexStream) {
        let tables = self.worker.shared.tables.load_full();
        let listener = tables.table.listener("l").unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let arrival = Arrival {
            destination: address,
            source: address.ip(),
            transport: Transport::Raw,
            server_name: None,
            protocols: &["h2c"],
        };
        let chain = Arc::clone(api::route::chain(listener, &arrival).unwrap());
        let extra = Arc::clone(tables.extra(&chain).unwrap());
        let view = View { chain, extra, current: true, tables: Arc::clone(&tables) };
        let downstream = Downstream {
            remote: address,
            direct: address,
            local: address,
            server_name: None,
            principal: None,
            identity: None,
            tls: false,
            ridden: false,
            client_cert: None,
        };
        let (far, near) = tokio::io::duplex(PIPE_BYTES);
        let io = Io::plain(crate::io::Raw::new(Socket::Memory(near), Bytes::new()));
        (Rc::new(Conn::new(Rc::clone(&self.worker), downstream, address, view)), io, far)
    }

    /// The same, speaking HTTP/2.
    fn connect(&self, idle_timeout: Duration) -> DuplexStream {
        let (conn, io, far) = self.connection();
        self.worker.spawn(async move {
            let ended = codec::serve_http2(conn, io, idle_timeout).await;
            tracing::debug!(?ended, "served");
        });
        far
    }
}

/// Runs a test with a clock that jumps to what is waited for.
pub(super) fn paused<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let set = tokio::task::LocalSet::new();
    runtime.block_on(set.run_until(async {
        tokio::time::timeout(Duration::from_secs(3600), test).await.expect("the test waits for what never comes");
    }));
}
