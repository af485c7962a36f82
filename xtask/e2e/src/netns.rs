//! Network namespaces of a test: hosts on one wire, with programs in them, gone when dropped.
//!
//! Never here: the host's own network; everything hangs on a bridge in a namespace of its own.
//! Called by suites that run the mesh without Kubernetes.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{judge, kubectl::Said, suite};

/// Hosts on one wire.
pub struct Wire {
    prefix: String,
    hosts: Vec<String>,
    programs: Vec<Child>,
}

fn ip(args: &[&str]) -> Result<()> {
    Said::of(Command::new("ip").args(args))?.ok().map(drop)
}

impl Wire {
    /// A wire without hosts.
    ///
    /// # Errors
    /// This user may not make network namespaces.
    pub fn new() -> Result<Self> {
        let prefix = format!("fm{}", std::process::id());
        let mut wire = Self { prefix, hosts: Vec::new(), programs: Vec::new() };
        let switch = wire.make("switch")?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        Ok(wire)
    }

    fn make(&mut self, name: &str) -> Result<String> {
        let full = format!("{}-{name}", self.prefix);
        ip(&["netns", "add", &full])?;
        let mut delete = Command::new("ip");
        delete.args(["netns", "delete", &full]);
        suite::at_the_limit(delete);
        self.hosts.push(full.clone());
        ip(&["-n", &full, "link", "set", "lo", "up"])?;
        Ok(full)
    }

    /// Adds a host with this address, in 198.18.0.0/16; everything else is reached over the wire too.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn host(&mut self, name: &str, address: &str) -> Result<()> {
        let switch = format!("{}-switch", self.prefix);
        let full = self.make(name)?;
        let port = format!("v{name}");
        ip(&["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &full])?;
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
        ip(&["-n", &full, "addr", "add", &format!("{address}/16"), "dev", "eth0"])?;
        ip(&["-n", &full, "link", "set", "eth0", "up"])?;
        ip(&["-n", &full, "route", "add", "default", "dev", "eth0"])
    }

    /// Runs something on a thread of its own whose sockets are in a host.
    ///
    /// # Errors
    /// The host is not there, or there is no thread.
    pub fn thread<T: Send + 'static>(
        &self,
        host: &str,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let namespace = std::fs::File::open(format!("/var/run/netns/{}-{host}", self.prefix))?;
        let thread = std::thread::Builder::new().name(host.to_owned()).spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok(run())
        });
        thread.context("no thread")
    }

    /// A command that runs in a host, as this user id.
    pub fn command(&self, host: &str, uid: u32, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{host}", self.prefix)]);
        if uid != 0 {
            let id = uid.to_string();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"]);
        }
        command.arg(program);
        command
    }

    /// Runs a program in a host to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, host: &str, program: &str, args: &[&str]) -> Result<Said> {
        Said::of(self.command(host, 0, Path::new(program)).args(args))
    }

    /// Has all traffic of a host go through its sidecar, but that of the sidecar's own user.
    ///
    /// # Errors
    /// The rules cannot be set.
    pub fn capture(&self, host: &str) -> Result<()> {
        let mut capture = self.command(host, 0, &judge::ours("proxy"));
        capture.args(["iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", ""]);
        capture.args(["-b", "*", "-d", "15090,15021,15020"]);
        Said::of(&mut capture)?.ok().map(drop)
    }

    /// Starts a program that goes on until the wire is dropped; its output goes to a file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, mut command: Command, log: &Path) -> Result<()> {
        let file = std::fs::File::create(log).with_context(|| format!("could not make {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        self.programs.push(child);
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for mut child in self.programs.drain(..) {
            if child.kill().and_then(|()| child.wait()).is_err() {
                eprintln!("a program is already gone");
            }
        }
        for host in self.hosts.drain(..).rev() {
            // Programs of programs, such as the Envoy of an agent, outlive it.
            let inside = Said::of(Command::new("ip").args(["netns", "pids", &host])).map(|said| said.out);
            for pid in inside.iter().flat_map(|pids| pids.split_whitespace()).filter_map(|pid| pid.parse().ok()) {
                if kill(Pid::from_raw(pid), Signal::SIGKILL).is_err() {
                    eprintln!("process {pid} is already gone");
                }
            }
            if let Err(error) = ip(&["netns", "del", &host]) {
                eprintln!("{error:#}");
            }
        }
    }
}
