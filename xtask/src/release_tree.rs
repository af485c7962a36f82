//! Lays out what a user unpacks: `bin/istioctl`, `samples/`, `install/kubernetes/…`, as the tutorials expect it.
//!
//! Never here: building in another way than the demo does. Called as `cargo xtask release-tree DIR` and by tests.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, Result};

use crate::{sh, test};

/// Makes the tree in `dir`, which may exist.
pub(crate) fn run(dir: &Path) -> Result<()> {
    test::build_programs()?;
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("could not make {}", bin.display()))?;
    for name in ["meshctl", "proxy", "pilot", "citadel", "injector", "samples"] {
        fs::copy(sh::target().join("demo").join(name), bin.join(name))
            .with_context(|| format!("could not copy {name}"))?;
    }
    if !bin.join("istioctl").exists() {
        symlink("meshctl", bin.join("istioctl")).context("could not name meshctl istioctl")?;
    }
    copy(&sh::root().join("examples/manifests"), &dir.join("samples"))?;
    let install = dir.join("install/kubernetes");
    fs::create_dir_all(&install).context("could not make install/kubernetes")?;
    let mut crds = String::new();
    for name in ["istio.yaml", "old.yaml"] {
        crds += &fs::read_to_string(sh::root().join("deploy/crds").join(name)).context("could not read the CRDs")?;
    }
    for name in ["istio-demo.yaml", "istio-demo-auth.yaml"] {
        // People apply these with one command: the CRDs come first.
        let objects =
            fs::read_to_string(sh::root().join("deploy/manifests").join(name)).context("could not read a manifest")?;
        fs::write(install.join(name), format!("{}\n---\n{objects}", crds.trim_end()))
            .context("could not write a manifest")?;
    }
    copy(&sh::root().join("deploy/charts/istio"), &install.join("helm/istio"))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("could not make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("could not read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("could not write {}", target.display()))?;
        }
    }
    Ok(())
}
