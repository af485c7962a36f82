//! Reads a folder of YAML files, at any depth; when some change, those are read again.
//!
//! A file that cannot be read keeps its last good objects; the problem is told with file and line.
//! Never here: kinds that the mesh does not read (they are passed over). Run by [`super::Source`]; `meshctl` reads once.

mod sheet;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::note::{ObjectRef, Severity};
use api_mesh::{
    model::{Catalog, Settings},
    object::Stored,
    old,
};
use notify::{RecursiveMode, Watcher as _};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};

use super::{Event, Place, Problem};
use sheet::{Sheet, problem};

/// How long changes are gathered before the folder is read again.
const GATHER: Duration = Duration::from_millis(30);
/// Deepest nesting of folders.
const DEEPEST: usize = 32;

/// Why a folder cannot be read or watched.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be listed.
    #[error("could not read {path}")]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Changes cannot be watched.
    #[error("could not watch {path}")]
    Watch {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
}

/// An object and where it stands.
pub type Placed = (Place, Stored);

/// Objects by name, each where it stands first.
type Objects = BTreeMap<ObjectRef, (Place, Arc<Stored>)>;

fn files(path: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> Result<(), FolderError> {
    let failed = |source| FolderError::Read { path: path.to_owned(), source };
    if path.is_file() {
        found.insert(path.to_owned());
        return Ok(());
    }
    if depth > DEEPEST {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        if entry.is_dir() || is_sheet(&entry) {
            files(&entry, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Whether a file is read, by its name.
fn is_sheet(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml" || ending == "json")
}

/// What the system told of changes since the folder was read last.
#[derive(Debug, Default)]
struct Touched {
    files: BTreeSet<PathBuf>,
    /// Told of something else than files: links, folders, or that changes were lost.
    anything: bool,
}

impl Touched {
    fn saw(&mut self, outcome: &notify::Result<notify::Event>) {
        match outcome {
            Ok(event) => {
                self.anything |= event.need_rescan();
                self.files.extend(event.paths.iter().cloned());
            }
            Err(_) => self.anything = true,
        }
    }
}

/// Reads a folder (or one file) once: all objects with their places, and all problems.
///
/// # Errors
/// The folder cannot be listed.
pub fn read_folder(path: &Path) -> Result<(Vec<Placed>, Vec<Problem>), FolderError> {
    let mut state = State { path: path.to_owned(), ..State::default() };
    state.read(&Touched::default())?;
    let (objects, problems) = state.whole();
    drop(state);
    Ok((objects.into_values().map(|(place, stored)| (place, Arc::unwrap_or_clone(stored))).collect(), problems))
}

#[derive(Debug, Default)]
struct State {
    path: PathBuf,
    sheets: BTreeMap<PathBuf, Sheet>,
    told: BTreeMap<ObjectRef, Arc<Stored>>,
    complained: Vec<Problem>,
}

impl State {
    /// Whether a path that was touched may lead to files that are read: a link, a folder, or what was one.
    fn leads_on(&self, path: &Path) -> bool {
        match path.symlink_metadata() {
            Ok(is) => !is.is_file(),
            Err(_) => self.sheets.keys().any(|file| file != path && file.starts_with(path)),
        }
    }

    /// Reads files that are new or were touched.
    fn read(&mut self, touched: &Touched) -> Result<(), FolderError> {
        let mut found = BTreeSet::new();
        files(&self.path, 0, &mut found)?;
        self.sheets.retain(|file, _| found.contains(file));
        let all = touched.anything || touched.files.iter().any(|path| self.leads_on(path));
        for file in found {
            if !all && self.sheets.contains_key(&file) && !touched.files.contains(&file) {
                continue;
            }
            let mut sheet = Sheet::read(&file);
            if sheet.unreadable
                && let Some(before) = self.sheets.get(&file)
            {
                sheet.objects.clone_from(&before.objects);
            }
            self.sheets.insert(file, sheet);
        }
        Ok(())
    }

    /// All objects (the first file that has one wins) and all problems.
    fn whole(&self) -> (Objects, Vec<Problem>) {
        let mut objects = Objects::new();
        let mut problems = Vec::new();
        for sheet in self.sheets.values() {
            problems.extend(sheet.problems.iter().cloned());
            for (place, stored) in &sheet.objects {
                let name = stored.reference();
                match objects.get(&name) {
                    Some((first, _)) => {
                        let text = format!("it is in {first} already; this one is not used");
                        problems.push(problem(place.clone(), name, Severity::Warn, "", text));
                    }
                    None => {
                        objects.insert(name, (place.clone(), Arc::clone(stored)));
                    }
                }
            }
        }
        problems.extend(self.instead_of_old(&objects));
        (objects, problems)
    }

    /// What to write instead of objects of Istio's old groups, as the admission webhook tells it.
    fn instead_of_old(&self, objects: &Objects) -> Vec<Problem> {
        let all: Vec<_> = self.sheets.values().flat_map(|sheet| &sheet.old).collect();
        if all.is_empty() {
            return Vec::new();
        }
        let mut catalog = Catalog::new(Settings::default());
        for (_, stored) in objects.values() {
            catalog.apply(stored);
        }
        let told = |(place, value): &(Place, Value)| {
            let instead = old::instead(value, &catalog)?;
            let (text, object) = (instead.to_string(), instead.object);
            Some(problem(place.clone(), object, Severity::Error, "", text))
        };
        all.into_iter().filter_map(told).collect()
    }

    /// What changed since this was asked last.
    fn changes(&mut self) -> Vec<Event> {
        let (objects, problems) = self.whole();
        let mut events: Vec<Event> = Vec::new();
        // What stands there but cannot be read stays as it was told: a policy that is spoilt goes on guarding.
        let spoilt = |name: &ObjectRef| problems.iter().any(|problem| problem.note.object == *name);
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.told.iter().filter(|(name, _)| !objects.contains_key(*name)).partition(|(name, _)| spoilt(name));
        let kept: Vec<_> = kept.into_iter().map(|(name, stored)| (name.clone(), Arc::clone(stored))).collect();
        events.extend(gone.into_iter().map(|(name, _)| Event::Delete(name.clone())));
        for (name, (_, stored)) in &objects {
            if self.told.get(name).is_none_or(|told| !Arc::ptr_eq(told, stored) && told != stored) {
                events.push(Event::Apply(Stored::clone(stored)));
            }
        }
        let mended =
            self.complained.iter().filter(|old| !problems.iter().any(|new| new.note.object == old.note.object));
        let mended: BTreeSet<ObjectRef> = mended.map(|old| old.note.object.clone()).collect();
        events.extend(mended.into_iter().map(Event::Mended));
        events.extend(problems.iter().filter(|new| !self.complained.contains(new)).cloned().map(Event::Broken));
        self.told = objects.into_iter().map(|(name, (_, stored))| (name, stored)).chain(kept).collect();
        self.complained = problems;
        events
    }
}

pub(super) fn watch(path: &Path, events: mpsc::Sender<Event>) -> Result<JoinSet<()>, FolderError> {
    let failed = |source| FolderError::Watch { path: path.to_owned(), source };
    // as the system names what it tells of
    let path = &std::path::absolute(path).map_err(|source| FolderError::Read { path: path.to_owned(), source })?;
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let touched = Arc::new(Mutex::new(Touched::default()));
    let touching = Arc::clone(&touched);
    let mut watcher = notify::recommended_watcher(move |outcome: notify::Result<notify::Event>| {
        let matters = match &outcome {
            Ok(event) => !event.kind.is_access(),
            Err(_) => true,
        };
        if matters {
            touching.lock().unwrap_or_else(PoisonError::into_inner).saw(&outcome);
        }
        // Full means that a look is due anyway.
        if matters && changed.try_send(()).is_err() {}
    })
    .map_err(failed)?;
    watcher.watch(path, RecursiveMode::Recursive).map_err(failed)?;
    let mut state = State { path: path.to_owned(), ..State::default() };
    state.read(&Touched::default())?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // Held here: it ends when dropped.
        let _watcher = watcher;
        let mut first = Some(Event::Synced);
        loop {
            for event in state.changes().into_iter().chain(first.take()) {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            if changes.recv().await.is_none() {
                return;
            }
            tokio::time::sleep(GATHER).await;
            if changes.try_recv().is_ok() {
                tracing::trace!("more changes gathered");
            }
            let now = std::mem::take(&mut *touched.lock().unwrap_or_else(PoisonError::into_inner));
            if let Err(error) = state.read(&now) {
                tracing::warn!(%error, "the folder cannot be read; what was read of it stays");
                touched.lock().unwrap_or_else(PoisonError::into_inner).anything = true;
            }
        }
    });
    Ok(tasks)
}
