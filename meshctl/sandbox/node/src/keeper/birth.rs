//! Makes the keeper: a clone of this single-threaded process in namespaces of its own.
//!
//! Chooses how user ids are mapped, waits for the keeper's first word, and explains machines that forbid it.
//! Never here: what the keeper does then. Called by the daemon's `main` before any thread exists.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Uid, pipe2};

use super::serve;
use super::sys::{self, Side};
use super::wire::{Facts, Say, Trouble, receive};

/// Root's sandboxes get ranges from here on: above what login tools hand out.
const HIGH_RANGE: u64 = 0x7000_0000;
const RANGE: u64 = 65_536;
const RANGES: u64 = 1_024;
const EPERM: i32 = 1;
const ENOSPC: i32 = 28;

/// How user ids inside stand for those outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// An ordinary user alone: everything inside runs as them.
    One,
    /// An ordinary user with subordinate ids.
    Subordinate,
    /// Root, mapped to an unused high range.
    High,
}

/// Why there is no sandbox on this machine.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// A system call failed before anything stood.
    #[error("could not {step}")]
    Call {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The machine forbids it; the text says what to do.
    #[error("this machine does not allow a sandbox: {step} failed ({text})\n{advice}")]
    Forbidden {
        /// The step that failed.
        step: String,
        /// The kernel's answer.
        text: String,
        /// What the user can do.
        advice: String,
    },
    /// The keeper ended before its first word.
    #[error("the sandbox's first process ended while starting; see the log")]
    Silent,
}

/// A keeper that stands. It must be ended by [`Keeper::pid`] or with this process.
#[derive(Debug)]
pub struct Keeper {
    pub(crate) socket: OwnedFd,
    pub(crate) facts: Facts,
    /// Its process id on the host.
    pub pid: i32,
    /// How user ids are mapped.
    pub users: Users,
}

fn call<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> BirthError {
    move |source| BirthError::Call { step, source: source.into() }
}

/// Starts a keeper for the sandbox of this name. The calling process must have one thread.
pub fn start(name: &str) -> Result<Keeper, BirthError> {
    let users = preferred();
    match attempt(name, users) {
        Err(BirthError::Call { step: MAP_SUBORDINATE, source }) => {
            tracing::warn!(%source, "subordinate ids cannot be mapped; everything inside runs as one user");
            attempt(name, Users::One)
        }
        other => other,
    }
}

const MAP_SUBORDINATE: &str = "map subordinate ids";

fn preferred() -> Users {
    if !Uid::effective().is_root() {
        return if subordinate("/etc/subuid").is_some() && subordinate("/etc/subgid").is_some() {
            Users::Subordinate
        } else {
            Users::One
        };
    }
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().map(str::parse::<u64>).collect::<Result<Vec<_>, _>>();
    match whole.as_deref() {
        Ok([0, _, length]) if *length >= HIGH_RANGE + RANGE * RANGES => Users::High,
        // Root of a container, which is nobody's root outside.
        _ => Users::One,
    }
}

/// The first range of at least 65535 ids that belongs to us.
fn subordinate(file: &str) -> Option<u64> {
    let uid = Uid::effective();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    find_range(&fs::read_to_string(file).ok()?, name.as_deref(), uid.as_raw())
}

fn find_range(text: &str, name: Option<&str>, uid: u32) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let (start, count) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
        let ours = Some(owner) == name || owner.parse() == Ok(uid);
        (ours && count >= RANGE - 1).then_some(start)
    })
}

fn attempt(name: &str, users: Users) -> Result<Keeper, BirthError> {
    let (here, there) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(call("make a socket pair"))?;
    let myself = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .map_err(call("open a descriptor of this process"))?;
    let (mapped, map_done) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(call("make a pipe"))?;
    let spaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    let pid = match sys::clone_process(spaces.bits()) {
        Err(error) => return Err(forbidden(&Trouble::of("clone", &error))),
        Ok(Side::Child) => {
            drop(here);
            drop(map_done);
            sys::leave(child(there, &mapped, &myself, name))
        }
        Ok(Side::Parent(pid)) => pid,
    };
    drop(there);
    drop(mapped);
    if let Err(error) = map(pid, users, name) {
        // The child waits for the byte that never comes, and ends.
        drop(map_done);
        reap(pid);
        return Err(error);
    }
    fs::File::from(map_done).write_all(b"m").map_err(call("wake the keeper"))?;
    match receive::<Say>(&here) {
        Ok(Some((Say::Hello(Ok(facts)), _))) => Ok(Keeper { socket: here, facts, pid, users }),
        Ok(Some((Say::Hello(Err(trouble)), _))) => {
            reap(pid);
            Err(forbidden(&trouble))
        }
        Ok(_) | Err(_) => {
            reap(pid);
            Err(BirthError::Silent)
        }
    }
}

fn reap(pid: i32) {
    // It has ended or is about to; there is nothing to learn from its code.
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).ok();
}

fn child(socket: OwnedFd, mapped: &OwnedFd, daemon: &OwnedFd, name: &str) -> i32 {
    let keep = [socket.as_raw_fd(), mapped.as_raw_fd(), daemon.as_raw_fd()];
    // The log stays its error stream; nothing else of the daemon's is kept open.
    if sys::close_all_but(&keep).is_err() || sys::no_input_or_output().is_err() {
        return 1;
    }
    let mut byte = [0];
    match nix::unistd::read(mapped.as_fd(), &mut byte) {
        Ok(1) => serve::live(socket, daemon, name),
        _ => 1,
    }
}

fn map(pid: i32, users: Users, name: &str) -> Result<(), BirthError> {
    let file = |kind: &str| format!("/proc/{pid}/{kind}");
    let write =
        |kind: &str, text: String| fs::write(file(kind), text).map_err(|error| forbidden(&Trouble::of(kind, &error)));
    let (uid, gid) = (Uid::effective(), nix::unistd::Gid::effective());
    match users {
        Users::One => {
            write("setgroups", "deny".to_owned())?;
            write("uid_map", format!("0 {uid} 1"))?;
            write("gid_map", format!("0 {gid} 1"))
        }
        Users::High => {
            let start = HIGH_RANGE + name_number(name) % RANGES * RANGE;
            write("uid_map", format!("0 {start} {RANGE}"))?;
            write("gid_map", format!("0 {start} {RANGE}"))
        }
        Users::Subordinate => {
            for (program, table, own) in
                [("newuidmap", "/etc/subuid", uid.as_raw()), ("newgidmap", "/etc/subgid", gid.as_raw())]
            {
                let start = subordinate(table).ok_or_else(|| call(MAP_SUBORDINATE)(io::Error::other("no range")))?;
                let count = (RANGE - 1).to_string();
                let args = [&pid.to_string(), "0", &own.to_string(), "1", "1", &start.to_string(), &count];
                let output = Command::new(program).args(args).output().map_err(call(MAP_SUBORDINATE))?;
                if !output.status.success() {
                    let text = String::from_utf8_lossy(&output.stderr).into_owned();
                    return Err(call(MAP_SUBORDINATE)(io::Error::other(text)));
                }
            }
            Ok(())
        }
    }
}

/// Spreads sandboxes over ranges, so that two do not share user ids.
fn name_number(name: &str) -> u64 {
    name.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

impl Trouble {
    fn of(step: &str, error: &io::Error) -> Self {
        Self { step: step.to_owned(), errno: error.raw_os_error().unwrap_or_default(), text: error.to_string() }
    }
}

fn forbidden(trouble: &Trouble) -> BirthError {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let advice = advise(trouble, &read);
    BirthError::Forbidden { step: trouble.step.clone(), text: trouble.text.clone(), advice }
}

/// What to tell the user, from the failed step and the machine's settings.
fn advise(trouble: &Trouble, read: &dyn Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| read(path).as_deref() == Some(value);
    let apparmor = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    if trouble.errno == ENOSPC {
        return "The limit on namespaces is reached (or 0). Raise it: sudo sysctl user.max_user_namespaces=10000 \
                user.max_net_namespaces=10000 user.max_mnt_namespaces=10000 user.max_pid_namespaces=10000"
            .to_owned();
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "User namespaces are switched off. Switch them on: sudo sysctl kernel.unprivileged_userns_clone=1"
            .to_owned();
    }
    if is(apparmor, "1") && trouble.step != "clone" {
        return "AppArmor takes the rights of user namespaces away (Ubuntu 23.10 and later). One of:\n  \
                sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0\n  \
                an AppArmor profile for meshctl's path with `flags=(unconfined) { userns, }`\n  \
                sudo meshctl up"
            .to_owned();
    }
    if trouble.step == "clone" && trouble.errno == EPERM {
        return "A seccomp filter forbids new namespaces, as in Docker and Kubernetes. Run the container with \
                --privileged, or with --security-opt seccomp=unconfined apparmor=unconfined systempaths=unconfined"
            .to_owned();
    }
    if trouble.step == "proc" {
        return "Files below /proc are masked, as in Docker. Run the container with --privileged, or with \
                --security-opt systempaths=unconfined"
            .to_owned();
    }
    if trouble.step == "network" && !Path::new("/proc/sys/net/ipv4").exists() {
        return "The kernel has no network namespaces.".to_owned();
    }
    "The kernel gave no further reason; `dmesg` may.".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(step: &str, errno: i32, setting: (&str, &str), expected: &str) {
        let trouble = Trouble { step: step.to_owned(), errno, text: String::new() };
        let advice = advise(&trouble, &|path| (path.ends_with(setting.0)).then(|| setting.1.to_owned()));
        assert!(advice.contains(expected), "{advice}");
    }

    #[test]
    fn ubuntus_apparmor_is_named() {
        check(
            "first mount",
            13,
            ("apparmor_restrict_unprivileged_userns", "1"),
            "apparmor_restrict_unprivileged_userns=0",
        );
    }

    #[test]
    fn old_debian_is_named() {
        check("clone", 1, ("unprivileged_userns_clone", "0"), "unprivileged_userns_clone=1");
    }

    #[test]
    fn a_seccomp_filter_is_named() {
        check("clone", 1, ("none", ""), "--privileged");
    }

    #[test]
    fn a_reached_limit_is_named() {
        check("clone", 28, ("none", ""), "max_user_namespaces");
    }

    #[test]
    fn a_subordinate_range_is_found_by_name_or_number() {
        assert_eq!(find_range("a:1:65536\nme:100000:65536\n", Some("me"), 7), Some(100_000));
        assert_eq!(find_range("7:200000:65536", None, 7), Some(200_000));
        assert_eq!(find_range("me:100000:10", Some("me"), 7), None);
    }
}
