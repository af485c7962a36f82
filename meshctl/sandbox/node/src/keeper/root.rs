//! A container's root: the machine's programs read-only, everything else its own.
//!
//! Built in the container's fresh mount namespace by its first process, then pivoted into.
//! Never here: which volumes a Pod has. Called by `process` before exec.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::share::share;
use super::sys::{self, Limits};
use super::volume::{WORK, last_words, volume_path};
use super::wire::{Mount, Start};

/// What of the machine a container sees: programs, libraries, and (through an overlay) `/etc`.
const SHARED: [&str; 11] = ["usr", "opt", "etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "gnu"];
/// Folders that are there and empty.
const EMPTY: [&str; 8] = ["home", "root", "mnt", "srv", "boot", "media", "run", "tmp"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const ROOT_BYTES_MAX: &str = "mode=0755,size=512m";

/// A failed step, for the person who reads `kubectl describe`.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct RootError {
    step: String,
    source: io::Error,
}

trait Step<T> {
    fn step(self, text: impl FnOnce() -> String) -> Result<T, RootError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, text: impl FnOnce() -> String) -> Result<T, RootError> {
        self.map_err(|source| RootError { step: text(), source: source.into() })
    }
}

/// Where a mount goes and what stands there.
struct Place<'a> {
    mount: &'a Mount,
    tree: OwnedFd,
    folder: bool,
}

/// Builds the root and makes it `/`. `trees` are the detached program folders, in order.
pub(crate) fn enter(start: &Start, trees: Vec<OwnedFd>) -> Result<(), RootError> {
    let work = Path::new(WORK).join("work");
    let root = work.join("root");
    let skeleton = work.join("skeleton");
    mount_tmpfs(&work, ROOT_BYTES_MAX).step(|| "mount of a work folder".to_owned())?;
    for folder in [&root, &skeleton] {
        fs::create_dir(folder).step(|| format!("mkdir {}", folder.display()))?;
    }
    mount_tmpfs(&root, ROOT_BYTES_MAX).step(|| "mount of the root".to_owned())?;
    let places = places(start)?;
    let overlaid = write_skeleton(&skeleton, start, &places)?;
    for name in SHARED {
        share(&root, &skeleton, name, overlaid.contains(name)).step(|| format!("sharing /{name}"))?;
    }
    own_folders(&root).step(|| "folders of the root".to_owned())?;
    pseudo_files(&root, start.sysfs)?;
    devices(&root)?;
    programs(&root, start, trees)?;
    let base = open_folder(&root).step(|| "opening the root".to_owned())?;
    for place in places {
        let step = || format!("mount of {} at {}", place.mount.volume, place.mount.target);
        let limits = Limits { read_only: place.mount.read_only, no_privilege: true };
        sys::limit_tree(&place.tree, limits).step(step)?;
        let target = make_within(&base, Path::new(&place.mount.target), place.folder).step(step)?;
        sys::attach_tree(&place.tree, target).step(step)?;
    }
    if let Some(path) = &start.last_words {
        let step = || format!("mount of {path}");
        let tree = sys::copy_tree(&last_words(&start.pod, start.process)).step(step)?;
        let target = make_within(&base, Path::new(path), false).step(step)?;
        sys::attach_tree(tree, target).step(step)?;
    }
    if !start.command.directory.is_empty() {
        // Images bring their working folder; a read-only place keeps its own answer, at chdir.
        drop(make_within(&base, Path::new(&start.command.directory), true));
    }
    if start.read_only_root {
        let flags =
            MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(None::<&str>, &root, None::<&str>, flags, None::<&str>).step(|| "read-only root".to_owned())?;
    }
    nix::unistd::chdir(&root).step(|| "entering the root".to_owned())?;
    nix::unistd::pivot_root(".", ".").step(|| "pivot_root".to_owned())?;
    umount2(".", MntFlags::MNT_DETACH).step(|| "leaving the old root".to_owned())?;
    nix::unistd::chdir("/").step(|| "chdir /".to_owned())
}

fn mount_tmpfs(place: &Path, options: &str) -> io::Result<()> {
    fs::create_dir_all(place)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options))?;
    Ok(())
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens every mount's source before the old root is out of reach.
fn places(start: &Start) -> Result<Vec<Place<'_>>, RootError> {
    let mut mounts: Vec<&Mount> = start.mounts.iter().collect();
    mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
    mounts.into_iter().map(|mount| place(&start.pod, mount).step(|| format!("volume {}", mount.volume))).collect()
}

fn place<'a>(pod: &str, mount: &'a Mount) -> io::Result<Place<'a>> {
    let source = volume_path(pod, &mount.volume);
    let (tree, folder) = match &mount.sub_path {
        None => (sys::copy_tree(&source)?, fs::metadata(&source)?.is_dir()),
        Some(sub) => {
            let base = open_folder(&source)?;
            let found = match resolve(&base, Path::new(sub)) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => make_within(&base, Path::new(sub), true)?,
                Err(error) => return Err(error),
            };
            let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
            (sys::copy_tree_at(&found)?, kind == rustix::fs::FileType::Directory)
        }
    };
    Ok(Place { mount, tree, folder })
}

fn resolve(base: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(base, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
}

/// Makes `path` below `base`, links followed as if `base` were the root, and opens it.
fn make_within(base: &OwnedFd, path: &Path, folder: bool) -> io::Result<OwnedFd> {
    let parts: Vec<&std::ffi::OsStr> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
        })
        .collect();
    let mut so_far = PathBuf::new();
    let mut here = resolve(base, &so_far)?;
    for (number, name) in parts.iter().enumerate() {
        so_far.push(name);
        here = match resolve(base, &so_far) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if folder || number + 1 < parts.len() {
                    rustix::fs::mkdirat(&here, *name, Mode::from_raw_mode(0o755))?;
                } else {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    drop(rustix::fs::openat(&here, *name, flags, Mode::from_raw_mode(0o644))?);
                }
                resolve(base, &so_far)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(here)
}

/// Writes what must stand *below* shared folders; says which of those need an overlay.
fn write_skeleton(skeleton: &Path, start: &Start, places: &[Place<'_>]) -> Result<BTreeSet<String>, RootError> {
    let mut overlaid = BTreeSet::from(["etc".to_owned()]);
    let etc = skeleton.join("etc");
    fs::create_dir_all(&etc).step(|| "mkdir etc".to_owned())?;
    for (path, content) in &start.etc {
        let file = etc.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).step(|| format!("mkdir for /etc/{path}"))?;
        }
        fs::write(&file, content).step(|| format!("writing /etc/{path}"))?;
    }
    for place in places {
        let target = Path::new(&place.mount.target);
        let Ok(relative) = target.strip_prefix("/") else { continue };
        let Some(top) = relative.components().next().and_then(|part| part.as_os_str().to_str()) else { continue };
        if !SHARED.contains(&top)
            || target.exists()
            || start.etc.iter().any(|(path, _)| Path::new("/etc").join(path) == target)
        {
            continue;
        }
        let made = skeleton.join(relative);
        let step = || format!("mount point {}", place.mount.target);
        if place.folder {
            fs::create_dir_all(&made).step(step)?;
        } else {
            if let Some(parent) = made.parent() {
                fs::create_dir_all(parent).step(step)?;
            }
            fs::write(&made, "").step(step)?;
        }
        overlaid.insert(top.to_owned());
    }
    Ok(overlaid)
}

fn own_folders(root: &Path) -> io::Result<()> {
    for name in EMPTY {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["log", "lib", "cache", "tmp", "spool"] {
        fs::create_dir_all(root.join("var").join(name))?;
    }
    symlink("../run", root.join("var/run"))?;
    symlink("../run/lock", root.join("var/lock"))?;
    for (name, mode) in [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777), ("run", 0o755)] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn pseudo_files(root: &Path, sysfs: bool) -> Result<(), RootError> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = root.join("proc");
    fs::create_dir(&proc).step(|| "mkdir proc".to_owned())?;
    if mount(Some("proc"), &proc, Some("proc"), quiet, None::<&str>).is_err() {
        // Files of /proc are masked on this machine (as in Docker), so a new one is refused; the outer one serves.
        let step = || "mount of /proc".to_owned();
        let tree = sys::copy_tree(Path::new("/proc")).step(step)?;
        let place = open_folder(&proc).step(step)?;
        sys::attach_tree(tree, place).step(step)?;
    }
    let sys = root.join("sys");
    fs::create_dir(&sys).step(|| "mkdir sys".to_owned())?;
    if sysfs {
        mount(Some("sysfs"), &sys, Some("sysfs"), quiet | MsFlags::MS_RDONLY, None::<&str>)
            .step(|| "mount of /sys".to_owned())?;
    }
    Ok(())
}

fn devices(root: &Path) -> Result<(), RootError> {
    let dev = root.join("dev");
    let step = || "making /dev".to_owned();
    fs::create_dir(&dev).step(step)?;
    mount(Some("tmpfs"), &dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755,size=1m")).step(step)?;
    for name in DEVICES {
        let place = dev.join(name);
        fs::write(&place, "").step(step)?;
        let source = Path::new("/dev").join(name);
        mount(Some(&source), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .step(|| format!("bind of /dev/{name}"))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name)).step(step)?;
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let terminals = "newinstance,ptmxmode=0666,mode=0620";
    mount(Some("devpts"), &dev.join("pts"), Some("devpts"), quiet, Some(terminals))
        .step(|| "mount of /dev/pts".to_owned())?;
    let memory = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &dev.join("shm"), Some("tmpfs"), memory, Some("mode=1777,size=64m")).step(step)?;
    let queue = dev.join("mqueue");
    if mount(Some("mqueue"), &queue, Some("mqueue"), quiet | MsFlags::MS_NODEV, None::<&str>).is_err() {
        fs::remove_dir(&queue).step(step)?;
    }
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(link)).step(step)?;
    }
    Ok(())
}

fn programs(root: &Path, start: &Start, trees: Vec<OwnedFd>) -> Result<(), RootError> {
    let mut trees = trees.into_iter();
    for programs in &start.programs {
        let step = || format!("programs of {}", programs.folder.display());
        let place = root.join(programs.at.trim_start_matches('/'));
        fs::create_dir_all(&place).step(step)?;
        let tree = if programs.detached { trees.next() } else { None };
        let tree = match tree {
            Some(tree) => tree,
            None => sys::copy_tree(&programs.folder).step(step)?,
        };
        sys::limit_tree(&tree, Limits { read_only: true, no_privilege: true }).step(step)?;
        let target = open_folder(&place).step(step)?;
        sys::attach_tree(tree, target).step(step)?;
    }
    for (path, target) in &start.links {
        let link = root.join(path.trim_start_matches('/'));
        if let Some(parent) = link.parent() {
            fs::create_dir_all(parent).step(|| format!("link {path}"))?;
        }
        symlink(target, link).step(|| format!("link {path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(link: Option<(&str, &str)>, path: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        if let Some((name, target)) = link {
            symlink(target, folder.path().join(name)).unwrap();
        }
        let base = open_folder(folder.path()).unwrap();
        make_within(&base, Path::new(path), true).unwrap();
        assert!(folder.path().join(expected).is_dir(), "{expected}");
    }

    #[test]
    fn a_mount_point_is_made_with_its_parents() {
        check(None, "/a/b/c", "a/b/c");
    }

    #[test]
    fn an_absolute_link_stays_within_the_root() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("run")).unwrap();
        symlink("/run", folder.path().join("var")).unwrap();
        let base = open_folder(folder.path()).unwrap();
        make_within(&base, Path::new("/var/secrets"), true).unwrap();
        assert!(folder.path().join("run/secrets").is_dir());
    }

    #[test]
    fn dots_cannot_leave_the_root() {
        check(None, "/../../x", "x");
    }
}
