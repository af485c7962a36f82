//! A sandbox for a suite: started by `meshctl up`, and gone when it is dropped.
//!
//! Never here: what runs in it. Made by the setup of a suite.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{
    judge,
    kubectl::{Kubectl, Said},
    suite,
};

/// A running sandbox with its own state folder.
pub struct Sandbox {
    name: String,
    state: TempDir,
    kubeconfig: PathBuf,
}

impl Sandbox {
    /// Starts one.
    ///
    /// # Errors
    /// `meshctl up` fails; its output is in the error.
    pub fn start(suite: &str) -> Result<Self> {
        let name = format!("e2e-{suite}-{}", std::process::id());
        let state = TempDir::new().context("could not make a folder for the state")?;
        let mut sandbox = Self { name, state, kubeconfig: PathBuf::new() };
        suite::at_the_limit(sandbox.command(&["down"]));
        sandbox.up()?;
        Ok(sandbox)
    }

    /// Starts it (again), over the same state.
    ///
    /// # Errors
    /// `meshctl up` fails, or does not say where the kubeconfig is.
    pub fn up(&mut self) -> Result<()> {
        self.meshctl(&["up"])?.ok()?;
        let env = self.meshctl(&["env"])?.ok()?;
        let line = env.lines().find_map(|line| line.strip_prefix("export KUBECONFIG="));
        self.kubeconfig = PathBuf::from(line.context("`meshctl env` names no kubeconfig")?.trim_matches(['"', '\'']));
        Ok(())
    }

    /// Runs `meshctl` for this sandbox.
    ///
    /// # Errors
    /// It could not be started.
    pub fn meshctl(&self, args: &[&str]) -> Result<Said> {
        Said::of(&mut self.command(args))
    }

    /// `meshctl` for this sandbox, ready to be changed and run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(judge::ours("meshctl"));
        command.args(["--name", &self.name]).args(args).env("FERROMESH_STATE", self.state.path());
        command
    }

    /// Runs a shell command inside the sandbox's network.
    ///
    /// # Errors
    /// It could not be started.
    pub fn shell(&self, command: &str) -> Result<Said> {
        self.meshctl(&["shell", "-c", command])
    }

    /// The machine's kubectl for it, in namespace `default`.
    ///
    /// # Errors
    /// There is none.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Ok(Kubectl::new(&judge::program("kubectl").context("no kubectl")?, &self.kubeconfig, "default"))
    }

    /// Where the kubeconfig is.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its state.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// The daemon's process id, from `meshctl ls`.
    ///
    /// # Errors
    /// It is not listed.
    pub fn pid(&self) -> Result<i32> {
        let listed = Said::of(
            Command::new(judge::ours("meshctl")).args(["ls", "-o", "json"]).env("FERROMESH_STATE", self.state.path()),
        )?
        .ok()?;
        let all: serde_json::Value = serde_json::from_str(&listed)?;
        let items = all.as_array().or_else(|| all["items"].as_array()).context("`meshctl ls -o json` is no list")?;
        let one = items.iter().find(|one| one["name"] == self.name.as_str()).context("it is not listed")?;
        Ok(i32::try_from(one["pid"].as_i64().context("it has no pid")?)?)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        match self.meshctl(&["down"]) {
            Ok(said) if said.code == 0 => {}
            Ok(said) => eprintln!("meshctl down: {}", said.all()),
            Err(error) => eprintln!("meshctl down: {error:#}"),
        }
    }
}

/// Asks until it holds, at most this long; the last reason is in the error.
///
/// # Errors
/// It did not hold in time.
#[expect(clippy::disallowed_methods, reason = "how long a test waits at the most")]
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(error) if began.elapsed() > limit => bail!("{what}: not within {limit:?}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
