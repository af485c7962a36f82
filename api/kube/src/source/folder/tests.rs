//! Folders as users have them: files that come, change, break and go.
//!
//! Never here: what objects mean. Run by `cargo test`.

use super::*;
use crate::source::Source;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: reviews\nspec:\n  ports:\n  - port: 9080\n";

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
    let rule =
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a, subsets: 3}\n";
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

#[test]
fn an_object_of_an_old_group_is_told_with_what_to_write_instead() {
    let folder = Folder::new("old");
    let policy = "apiVersion: authentication.istio.io/v1alpha1\nkind: Policy\nmetadata: {name: r}\nspec: {targets: [{name: reviews}], peers: [{mtls: {}}]}\n";
    folder.write("a.yaml", &format!("{}  selector: {{tier: web}}\n---\n{policy}", SERVICE));
    let (objects, problems) = read_folder(&folder.0).unwrap();
    assert_eq!((objects.len(), problems.len()), (1, 1));
    let told = problems[0].note.to_string();
    assert_eq!(problems[0].note.object, ObjectRef::new("Policy", "default", "r"));
    assert!(told.contains("kind: PeerAuthentication") && told.contains("tier: web"), "{told}");
}
