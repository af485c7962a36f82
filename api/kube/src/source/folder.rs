//! Reads a folder of YAML files, at any depth; when some change, those are read again.
//!
//! A file that cannot be read keeps its last good objects; the problem is told with file and line.
//! Never here: kinds that the mesh does not read (they are passed over). Run by [`super::Source`]; `meshctl` reads once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::note::{Note, ObjectRef, Severity};
use api_mesh::object::{Kind, ObjectError, Stored, Strictness, from_json};
use notify::{RecursiveMode, Watcher as _};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};

use super::{Event, Place, Problem, path_and_text};
use crate::yaml;

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

/// What one file holds.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sheet {
    objects: Vec<(Place, Arc<Stored>)>,
    problems: Vec<Problem>,
    /// Its text could not be read at all; the last good objects stay.
    unreadable: bool,
}

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

fn problem(place: Place, object: ObjectRef, severity: Severity, path: &str, text: String) -> Problem {
    Problem { place: Some(place), note: Note { severity, object, path: path.to_owned(), text, code: None } }
}

fn read_file(file: &Path) -> Sheet {
    let place = |line| Place { file: file.to_owned(), line };
    let whole = ObjectRef::new("File", "", file.display().to_string());
    let mut sheet = Sheet::default();
    let documents = match std::fs::read_to_string(file)
        .map_err(|error| (1, error.to_string()))
        .and_then(|text| yaml::documents(&text).map_err(|error| (error.line, error.reason)))
    {
        Ok(documents) => documents,
        Err((line, why)) => {
            sheet.unreadable = true;
            sheet.problems.push(problem(place(line), whole, Severity::Error, "", why));
            return sheet;
        }
    };
    for document in documents {
        let value = with_namespace(document.value);
        match from_json(value, Strictness::Report) {
            Ok((stored, unknown)) => {
                for path in unknown {
                    let text = "no such field".to_owned();
                    sheet.problems.push(problem(
                        place(document.line),
                        stored.reference(),
                        Severity::Error,
                        &path,
                        text,
                    ));
                }
                sheet.objects.push((place(document.line), Arc::new(stored)));
            }
            Err(ObjectError::UnknownKind { api_version, .. }) if !api_version.contains(".istio.io/") => {}
            Err(error) => {
                let object = error.object().cloned().unwrap_or_else(|| whole.clone());
                let (path, text) = path_and_text(&error);
                sheet.problems.push(problem(place(document.line), object, Severity::Error, &path, text));
            }
        }
    }
    sheet
}

/// An object without a namespace is in `default`, as for kubectl.
fn with_namespace(mut value: Value) -> Value {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = Kind::find(&text(&value, "apiVersion"), &text(&value, "kind"));
    if kind.is_some_and(Kind::namespaced)
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.entry("namespace").or_insert_with(|| "default".into());
    }
    value
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
            let mut sheet = read_file(&file);
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
        (objects, problems)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    const SERVICE: &str =
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: reviews\nspec:\n  ports:\n  - port: 9080\n";

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("folder-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("deep")).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.join(name), text).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn reviews() -> ObjectRef {
        ObjectRef::new("Service", "default", "reviews")
    }

    #[tokio::test]
    async fn changes_of_files_become_events_and_a_broken_file_keeps_its_objects() {
        let folder = Folder::new("watch");
        folder.write("deep/a.yaml", SERVICE);
        folder.write("notes.txt", "not ours");
        let mut source = Source::folder(&folder.0).unwrap();
        let applied = |event: Option<Event>| match event {
            Some(Event::Apply(stored)) => stored.reference(),
            other => panic!("{other:?}"),
        };
        assert_eq!(applied(source.next().await), reviews());
        assert_eq!(source.next().await, Some(Event::Synced));
        folder.write("deep/a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: [\n");
        match source.next().await {
            Some(Event::Broken(problem)) => {
                assert!(problem.place.unwrap().line >= 3);
                assert_eq!(problem.note.object.kind, "File");
            }
            other => panic!("{other:?}"),
        }
        folder.write("deep/a.yaml", &SERVICE.replace("9080", "9081"));
        // Editors and the system may show a half-written file first, which only repeats the complaint.
        let mut seen = vec![];
        while !seen.iter().any(|event| matches!(event, Event::Mended(_))) {
            seen.push(source.next().await.unwrap());
        }
        assert!(matches!(&seen[0], Event::Apply(stored) if stored.reference() == reviews()), "{seen:?}");
        std::fs::remove_file(folder.0.join("deep/a.yaml")).unwrap();
        assert_eq!(source.next().await, Some(Event::Delete(reviews())));
    }

    #[test]
    fn an_object_that_is_spoilt_stays_as_it_was_told() {
        let folder = Folder::new("spoilt");
        folder.write("a.yaml", SERVICE);
        let mut state = State { path: folder.0.clone(), ..State::default() };
        let mut changes = || {
            state.read(&Touched { anything: true, ..Touched::default() }).unwrap();
            state.changes()
        };
        assert!(matches!(changes().as_slice(), [Event::Apply(_)]));
        folder.write("a.yaml", &SERVICE.replace("port: 9080", "port: many"));
        assert!(matches!(changes().as_slice(), [Event::Broken(problem)] if problem.note.object == reviews()));
        folder.write("a.yaml", SERVICE);
        assert_eq!(changes(), [Event::Mended(reviews())]);
        std::fs::remove_file(folder.0.join("a.yaml")).unwrap();
        assert_eq!(changes(), [Event::Delete(reviews())]);
    }

    #[test]
    fn only_what_was_touched_is_read_again() {
        let folder = Folder::new("touched");
        folder.write("a.yaml", SERVICE);
        folder.write("deep/b.yaml", &SERVICE.replace("reviews", "ratings"));
        let mut state = State { path: folder.0.clone(), ..State::default() };
        state.read(&Touched::default()).unwrap();
        let read_again = |state: &mut State, names: &[&str]| {
            let before = state.sheets.clone();
            let files = names.iter().map(|name| folder.0.join(name)).collect();
            state.read(&Touched { files, anything: false }).unwrap();
            let same = |(file, sheet): (&PathBuf, &Sheet)| Arc::ptr_eq(&sheet.objects[0].1, &before[file].objects[0].1);
            state.sheets.iter().filter(|sheet| !same(*sheet)).count()
        };
        assert_eq!(read_again(&mut state, &["a.yaml"]), 1);
        assert_eq!(read_again(&mut state, &["next.tmp"]), 0);
        assert_eq!(read_again(&mut state, &["deep"]), 2, "a folder may hold anything now");
    }

    #[test]
    fn problems_have_a_file_and_line() {
        let folder = Folder::new("problems");
        let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a, subsets: 3}\n";
        folder.write("a.yaml", &format!("{SERVICE}---\n{rule}"));
        folder.write("b.yaml", SERVICE);
        folder.write("c.yaml", "apiVersion: networking.istio.io/v9\nkind: Gateway\nmetadata: {name: g}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n");
        let (objects, problems) = read_folder(&folder.0).unwrap();
        assert_eq!(objects.len(), 1);
        let lines: Vec<String> =
            problems.iter().map(|p| format!("{} {}", p.place.as_ref().unwrap().line, p.note)).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines.iter().any(|l| l.starts_with("9 DestinationRule/a.default: spec.subsets")), "{lines:?}");
        assert!(lines.iter().any(|l| l.starts_with("1 Service/reviews.default: it is in ")), "{lines:?}");
        assert!(lines.iter().any(|l| l.starts_with("1 ") && l.contains("v9")), "{lines:?}");
    }
}
