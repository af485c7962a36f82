//! The mesh with Bookinfo in a sandbox: what most whole-mesh suites start from.
//!
//! Never here: assertions about the mesh. Made by the setup of suites.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    judge,
    kubectl::Kubectl,
    load::{self, Judge},
    sandbox::{Sandbox, until},
};

/// What Bookinfo is made of.
pub const FILES: [&str; 2] = ["bookinfo/platform/kube/bookinfo.yaml", "bookinfo/networking/bookinfo-gateway.yaml"];

/// A sandbox with the mesh installed and Bookinfo answering.
pub struct Bookinfo {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// kubectl in namespace `default`.
    pub kubectl: Kubectl,
    /// Where the ingress gateway answers on this machine.
    pub gateway: SocketAddr,
}

impl Bookinfo {
    /// Starts all of it: `meshctl up`, `meshctl install`, Bookinfo with sidecars by webhook.
    ///
    /// # Errors
    /// Anything of it fails, or the page does not answer in time.
    pub fn start(suite: &str) -> Result<Self> {
        let sandbox = Sandbox::start(suite)?;
        sandbox.meshctl(&["install", "--set", "profile=demo", "-y"])?.ok()?;
        Self::deploy(sandbox)
    }

    /// The same in a sandbox with the mesh installed.
    ///
    /// # Errors
    /// Bookinfo is refused, or the page does not answer in time.
    pub fn deploy(sandbox: Sandbox) -> Result<Self> {
        let kubectl = sandbox.kubectl()?;
        kubectl.ok(&["label", "namespace", "default", "istio-injection=enabled"])?;
        for file in FILES {
            kubectl.ok(&["apply", "-f", &manifest(file)])?;
        }
        let gateway = gateway_address(&kubectl)?;
        let bookinfo = Self { sandbox, kubectl, gateway };
        until("productpage answers", Duration::from_secs(90), || {
            let (status, body) = bookinfo.page("/productpage")?;
            ensure!(status == 200, "{status} {body}");
            Ok(())
        })?;
        bookinfo.kubectl.ok(&["wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s"])?;
        Ok(bookinfo)
    }

    /// One page through the gateway, from this machine.
    ///
    /// # Errors
    /// No answer.
    pub fn page(&self, path: &str) -> Result<(u16, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let fetched = runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(15), load::fetch(self.gateway, path)).await });
        let (status, _, body) = fetched.context("no answer within 15 s")??;
        Ok((status, body))
    }

    /// Pages in a row; which versions of reviews served them.
    ///
    /// # Errors
    /// A page that is not whole.
    pub fn versions(&self, loads: u32) -> Result<Vec<&'static str>> {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..loads {
            let (status, body) = self.page("/productpage")?;
            ensure!(whole(status, &body).is_none(), "{status} {body}");
            seen.insert(version(&body));
        }
        Ok(seen.into_iter().collect())
    }
}

/// A file of our own samples.
pub fn manifest(file: &str) -> String {
    judge::workspace().join("examples/manifests").join(file).display().to_string()
}

/// Which version of reviews made this page: by the stars, not by a name.
pub fn version(body: &str) -> &'static str {
    if body.contains("color=\"red\"") {
        "v3"
    } else if body.contains("color=\"black\"") {
        "v2"
    } else {
        "v1"
    }
}

/// What a page lacks; `None`: nothing.
pub fn whole(status: u16, body: &str) -> Option<String> {
    if status != 200 {
        return Some(format!("status {status}: {}", body.chars().take(120).collect::<String>()));
    }
    let broken = ["Error fetching", "currently unavailable"].into_iter().find(|part| body.contains(part));
    let lacking = ["Book Details", "Book Reviews", "Reviewer2"].into_iter().find(|part| !body.contains(part));
    broken
        .map(|part| format!("the page says: {part}"))
        .or_else(|| lacking.map(|part| format!("the page lacks: {part}")))
}

/// Judges pages of a load by status and content.
pub fn whole_pages() -> Judge {
    Arc::new(|status: u16, _: &http::HeaderMap, body: &str, _: Instant| whole(status, body))
}

/// Load balancer address and port 80, or the node port on loopback, whichever answers.
fn gateway_address(kubectl: &Kubectl) -> Result<SocketAddr> {
    until("the gateway has an address", Duration::from_secs(30), || {
        let path = "jsonpath={.status.loadBalancer.ingress[0].ip} {.spec.ports[?(@.name==\"http2\")].nodePort}";
        let said = kubectl.within("istio-system").ok(&["get", "service", "istio-ingressgateway", "-o", path])?;
        let (address, port) = said.split_once(' ').context(said.clone())?;
        let balancer = format!("{address}:80").parse::<SocketAddr>().ok();
        let node = format!("127.0.0.1:{}", port.trim()).parse::<SocketAddr>().ok();
        let limit = Duration::from_secs(1);
        let answers = |address: &SocketAddr| std::net::TcpStream::connect_timeout(address, limit).is_ok();
        balancer
            .into_iter()
            .chain(node)
            .find(answers)
            .context("neither the load balancer address nor the node port answers")
    })
}
