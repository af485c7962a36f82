//! One pilot process over the folder, pinned to a core, and what the kernel says it used.
//!
//! Never here: what it is asked. Used by `run`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// The core of pilot; the streams have [`CLIENT_CORE`].
const PILOT_CORE: usize = 0;
/// The core of this process.
const CLIENT_CORE: usize = 1;
/// How long pilot may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The kernel's clock ticks a second, fixed in its interface to programs.
const TICKS: f64 = 100.0;

/// A running pilot; it ends with this.
pub(crate) struct Pilot {
    child: Child,
    /// Where it serves plaintext xDS.
    pub(crate) address: SocketAddr,
    /// From its start to the first snapshot.
    pub(crate) ready_after: Duration,
}

/// Keeps this process to its core.
pub(crate) fn pin_client() -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(CLIENT_CORE)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).context("two cores are needed")
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures")]
fn now() -> Instant {
    Instant::now()
}

impl Pilot {
    /// Starts one, at this address where given, and waits until it is ready.
    pub(crate) fn start(program: &Path, folder: &Path, address: Option<SocketAddr>) -> Result<Self> {
        let (xds, http) = (address.map_or_else(free_port, Ok)?, free_port()?);
        let began = now();
        let child = Command::new("taskset")
            .args(["-c", &PILOT_CORE.to_string()])
            .arg(program)
            .args(["--folder", &folder.display().to_string(), "--secure", "off"])
            .args(["--xds", &xds.to_string(), "--http", &http.to_string(), "--log-level", "warn"])
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let mut pilot = Self { child, address: xds, ready_after: Duration::ZERO };
        while !is_ready(http) {
            if let Some(status) = pilot.child.try_wait()? {
                bail!("pilot ended: {status}");
            }
            if began.elapsed() > READY_LIMIT {
                bail!("pilot is not ready after {READY_LIMIT:?}");
            }
            sleep(Duration::from_millis(5));
        }
        pilot.ready_after = began.elapsed();
        Ok(pilot)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("could not read {path}"))
    }

    /// CPU it has used so far, in its own code and in the kernel.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        // the name may hold anything, so fields are counted from its end
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = (ticks(11).context("no utime")?, ticks(12).context("no stime")?);
        Ok(Duration::from_secs_f64((user + system) / TICKS))
    }

    fn status_kb(&self, field: &str) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).with_context(|| format!("no {field}"))
    }

    /// Resident memory now, in MB.
    pub(crate) fn rss_mb(&self) -> Result<f64> {
        Ok(mb(self.status_kb("VmRSS")?))
    }

    /// The most resident memory since the start, in MB.
    pub(crate) fn peak_mb(&self) -> Result<f64> {
        Ok(mb(self.status_kb("VmHWM")?))
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        // It may have ended already.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("pilot could not be waited for");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mb(kb: u64) -> f64 {
    kb as f64 / 1024.0
}

fn is_ready(http: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(http)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(b"GET /ready HTTP/1.1\r\nhost: pilot\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
