//! Starts the programs of one measurement: the application, and the proxies of one contender in one layout.
//!
//! Every measurement has fresh processes; all are ended with the rig.
//! Never here: load. Called by `data`.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    certificates::{CLIENT, SERVER},
    envoy, load, ours, plain,
    shape::{Contender, Hop, Layout, Peer, Shape, Side},
};
use crate::process::{Process, on_core};

const READY: Duration = Duration::from_secs(60);

/// Where programs and files are, and which core is whose.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Our programs.
    pub(super) programs: PathBuf,
    /// Scratch files.
    pub(super) dir: PathBuf,
    /// Core of the load and the application.
    pub(super) load_core: usize,
    /// Core of the proxies.
    pub(super) proxy_core: usize,
}

/// Running programs.
#[derive(Debug)]
pub(super) struct Rig {
    /// Proxies, in the order in which a request meets them.
    pub(super) proxies: Vec<Process>,
    /// Where the load goes.
    pub(super) address: SocketAddr,
    _app: Process,
}

fn free(count: usize) -> Result<Vec<SocketAddr>> {
    // All are held at once, so that none comes twice.
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}

/// The hops from the load to the application.
fn hops(layout: Layout, free: &[SocketAddr], app: [SocketAddr; 3]) -> Vec<Hop> {
    let [http1, http2, source] = app;
    let hop = |inward, outward, at: usize, upstream| Hop { inward, outward, listen: free[at], upstream };
    match layout {
        Layout::One => vec![hop(Side::Http1, Side::Http1, 0, http1)],
        Layout::Serving => vec![hop(Side::Tls, Side::Http1, 0, http1)],
        Layout::Bytes => vec![hop(Side::Bytes, Side::Bytes, 0, source)],
        Layout::Two(inward, outward) => {
            let upstream = if outward == Side::Http2 { http2 } else { http1 };
            vec![hop(inward, Side::Tls, 0, free[1]), hop(Side::Tls, outward, 1, upstream)]
        }
    }
}

impl Places {
    /// The certificates of a hop.
    fn certificates(&self, hop: &Hop) -> PathBuf {
        self.dir.join(if hop.inward == Side::Tls { SERVER } else { CLIENT })
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
        Ok(path)
    }

    fn floor(&self, core: usize) -> Command {
        on_core(core, self.programs.join("bench-floor"))
    }

    /// The command that runs one hop.
    fn command(&self, contender: &Contender, hop: &Hop, number: usize, grpc: bool) -> Result<Command> {
        let certificates = self.certificates(hop);
        match contender.peer {
            Peer::Ours => {
                let log = self.dir.join(format!("access-{number}.log"));
                let spec = ours::instructions(hop, contender.size, grpc, &log.display().to_string())?;
                let spec = self.write(&format!("spec-{number}.json"), &serde_json::to_string(&spec)?)?;
                let mut command = on_core(self.proxy_core, self.programs.join("proxy"));
                command.args(["sidecar", "--concurrency", "1", "--log_output_level", "default:warning"]);
                command.args(["--domain", "default.svc.cluster.local"]);
                command.env("PROXY_SPEC", spec).env("FILE_MOUNTED_CERTS", "true").env("PROV_CERT", certificates);
                let account = if hop.inward == Side::Tls { SERVER } else { CLIENT };
                command.env("POD_NAME", format!("{account}-v1-0")).env("POD_NAMESPACE", "default");
                command.env("SERVICE_ACCOUNT", account).env("INSTANCE_IP", "127.0.0.1");
                command.env("ISTIO_METAJSON_LABELS", format!(r#"{{"app":"{account}","version":"v1"}}"#));
                for port in ["PROXY_ADMIN_PORT", "PROXY_STATUS_PORT", "PROXY_READY_PORT", "ENVOY_PROMETHEUS_PORT"] {
                    command.env(port, "0");
                }
                Ok(command)
            }
            Peer::Envoy => {
                let config = envoy::bootstrap(hop, &certificates).to_string();
                let config = self.write(&format!("envoy-{number}.json"), &config)?;
                let mut command = on_core(self.proxy_core, "envoy");
                command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"]).arg(config);
                Ok(command)
            }
            Peer::Floor if hop.inward == Side::Bytes => {
                let mut command = self.floor(self.proxy_core);
                command.args(["tcp", &hop.listen.to_string(), &hop.upstream.to_string()]);
                Ok(command)
            }
            Peer::Floor => {
                let mut command = self.floor(self.proxy_core);
                command.args(["hop", word(hop.inward), &hop.listen.to_string()]);
                command.args([word(hop.outward), &hop.upstream.to_string()]).arg(certificates);
                Ok(command)
            }
            Peer::Haproxy => {
                let config = self.write("haproxy.cfg", &plain::haproxy(hop))?;
                let mut command = on_core(self.proxy_core, "haproxy");
                command.arg("-db").arg("-f").arg(config);
                Ok(command)
            }
            Peer::Nginx => {
                let config = self.write("nginx.conf", &plain::nginx(hop, &self.dir))?;
                let mut command = on_core(self.proxy_core, "nginx");
                command.arg("-c").arg(config).arg("-p").arg(&self.dir);
                Ok(command)
            }
        }
    }

    /// Where the load goes for a rig.
    pub(super) fn target<'t>(&self, rig: &Rig, certificates: &'t Path) -> load::Target<'t> {
        load::Target { address: rig.address, certificates, core: self.load_core }
    }

    /// Starts everything, and waits until the way is open.
    #[expect(clippy::disallowed_methods, reason = "waits for programs that others wrote")]
    pub(super) fn start(&self, contender: &Contender, shape: &Shape) -> Result<Rig> {
        let addresses = free(5)?;
        let app = [addresses[2], addresses[3], addresses[4]];
        let grpc = shape.grpc();
        let mut command = self.floor(self.load_core);
        command.arg("app").args(app.map(|address| address.to_string()));
        let app_process = Process::start(command, &self.dir.join("app.log"))?;
        let hops = hops(shape.layout, &addresses, app);
        let mut proxies = Vec::new();
        for (number, hop) in hops.iter().enumerate() {
            let command = self.command(contender, hop, number, grpc)?;
            proxies.push(Process::start(command, &self.dir.join(format!("proxy-{number}.log")))?);
        }
        let mut rig = Rig { proxies, address: addresses[0], _app: app_process };
        let began = Instant::now();
        let certificates = self.dir.join(CLIENT);
        loop {
            let Err(error) = load::probe(self.target(&rig, &certificates), shape.layout, grpc) else { return Ok(rig) };
            let dead = rig.proxies.iter_mut().any(|proxy| !proxy.runs());
            if dead || began.elapsed() > READY {
                bail!("no answer through {}: {error:#}\n{}", contender.name(), self.logs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines that the proxies printed.
    pub(super) fn logs(&self) -> String {
        (0..2)
            .filter_map(|number| fs::read_to_string(self.dir.join(format!("proxy-{number}.log"))).ok())
            .flat_map(|text| text.lines().rev().take(5).map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Whether our own programs are where they should be.
    pub(super) fn check(&self) -> Result<()> {
        for name in ["proxy", "bench-floor"] {
            ensure!(self.programs.join(name).is_file(), "{name} is not in {}", self.programs.display());
        }
        Ok(())
    }
}

/// The floor's word for what is spoken on one side.
fn word(side: Side) -> &'static str {
    match side {
        Side::Http1 | Side::Bytes => "h1",
        Side::Http2 => "h2",
        Side::Tls => "tls",
    }
}

/// Whether a program is on the search path.
pub(super) fn found(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
