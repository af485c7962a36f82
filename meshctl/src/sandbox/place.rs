//! Where a sandbox keeps its state, and whether it runs.
//!
//! One folder a sandbox; its daemon holds a lock in it for as long as it lives. Never here: starting or stopping.
//! Called by all verbs about sandboxes.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::fail;

/// The sandbox that is meant when none is named.
pub(crate) const DEFAULT: &str = "default";
const NAME_BYTES_MAX: usize = 40;
/// A longer log is put aside; one older part is kept.
pub(crate) const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
const HOLD_ATTEMPTS: u32 = 10;
const HOLD_PAUSE: Duration = Duration::from_millis(10);

/// Names the folder that holds all sandboxes' folders.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Base {
    /// Folder in which sandboxes keep their state [default: ~/.local/share/ferromesh].
    #[arg(long = "state", env = "FERROMESH_STATE", value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Base {
    /// From the environment alone, for verbs without the flag.
    pub(crate) fn from_env() -> Self {
        Self { folder: vars().get("FERROMESH_STATE").map(PathBuf::from) }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.folder {
            return std::path::absolute(folder).with_context(|| format!("{} is no path", folder.display()));
        }
        let vars = vars();
        let data = vars.get("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let data = data.or_else(|| vars.get("HOME").map(|home| Path::new(home).join(".local/share")));
        Ok(data.context("neither HOME nor --state says where to keep state")?.join("ferromesh"))
    }

    /// The place of the sandbox of this name.
    pub(crate) fn place(&self, name: Option<&str>) -> anyhow::Result<Place> {
        let name = name.unwrap_or(DEFAULT);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) || name.starts_with('-') {
            return Err(fail::coded(
                fail::USAGE,
                format!("\"{name}\" cannot be a sandbox's name: at most {NAME_BYTES_MAX} of a-z, 0-9 and -"),
            ));
        }
        Ok(Place { name: name.to_owned(), folder: self.folder()?.join(name) })
    }

    /// Every sandbox that has state.
    pub(crate) fn all(&self) -> anyhow::Result<Vec<Place>> {
        let folder = self.folder()?;
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("could not read {}", folder.display())),
        };
        let mut places = Vec::new();
        for entry in entries {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.path().join("lock").exists()
            {
                places.push(Place { name, folder: entry.path() });
            }
        }
        places.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(places)
    }
}

fn vars() -> api_rt::env::Vars {
    api_rt::env::Vars::process()
}

/// What a running daemon has written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) pid: i32,
    /// The sandbox's first process.
    pub(crate) keeper: i32,
    /// The API server's port on 127.0.0.1.
    pub(crate) port: u16,
    /// Whether the node is ready.
    pub(crate) ready: bool,
}

/// How a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Starting,
    Stopped,
}

impl State {
    /// As `ls` prints it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Stopped => "stopped",
        }
    }
}

/// One sandbox's place.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

/// Held by the daemon while it lives.
pub(crate) struct Held(#[expect(dead_code, reason = "the lock is the value")] Flock<File>);

impl Place {
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn record_file(&self) -> PathBuf {
        self.folder.join("daemon.json")
    }

    /// Makes the folder, for this user only.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        let folder = &self.folder;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("could not make {}", folder.display()))
    }

    fn lock_file(&self) -> anyhow::Result<File> {
        let path = self.folder.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        file.with_context(|| format!("could not open {}", path.display()))
    }

    /// Takes the lock; `None`: a daemon has it.
    pub(crate) fn hold(&self) -> anyhow::Result<Option<Held>> {
        match Flock::lock(self.lock_file()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Held(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("could not lock {}", self.folder.display())),
        }
    }

    /// Takes the lock as the daemon and writes down who that is, so that nobody takes the record of an earlier life, whose
    /// process numbers others may have by now, for this one's. `None`: another daemon has it.
    pub(crate) fn begin(&self) -> anyhow::Result<Option<Held>> {
        for attempt in 0..HOLD_ATTEMPTS {
            // Whoever only looks whether it is held has it for a moment.
            if attempt > 0 {
                std::thread::sleep(HOLD_PAUSE);
            }
            if let Some(held) = self.hold()? {
                let port = self.record().map_or(0, |record| record.port);
                let pid = std::process::id().cast_signed();
                self.write_record(&Record { pid, keeper: 0, port, ready: false })?;
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// Puts a log aside that has grown beyond so many bytes; whoever appends to it goes on at its new beginning.
    pub(crate) fn trim_log(&self, bytes_max: u64) -> std::io::Result<()> {
        let log = self.log();
        match fs::metadata(&log) {
            Ok(found) if found.len() > bytes_max => {
                fs::copy(&log, self.folder.join("log.old"))?;
                OpenOptions::new().write(true).open(&log)?.set_len(0)
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The daemon's record, from this or an earlier life.
    pub(crate) fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.record_file()).ok()?).ok()
    }

    /// How it is, and what its daemon wrote down.
    pub(crate) fn state(&self) -> anyhow::Result<(State, Option<Record>)> {
        if !self.folder.join("lock").exists() || self.hold()?.is_some() {
            return Ok((State::Stopped, None));
        }
        Ok(match self.record() {
            Some(record) if record.ready => (State::Running, Some(record)),
            record => (State::Starting, record),
        })
    }

    /// The record of a running sandbox.
    pub(crate) fn running(&self) -> anyhow::Result<Record> {
        match self.state()? {
            (State::Running, Some(record)) => Ok(record),
            (State::Starting, _) => bail!("sandbox {} is still starting; `meshctl up` waits for it", self.name),
            _ => Err(fail::coded(
                fail::UNREACHABLE,
                format!("sandbox {} does not run\n  help: start it with `meshctl up --name {}`", self.name, self.name),
            )),
        }
    }

    /// Writes the record down.
    pub(crate) fn write_record(&self, record: &Record) -> anyhow::Result<()> {
        self.write_private("daemon.json", &serde_json::to_vec(record)?)
    }

    /// Writes a file that only this user reads, at once.
    pub(crate) fn write_private(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let (path, fresh) = (self.folder.join(name), self.folder.join(format!(".{name}.new")));
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(content))
            .and_then(|()| fs::rename(&fresh, &path));
        written.with_context(|| format!("could not write {}", path.display()))
    }

    /// Removes all state.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> (tempfile::TempDir, Base) {
        let folder = tempfile::tempdir().unwrap();
        let base = Base { folder: Some(folder.path().to_owned()) };
        (folder, base)
    }

    #[test]
    fn a_held_lock_means_that_it_lives() {
        let (_folder, base) = base();
        let place = base.place(None).unwrap();
        place.make().unwrap();
        let held = place.hold().unwrap().unwrap();
        assert!(place.hold().unwrap().is_none());
        assert_eq!(place.state().unwrap().0, State::Starting);
        place.write_record(&Record { pid: 1, keeper: 2, port: 3, ready: true }).unwrap();
        assert_eq!(place.running().unwrap().keeper, 2);
        drop(held);
        assert_eq!(place.state().unwrap().0, State::Stopped);
        assert_eq!(base.all().unwrap().len(), 1);
    }

    #[test]
    fn a_new_life_disowns_the_record_of_the_last() {
        let (_folder, base) = base();
        let place = base.place(None).unwrap();
        place.make().unwrap();
        place.write_record(&Record { pid: 1, keeper: 2, port: 3, ready: true }).unwrap();
        let _held = place.begin().unwrap().unwrap();
        let (state, record) = place.state().unwrap();
        let record = record.unwrap();
        assert_eq!(state, State::Starting);
        assert_eq!((record.pid, record.port), (std::process::id().cast_signed(), 3));
    }

    #[test]
    fn a_long_log_is_put_aside_under_its_writer() {
        let (_folder, base) = base();
        let place = base.place(None).unwrap();
        place.trim_log(3).unwrap();
        place.make().unwrap();
        let mut writer = OpenOptions::new().create(true).append(true).open(place.log()).unwrap();
        for text in ["abc", "d"] {
            writer.write_all(text.as_bytes()).unwrap();
            place.trim_log(3).unwrap();
        }
        writer.write_all(b"e").unwrap();
        let read = |name: &str| fs::read_to_string(place.folder.join(name)).unwrap();
        assert_eq!((read("log.old"), read("log")), ("abcd".to_owned(), "e".to_owned()));
    }

    #[test]
    fn names_are_plain() {
        let (_folder, base) = base();
        assert!(base.place(Some("../x")).is_err());
        assert!(base.place(Some("a-1")).is_ok());
    }
}
