//! The mesh on a wire: pilot over a folder, a client's sidecar, an application's sidecar, and a host that spoils.
//!
//! Identities are files with a lifetime that the test chooses; the application is this process, so that a test can make
//! it die or count what it saw. Hosts are in 198.18.0.0/16, Services in 198.19.0.0/16.
//! Never here: what is tested. Called by suites about faults.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{judge, netns::Wire, processes, sandbox::until};

/// Longest wait for what must come.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Address of the application's Service, captured by sidecars.
pub const SERVICE: &str = "198.19.0.10";
/// Address of the Service whose only endpoint is the host that spoils.
pub const SPOILT: &str = "198.19.0.11";
/// The host that spoils.
pub const SPOILER: &str = "198.18.0.30";
const PILOT: &str = "198.18.0.2";
const CLIENT: &str = "198.18.0.10";
const APP: &str = "198.18.0.11";
/// Port of the application, and of both Services.
pub const PORT: u16 = 5000;
/// The user of sidecars.
pub const PROXY_UID: u32 = 1337;
/// Longest request head that the application reads.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The mesh; everything ends when it is dropped.
pub struct Rig {
    /// The hosts.
    pub wire: Wire,
    /// Logs, identities and the folder of objects.
    pub dir: TempDir,
    /// Requests that the application saw.
    pub seen: Arc<AtomicU64>,
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
}

fn objects() -> String {
    let pod = |name: &str, address: &str, mesh: bool| {
        let mode = if mesh { ", security.istio.io/tlsMode: istio" } else { "" };
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{app: {name}{mode}}}}}\nspec: {{serviceAccountName: {name}, containers: [{{name: main, image: x}}]}}\nstatus: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}\n---\n"
        )
    };
    let service = |name: &str, ip: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{clusterIP: {ip}, clusterIPs: [{ip}], selector: {{app: {name}}}, ports: [{{name: http, port: {PORT}, targetPort: {PORT}}}, {{name: tcp, port: 5001, targetPort: 5001}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-x, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: http, port: {PORT}, protocol: TCP}}, {{name: tcp, port: 5001, protocol: TCP}}]\nendpoints:\n- {{addresses: [{address}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {name}, namespace: default}}}}\n---\n"
        )
    };
    // Through the host that spoils every try has a limit; others take what they take.
    let routing = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: spoilt, namespace: default}\nspec:\n  hosts: [spoilt]\n  http:\n  - timeout: 3s\n    retries: {attempts: 0}\n    route: [{destination: {host: spoilt}}]\n---\n";
    [
        pod("app", APP, true),
        pod("spoilt", SPOILER, false),
        service("app", SERVICE, APP),
        service("spoilt", SPOILT, SPOILER),
        routing.to_owned(),
    ]
    .concat()
}

impl Rig {
    /// Starts everything and waits until the application answers through both sidecars. `mesh`: the mesh's settings.
    ///
    /// # Errors
    /// Something does not start; the error holds the programs' last words.
    pub fn start(mesh: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("rig").tempdir()?;
        // The proxies run as a user of their own and must be able to read their identity.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let root_key = KeyPair::generate()?;
        let mut root = CertificateParams::new(Vec::new())?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (root.not_before, root.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
        let root_pem = root.self_signed(&root_key)?.pem();
        let issuer = Issuer::new(root, root_key);
        let mut rig = Self { wire: Wire::new()?, dir, seen: Arc::default(), issuer, root_pem };
        for account in ["client", "app", "pilot"] {
            rig.identity(account, None)?;
        }
        fs::create_dir_all(rig.path("mesh"))?;
        let settings = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |-\n    {}\n",
            mesh.replace('\n', "\n    ")
        );
        fs::write(rig.path("mesh/objects.yaml"), objects() + &settings)?;
        for (host, address) in [("control", PILOT), ("client", CLIENT), ("app", APP), ("spoiler", SPOILER)] {
            rig.wire.host(host, address)?;
        }
        rig.start_pilot()?;
        rig.start_application("app")?;
        for (host, address) in [("client", CLIENT), ("app", APP)] {
            rig.start_sidecar(host, address)?;
        }
        until("the application answers", LIMIT, || rig.get(SERVICE, "/size/1").map(drop))
            .with_context(|| rig.logs())?;
        Ok(rig)
    }

    /// A path in the rig's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Signs an identity that lives so long from now (none: for decades), and puts its files in place.
    ///
    /// # Errors
    /// It cannot be signed or written.
    pub fn identity(&self, account: &str, life: Option<Duration>) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(Vec::new())?;
        leaf.distinguished_name = DistinguishedName::new();
        leaf.subject_alt_names = vec![match account {
            "pilot" => SanType::DnsName("pilot.test".try_into()?),
            name => SanType::URI(format!("spiffe://cluster.local/ns/default/sa/{name}").try_into()?),
        }];
        leaf.use_authority_key_identifier_extension = true;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (leaf.not_before, leaf.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
        if let Some(life) = life {
            leaf.not_after = now() + life;
        }
        let folder = self.path(account);
        fs::create_dir_all(&folder)?;
        let put = |name: &str, text: &str| -> Result<()> {
            let new = folder.join(format!(".{name}"));
            fs::write(&new, text)?;
            Ok(fs::rename(new, folder.join(name))?)
        };
        put("root-cert.pem", &self.root_pem)?;
        put("key.pem", &key.serialize_pem())?;
        put("cert-chain.pem", &leaf.signed_by(&key, &self.issuer)?.pem())
    }

    /// Starts pilot over the folder.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_pilot(&mut self) -> Result<()> {
        let mut pilot = self.wire.command("control", 0, &judge::ours("pilot"));
        pilot.arg("--folder").arg(self.path("mesh")).arg("--identity").arg(self.path("pilot"));
        pilot.args(["--webhook", "off"]);
        let log = self.path("pilot.log");
        self.wire.start(pilot, &log)
    }

    /// Adds a host with the application and a sidecar; its objects are the caller's to write.
    ///
    /// # Errors
    /// Something cannot be started.
    pub fn workload(&mut self, host: &str, address: &str) -> Result<()> {
        self.identity(host, None)?;
        self.wire.host(host, address)?;
        self.start_application(host)?;
        self.start_sidecar(host, address)
    }

    fn start_application(&self, host: &str) -> Result<()> {
        let seen = Arc::clone(&self.seen);
        // Ends with the process: it has nothing to clean up.
        self.wire.thread(host, move || application(&seen)).map(drop)
    }

    fn start_sidecar(&mut self, host: &str, address: &str) -> Result<()> {
        self.wire.capture(host)?;
        let mut proxy = self.wire.command(host, PROXY_UID, &judge::ours("proxy"));
        proxy
            .args(["sidecar", "--domain", "default.svc.cluster.local", "--concurrency", "1"])
            .env("POD_NAME", host)
            .env("POD_NAMESPACE", "default")
            .env("INSTANCE_IP", address)
            .env("SERVICE_ACCOUNT", host)
            .env("PILOT_ADDR", format!("{PILOT}:15012"))
            .env("PILOT_SAN", "pilot.test")
            .env("FILE_MOUNTED_CERTS", "true")
            .env("PROV_CERT", self.path(host))
            .env("ISTIO_METAJSON_LABELS", format!(r#"{{"app":"{host}"}}"#));
        let log = self.path(&format!("{host}-proxy.log"));
        self.wire.start(proxy, &log)
    }

    /// The process of a host's sidecar.
    ///
    /// # Errors
    /// There is none.
    pub fn sidecar(&self, host: &str) -> Result<i32> {
        let own = i32::try_from(std::process::id())?;
        let wanted = format!("POD_NAME={host}\0");
        processes::below(own, "proxy")?
            .into_iter()
            .find(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                String::from_utf8_lossy(&environment).contains(&wanted)
            })
            .with_context(|| format!("no sidecar in {host}"))
    }

    /// The process of pilot.
    ///
    /// # Errors
    /// There is none.
    pub fn pilot(&self) -> Result<i32> {
        let found = processes::below(i32::try_from(std::process::id())?, "pilot")?;
        found.into_iter().find(|pid| processes::running(*pid)).context("no pilot")
    }

    /// Kills pilot without a word.
    ///
    /// # Errors
    /// There is none.
    pub fn kill_pilot(&self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.pilot()?);
        Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?)
    }

    /// One GET by curl from the client's host: status, or why there is none.
    ///
    /// # Errors
    /// curl says that the transfer failed, or the status is not 200.
    pub fn get(&self, ip: &str, path: &str) -> Result<String> {
        self.curl(ip, path, &["-sS", "-m", "10", "-f"])
    }

    /// The head of the reply to one GET by curl from the client's host.
    ///
    /// # Errors
    /// As for [`Rig::get`].
    pub fn head(&self, ip: &str, path: &str) -> Result<String> {
        self.curl(ip, path, &["-sS", "-m", "10", "-f", "-o", "/dev/null", "-D", "-"])
    }

    fn curl(&self, ip: &str, path: &str, how: &[&str]) -> Result<String> {
        let url = format!("http://{ip}:{PORT}{path}");
        let name = if ip == SERVICE { "app" } else { "spoilt" };
        let host = format!("host: {name}.default.svc.cluster.local:{PORT}");
        self.wire.run("client", "curl", &[how, &["-H", &host, &url]].concat())?.ok()
    }

    /// A page of a sidecar's admin.
    ///
    /// # Errors
    /// It does not answer.
    pub fn admin(&self, host: &str, path: &str) -> Result<String> {
        let url = format!("http://127.0.0.1:15000{path}");
        self.wire.run(host, "curl", &["-sS", "-m", "5", "-f", &url])?.ok()
    }

    /// A number of a sidecar's `/stats`.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn stat(&self, host: &str, name: &str) -> Result<u64> {
        let page = self.admin(host, "/stats")?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.with_context(|| format!("no {name} in\n{page}"))?.parse()?)
    }

    /// The last lines of every program.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["pilot", "client-proxy", "app-proxy"] {
            let log = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(8).collect();
            text.push_str(&format!("--- {name}\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n")));
        }
        text
    }

    /// Runs something on the network of the client's host, and gives what it gives.
    ///
    /// # Errors
    /// It fails, or there is no thread.
    pub fn at_client<T: Send + 'static>(&self, run: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let thread = self.wire.thread("client", move || -> Result<T> {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run)
        })?;
        thread.join().map_err(|_| anyhow::anyhow!("the client panicked"))??
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates live by the clock")]
fn now() -> time::OffsetDateTime {
    std::time::SystemTime::now().into()
}

/// A request head as the client sends it through its sidecar.
pub fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: app.default.svc.cluster.local:{PORT}\r\n\r\n")
}

/// Where the client's sidecar takes requests for the application.
///
/// # Panics
/// Never: the address is one.
pub fn service() -> SocketAddr {
    SocketAddr::from(([198, 19, 0, 10], PORT))
}

/// `/size/N`: N bytes; `/die/N`: announces N, sends half and resets the connection.
fn application(seen: &Arc<AtomicU64>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            let seen = Arc::clone(seen);
            tokio::spawn(async move { answer(socket, &seen).await });
        }
    })
}

async fn answer(mut socket: TcpStream, seen: &AtomicU64) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut buf = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buf.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if buf.len() > HEAD_BYTES_MAX || socket.read_buf(&mut buf).await.ok()? == 0 {
                return None;
            }
        };
        seen.fetch_add(1, Relaxed);
        let head = String::from_utf8_lossy(buf.get(..end)?).into_owned();
        buf.drain(..end);
        let path = head.split(' ').nth(1)?;
        let (kind, size) = path.trim_start_matches('/').split_once('/')?;
        let size: usize = size.parse().ok()?;
        let sent = if kind == "die" { size / 2 } else { size };
        socket.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").as_bytes()).await.ok()?;
        socket.write_all(&vec![b'x'; sent]).await.ok()?;
        if kind == "die" {
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).ok()?;
            return None;
        }
    }
}

/// A small file system in memory, gone when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Of so many KiB.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount(at: &Path, kib: u32) -> Result<Self> {
        fs::create_dir_all(at)?;
        let options = format!("size={kib}k,mode=777");
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))?;
        Ok(Self(at.to_owned()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).map_err(std::io::Error::from);
        if let Err(error) = gone.and_then(|()| fs::remove_dir(&self.0)) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}
