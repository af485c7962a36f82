//! Where stored objects come from: a cluster's API server, or a folder of YAML. Both give one stream of events.
//!
//! The first [`Event::Synced`] says that everything that was there has been told; from then on come changes.
//! Never here: what objects mean. Read by pilot, and by `meshctl` for files.

mod cluster;
mod folder;

use std::path::PathBuf;

use api::note::{Note, ObjectRef};
use api_mesh::object::{Kind, ObjectError, Stored};
use tokio::{sync::mpsc, task::JoinSet};

pub use cluster::Selection;
pub use folder::{FolderError, Placed, read_folder};

/// Events that wait to be taken; a source that is not read stops reading.
const WAITING: usize = 1_024;

/// Something happened to a stored object.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It is there, new or changed.
    Apply(Stored),
    /// It is gone.
    Delete(ObjectRef),
    /// It (or a file) cannot be read; what was told of it before stays.
    Broken(Problem),
    /// An earlier [`Event::Broken`] of this object or file is mended.
    Mended(ObjectRef),
    /// Everything that was there at the beginning has been told.
    Synced,
}

/// What cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File and line, where it comes from one.
    pub place: Option<Place>,
    /// What is wrong.
    pub note: Note,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A stream of events; ends its tasks when dropped.
#[derive(Debug)]
pub struct Source {
    events: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

impl Source {
    /// Watches these kinds in a cluster. Outages of the API server are waited out: what was told stays.
    pub fn cluster(client: &kube::Client, selections: Vec<Selection>) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        Self { events, _tasks: cluster::watch(client, selections, &sender) }
    }

    /// Watches the YAML files of a folder, at any depth.
    ///
    /// # Errors
    /// The folder cannot be watched.
    pub fn folder(path: impl Into<PathBuf>) -> Result<Self, FolderError> {
        let (sender, events) = mpsc::channel(WAITING);
        Ok(Self { events, _tasks: folder::watch(&path.into(), sender)? })
    }

    /// The next event; none when the source has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Events that are there already, up to a limit, after waiting for the first; for taking many at once.
    pub async fn next_many(&mut self, into: &mut Vec<Event>, limit: usize) -> usize {
        self.events.recv_many(into, limit).await
    }
}

/// Where in an object an error is, and what it says, apart from the object's name.
fn path_and_text(error: &ObjectError) -> (String, String) {
    match error {
        ObjectError::Field { path, source, .. } => (path.clone(), source.to_string()),
        ObjectError::NotAnObject
        | ObjectError::Unnamed { .. }
        | ObjectError::UnknownKind { .. }
        | ObjectError::UnknownFields { .. } => (String::new(), error.to_string()),
    }
}

/// Every kind that is read, in all namespaces.
pub fn everything() -> Vec<Selection> {
    Kind::ALL.iter().map(|kind| Selection::of(*kind)).collect()
}
