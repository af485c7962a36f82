//! Clients that others wrote, on our pilot: a real Envoy by both protocols, and a gRPC program without a proxy.
//!
//! Pilot reads a folder and serves plaintext xDS; programs run in network namespaces.
//! Never here: mutual TLS between Envoy and our proxy (`bookinfo`). Run by `cargo xtask test`, as root.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    judge,
    kubectl::Said,
    netns::Wire,
    sandbox::until,
    suite::{self, Outcome, Test},
};
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);
const PILOT: &str = "198.18.0.2";
const ENVOY_UID: u32 = 1337;
/// Both versions, by HTTP.
const HELLO: &str = "http://198.19.0.50/hello";

struct Peers {
    wire: std::cell::RefCell<Wire>,
    dir: TempDir,
}

fn main() -> ExitCode {
    let tests = vec![
        Test::maybe("envoy_takes_everything_by_delta", |peers: &Peers| {
            envoy(peers, "delta", "198.18.0.21", "DELTA_GRPC")
        }),
        Test::maybe("envoy_takes_everything_by_state_of_the_world", |peers: &Peers| {
            envoy(peers, "whole", "198.18.0.22", "GRPC")
        }),
        Test::maybe("a_grpc_program_is_told_where_to_call", grpc),
    ];
    suite::run("peers", tests, start)
}

fn data(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/xds").join(file)
}

/// A file of test data with its placeholders filled in.
fn filled(file: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut text = fs::read_to_string(data(file))?;
    for (name, value) in values {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    Ok(text)
}

fn start() -> Result<Peers> {
    let dir = tempfile::Builder::new().prefix("peers").tempdir()?;
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mesh = dir.path().join("mesh");
    fs::create_dir_all(&mesh)?;
    for file in ["helloworld.yaml", "plain.yaml"] {
        fs::copy(data("mesh").join(file), mesh.join(file))?;
    }
    let mut wire = Wire::new()?;
    wire.host("control", PILOT)?;
    let mut pilot = wire.command("control", 0, &judge::ours("pilot"));
    pilot.args(["--folder", &mesh.display().to_string()]);
    wire.start(pilot, &dir.path().join("pilot.log"))?;
    for (version, address) in [("v1", "198.18.0.11"), ("v2", "198.18.0.12")] {
        wire.host(version, address)?;
        let mut app = wire.command(version, 0, &judge::ours("samples"));
        app.arg("helloworld").env("SERVICE_VERSION", version);
        wire.start(app, &dir.path().join(format!("{version}.log")))?;
    }
    until("pilot is ready", LIMIT, || {
        wire.run("control", "curl", &["-sS", "-f", "http://127.0.0.1:15014/ready"])?.ok().map(drop)
    })?;
    Ok(Peers { wire: std::cell::RefCell::new(wire), dir })
}

impl Peers {
    fn run(&self, host: &str, program: &str, args: &[&str]) -> Result<String> {
        self.wire.borrow().run(host, program, args)?.ok()
    }

    /// The Envoy's counters whose name ends so.
    fn counters(&self, host: &str, ending: &str) -> Result<Vec<(String, u64)>> {
        let text = self.run(host, "curl", &["-sS", "-f", "http://127.0.0.1:15000/stats?format=json"])?;
        let all: Value = serde_json::from_str(&text)?;
        let one = |stat: &Value| {
            let name = stat["name"].as_str().filter(|name| name.ends_with(ending))?;
            Some((name.to_owned(), stat["value"].as_u64()?))
        };
        Ok(all["stats"].as_array().into_iter().flatten().filter_map(one).collect())
    }

    fn sum(&self, host: &str, ending: &str, part: &str) -> Result<u64> {
        let counters = self.counters(host, ending)?;
        Ok(counters.iter().filter(|(name, _)| name.contains(part)).map(|(_, value)| value).sum())
    }

    fn refused_nothing(&self, host: &str) -> Result<()> {
        let refused: Vec<_> =
            self.counters(host, "update_rejected")?.into_iter().filter(|(_, value)| *value > 0).collect();
        ensure!(refused.is_empty(), "{refused:?}");
        Ok(())
    }
}

fn envoy(peers: &Peers, host: &str, address: &str, protocol: &str) -> Result<Outcome> {
    let Some(program) = judge::program("envoy") else { return Ok(Outcome::NotRun("no envoy on the path".to_owned())) };
    let id = format!("sidecar~{address}~{host}-1.default~default.svc.cluster.local");
    let bootstrap = filled(
        "envoy-bootstrap.yaml",
        &[
            ("NODE_ID", &id),
            ("PILOT_HOST", PILOT),
            ("PILOT_PORT", "15010"),
            ("API_TYPE", protocol),
            ("ADMIN_PORT", "15000"),
            ("SDS_SOCKET", "/run/no-secrets"),
        ],
    )?;
    let file = peers.dir.path().join(format!("{host}.yaml"));
    fs::write(&file, bootstrap)?;
    {
        let mut wire = peers.wire.borrow_mut();
        wire.host(host, address)?;
        let redirect = [
            "iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "",
            "-d", "",
        ];
        Said::of(wire.command(host, 0, &judge::ours("proxy")).args(redirect))?.ok()?;
        let mut envoy = wire.command(host, ENVOY_UID, &program);
        envoy.args(["-c", &file.display().to_string(), "--concurrency", "1", "-l", "warning", "--disable-hot-restart"]);
        wire.start(envoy, &peers.dir.path().join(format!("{host}.log")))?;
    }
    let log = || fs::read_to_string(peers.dir.path().join(format!("{host}.log"))).unwrap_or_default();
    until("Envoy has taken every type", LIMIT, || {
        for (part, kind) in
            [("cluster_manager.cds", "CDS"), ("lds", "LDS"), ("cluster.outbound", "EDS"), (".rds.", "RDS")]
        {
            ensure!(peers.sum(host, "update_success", part)? >= 1, "no {kind} yet");
        }
        Ok(())
    })
    .with_context(log)?;
    peers.refused_nothing(host)?;

    let hello = || peers.run(host, "curl", &["-sS", "-m", "5", "-f", "-H", "host: helloworld.default", HELLO]);
    until("a request goes through Envoy", LIMIT, || hello().map(drop)).with_context(log)?;
    let before = peers.sum(host, "upstream_rq_total", "cluster.outbound|80|")?;
    for _ in 0..20 {
        ensure!(hello()?.contains("Hello version: v"));
    }
    let after = peers.sum(host, "upstream_rq_total", "cluster.outbound|80|")?;
    ensure!(after >= before + 20, "{after} requests counted after {before}");

    // A change of weights reaches it, and so does one of endpoints; nothing is refused on the way.
    let objects = peers.dir.path().join("mesh/helloworld.yaml");
    let good = fs::read_to_string(&objects)?;
    fs::write(&objects, good.replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 100"))?;
    let moved = until("all goes to v2", LIMIT, || {
        for _ in 0..5 {
            ensure!(hello()?.contains("version: v2"), "v1 still answers");
        }
        Ok(())
    });
    fs::write(&objects, good)?;
    moved?;
    peers.refused_nothing(host)?;
    Ok(Outcome::Passed)
}

fn grpc(peers: &Peers) -> Result<Outcome> {
    let has_grpc = |python: &PathBuf| {
        Said::of(std::process::Command::new(python).args(["-c", "import grpc"])).is_ok_and(|said| said.ok().is_ok())
    };
    let Some(python) = judge::program("python3").filter(has_grpc) else {
        return Ok(Outcome::NotRun("no python3 with grpcio on the path".to_owned()));
    };
    let script = data("grpc_hello.py").display().to_string();
    let id = "sidecar~198.18.0.30~program-1.default~default.svc.cluster.local";
    let bootstrap = filled("grpc-bootstrap.json", &[("NODE_ID", id), ("PILOT_HOST", PILOT), ("PILOT_PORT", "15010")])?;
    let file = peers.dir.path().join("grpc.json");
    fs::write(&file, bootstrap)?;
    let mut wire = peers.wire.borrow_mut();
    wire.host("program", "198.18.0.30")?;
    for version in ["v1", "v2"] {
        let mut server = wire.command(version, 0, &python);
        server.args([&script, "serve", "5001", version]);
        wire.start(server, &peers.dir.path().join(format!("{version}-grpc.log")))?;
    }
    let mut said = String::new();
    let answered = until("both versions answer", LIMIT, || {
        let mut call = wire.command("program", 0, &python);
        call.args([&script, "call", "xds:///helloworld.default.svc.cluster.local:5000", "200"]);
        said = Said::of(call.env("GRPC_XDS_BOOTSTRAP", &file))?.ok()?;
        let answers: Value = serde_json::from_str(said.trim())?;
        let count = |name: &str| answers[name].as_u64().unwrap_or(0);
        ensure!(count("v1") + count("v2") == 200, "some calls failed");
        ensure!(count("v1") > count("v2") && count("v2") > 0, "not by weight");
        Ok(())
    });
    answered.with_context(|| said.clone())?;
    Ok(Outcome::Passed)
}
