//! The mesh without Kubernetes: pilot reads a folder of YAML, proxies run in network namespaces, identities are files.
//!
//! Never here: an API server. Run by `cargo xtask test`, as a user who may make network namespaces.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    authority::{self, Authority},
    judge,
    netns::Wire,
    sandbox::until,
    suite::{self, Test},
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);
const PROXY_UID: u32 = 1337;
const SERVICE: &str = "198.19.0.10";

struct Folder {
    wire: Wire,
    dir: TempDir,
}

fn main() -> ExitCode {
    let tests = vec![
        Test::new("helloworld_answers_by_weight", by_weight),
        Test::new("a_change_of_a_file_moves_traffic", file_change),
        Test::new("strict_refuses_a_caller_without_identity", strict),
        Test::new("a_broken_file_keeps_the_last_good_objects", broken_file),
    ];
    suite::run("folder", tests, start)
}

/// Root, and what it has signed, as PEM files.
fn certificates(dir: &Path) -> Result<()> {
    let authority = Authority::new()?;
    let spiffe = |account: &str| authority::uri(&format!("spiffe://cluster.local/ns/default/sa/{account}"));
    for (name, san) in [
        ("client", spiffe("client")?),
        ("v1", spiffe("helloworld")?),
        ("v2", spiffe("helloworld")?),
        ("pilot", authority::dns("pilot.test")?),
    ] {
        authority.sign(san)?.write(&dir.join(name))?;
    }
    Ok(())
}

fn pod(version: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: helloworld-{version}, namespace: default, labels: {{app: helloworld, version: {version}, security.istio.io/tlsMode: istio}}}}\nspec: {{serviceAccountName: helloworld, containers: [{{name: main, image: x}}]}}\nstatus: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}\n---\n"
    )
}

fn objects() -> String {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: helloworld, namespace: default}}\nspec: {{clusterIP: {SERVICE}, clusterIPs: [{SERVICE}], selector: {{app: helloworld}}, ports: [{{name: http, port: 5000, targetPort: 5000}}]}}\n---\n"
    );
    let endpoint = |version: &str, address: &str| {
        format!(
            "- {{addresses: [{address}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: helloworld-{version}, namespace: default}}}}\n"
        )
    };
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: helloworld-x, namespace: default, labels: {{kubernetes.io/service-name: helloworld}}}}\naddressType: IPv4\nports: [{{name: http, port: 5000, protocol: TCP}}]\nendpoints:\n{}{}---\n",
        endpoint("v1", "198.18.0.11"),
        endpoint("v2", "198.18.0.12")
    );
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: helloworld, namespace: default}\nspec: {host: helloworld, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n";
    [pod("v1", "198.18.0.11"), pod("v2", "198.18.0.12"), service, slice, rule.to_owned()].concat()
}

fn weights(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: helloworld, namespace: default}}\nspec:\n  hosts: [helloworld]\n  http:\n  - route:\n    - {{destination: {{host: helloworld, subset: v1}}, weight: {v1}}}\n    - {{destination: {{host: helloworld, subset: v2}}, weight: {v2}}}\n"
    )
}

fn start() -> Result<Folder> {
    let dir = tempfile::Builder::new().prefix("folder").tempdir()?;
    // The proxies run as a user of their own and must be able to read their identity.
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    certificates(dir.path())?;
    let mesh = dir.path().join("mesh");
    fs::create_dir_all(&mesh)?;
    fs::write(mesh.join("objects.yaml"), objects())?;
    fs::write(mesh.join("routes.yaml"), weights(80, 20))?;
    let mut wire = Wire::new()?;
    for (host, address) in [
        ("control", "198.18.0.2"),
        ("client", "198.18.0.10"),
        ("v1", "198.18.0.11"),
        ("v2", "198.18.0.12"),
        ("outside", "198.18.0.20"),
    ] {
        wire.host(host, address)?;
    }
    let mut pilot = wire.command("control", 0, &judge::ours("pilot"));
    pilot.args([
        "--folder",
        &mesh.display().to_string(),
        "--identity",
        &dir.path().join("pilot").display().to_string(),
        "--webhook",
        "off",
    ]);
    wire.start(pilot, &dir.path().join("pilot.log"))?;
    let mut folder = Folder { wire, dir };
    for (host, address, account) in
        [("client", "198.18.0.10", "client"), ("v1", "198.18.0.11", "helloworld"), ("v2", "198.18.0.12", "helloworld")]
    {
        if host != "client" {
            folder.application(host)?;
        }
        folder.sidecar(host, address, account)?;
    }
    until("the service answers", LIMIT, || hello(&folder, "client").map(drop)).with_context(|| logs(&folder))?;
    Ok(folder)
}

impl Folder {
    fn application(&mut self, host: &str) -> Result<()> {
        let mut app = self.wire.command(host, 0, &judge::ours("samples"));
        app.arg("helloworld").env("SERVICE_VERSION", host);
        self.wire.start(app, &self.dir.path().join(format!("{host}-app.log")))
    }

    fn sidecar(&mut self, host: &str, address: &str, account: &str) -> Result<()> {
        self.wire.capture(host)?;
        let mut proxy = self.wire.command(host, PROXY_UID, &judge::ours("proxy"));
        let (name, labels) = if host == "client" {
            ("client".to_owned(), r#"{"app":"client"}"#.to_owned())
        } else {
            (format!("helloworld-{host}"), format!(r#"{{"app":"helloworld","version":"{host}"}}"#))
        };
        proxy
            .args(["sidecar", "--domain", "default.svc.cluster.local"])
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", "default")
            .env("INSTANCE_IP", address)
            .env("SERVICE_ACCOUNT", account)
            .env("PILOT_ADDR", "198.18.0.2:15012")
            .env("PILOT_SAN", "pilot.test")
            .env("FILE_MOUNTED_CERTS", "true")
            .env("PROV_CERT", self.dir.path().join(host))
            .env("ISTIO_METAJSON_LABELS", labels);
        self.wire.start(proxy, &self.dir.path().join(format!("{host}-proxy.log")))
    }
}

/// The last lines of every program.
fn logs(f: &Folder) -> String {
    let mut text = String::new();
    for name in ["pilot", "client-proxy", "v1-proxy", "v2-proxy"] {
        let log = fs::read_to_string(f.dir.path().join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        text.push_str(&format!("--- {name}\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n")));
    }
    text
}

fn hello(f: &Folder, host: &str) -> Result<String> {
    let url = format!("http://{SERVICE}:5000/hello");
    let said = f.wire.run(
        host,
        "curl",
        &["-sS", "-m", "3", "-f", "-H", "host: helloworld.default.svc.cluster.local:5000", &url],
    )?;
    said.ok()
}

fn share_of_v2(f: &Folder, loads: u32) -> Result<u32> {
    let mut second = 0;
    for _ in 0..loads {
        let said = hello(f, "client")?;
        ensure!(said.contains("Hello version: v"), "{said}");
        second += u32::from(said.contains("version: v2"));
    }
    Ok(second)
}

fn by_weight(f: &Folder) -> Result<()> {
    let second = share_of_v2(f, 200)?;
    // Binomial with p = 0.2: outside 12..=70 once in many millions of runs.
    ensure!((12..=70).contains(&second), "{second} of 200 went to v2, expected about 40");
    Ok(())
}

fn file_change(f: &Folder) -> Result<()> {
    fs::write(f.dir.path().join("mesh/routes.yaml"), weights(0, 100))?;
    until("only v2", LIMIT, || {
        ensure!(share_of_v2(f, 10)? == 10);
        Ok(())
    })
}

fn strict(f: &Folder) -> Result<()> {
    let plain = || f.wire.run("outside", "curl", &["-sS", "-m", "3", "-f", "http://198.18.0.12:5000/hello"]);
    until("served under PERMISSIVE", LIMIT, || plain()?.ok().map(drop))?;
    let policy = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\nspec: {mtls: {mode: STRICT}}\n";
    fs::write(f.dir.path().join("mesh/strict.yaml"), policy)?;
    until("refused under STRICT", LIMIT, || plain()?.fails().map(drop))?;
    hello(f, "client").map(drop)
}

fn broken_file(f: &Folder) -> Result<()> {
    fs::write(
        f.dir.path().join("mesh/routes.yaml"),
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: [\n",
    )?;
    // The route to v2 alone was the last good one.
    for _ in 0..20 {
        ensure!(share_of_v2(f, 1)? == 1, "the route was lost");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
