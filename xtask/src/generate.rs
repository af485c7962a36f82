//! Writes what is generated, or compares it: CRDs from our own types, manifests and chart from the component files.
//!
//! Never here: how an object looks; `api-mesh` and `meshctl` know that. Called as `cargo xtask gen [--check]`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// Whether to write or to compare.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write the files.
    Write,
    /// Fail when a file differs.
    Check,
}

/// Writes or compares every generated file.
pub(crate) fn run(mode: Mode) -> Result<()> {
    for (file, args) in [("deploy/crds/istio.yaml", &[][..]), ("deploy/crds/old.yaml", &["--", "old"])] {
        let crds = sh::cargo(["run", "--quiet", "--package", "api-mesh", "--example", "crds"]).args(args).read()?;
        one(file, &crds, mode)?;
    }
    for (file, args) in [
        ("deploy/manifests/istio-demo.yaml", ["--set", "profile=demo"]),
        ("deploy/manifests/istio-demo-auth.yaml", ["--set", "profile=demo-auth"]),
    ] {
        let text =
            sh::cargo(["run", "--quiet", "--package", "meshctl", "--", "manifest", "generate", "--without-crds"])
                .args(args)
                .read()?;
        one(file, &text, mode)?;
    }
    let chart = sh::cargo(["run", "--quiet", "--package", "meshctl", "--", "manifest", "chart"]).read()?;
    for part in chart.split("#### file: ").skip(1) {
        let (name, text) = part.split_once('\n').context("a chart file without a name")?;
        one(&format!("deploy/charts/istio/{}", name.trim()), text, mode)?;
    }
    Ok(())
}

fn one(file: &str, text: &str, mode: Mode) -> Result<()> {
    let path = sh::root().join(file);
    match mode {
        Mode::Write => {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).context("could not make its folder")?;
            fs::write(&path, text).with_context(|| format!("could not write {file}"))
        }
        Mode::Check if fs::read_to_string(&path).unwrap_or_default() == text => Ok(()),
        Mode::Check => bail!("{file} is not what its source makes; run: cargo xtask gen"),
    }
}
