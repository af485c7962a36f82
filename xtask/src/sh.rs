//! Runs other programs: says what it runs, and fails with what failed.
//!
//! Never here: a shell. Called by every developer command.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// One program to run.
pub(crate) struct Run(Command);

/// A program by name.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Run {
    let mut command = Command::new(name);
    command.current_dir(root());
    Run(command)
}

/// Cargo, of the toolchain that runs this.
#[expect(clippy::disallowed_methods, reason = "cargo says by its environment which cargo runs")]
pub(crate) fn cargo<const N: usize>(args: [&str; N]) -> Run {
    program(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())).args(args)
}

/// The workspace's folder: as cargo says where it runs this, so that clones may share a target folder.
pub(crate) fn root() -> PathBuf {
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Whether a program of this name is on the search path.
pub(crate) fn found(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(name).is_file())
}

impl Run {
    /// Adds arguments.
    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.0.args(args);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Runs it, showing its output.
    pub(crate) fn run(mut self) -> Result<()> {
        eprintln!("+ {}", self.shown());
        let status = self.0.status().with_context(|| format!("could not start {}", self.shown()))?;
        if status.success() { Ok(()) } else { bail!("{} failed: {status}", self.shown()) }
    }

    /// Runs it and gives its standard output.
    pub(crate) fn read(mut self) -> Result<String> {
        let output =
            self.0.stderr(Stdio::inherit()).output().with_context(|| format!("could not start {}", self.shown()))?;
        if !output.status.success() {
            bail!("{} failed: {}", self.shown(), output.status);
        }
        String::from_utf8(output.stdout).context("its output is not UTF-8")
    }

    /// Runs it with nothing shown; whether it ended well.
    pub(crate) fn quiet(mut self) -> bool {
        self.0.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn shown(&self) -> String {
        let args = self.0.get_args().map(|arg| arg.to_string_lossy());
        std::iter::once(self.0.get_program().to_string_lossy()).chain(args).collect::<Vec<_>>().join(" ")
    }
}
