//! Connections without requests: how bytes pass, how they end, what is counted.
//!
//! Never here: requests. Run by `cargo test`.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use api::spec::*;
use api_rt::identity::Identity;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    Client, Proxy, local, nobody, proxy,
    spec::{chain, cluster, listener, spec},
};
use crate::limits::{TCP_PIPE_AFTER_BYTES, TCP_REPORT};

fn server() -> TcpServer {
    TcpServer {
        stat_prefix: "t".into(),
        clusters: vec![WeightedCluster { cluster: "c".into(), weight: 1, headers: HeaderChanges::default() }],
        authorization: Vec::new(),
        access_log: None,
        idle_timeout: Duration::ZERO,
        max_duration: Duration::ZERO,
        metrics: true,
    }
}

fn to(server: TcpServer, upstream: SocketAddr) -> Spec {
    let bytes = Listener { detect: Detect::default(), ..listener(chain(Network::Tcp(Box::new(server)))) };
    spec(bytes, vec![cluster("c", &[upstream])])
}

/// An upstream that does this with its one connection.
async fn upstream<F: Future<Output = ()> + 'static>(act: impl FnOnce(TcpStream) -> F + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move { act(listener.accept().await.unwrap().0).await });
    address
}

/// Value of a counter with no flags.
fn counted(proxy: &Proxy, name: &str) -> u64 {
    let metrics = proxy.metrics();
    metrics
        .lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn many_bytes_pass_both_ways_unchanged() {
    local(async {
        // Enough for every step of reading, and for a pipe.
        let bytes = TCP_PIPE_AFTER_BYTES * 10 + 17;
        let upstream = upstream(move |socket| async move {
            let (mut read, mut write) = socket.into_split();
            let sending = tokio::task::spawn_local(async move {
                write.write_all(&pattern(bytes)).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            assert!(got == pattern(bytes));
            sending.await.unwrap();
        })
        .await;
        let (proxy, address) = proxy(&to(server(), upstream)).await;
        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let sending = tokio::task::spawn_local(async move {
            write.write_all(&pattern(bytes)).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(bytes));
        sending.await.unwrap();
        proxy.worker.finish().await;
        assert_eq!(counted(&proxy, "istio_tcp_received_bytes_total"), bytes as u64);
        assert_eq!(counted(&proxy, "istio_tcp_sent_bytes_total"), bytes as u64);
        assert_eq!(counted(&proxy, "istio_tcp_connections_closed_total"), 1);
    });
}

#[test]
fn either_side_may_end_first() {
    local(async {
        let first = upstream(|mut socket| async move {
            socket.write_all(b"bye").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut text = String::new();
            socket.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "late");
        })
        .await;
        let (proxy, address) = proxy(&to(server(), first)).await;
        let mut client = Client::to(address).await;
        assert_eq!(client.rest().await, "bye");
        client.send("late").await;
        client.0.shutdown().await.unwrap();
        proxy.worker.finish().await;
        assert_eq!(counted(&proxy, "istio_tcp_received_bytes_total"), 4);
    });
}

#[test]
fn a_cut_stream_is_reset_and_never_ended() {
    local(async {
        let dying = upstream(|mut socket| async move {
            let mut ping = [0; 4];
            socket.read_exact(&mut ping).await.unwrap();
            socket.write_all(b"half").await.unwrap();
            socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        })
        .await;
        let (proxy, address) = proxy(&to(server(), dying)).await;
        let mut client = Client::to(address).await;
        client.send("ping").await;
        let mut got = Vec::new();
        let error = client.0.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        proxy.worker.finish().await;

        let (told, mut hears) = tokio::sync::mpsc::channel(1);
        let waiting = upstream(move |mut socket| async move {
            let mut got = Vec::new();
            told.send(socket.read_to_end(&mut got).await.map_err(|error| error.kind())).await.unwrap();
        })
        .await;
        let (other, address) = super::proxy(&to(server(), waiting)).await;
        let mut client = Client::to(address).await;
        client.send("half").await;
        while counted(&other, "istio_tcp_connections_opened_total") == 0 {
            tokio::task::yield_now().await;
        }
        socket2::SockRef::from(&client.0).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(hears.recv().await.unwrap(), Err(std::io::ErrorKind::ConnectionReset));
    });
}

/// Runs with a clock that stands still but for what the test lets pass.
pub(super) fn paused<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(test));
}

/// Lets time pass, and what waits for it run.
pub(super) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[test]
fn silent_and_old_connections_end_and_long_ones_are_counted_on_the_way() {
    paused(async {
        let echo = |mut socket: TcpStream| async move {
            let mut buf = [0; 64];
            while let Ok(count @ 1..) = socket.read(&mut buf).await {
                socket.write_all(&buf[..count]).await.unwrap();
            }
        };
        let silent = TcpServer { idle_timeout: Duration::from_secs(60), ..server() };
        let (proxy, address) = proxy(&to(silent, upstream(echo).await)).await;
        let mut client = Client::to(address).await;
        let mut buf = [0; 4];
        for _ in 0..3 {
            client.send("ping").await;
            client.0.read_exact(&mut buf).await.unwrap();
            pass(Duration::from_secs(40)).await;
        }
        assert!(TCP_REPORT < Duration::from_secs(40));
        tokio::task::yield_now().await;
        client.send("ping").await;
        client.0.read_exact(&mut buf).await.unwrap();
        assert!(counted(&proxy, "istio_tcp_received_bytes_total") >= 8, "{}", proxy.metrics());
        pass(Duration::from_secs(61)).await;
        assert_eq!(client.rest().await, "");
        proxy.worker.finish().await;
        assert_eq!(counted(&proxy, "istio_tcp_received_bytes_total"), 16);
        assert!(proxy.metrics().contains("response_flags=\"SI\""));

        let old = TcpServer { max_duration: Duration::from_secs(60), ..server() };
        let (proxy, address) = super::proxy(&to(old, upstream(echo).await)).await;
        let mut client = Client::to(address).await;
        for _ in 0..2 {
            client.send("ping").await;
            client.0.read_exact(&mut buf).await.unwrap();
            pass(Duration::from_secs(40)).await;
        }
        assert_eq!(client.rest().await, "");
        proxy.worker.finish().await;
        assert!(proxy.metrics().contains("response_flags=\"DT\""));
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once_where_nothing_must_be_found_out() {
    local(async {
        let smtp = upstream(|mut socket| async move {
            socket.write_all(b"220 ready\r\n").await.unwrap();
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.unwrap();
        })
        .await;
        // The listener looks for TLS and HTTP for ever, but this port has one chain for whatever comes.
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = Some(socket.local_addr().unwrap().port());
        let mail = FilterChain {
            matches: ChainMatch { destination_port: own, ..ChainMatch::default() },
            ..chain(Network::Tcp(Box::new(server())))
        };
        let web = FilterChain {
            name: "web".into(),
            matches: ChainMatch { application_protocols: vec!["http/1.1".into()], ..ChainMatch::default() },
            ..chain(Network::Tcp(Box::new(server())))
        };
        let mut both = to(server(), smtp);
        let detect = Detect { tls: true, http: true, ..Detect::default() };
        let listener = |chains| Listener { detect, chains, ..listener(chain(Network::Tcp(Box::new(server())))) };
        let mut told = Proxy::new(Identity::new());
        both.listeners.insert("l".into(), std::sync::Arc::new(listener(vec![mail, web])));
        assert!(told.apply(&both).is_empty());
        let address = told.listen_on("l", socket);
        let mut client = Client::to(address).await;
        let mut line = [0; 11];
        client.0.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"220 ready\r\n");
    });
}

#[test]
fn a_silent_connection_is_plain_bytes_after_the_sniff_limit() {
    local(async {
        let smtp = upstream(|mut socket| async move { socket.write_all(b"220 ready\r\n").await.unwrap() }).await;
        let mut sniffed = to(server(), smtp);
        let web = FilterChain {
            name: "web".into(),
            matches: ChainMatch { application_protocols: vec!["http/1.1".into()], ..ChainMatch::default() },
            ..chain(Network::Tcp(Box::new(server())))
        };
        let detect = Detect { tls: true, http: true, timeout: Duration::from_millis(50), ..Detect::default() };
        let any = chain(Network::Tcp(Box::new(server())));
        let listener = Listener { detect, default_chain: Some(any.clone()), chains: vec![web], ..listener(any) };
        sniffed.listeners.insert("l".into(), std::sync::Arc::new(listener));
        let (_proxy, address) = proxy(&sniffed).await;
        assert_eq!(Client::to(address).await.rest().await, "220 ready\r\n");
    });
}

/// What an upstream hears from a client that sends `text` through a listener that reads PROXY headers to a cluster that
/// writes them.
async fn announced(version: Option<ProxyVersion>, text: &'static [u8]) -> Option<String> {
    let (told, mut hears) = tokio::sync::mpsc::channel(1);
    let upstream = upstream(move |mut socket| async move {
        let mut got = Vec::new();
        socket.read_to_end(&mut got).await.unwrap();
        told.send(got).await.unwrap();
    })
    .await;
    let mut wanted = to(server(), upstream);
    let sending = Cluster { proxy_header: version, ..cluster("c", &[upstream]) };
    wanted.clusters.insert("c".into(), std::sync::Arc::new(sending));
    let detect = Detect { proxy_header: true, ..Detect::default() };
    let reading = Listener { detect, ..listener(chain(Network::Tcp(Box::new(server())))) };
    wanted.listeners.insert("l".into(), std::sync::Arc::new(reading));
    let (proxy, address) = proxy(&wanted).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(text).await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    // Refused connections may be reset.
    let _refused = client.read_to_end(&mut rest).await.is_err();
    proxy.worker.finish().await;
    let got = hears.try_recv().ok()?;
    Some(String::from_utf8_lossy(&got).replace(&format!(" {}\r\n", address.port()), " PORT\r\n"))
}

#[test]
fn the_clients_address_passes_from_header_to_header() {
    local(async {
        let header = b"PROXY TCP4 192.0.2.7 198.51.100.2 4000 443\r\nhello";
        assert_eq!(announced(None, header).await.as_deref(), Some("hello"));
        let says = announced(Some(ProxyVersion::V1), header).await;
        assert_eq!(says.as_deref(), Some("PROXY TCP4 192.0.2.7 127.0.0.1 4000 PORT\r\nhello"));
        let says = announced(Some(ProxyVersion::V2), header).await.unwrap();
        assert!(says.starts_with("\r\n\r\n\0\r\nQUIT\n") && says.ends_with("hello"), "{says:?}");
    });
}

#[test]
fn the_chain_is_chosen_by_the_client_that_the_header_tells_of() {
    local(async {
        let says = |text: &'static str| {
            upstream(move |mut socket| async move { socket.write_all(text.as_bytes()).await.unwrap() })
        };
        let (near, far) = (says("near").await, says("far").await);
        let to = |name: &str| TcpServer {
            clusters: vec![WeightedCluster { cluster: name.into(), weight: 1, headers: HeaderChanges::default() }],
            ..server()
        };
        let from = |range: &str, name: &str| FilterChain {
            name: name.into(),
            matches: ChainMatch { source_ranges: vec![range.parse().unwrap()], ..ChainMatch::default() },
            ..chain(Network::Tcp(Box::new(to(name))))
        };
        let detect = Detect { proxy_header: true, ..Detect::default() };
        let chains = vec![from("127.0.0.0/8", "near"), from("192.0.2.0/24", "far")];
        let listener = Listener { detect, chains, ..listener(chain(Network::Tcp(Box::new(server())))) };
        let (_proxy, address) = proxy(&spec(listener, vec![cluster("near", &[near]), cluster("far", &[far])])).await;
        for (header, heard) in
            [("PROXY TCP4 192.0.2.7 198.51.100.2 4000 443\r\n", "far"), ("PROXY UNKNOWN\r\n", "near")]
        {
            let mut client = Client::to(address).await;
            client.send(header).await;
            assert_eq!(client.rest().await, heard);
        }
    });
}

#[test]
fn a_connection_without_the_header_that_must_come_is_closed() {
    local(async {
        assert_eq!(announced(None, b"hello").await, None);
        assert_eq!(announced(None, b"PROXY TCP4 192.0.2.7 198.51.100.2 4000\r\nhello").await, None);
        assert_eq!(announced(None, b"PROXY TCP4 192.0.2.7").await, None);
    });
}

#[test]
fn an_upstream_that_cannot_be_reached_ends_the_connection_with_its_flag() {
    local(async {
        let (proxy, address) = proxy(&to(server(), nobody().await)).await;
        assert_eq!(Client::to(address).await.rest().await, "");
        let worker = Rc::clone(&proxy.worker);
        worker.finish().await;
        assert!(proxy.metrics().contains("response_flags=\"UF\""), "{}", proxy.metrics());
    });
}
