//! A real Envoy and our proxy in one mesh, each with a certificate from citadel, under STRICT mutual TLS.
//!
//! `proxy agent` gives Envoy its identity and bootstrap; pilot reads a folder; programs run in network namespaces.
//! Never here: Envoy's routing (`peers`). Run by `cargo xtask test`, as root.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    authority::{self, Authority},
    judge,
    kubectl::Said,
    netns::Wire,
    sandbox::until,
    suite::{self, Outcome, Test},
    tokens::Issuer,
};
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);
const CONTROL: &str = "198.18.0.2";
const PROXY_UID: u32 = 1337;
const CALLS: u64 = 20;

/// A workload: a service of this name, helloworld behind it, and a sidecar.
struct End {
    name: &'static str,
    address: &'static str,
    service: &'static str,
}

/// Its sidecar is a real Envoy.
const THEIRS: End = End { name: "theirs", address: "198.18.0.31", service: "198.19.0.31" };
/// Its sidecar is our proxy.
const OURS: End = End { name: "ours", address: "198.18.0.32", service: "198.19.0.32" };

struct Mesh {
    wire: Wire,
    dir: TempDir,
}

/// A test over the mesh, by name.
type Case = (&'static str, fn(&Mesh) -> Result<()>);

fn main() -> ExitCode {
    let tests: Vec<Case> = vec![
        ("our_proxy_calls_envoy_by_mutual_tls", ours_to_theirs),
        ("envoy_calls_our_proxy_by_mutual_tls", theirs_to_ours),
        ("a_caller_without_identity_is_refused_by_both", stranger),
        ("envoy_takes_every_type_and_refuses_nothing", every_type),
    ];
    let maybe = |(name, check): Case| {
        Test::maybe(name, move |mesh: &Option<Mesh>| match mesh {
            None => Ok(Outcome::NotRun("no envoy on the path".to_owned())),
            Some(mesh) => check(mesh).map(|()| Outcome::Passed).with_context(|| mesh.logs()),
        })
    };
    suite::run("envoy", tests.into_iter().map(maybe).collect(), || {
        judge::program("envoy").map(|envoy| start(&envoy)).transpose()
    })
}

fn objects(end: &End) -> String {
    let End { name, address, service } = end;
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-1, namespace: default, labels: {{app: {name}, security.istio.io/tlsMode: istio}}}}\nspec: {{serviceAccountName: {name}, containers: [{{name: main, image: x}}]}}\nstatus: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{clusterIP: {service}, clusterIPs: [{service}], selector: {{app: {name}}}, ports: [{{name: http, port: 5000, targetPort: 5000}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-x, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: http, port: 5000, protocol: TCP}}]\nendpoints:\n- {{addresses: [{address}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {name}-1, namespace: default}}}}\n---\n"
    )
}

const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\nspec: {mtls: {mode: STRICT}}\n";

fn start(envoy: &Path) -> Result<Mesh> {
    let dir = tempfile::Builder::new().prefix("envoy").tempdir()?;
    // Proxies run as a user of their own and must be able to read what is theirs.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let (authority, issuer) = (Authority::new()?, Issuer::new()?);
    let mut mesh = Mesh { wire: Wire::new()?, dir };
    authority.sign(authority::dns("pilot.test")?)?.write(&mesh.at("pilot"))?;
    for folder in ["root", "mesh"] {
        fs::create_dir_all(mesh.at(folder))?;
    }
    for (file, text) in [
        ("root/ca-cert.pem", authority.root()),
        ("root/ca-key.pem", authority.key()),
        ("root-cert.pem", authority.root()),
        ("jwks.json", &issuer.keys()),
        ("mesh/objects.yaml", &[&objects(&THEIRS), &objects(&OURS), STRICT].concat()),
    ] {
        fs::write(mesh.at(file), text)?;
    }
    mesh.wire.host("control", CONTROL)?;
    mesh.wire.host("stranger", "198.18.0.40")?;
    let mut pilot = mesh.wire.command("control", 0, &judge::ours("pilot"));
    pilot.args(["--webhook", "off", "--folder"]).arg(mesh.at("mesh")).arg("--identity").arg(mesh.at("pilot"));
    mesh.wire.start(pilot, &mesh.at("pilot.log"))?;
    let mut citadel = mesh.wire.command("control", 0, &judge::ours("citadel"));
    citadel.args(["--http-address", "[::]:15015", "--root-folder"]).arg(mesh.at("root"));
    citadel.arg("--jwks").arg(mesh.at("jwks.json"));
    mesh.wire.start(citadel, &mesh.at("citadel.log"))?;
    mesh.workload(&THEIRS, &issuer, Some(envoy))?;
    mesh.workload(&OURS, &issuer, None)?;
    Ok(mesh)
}

impl Mesh {
    fn at(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The workload's application, capture and sidecar.
    fn workload(&mut self, end: &End, issuer: &Issuer, envoy: Option<&Path>) -> Result<()> {
        let own = self.at(end.name);
        fs::create_dir_all(&own)?;
        fs::write(own.join("token"), issuer.token("default", end.name, "istio-ca")?)?;
        std::os::unix::fs::chown(&own, Some(PROXY_UID), Some(PROXY_UID))?;
        self.wire.host(end.name, end.address)?;
        let mut app = self.wire.command(end.name, 0, &judge::ours("samples"));
        app.arg("helloworld").env("SERVICE_VERSION", end.name);
        self.wire.start(app, &self.at(&format!("{}-app.log", end.name)))?;
        self.wire.capture(end.name)?;
        let mut sidecar = self.wire.command(end.name, PROXY_UID, &judge::ours("proxy"));
        if envoy.is_some() {
            sidecar.arg("agent");
        }
        sidecar.args(["sidecar", "--domain", "default.svc.cluster.local"]);
        if let Some(envoy) = envoy {
            sidecar.arg("--folder").arg(&own).arg("--").arg(envoy).args(["--concurrency", "1", "-l", "warning"]);
        }
        sidecar
            .env("POD_NAME", format!("{}-1", end.name))
            .env("POD_NAMESPACE", "default")
            .env("INSTANCE_IP", end.address)
            .env("SERVICE_ACCOUNT", end.name)
            .env("ISTIO_METAJSON_LABELS", format!(r#"{{"app":"{}"}}"#, end.name))
            .env("PILOT_ADDR", format!("{CONTROL}:15012"))
            .env("PILOT_SAN", "pilot.test")
            .env("CA_ADDR", format!("{CONTROL}:8060"))
            .env("CA_SAN", "istio-citadel.istio-system.svc")
            .env("CA_ROOT_FILE", self.at("root-cert.pem"))
            .env("TOKEN_FILE", own.join("token"));
        self.wire.start(sidecar, &self.at(&format!("{}.log", end.name)))
    }

    /// The last lines of every program.
    fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["pilot", "citadel", "theirs", "ours"] {
            let log = fs::read_to_string(self.at(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(12).collect();
            text.push_str(&format!("--- {name}\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n")));
        }
        text
    }

    /// One request from a workload's application to a service, or straight to an address.
    fn call(&self, from: &str, to: &End, address: &str) -> Result<Said> {
        let host = format!("host: {}.default.svc.cluster.local:5000", to.name);
        let url = format!("http://{address}:5000/hello");
        self.wire.run(from, "curl", &["-sS", "-m", "5", "-f", "-H", &host, &url])
    }

    /// The calls of a workload to another's service, once the first is answered.
    fn calls(&self, from: &End, to: &End) -> Result<()> {
        let call = || {
            let said = self.call(from.name, to, to.service)?.ok()?;
            ensure!(said.contains(&format!("Hello version: {}", to.name)), "{said}");
            Ok(())
        };
        until("the first call is answered", LIMIT, call)?;
        (0..CALLS).try_for_each(|_| call())
    }

    /// Sum of Envoy's counters whose name starts, and ends, so; fails where there is none.
    fn envoy(&self, start: &str, end: &str) -> Result<u64> {
        let stats = self.wire.run(THEIRS.name, "curl", &["-sS", "-f", "http://127.0.0.1:15000/stats?format=json"])?;
        let all: Value = serde_json::from_str(&stats.ok()?)?;
        let value = |stat: &Value| {
            let name = stat["name"].as_str()?;
            (name.starts_with(start) && name.ends_with(end)).then(|| stat["value"].as_u64())?
        };
        let values: Vec<u64> = all["stats"].as_array().into_iter().flatten().filter_map(value).collect();
        ensure!(!values.is_empty(), "Envoy has no counter {start}…{end}");
        Ok(values.iter().sum())
    }

    /// What our proxy has counted of requests between these two, by mutual TLS, with the caller's proven name.
    fn counted_by_ours(&self, reporter: &str, source: &End, destination: &End) -> Result<u64> {
        let text = self.wire.run(OURS.name, "curl", &["-sS", "-f", "http://127.0.0.1:15020/stats/prometheus"])?.ok()?;
        let wanted = [
            format!("reporter=\"{reporter}\""),
            "response_code=\"200\"".to_owned(),
            format!("source_principal=\"spiffe://cluster.local/ns/default/sa/{}\"", source.name),
            format!("destination_principal=\"spiffe://cluster.local/ns/default/sa/{}\"", destination.name),
        ];
        let lines = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
        let counted = lines.filter(|line| wanted.iter().all(|part| line.contains(part)));
        Ok(counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }
}

fn ours_to_theirs(mesh: &Mesh) -> Result<()> {
    mesh.calls(&OURS, &THEIRS)?;
    let handshakes = mesh.envoy("listener.", ".ssl.handshake")?;
    ensure!(handshakes >= 1, "Envoy has counted no handshake of a caller");
    let served = mesh.envoy("cluster.inbound|5000|", ".upstream_rq_200")?;
    ensure!(served >= CALLS, "Envoy has served {served} requests of {CALLS}");
    let counted = mesh.counted_by_ours("source", &OURS, &THEIRS)?;
    ensure!(counted >= CALLS, "our proxy has counted {counted} calls of {CALLS} with both identities");
    Ok(())
}

fn theirs_to_ours(mesh: &Mesh) -> Result<()> {
    mesh.calls(&THEIRS, &OURS)?;
    let cluster = "cluster.outbound|5000||ours.default.svc.cluster.local";
    let handshakes = mesh.envoy(cluster, ".ssl.handshake")?;
    ensure!(handshakes >= 1, "Envoy has made no handshake as a caller");
    let answered = mesh.envoy(cluster, ".upstream_rq_200")?;
    ensure!(answered >= CALLS, "Envoy had {answered} answers to {CALLS} requests");
    let counted = mesh.counted_by_ours("destination", &THEIRS, &OURS)?;
    ensure!(counted >= CALLS, "our proxy has counted {counted} calls of {CALLS} with both identities");
    Ok(())
}

fn stranger(mesh: &Mesh) -> Result<()> {
    for end in [&THEIRS, &OURS] {
        mesh.calls(if end.name == OURS.name { &THEIRS } else { &OURS }, end)?;
        let said = mesh.call("stranger", end, end.address)?;
        ensure!(said.code != 0, "{} serves a caller without identity: {}", end.name, said.all());
    }
    Ok(())
}

fn every_type(mesh: &Mesh) -> Result<()> {
    mesh.calls(&THEIRS, &OURS)?;
    let types = [
        ("CDS", "cluster_manager.cds."),
        ("LDS", "listener_manager.lds."),
        ("EDS", "cluster.outbound|5000||ours."),
        ("RDS", "http."),
        ("SDS", "sds."),
    ];
    for (kind, start) in types {
        let (taken, refused) = (mesh.envoy(start, ".update_success")?, mesh.envoy(start, ".update_rejected")?);
        eprintln!("  {kind}: {taken} taken, {refused} refused");
        ensure!(taken >= 1 && refused == 0, "{kind}: {taken} taken, {refused} refused");
    }
    Ok(())
}
