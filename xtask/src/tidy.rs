//! What no compiler checks: every file says its job, and packages use only what the crate table allows.
//!
//! The table is that of `ARCHITECTURE.md`. Never here: style that rustfmt or clippy can see. Called as `cargo xtask tidy`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// Package, the packages of ours it may use, and crates it must never name.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    ("api", &[], &["tokio", "kube", "tonic", "hyper", "tracing", "rand", "jiff"]),
    ("api-mesh", &["api"], &["tokio", "kube", "tonic", "hyper", "tracing", "rand", "k8s-openapi"]),
    ("api-xds", &["api"], &["kube", "k8s-openapi"]),
    ("api-rt", &["api", "api-xds"], &["kube", "k8s-openapi"]),
    ("api-kube", &["api", "api-mesh", "api-rt"], &[]),
    ("proxy", &["api", "api-xds", "api-rt"], &["kube", "k8s-openapi"]),
    ("pilot", &["api", "api-mesh", "api-xds", "api-rt", "api-kube"], &[]),
    ("citadel", &["api", "api-mesh", "api-xds", "api-rt", "api-kube"], &[]),
    ("injector", &["api", "api-mesh", "api-rt", "api-kube"], &[]),
    ("meshctl", &["api", "api-mesh", "api-xds", "api-rt", "api-kube", "sandbox-server", "sandbox-node"], &[]),
    ("sandbox-server", &[], &[]),
    ("sandbox-node", &["sandbox-server"], &[]),
    ("examples", &[], &["kube", "tonic"]),
    ("xtask", &[], &["tokio"]),
    ("bench", &["api", "api-mesh", "api-xds", "api-rt"], &[]),
    ("e2e", &["api", "api-mesh", "api-xds", "api-rt"], &[]),
    ("fuzz", &["api", "api-xds"], &["kube", "tonic"]),
];

/// The map that must name every package and top-level folder.
const MAP: &str = "ARCHITECTURE.md";

/// Checks all of it and tells every finding at once.
pub(crate) fn run() -> Result<()> {
    let tracked = sh::program("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).read()?;
    let files: Vec<PathBuf> =
        tracked.lines().map(PathBuf::from).filter(|path| sh::root().join(path).is_file()).collect();
    let mut findings = Vec::new();
    heads(&files, &mut findings)?;
    edges(&files, &mut findings)?;
    let map = fs::read_to_string(sh::root().join(MAP)).with_context(|| format!("could not read {MAP}"))?;
    named(&files, &map, &mut findings);
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}\n{} findings", findings.join("\n"), findings.len())
}

/// A file opens with its job in one sentence, an empty line, and what never happens there.
fn heads(files: &[PathBuf], findings: &mut Vec<String>) -> Result<()> {
    for path in files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs")) {
        let text =
            fs::read_to_string(sh::root().join(path)).with_context(|| format!("could not read {}", path.display()))?;
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if let Some(lacks) = lacks(&head) {
            findings.push(format!("{}: opens without {lacks} (style.md, habit 1)", path.display()));
        }
    }
    Ok(())
}

/// What the head of a file does not say.
fn lacks(head: &[&str]) -> Option<&'static str> {
    let words: Vec<&str> = head.iter().flat_map(|line| line.trim_start_matches("//!").split_whitespace()).collect();
    if head.len() < 3 || head.get(1) != Some(&"//!") {
        Some("its job, an empty line and its borders")
    } else if !words.windows(2).any(|pair| pair == ["Never", "here:"]) {
        Some("what is \"Never here:\"")
    } else {
        None
    }
}

fn edges(files: &[PathBuf], findings: &mut Vec<String>) -> Result<()> {
    let table: BTreeMap<_, _> = TABLE.iter().map(|(name, may, never)| (*name, (*may, *never))).collect();
    for path in files.iter().filter(|path| path.ends_with("Cargo.toml") && path != &Path::new("Cargo.toml")) {
        let text =
            fs::read_to_string(sh::root().join(path)).with_context(|| format!("could not read {}", path.display()))?;
        let Some(name) = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')) else {
            continue;
        };
        let Some((may, never)) = table.get(name) else {
            findings.push(format!("{}: package {name} is not in the crate table", path.display()));
            continue;
        };
        let used = text
            .split_once("\n[dependencies]\n")
            .map_or("", |(_, rest)| rest)
            .lines()
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|word| !word.is_empty());
        for used in used {
            if table.contains_key(used) && !may.contains(&used) {
                findings.push(format!("{}: {name} must not use {used} (crate table)", path.display()));
            }
            if never.contains(&used) {
                findings.push(format!("{}: {name} must never use {used} (crate table)", path.display()));
            }
        }
    }
    Ok(())
}

fn named(files: &[PathBuf], map: &str, findings: &mut Vec<String>) {
    let mut folders: Vec<String> = files
        .iter()
        .filter(|path| path.components().count() > 1)
        .filter_map(|path| path.components().next().map(|first| first.as_os_str().to_string_lossy().into_owned()))
        .collect();
    folders.sort();
    folders.dedup();
    for folder in folders.iter().filter(|folder| !map.contains(&format!("`{folder}/`"))) {
        findings.push(format!("{folder}/: a top-level folder that {MAP} does not name"));
    }
    for (package, ..) in TABLE.iter().filter(|(package, ..)| !map.contains(&format!("| `{package}` |"))) {
        findings.push(format!("{package}: a package that {MAP} does not name"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, expected: Option<&str>) {
        assert_eq!(lacks(&head.lines().collect::<Vec<_>>()), expected);
    }

    #[test]
    fn a_head_says_its_job_and_what_never_happens_there() {
        check("//! Counts.\n//!\n//! Never here: luck.", None);
        check("//! Counts.\n//!\n//! What is asked. Never\n//! here: luck.", None);
        check("//! Counts.\n//!\n//! Called by `main`.", Some("what is \"Never here:\""));
        check("//! Counts.", Some("its job, an empty line and its borders"));
    }

    #[test]
    fn the_map_names_every_folder_and_package() {
        let mut findings = Vec::new();
        named(&["new/a.rs".into(), "b.rs".into()], "| `api/` | `api` |", &mut findings);
        assert_eq!(findings.len(), TABLE.len());
        assert_eq!(findings[0], "new/: a top-level folder that ARCHITECTURE.md does not name");
    }
}
