//! A thousand services: memory, and what one endpoint change costs.
//!
//! The xDS client here is our own test client over pilot's plaintext port; it sees what any client sees.
//! Never here: traffic.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api::spec::{Node, ProxyKind};
use api_xds::{
    TYPE_URL_CLUSTER, TYPE_URL_ENDPOINTS, TYPE_URL_LISTENER,
    discovery::{AggregatedClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    node,
};
use e2e::{
    beside::Beside,
    kubectl::Kubectl,
    processes,
    sandbox::{Sandbox, until},
    suite::{self, Test},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const SERVICES: usize = 1000;
const LIMIT: Duration = Duration::from_secs(60);

struct Scale {
    sandbox: Sandbox,
    kubectl: Kubectl,
}

fn main() -> ExitCode {
    let tests = vec![
        Test::new("one_endpoint_change_is_one_resource_and_nothing_else", one_endpoint_change),
        Test::new("memory_with_a_thousand_services_of_three", memory),
        Test::new("questions_for_names_wait_while_the_daemon_is_busy", busy_daemon),
    ];
    suite::run("scale", tests, || {
        let sandbox = Sandbox::start("scale")?;
        sandbox.meshctl(&["install", "--set", "profile=minimal", "-y"])?.ok()?;
        let kubectl = sandbox.kubectl()?;
        kubectl.fed(&["create", "-f", "-"], &many())?.ok()?;
        kubectl.ok(&["label", "namespace", "default", "istio-injection=enabled"])?;
        kubectl.ok(&["apply", "-f", &e2e::bookinfo::manifest("curl/curl.yaml")])?;
        kubectl.ok(&["wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s"])?;
        Ok(Scale { sandbox, kubectl })
    })
}

fn slice(i: usize, addresses: [usize; 3]) -> String {
    let endpoints: String = addresses
        .iter()
        .map(|n| format!("- {{addresses: [198.51.{}.{}], conditions: {{ready: true}}}}\n", n / 250, n % 250 + 1))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{i}-x, labels: {{kubernetes.io/service-name: s{i}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n{endpoints}"
    )
}

fn many() -> String {
    let mut text = String::new();
    for i in 0..SERVICES {
        let _infallible = write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{i}}}\nspec: {{ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n---\n{}---\n",
            slice(i, [3 * i, 3 * i + 1, 3 * i + 2])
        );
    }
    text
}

fn sidecar() -> Node {
    Node {
        kind: ProxyKind::Sidecar,
        id: "sidecar~198.18.255.1~watcher.default~default.svc.cluster.local".to_owned(),
        name: "watcher".to_owned(),
        namespace: "default".to_owned(),
        service_account: "default".to_owned(),
        address: std::net::IpAddr::from([198, 18, 255, 1]),
        labels: std::collections::BTreeMap::new(),
        domain: "cluster.local".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        workload: "watcher".to_owned(),
        on_demand_hosts: false,
        ours: false,
        proxy_header: false,
        proxyless: false,
    }
}

fn one_endpoint_change(s: &Scale) -> Result<()> {
    let pilot = Beside::forward(&s.kubectl.within("istio-system"), "deploy/istio-pilot", 15010)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", pilot.address))?.connect().await?;
        let (ask, asks) = mpsc::channel::<DeltaDiscoveryRequest>(64);
        let first =
            |type_url: &str, names: Vec<String>, node: Option<api_xds::discovery::Node>| DeltaDiscoveryRequest {
                node,
                type_url: type_url.to_owned(),
                resource_names_subscribe: names,
                ..DeltaDiscoveryRequest::default()
            };
        ask.send(first(TYPE_URL_CLUSTER, vec![], Some(node::write(&sidecar(), "test")))).await?;
        let mut answers = AggregatedClient::new(channel).delta(ReceiverStream::new(asks)).await?;
        let clusters = answer(&mut answers, &ask).await?;
        let names: Vec<String> = clusters
            .decoded()
            .filter_map(|one| one.ok().map(|one| one.name))
            .filter(|name| name.contains("|s"))
            .collect();
        ensure!(names.len() >= SERVICES, "only {} clusters", names.len());
        ask.send(first(TYPE_URL_ENDPOINTS, names, None)).await?;
        let endpoints = answer(&mut answers, &ask).await?;
        ensure!(endpoints.resources.len() >= SERVICES, "only {} resources of endpoints", endpoints.resources.len());
        ask.send(first(TYPE_URL_LISTENER, vec![], None)).await?;
        answer(&mut answers, &ask).await?;
        quiet(&mut answers, &ask).await?;
        let changed = slice(7, [21, 22, 2999]);
        let kubectl = s.kubectl.clone();
        tokio::task::spawn_blocking(move || kubectl.fed(&["replace", "-f", "-"], &changed)?.ok()).await??;
        let told = answer(&mut answers, &ask).await?;
        ensure!(told.type_url == TYPE_URL_ENDPOINTS, "{}", told.type_url);
        let names: Vec<String> = told.decoded().filter_map(|one| one.ok().map(|one| one.name)).collect();
        ensure!(names == ["outbound|80||s7.default.svc.cluster.local"], "{names:?}");
        quiet(&mut answers, &ask).await
    })
}

type Answers = tonic::Streaming<DeltaDiscoveryResponse>;

/// The next answer, acknowledged.
async fn answer(answers: &mut Answers, ask: &mpsc::Sender<DeltaDiscoveryRequest>) -> Result<DeltaDiscoveryResponse> {
    let told =
        tokio::time::timeout(LIMIT, answers.message()).await.context("no answer")??.context("the stream ended")?;
    let acknowledged = DeltaDiscoveryRequest {
        type_url: told.type_url.clone(),
        response_nonce: told.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    };
    ask.send(acknowledged).await?;
    Ok(told)
}

/// Nothing more comes for a while: twice the longest time that a change may take to arrive.
async fn quiet(answers: &mut Answers, _: &mpsc::Sender<DeltaDiscoveryRequest>) -> Result<()> {
    match tokio::time::timeout(Duration::from_millis(600), answers.message()).await {
        Err(_) => Ok(()),
        Ok(told) => {
            let told = told?.context("the stream ended")?;
            anyhow::bail!("something else came: {} with {} resources", told.type_url, told.resources.len())
        }
    }
}

fn memory(s: &Scale) -> Result<()> {
    let daemon = s.sandbox.pid()?;
    let largest = |program: &str| -> Result<u64> {
        let pids = processes::below(daemon, program)?;
        let sizes: Result<Vec<u64>> = pids.iter().map(|pid| processes::resident_mib(*pid)).collect();
        sizes?.into_iter().max().with_context(|| format!("no process of {program}"))
    };
    // The sidecar must have taken all of it before it is weighed.
    until("the sidecar knows every service", LIMIT, || {
        let said = s.kubectl.ok(&[
            "exec",
            "deploy/curl",
            "-c",
            "curl",
            "--",
            "curl",
            "-s",
            "http://127.0.0.1:15000/clusters",
        ])?;
        ensure!(said.contains("s999.default"), "{} bytes", said.len());
        Ok(())
    })?;
    let (pilot, sidecar, server) = (largest("pilot")?, largest("proxy")?, processes::resident_mib(daemon)?);
    eprintln!("  pilot {pilot} MiB, sidecar {sidecar} MiB, sandbox server and node {server} MiB");
    ensure!(pilot <= 150 && sidecar <= 40 && server <= 250, "pilot {pilot}, sidecar {sidecar}, server {server} MiB");
    Ok(())
}

/// A question that finds no room costs whoever asked five seconds, so a stopped daemon must find them all.
fn busy_daemon(s: &Scale) -> Result<()> {
    let lost = || -> Result<u64> {
        let counters = s.sandbox.shell("grep ^Udp: /proc/net/snmp")?.ok()?;
        let mut lines = counters.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
        let at = names.iter().position(|name| *name == "RcvbufErrors").context("no RcvbufErrors")?;
        Ok(values.get(at).context("no value")?.parse()?)
    };
    let daemon = Pid::from_raw(s.sandbox.pid()?);
    let before = lost()?;
    kill(daemon, Signal::SIGSTOP)?;
    let asked = s.sandbox.shell("for i in $(seq 400); do echo question >/dev/udp/198.19.0.10/53; done");
    kill(daemon, Signal::SIGCONT)?;
    asked?.ok()?;
    let lost = lost()? - before;
    ensure!(lost == 0, "{lost} of 400 questions were lost");
    Ok(())
}
