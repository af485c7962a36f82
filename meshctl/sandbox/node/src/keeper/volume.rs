//! Volumes as folders below the sandbox's own tmpfs.
//!
//! Empty ones are a tmpfs each; files are swapped in at once through `..data`, as Kubernetes does it.
//! Never here: where the content comes from. Called by `serve` inside the keeper; `root` mounts them.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::sys::{self, Limits};
use super::wire::{FileEntry, HostKind, Volume};

/// Everything of the sandbox lives below this folder, which is a tmpfs of its own mount namespace.
pub(crate) const WORK: &str = "/run/ferromesh";

/// A Pod's folder.
pub(crate) fn pod_folder(pod: &str) -> PathBuf {
    Path::new(WORK).join("pods").join(pod)
}

/// A volume's place.
pub(crate) fn volume_path(pod: &str, name: &str) -> PathBuf {
    pod_folder(pod).join(name)
}

/// Makes or refreshes a volume.
pub(crate) fn put(pod: &str, name: &str, content: &Volume) -> io::Result<()> {
    let place = volume_path(pod, name);
    match content {
        Volume::Empty { bytes_max, group } => {
            if place.exists() {
                return Ok(());
            }
            fs::create_dir_all(&place)?;
            let options = format!("mode=0777,size={bytes_max}");
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("tmpfs"), &place, Some("tmpfs"), flags, Some(options.as_str()))?;
            if let Some(group) = group {
                own_by(&place, *group);
                fs::set_permissions(&place, fs::Permissions::from_mode(0o2777))?;
            }
            Ok(())
        }
        Volume::Files { files, group } => put_files(&place, files, *group),
        Volume::Host { path, kind } => put_host(&place, path, *kind),
    }
}

/// A group that this sandbox cannot map is left out: files stay readable by mode.
fn own_by(path: &Path, group: u32) {
    if let Err(error) = std::os::unix::fs::chown(path, None, Some(group)) {
        tracing::debug!(path = %path.display(), group, %error, "group not mapped");
    }
}

fn put_files(place: &Path, files: &[FileEntry], group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(place)?;
    let old = fs::read_link(place.join("..data")).ok();
    let number = old.as_ref().and_then(|old| old.to_str()?.strip_prefix("..v")?.parse::<u64>().ok()).unwrap_or(0) + 1;
    let fresh = format!("..v{number}");
    let folder = place.join(&fresh);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    let mut tops: Vec<&std::ffi::OsStr> = Vec::new();
    for file in files {
        let path = plain(&file.path)?;
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.content)?;
        let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
        if let Some(group) = group {
            own_by(&target, group);
        }
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        if let Some(Component::Normal(top)) = path.components().next()
            && !tops.contains(&top)
        {
            tops.push(top);
        }
    }
    let next = place.join("..data_next");
    if next.symlink_metadata().is_ok() {
        fs::remove_file(&next)?;
    }
    symlink(&fresh, &next)?;
    fs::rename(&next, place.join("..data"))?;
    for top in &tops {
        let link = place.join(top);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("..") && !tops.contains(&name.as_os_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(place.join(old))?;
    }
    Ok(())
}

/// A relative path that stays where it is put.
fn plain(path: &str) -> io::Result<&Path> {
    let path = Path::new(path);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    if stays && path.components().next().is_some() {
        Ok(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not a plain relative path", path.display())))
    }
}

fn put_host(place: &Path, path: &Path, kind: HostKind) -> io::Result<()> {
    if place.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    if path.starts_with(WORK) {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    if let Ok(found) = fs::metadata(path) {
        let tree = sys::copy_tree(path)?;
        sys::limit_tree(&tree, Limits { read_only: true, no_privilege: true })?;
        make_place(place, found.is_dir())?;
        return sys::attach_tree(tree, rustix::fs::open(place, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?);
    }
    let folder = match kind {
        HostKind::Present => {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is absent", path.display())));
        }
        HostKind::FolderOrNew => true,
        HostKind::FileOrNew => false,
    };
    let relative: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let own = Path::new(WORK).join("host").join(relative);
    if !own.exists() {
        if let Some(parent) = own.parent() {
            fs::create_dir_all(parent)?;
        }
        make_place(&own, folder)?;
        fs::set_permissions(&own, fs::Permissions::from_mode(if folder { 0o777 } else { 0o666 }))?;
    }
    make_place(place, folder)?;
    mount(Some(&own), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

fn make_place(place: &Path, folder: bool) -> io::Result<()> {
    if folder { fs::create_dir(place) } else { fs::File::create(place).map(drop) }
}

/// The file in which a container may say why it ends.
pub(crate) fn last_words(pod: &str, process: u64) -> PathBuf {
    pod_folder(pod).join(format!(".last-words-{process}"))
}

/// Makes that file; whoever the container runs as may write it.
pub(crate) fn make_last_words(pod: &str, process: u64) -> io::Result<()> {
    let path = last_words(pod, process);
    fs::write(&path, "")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
}

/// Opens that file for the last time.
pub(crate) fn take_last_words(pod: &str, process: u64) -> io::Result<fs::File> {
    let path = last_words(pod, process);
    let file = fs::File::open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// Removes a Pod's volumes.
pub(crate) fn forget(pod: &str) -> io::Result<()> {
    let folder = pod_folder(pod);
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        // Only some are mounts; a folder of files answers EINVAL.
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fs::remove_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, content: &str) -> FileEntry {
        FileEntry { path: path.to_owned(), content: content.as_bytes().to_vec(), mode: 0o644 }
    }

    #[test]
    fn files_are_swapped_at_once_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("v");
        put_files(&place, &[entry("a", "1"), entry("d/b", "2")], None).unwrap();
        put_files(&place, &[entry("a", "3")], None).unwrap();
        assert_eq!(fs::read_to_string(place.join("a")).unwrap(), "3");
        assert!(!place.join("d").exists());
        assert_eq!(fs::read_link(place.join("..data")).unwrap(), Path::new("..v2"));
        assert!(!place.join("..v1").exists());
    }

    #[test]
    fn a_path_that_leaves_is_refused() {
        assert!(plain("../x").is_err());
        assert!(plain("/x").is_err());
        assert!(plain("").is_err());
        assert!(plain("a/b").is_ok());
    }
}
