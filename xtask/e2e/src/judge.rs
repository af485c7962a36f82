//! Finds what others wrote and we are judged by: kubectl of several versions, Envoy, Python with grpcio, Helm; and data.
//!
//! Never here: installing them; `.ci/run` does. Called by tests, which say *not run* where one is absent.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A program on the search path.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Every kubectl of this machine: version and program. `kubectl-1.20` and `kubectl.1.27` … beside the real `kubectl`.
pub fn kubectls() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    if let Some(old) = program("kubectl-1.20") {
        found.push(("1.20".to_owned(), old));
    }
    if let Some(kubectl) = program("kubectl") {
        let beside = std::fs::canonicalize(&kubectl).ok().and_then(|real| real.parent().map(Path::to_path_buf));
        for minor in 27..=33 {
            let file = beside.as_ref().map(|dir| dir.join(format!("kubectl.1.{minor}")));
            if let Some(file) = file.filter(|file| file.is_file()) {
                found.push((format!("1.{minor}"), file));
            }
        }
        if found.iter().all(|(version, _)| version == "1.20") {
            found.push((client_version(&kubectl).unwrap_or_else(|| "unknown".to_owned()), kubectl));
        }
    }
    found
}

fn client_version(kubectl: &Path) -> Option<String> {
    let output = Command::new(kubectl).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let git = version["clientVersion"]["gitVersion"].as_str()?.trim_start_matches('v').to_owned();
    Some(git.splitn(3, '.').take(2).collect::<Vec<_>>().join("."))
}

/// The folder of public data, or why it is not there.
///
/// # Errors
/// The reason, for *not run*.
pub fn shared() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = std::env::var_os("FERROMESH_SHARED").map_or_else(|| root.join("../shared"), |dir| root.join(dir));
    if dir.is_dir() { Ok(dir) } else { Err(format!("{} is not there (FERROMESH_SHARED)", dir.display())) }
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A program of ours, built by `cargo xtask test`.
pub fn ours(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("FERROMESH_BIN").unwrap_or_default()).join(name)
}

/// The program behind `cargo xtask`, beside the programs of ours.
pub fn xtask() -> PathBuf {
    ours("../debug/xtask")
}
