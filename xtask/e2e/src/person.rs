//! Another user of this machine, made for one test: an id that nobody has, files of its own, no right beyond.
//!
//! The machine's own files stay as they are: what must name the user lies over them in a mount namespace.
//! Never here: what the user does. Called by the suite `demo`.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

const ID: u32 = 60_123;
const SUBORDINATE: std::ops::Range<u32> = 1_600_000_000..1_600_065_536;
const NAME: &str = "ferromesh-test";

/// Which ids the user has beside its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// As `useradd` gives them: a range in `/etc/subuid`.
    Subordinate,
    /// None: not even a line in `/etc/passwd`.
    One,
}

/// The user.
pub struct Person {
    home: TempDir,
    ids: Ids,
}

impl Person {
    /// A user with an empty home. Only root can make one.
    ///
    /// # Errors
    /// The home cannot be made.
    pub fn new(ids: Ids) -> Result<Self> {
        let home =
            tempfile::Builder::new().prefix("person").permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
        chown(home.path(), Some(ID), Some(ID)).context("only root can make another user")?;
        let (first, count) = (SUBORDINATE.start, SUBORDINATE.len());
        let ranges = format!("{NAME}:{first}:{count}\n");
        let line = format!("{NAME}:x:{ID}:{ID}::{}:/bin/sh\n", home.path().display());
        let known = |file: &str| fs::read_to_string(file).unwrap_or_default();
        for (file, text) in [
            ("passwd", known("/etc/passwd") + &line),
            ("subuid", known("/etc/subuid") + &ranges),
            ("subgid", known("/etc/subgid") + &ranges),
        ] {
            fs::write(home.path().join(file), text)?;
        }
        Ok(Self { home, ids })
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Copies a file or folder into the home, readable for the user; where it lies then.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn give(&self, from: &Path, to: &str) -> Result<PathBuf> {
        let to = self.home.path().join(to);
        copy(from, &to).with_context(|| format!("could not copy {}", from.display()))?;
        Ok(to)
    }

    /// A command that this user runs.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.ids {
            Ids::One => Command::new("setpriv"),
            Ids::Subordinate => {
                let over = "for file in passwd subuid subgid; do [ -e /etc/$file ] || exit 1; mount --bind \"$0/$file\" /etc/$file; done; exec setpriv \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", over]).arg(self.home.path());
                command
            }
        };
        let id = ID.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(program);
        command.env("HOME", self.home.path()).env("USER", NAME).current_dir(self.home.path());
        command
    }

    /// Its processes, by id; those that have ended do not count.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(owner) = entry.metadata().map(|data| data.uid()) else { continue };
            if (owner == ID || SUBORDINATE.contains(&owner)) && crate::processes::running(pid) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(from, to)?;
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
