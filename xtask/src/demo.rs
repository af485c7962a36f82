//! The main job in one command: sandbox up, mesh installed, Bookinfo deployed and answering.
//!
//! Says what is missing on this machine, and with which command it is installed. Never here: what `meshctl` or
//! `kubectl` can do; they do it. Called as `cargo xtask demo`.

use std::{
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{sh, test};

const NAME: &str = "demo";
const FIRST_PAGE_LIMIT: Duration = Duration::from_secs(120);
/// Program, and the command that installs it on Debian or Ubuntu.
const NEEDED: [(&str, &str); 4] = [
    ("cc", "sudo apt-get install gcc libc6-dev"),
    ("curl", "sudo apt-get install curl"),
    ("nft", "sudo apt-get install nftables"),
    ("kubectl", "sudo apt-get install kubernetes-client   (or any kubectl of 1.27 to 1.33)"),
];

/// Brings the demo up; doing it again is harmless.
#[expect(clippy::disallowed_methods, reason = "how long a person waited is what is told")]
pub(crate) fn up() -> Result<()> {
    let missing: Vec<String> =
        NEEDED.iter().filter(|(name, _)| !sh::found(name)).map(|(name, how)| format!("  {name}: {how}")).collect();
    if !missing.is_empty() {
        bail!("missing on this machine:\n{}", missing.join("\n"));
    }
    test::build_programs()?;
    let began = Instant::now();
    meshctl(["up", "--name", NAME]).run()?;
    meshctl(["install", "--name", NAME, "--set", "profile=demo", "-y"]).run()?;
    kubectl(["label", "namespace", "default", "istio-injection=enabled", "--overwrite"])?.run()?;
    let samples = sh::root().join("examples/manifests/bookinfo");
    for file in ["platform/kube/bookinfo.yaml", "networking/bookinfo-gateway.yaml"] {
        kubectl(["apply", "-f"])?.args([samples.join(file)]).run()?;
    }
    let url = format!("{}/productpage", base_url()?);
    while fetch(&url)?.0 != 200 {
        if began.elapsed() > FIRST_PAGE_LIMIT {
            kubectl(["get", "pods", "-A"])?.run()?;
            bail!("{url} has not answered 200 within {FIRST_PAGE_LIMIT:?}");
        }
        sleep(Duration::from_millis(100));
    }
    let waited = began.elapsed();
    kubectl(["wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s"])?.run()?;
    let versions = versions_seen(&url, 60)?;
    let meshctl = program().display().to_string();
    eprintln!(
        "
Bookinfo runs through the mesh: {url}
  first page after {:.1} s; 60 loads were served by reviews {}

Try next:
  eval \"$({meshctl} env --name {NAME})\"                    # kubectl and meshctl now talk to the sandbox
  kubectl get pods -A
  kubectl apply -f examples/manifests/bookinfo/networking/destination-rule-all.yaml
  kubectl apply -f examples/manifests/bookinfo/networking/virtual-service-reviews-v3.yaml     # red stars only
  {meshctl} proxy-status
  cargo xtask demo down",
        waited.as_secs_f64(),
        versions.join(", "),
    );
    if versions.len() < 3 {
        bail!("expected pages of reviews v1, v2 and v3");
    }
    Ok(())
}

/// Stops the demo's sandbox and removes its state.
pub(crate) fn down() -> Result<()> {
    meshctl(["down", "--name", NAME]).run()
}

fn program() -> PathBuf {
    sh::target().join("demo/meshctl")
}

fn meshctl<const N: usize>(args: [&str; N]) -> sh::Run {
    sh::program(program()).args(args)
}

fn kubectl<const N: usize>(args: [&str; N]) -> Result<sh::Run> {
    Ok(sh::program("kubectl").env("KUBECONFIG", kubeconfig()?).args(args))
}

fn kubeconfig() -> Result<String> {
    let env = meshctl(["env", "--name", NAME]).read()?;
    let line = env.lines().find_map(|line| line.strip_prefix("export KUBECONFIG="));
    Ok(line.context("`meshctl env` does not name a kubeconfig")?.trim_matches(['"', '\'']).to_owned())
}

/// Where the ingress gateway answers on this machine: its load balancer address, or its node port.
fn base_url() -> Result<String> {
    let service = kubectl(["-n", "istio-system", "get", "service", "istio-ingressgateway", "-o"])?
        .args(["jsonpath={.status.loadBalancer.ingress[0].ip} {.spec.ports[?(@.name==\"http2\")].nodePort}"])
        .read()?;
    let (address, port) = service.trim().split_once(' ').unwrap_or(("", service.trim()));
    let load_balancer = format!("http://{address}");
    if !address.is_empty() && sh::program("curl").args(["-s", "-o", "/dev/null", "-m", "2", &load_balancer]).quiet() {
        return Ok(load_balancer);
    }
    Ok(format!("http://127.0.0.1:{port}"))
}

fn fetch(url: &str) -> Result<(u16, String)> {
    let text = sh::program("sh").args(["-c", "curl -s -m 5 -w '\\n%{http_code}' \"$0\" || true", url]).read()?;
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", "0"));
    Ok((code.trim().parse().unwrap_or(0), body.to_owned()))
}

fn versions_seen(url: &str, loads: u32) -> Result<Vec<&'static str>> {
    let mut seen = [false; 3];
    for _ in 0..loads {
        let (status, body) = fetch(url)?;
        if status != 200 {
            bail!("{url} answered {status}");
        }
        let version = if body.contains("color=\"red\"") {
            2
        } else if body.contains("color=\"black\"") {
            1
        } else {
            0
        };
        seen[version] = true;
    }
    Ok(["v1", "v2", "v3"].into_iter().zip(seen).filter(|(_, seen)| *seen).map(|(name, _)| name).collect())
}
