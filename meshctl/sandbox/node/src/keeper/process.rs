//! Turns a fresh child of the keeper into a container's process.
//!
//! Standard streams or a terminal, root, person, limits, exec. What goes wrong is written to the complaint pipe, whose
//! silent end means that the program runs. Never here: bookkeeping. Called by `serve` after a fork.

use std::ffi::{CString, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use caps::{CapSet, Capability};
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, execve, setgroups, setresgid, setresuid};

use super::network::PodSpaces;
use super::root;
use super::sys::{self, Side};
use super::wire::{Command, Person, Start, send};

const OOM_SCORE: &str = "300";
/// What a shell says of a program that is absent.
const EXIT_NOT_FOUND: i32 = 127;
const EXIT_FAILED: i32 = 126;

/// Why a process did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    #[error("{0}")]
    Root(#[from] root::RootError),
    #[error("{step}: {source}")]
    Step { step: &'static str, source: io::Error },
    #[error("exec: \"{0}\": executable file not found in $PATH")]
    NotInPath(String),
    #[error("exec: \"{program}\": {source}")]
    Exec { program: String, source: io::Error },
    #[error("no command")]
    NoCommand,
    #[error("too few descriptors came with the request")]
    Descriptors,
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> BeginError {
    move |source| BeginError::Step { step, source: source.into() }
}

/// The streams of a process to be.
struct Streams {
    complaint: OwnedFd,
    standard: Standard,
}

enum Standard {
    Pipes([OwnedFd; 3]),
    Terminal(OwnedFd),
}

fn streams(command: &Command, fds: &mut std::vec::IntoIter<OwnedFd>) -> Result<Streams, BeginError> {
    let mut next =
        || fds.next().ok_or(BeginError::Descriptors).and_then(|fd| sys::lift_fd(&fd).map_err(step("descriptors")));
    let complaint = next()?;
    let standard =
        if command.terminal { Standard::Terminal(next()?) } else { Standard::Pipes([next()?, next()?, next()?]) };
    Ok(Streams { complaint, standard })
}

fn complain(complaint: &OwnedFd, error: &BeginError) -> i32 {
    let text = error.to_string();
    if let Ok(copy) = complaint.try_clone() {
        // The reader may be gone; the exit code says it too.
        drop(std::fs::File::from(copy).write_all(text.as_bytes()));
    }
    if matches!(error, BeginError::NotInPath(_)) { EXIT_NOT_FOUND } else { EXIT_FAILED }
}

/// Becomes a container's first process; the caller cloned us into new pid and mount namespaces.
pub(crate) fn become_container(start: &Start, pod: &PodSpaces, fds: Vec<OwnedFd>) -> i32 {
    let mut fds = fds.into_iter();
    let streams = match streams(&start.command, &mut fds) {
        Ok(streams) => streams,
        Err(_) => return EXIT_FAILED,
    };
    let trees: Vec<OwnedFd> = fds.collect();
    let result = pod
        .enter()
        .map_err(step("entering the Pod"))
        .and_then(|()| Ok(root::enter(start, trees)?))
        .and_then(|()| run(&start.command, streams.standard));
    match result {
        Ok(never) => match never {},
        Err(error) => complain(&streams.complaint, &error),
    }
}

/// Becomes the parent of an extra process and ends as that does.
pub(crate) fn become_extra(command: &Command, container: Option<&OwnedFd>, fds: Vec<OwnedFd>) -> i32 {
    let mut fds = fds.into_iter();
    let streams = match streams(command, &mut fds) {
        Ok(streams) => streams,
        Err(_) => return EXIT_FAILED,
    };
    if let Some(container) = container {
        let spaces = CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC;
        if let Err(error) = setns(container, spaces) {
            return complain(
                &streams.complaint,
                &BeginError::Step { step: "entering the container", source: error.into() },
            );
        }
    }
    match sys::fork() {
        Ok(Side::Child) => match run(command, streams.standard) {
            Ok(never) => match never {},
            Err(error) => complain(&streams.complaint, &error),
        },
        Ok(Side::Parent(pid)) => {
            drop(streams);
            drop(fds);
            follow(nix::unistd::Pid::from_raw(pid))
        }
        Err(error) => complain(&streams.complaint, &BeginError::Step { step: "fork", source: error }),
    }
}

fn follow(pid: nix::unistd::Pid) -> i32 {
    use nix::sys::wait::{WaitStatus, waitpid};
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return EXIT_FAILED,
        }
    }
}

fn run(command: &Command, standard: Standard) -> Result<std::convert::Infallible, BeginError> {
    sys::reset_signals().map_err(step("signals"))?;
    nix::unistd::setsid().map_err(step("setsid"))?;
    match standard {
        Standard::Pipes(pipes) => {
            for (number, pipe) in (0..).zip(&pipes) {
                sys::place_fd(pipe, number).map_err(step("standard streams"))?;
            }
        }
        Standard::Terminal(socket) => take_terminal(&socket, command.person.uid).map_err(step("terminal"))?,
    }
    umask(Mode::from_bits_truncate(0o022));
    raise_limits().map_err(step("limits"))?;
    if !command.directory.is_empty() {
        nix::unistd::chdir(command.directory.as_str()).map_err(step("working directory"))?;
    }
    let argv = c_strings(command.argv.iter().map(String::as_str))?;
    let env = c_strings(command.env.iter().map(|(name, value)| format!("{name}={value}")))?;
    let name = command.argv.first().ok_or(BeginError::NoCommand)?;
    become_person(&command.person)?;
    sys::close_rest_on_exec().map_err(step("descriptors"))?;
    let mut last = None;
    for program in candidates(name, &command.env) {
        let Err(error) = execve(&program, &argv, &env);
        if error != nix::errno::Errno::ENOENT && error != nix::errno::Errno::ENOTDIR {
            last = Some(error);
        }
    }
    match last {
        Some(error) => Err(BeginError::Exec { program: name.clone(), source: error.into() }),
        None if name.contains('/') => {
            Err(BeginError::Exec { program: name.clone(), source: io::Error::from_raw_os_error(nix::libc::ENOENT) })
        }
        None => Err(BeginError::NotInPath(name.clone())),
    }
}

fn c_strings<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> Result<Vec<CString>, BeginError> {
    texts.map(|text| CString::new(text.as_ref())).collect::<Result<_, _>>().map_err(step("a NUL in the command"))
}

fn candidates(name: &str, env: &[(String, String)]) -> Vec<CString> {
    if name.contains('/') {
        return CString::new(name).into_iter().collect();
    }
    let path = env.iter().rev().find(|(key, _)| key == "PATH").map_or("/usr/bin:/bin", |(_, value)| value);
    path.split(':')
        .filter(|folder| !folder.is_empty())
        .filter_map(|folder| CString::new(Path::new(folder).join(name).as_os_str().as_bytes()).ok())
        .collect()
}

fn take_terminal(socket: &OwnedFd, uid: u32) -> io::Result<()> {
    let (master, number) = sys::open_terminal(c"/dev/pts/ptmx")?;
    let path = format!("/dev/pts/{number}");
    if uid != 0 {
        // Unmapped where only one user exists; there the terminal is ours already.
        nix::unistd::chown(path.as_str(), Some(Uid::from_raw(uid)), None).ok();
    }
    let slave = open(OsStr::new(&path), OFlag::O_RDWR, Mode::empty())?;
    send(socket, &"terminal", &[master.as_fd()])?;
    sys::control_terminal(&slave)?;
    for number in 0..3 {
        sys::place_fd(&slave, number)?;
    }
    Ok(())
}

fn raise_limits() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    // Refused only where /proc is the outer one.
    drop(std::fs::write("/proc/self/oom_score_adj", OOM_SCORE));
    Ok(())
}

/// Takes on user, groups and capabilities; nothing is left to undo it.
fn become_person(person: &Person) -> Result<(), BeginError> {
    let named = |names: &[String]| -> Vec<Capability> { names.iter().filter_map(|name| name.parse().ok()).collect() };
    let (bounding, ambient) = (named(&person.bounding), named(&person.ambient));
    for capability in caps::runtime::thread_all_supported() {
        if !bounding.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(|error| BeginError::Step { step: "capabilities", source: io::Error::other(error) })?;
        }
    }
    if !ambient.is_empty() {
        sys::keep_capabilities().map_err(step("capabilities"))?;
    }
    let groups: Vec<Gid> = person.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    match setgroups(&groups) {
        // A sandbox of one user has no groups to give.
        Ok(()) | Err(nix::errno::Errno::EPERM) => {}
        Err(error) => return Err(BeginError::Step { step: "groups", source: error.into() }),
    }
    let (uid, gid) = (Uid::from_raw(person.uid), Gid::from_raw(person.gid));
    setresgid(gid, gid, gid).map_err(step("group id (not in this sandbox's range?)"))?;
    setresuid(uid, uid, uid).map_err(step("user id (not in this sandbox's range?)"))?;
    sys::be_visible().map_err(step("visibility"))?;
    let keep: caps::CapsHashSet = if person.uid == 0 { bounding } else { ambient.clone() }.into_iter().collect();
    let inheritable: caps::CapsHashSet = ambient.iter().copied().collect();
    let capability = |error| BeginError::Step { step: "capabilities", source: io::Error::other(error) };
    caps::set(None, CapSet::Effective, &keep).map_err(capability)?;
    caps::set(None, CapSet::Permitted, &keep).map_err(capability)?;
    caps::set(None, CapSet::Inheritable, &inheritable).map_err(capability)?;
    for name in ambient {
        caps::raise(None, CapSet::Ambient, name).map_err(capability)?;
    }
    if person.no_new_privileges {
        sys::no_new_privileges().map_err(step("no_new_privs"))?;
    }
    // Last: a change of user id clears it. A container's first process has the keeper as parent, an extra one its follower.
    sys::die_with_parent().map_err(step("death signal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, path: &str, expected: &[&str]) {
        let found = candidates(name, &[("PATH".to_owned(), path.to_owned())]);
        let found: Vec<&str> = found.iter().map(|program| program.to_str().unwrap()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_bare_name_is_looked_up_in_order() {
        check("sh", "/a:/b", &["/a/sh", "/b/sh"]);
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        check("./sh", "/a", &["./sh"]);
    }
}
