//! The machine's own folders in a container's root: shared, read-only, with what the Pod puts below them.
//!
//! Never here: which folders, or what is put there. Called by `root`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use rustix::fs::{Mode, OFlags};

use super::sys::{self, Limits};

/// One top-level folder of the machine: a link is copied, a folder bound, or laid under the skeleton.
pub(super) fn share(root: &Path, skeleton: &Path, name: &str, overlaid: bool) -> io::Result<()> {
    let machine = Path::new("/").join(name);
    let place = root.join(name);
    let Ok(found) = fs::symlink_metadata(&machine) else {
        return if overlaid { copy_folder(&skeleton.join(name), &place) } else { Ok(()) };
    };
    if found.is_symlink() {
        return symlink(fs::read_link(&machine)?, &place);
    }
    fs::create_dir(&place)?;
    if overlaid {
        let options = format!("lowerdir={}:{}", skeleton.join(name).display(), machine.display());
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        match mount(Some("overlay"), &place, Some("overlay"), flags, Some(options.as_str())) {
            Ok(()) => return Ok(()),
            // Mounts below the folder, or a kernel that allows no overlay here: the same picture, entry by entry.
            Err(_) => return merge(&skeleton.join(name), &machine, &place),
        }
    }
    bind(&machine, &place)
}

fn bind(source: &Path, place: &Path) -> io::Result<()> {
    let tree = sys::copy_tree(source)?;
    sys::limit_tree(&tree, Limits { read_only: true, no_privilege: true })?;
    sys::attach_tree(tree, rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// What an overlay would show, made of links and binds.
fn merge(skeleton: &Path, machine: &Path, place: &Path) -> io::Result<()> {
    fs::create_dir_all(place)?;
    for entry in fs::read_dir(machine)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let (over, target) = (skeleton.join(&name), place.join(&name));
        if over.is_dir() && kind.is_dir() {
            merge(&over, &entry.path(), &target)?;
        } else if over.exists() {
            continue;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            bind(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::write(&target, "")?;
            bind(&entry.path(), &target)?;
        }
    }
    if skeleton.is_dir() {
        for entry in fs::read_dir(skeleton)? {
            let entry = entry?;
            let target = place.join(entry.file_name());
            if target.symlink_metadata().is_ok() {
                continue;
            }
            if entry.file_type()?.is_dir() {
                copy_folder(&entry.path(), &target)?;
            } else {
                fs::copy(entry.path(), target)?;
            }
        }
    }
    Ok(())
}
