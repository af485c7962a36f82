//! How much memory this process uses and may use, and how many files it may open, as Linux tells it.
//!
//! The limit is the least of what its control groups (version 1 or 2, and those above them) and its resource limits say.
//! Never here: what follows from it. Made by `run`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Memory, Monitor, Unreadable};
use crate::limits::{CONNECTIONS_SHARE, OVERLOAD_SHRINK_EVERY};

/// Where the process's own state is told.
const STATUS: &str = "/proc/self/status";
/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Version 1 says "none" with the largest number of pages; nobody has as much.
const NO_LIMIT: u64 = 1 << 60;

/// This process.
#[derive(Debug, Default)]
pub(crate) struct System {
    reads: u32,
    limit: u64,
}

impl Monitor for System {
    fn read(&mut self) -> Result<Memory, Unreadable> {
        // A limit may be changed while the process runs, but it rarely is.
        if self.reads.is_multiple_of(OVERLOAD_SHRINK_EVERY) {
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let groups = limit(&own, |path| fs::read_to_string(path).ok());
            let resources = [Resource::RLIMIT_AS, Resource::RLIMIT_DATA].into_iter().filter_map(resource);
            self.limit = groups.into_iter().chain(resources).min().unwrap_or(0);
        }
        self.reads = self.reads.wrapping_add(1);
        let status = fs::read_to_string(STATUS).map_err(Unreadable::Status)?;
        Ok(Memory { used: resident(&status).ok_or(Unreadable::NotSaid)?, limit: self.limit })
    }

    fn shrink(&mut self) {
        if self.reads.is_multiple_of(OVERLOAD_SHRINK_EVERY) {
            trim();
        }
    }
}

/// What the allocator keeps for later goes back to the system: else memory that was used once counts for ever.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
fn trim() {
    // SAFETY: takes no pointer, and may be called from any thread at any time.
    unsafe { nix::libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

fn resource(which: Resource) -> Option<u64> {
    getrlimit(which).ok().map(|(soft, _)| soft).filter(|soft| *soft < NO_LIMIT)
}

/// Resident memory in `/proc/self/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least limit of the control groups named in `/proc/self/cgroup`.
fn limit(own: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut files: Vec<PathBuf> = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (PathBuf::from(CGROUPS), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (Path::new(CGROUPS).join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Inside a container the path may be the host's, while the mount shows the container's own group as its root.
        let relative = Path::new(path.trim_start_matches('/'));
        files.extend(relative.ancestors().map(|group| root.join(group).join(file)));
    }
    let value = |file: &PathBuf| read(file)?.trim().parse().ok().filter(|bytes: &u64| *bytes < NO_LIMIT);
    files.iter().filter_map(value).min()
}

/// Raises the number of files that may be open as far as it goes; gives how many connections may come in.
pub(crate) fn connections_max() -> u64 {
    let which = Resource::RLIMIT_NOFILE;
    let Ok((soft, hard)) = getrlimit(which) else { return u64::MAX };
    let files = match setrlimit(which, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::debug!(%error, soft, hard, "the limit of open files stays");
            soft
        }
    };
    share(files)
}

fn share(files: u64) -> u64 {
    files.saturating_mul(CONNECTIONS_SHARE) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn check(own: &str, files: &[(&str, &str)], want: Option<u64>) {
        let read = |path: &Path| {
            files.iter().find(|(name, _)| Path::new(CGROUPS).join(name) == path).map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(limit(own, read), want, "{own}");
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        check("0::/\n", &[("memory.max", "134217728\n")], Some(128 * MIB));
        check("0::/a/b\n", &[("a/b/memory.max", "max\n"), ("a/memory.max", "268435456\n")], Some(256 * MIB));
        check("0::/kubepods/pod1/c1\n", &[("memory.max", "67108864\n")], Some(64 * MIB));
        check(
            "9:cpu,cpuacct:/x\n4:memory:/a\n0::/\n",
            &[
                ("memory/a/memory.limit_in_bytes", "67108864\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ],
            Some(64 * MIB),
        );
    }

    #[test]
    fn no_limit_is_none() {
        check("", &[], None);
        check("0::/\n", &[("memory.max", "max\n")], None);
        check("4:memory:/\n", &[("memory/memory.limit_in_bytes", "9223372036854771712\n")], None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tproxy\nVmRSS:\t   12345 kB\nThreads:\t1\n"), Some(12345 * 1024));
        assert_eq!(resident("Name:\tproxy\n"), None);
        assert!(System::default().read().unwrap().used > MIB);
    }

    #[test]
    fn connections_are_less_than_half_of_the_files() {
        assert_eq!(share(1000), 400);
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(connections_max(), share(hard));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard), "as many as may be are opened");
    }
}
