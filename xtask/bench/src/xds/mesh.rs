//! The generated mesh as a folder of files, and the changes made to it.
//!
//! 1,000 Services of 10 endpoints in 20 namespaces, every fifth with a TCP port beside its HTTP port; 200
//! DestinationRules with two subsets, 200 VirtualServices with three rules. One file a service.
//! Never here: who reads it. Used by `run`.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Services of the mesh.
pub(crate) const SERVICES: usize = 1000;
/// Endpoints of each.
const ENDPOINTS: usize = 10;
/// Namespaces that they are in.
pub(crate) const NAMESPACES: usize = 20;
/// Every so many services have rules (and a TCP port).
const RULED: usize = 5;

/// Port of HTTP.
pub(crate) const HTTP_PORT: u16 = 80;
const TCP_PORT: u16 = 9000;

/// The service whose endpoint changes: it has no rules.
const CHANGED: usize = 501;
/// The service whose VirtualService changes.
const ROUTED: usize = 500;

/// A generated mesh; the folder goes with it.
pub(crate) struct Folder {
    dir: tempfile::TempDir,
}

/// Name of a service, and of its namespace.
pub(crate) fn service(index: usize) -> (String, String) {
    (format!("svc-{index}"), format!("ns-{}", index % NAMESPACES))
}

fn host(index: usize) -> String {
    let (name, namespace) = service(index);
    format!("{name}.{namespace}.svc.cluster.local")
}

/// The cluster whose endpoints [`Folder::move_endpoint`] changes.
pub(crate) fn changed_cluster() -> String {
    format!("outbound|{HTTP_PORT}||{}", host(CHANGED))
}

/// The virtual host that [`Folder::set_header`] changes.
pub(crate) fn changed_host() -> String {
    format!("{}:{HTTP_PORT}", host(ROUTED))
}

fn write_service(out: &mut String, index: usize) -> std::fmt::Result {
    let (name, namespace) = service(index);
    let ports = if index.is_multiple_of(RULED) {
        format!(
            "[{{name: http, port: {HTTP_PORT}, targetPort: 8080}}, {{name: tcp, port: {TCP_PORT}, targetPort: 9090}}]"
        )
    } else {
        format!("[{{name: http, port: {HTTP_PORT}, targetPort: 8080}}]")
    };
    write!(
        out,
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  clusterIP: \
         198.19.{}.{}\n  selector: {{app: {name}}}\n  ports: {ports}\n---\n",
        index / 250,
        index % 250 + 1
    )
}

fn write_slice(out: &mut String, index: usize, round: usize) -> std::fmt::Result {
    let (name, namespace) = service(index);
    writeln!(
        out,
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-x, namespace: {namespace}, \
         labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}, \
         {{name: tcp, port: 9090, protocol: TCP}}]\nendpoints:"
    )?;
    for at in 0..ENDPOINTS {
        let number = index * ENDPOINTS + at;
        let moved = if at == 0 { round % 4 } else { 0 };
        writeln!(
            out,
            "- {{addresses: [10.{}.{}.{}], conditions: {{ready: true}}}}",
            64 + number / 62_500 + 16 * moved,
            number / 250 % 250,
            number % 250 + 1
        )?;
    }
    Ok(())
}

fn write_rules(out: &mut String, index: usize, round: usize) -> std::fmt::Result {
    let (name, namespace) = service(index);
    let host = host(index);
    write!(
        out,
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         host: {host}\n  trafficPolicy:\n    connectionPool: {{tcp: {{maxConnections: 100}}, http: {{http1MaxPendingRequests: 50}}}}\n    \
         outlierDetection: {{consecutive5xxErrors: 5, interval: 10s, baseEjectionTime: 30s}}\n  subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n  \
         - {{name: v2, labels: {{version: v2}}}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: \
         {{name: {name}, namespace: {namespace}}}\nspec:\n  hosts: [{host}]\n  http:\n  - match: [{{headers: {{end-user: {{exact: jason}}}}}}]\n    \
         route: [{{destination: {{host: {host}, subset: v2, port: {{number: {HTTP_PORT}}}}}}}]\n  - match: [{{uri: {{prefix: /api/v2}}}}]\n    \
         timeout: 5s\n    retries: {{attempts: 3, perTryTimeout: 2s}}\n    route:\n    - {{destination: {{host: {host}, subset: v1, port: \
         {{number: {HTTP_PORT}}}}}, weight: 90}}\n    - {{destination: {{host: {host}, subset: v2, port: {{number: {HTTP_PORT}}}}}, weight: 10}}\n  - \
         headers: {{request: {{set: {{x-round: \"{round}\"}}}}}}\n    route: [{{destination: {{host: {host}, subset: v1, port: {{number: \
         {HTTP_PORT}}}}}}}]\n"
    )
}

fn sheet(index: usize, slice_round: usize, rule_round: usize) -> Result<String> {
    let mut text = String::new();
    write_service(&mut text, index)?;
    write_slice(&mut text, index, slice_round)?;
    if index.is_multiple_of(RULED) {
        write_rules(&mut text, index, rule_round)?;
    }
    Ok(text)
}

impl Folder {
    /// Writes it.
    pub(crate) fn write() -> Result<Self> {
        let folder = Self { dir: tempfile::Builder::new().prefix("bench-xds").tempdir()? };
        for index in 0..SERVICES {
            fs::write(folder.file(index), sheet(index, 0, 0)?)?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, index: usize) -> PathBuf {
        self.path().join(format!("{}.yaml", service(index).0))
    }

    /// Written beside and moved into place, so that no reader sees half of it.
    fn replace(&self, file: &Path, text: &str) -> Result<()> {
        let beside = self.path().join("next.tmp");
        fs::write(&beside, text)?;
        fs::rename(&beside, file).with_context(|| format!("could not replace {}", file.display()))
    }

    /// Gives one endpoint of one service another address.
    pub(crate) fn move_endpoint(&self, round: usize) -> Result<()> {
        self.replace(&self.file(CHANGED), &sheet(CHANGED, round, 0)?)
    }

    /// Changes one header in one VirtualService.
    pub(crate) fn set_header(&self, round: usize) -> Result<()> {
        self.replace(&self.file(ROUTED), &sheet(ROUTED, 0, round)?)
    }

    /// Changes what the workloads of one namespace take: mutual TLS only, or either.
    pub(crate) fn set_policy(&self, round: usize) -> Result<()> {
        let mode = if round.is_multiple_of(2) { "PERMISSIVE" } else { "STRICT" };
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: ns-0}}\nspec: \
             {{mtls: {{mode: {mode}}}}}\n"
        );
        self.replace(&self.path().join("policy.yaml"), &text)
    }
}
