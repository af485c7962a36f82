//! A command inside a sandbox's namespaces, over the machine's own files.
//!
//! User, network, names and processes are the sandbox's; files are the user's, but for the three that lead to its DNS.
//! Never here: the environment of the command. Called by `meshctl shell`, a process with one thread.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, execvpe};

use crate::keeper::sys::{self, Side};
use crate::net::DNS_ADDRESS;

const EXIT_NOT_FOUND: i32 = 127;
const EXIT_FAILED: i32 = 126;

/// What to run, and where.
#[derive(Debug)]
pub struct Inside {
    /// The keeper's process id on the host.
    pub keeper: i32,
    /// A folder for the files that are laid over the machine's; only this user writes there.
    pub folder: PathBuf,
    /// Program and arguments.
    pub argv: Vec<CString>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<CString>,
}

/// Why nothing could be run inside.
#[derive(Debug, thiserror::Error)]
#[error("could not {step}")]
pub struct EnterError {
    step: &'static str,
    source: io::Error,
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> EnterError {
    move |source| EnterError { step, source: source.into() }
}

/// Runs it and waits; its exit code as a shell has it. The sandbox's end ends it.
pub fn run_inside(inside: &Inside) -> Result<i32, EnterError> {
    let files = overlaid(&inside.folder).map_err(step("write files for the shell"))?;
    let keeper = rustix::process::Pid::from_raw(inside.keeper)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .and_then(|pid| Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))
        .map_err(step("find the sandbox's first process"))?;
    match sys::fork().map_err(step("fork"))? {
        Side::Parent(pid) => Ok(follow(pid)),
        Side::Child => {
            let spaces = CloneFlags::CLONE_NEWUSER
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWPID;
            let here = std::env::current_dir().ok();
            let entered = setns(&keeper, spaces)
                .map_err(step("enter the sandbox (is it another user's?)"))
                .and_then(|()| unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace")))
                .and_then(|()| sys::die_with_parent().map_err(step("tie this shell to its caller")))
                .and_then(|()| sys::fork().map_err(step("fork")));
            match entered {
                Err(error) => leave(&error),
                Ok(Side::Parent(pid)) => sys::leave(follow(pid)),
                Ok(Side::Child) => match exec(inside, &files, here.as_deref()) {
                    Ok(never) => match never {},
                    Err(error) => leave(&error),
                },
            }
        }
    }
}

fn leave(error: &EnterError) -> ! {
    eprintln!("error: {error}: {}", error.source);
    sys::leave(if error.source.kind() == io::ErrorKind::NotFound { EXIT_NOT_FOUND } else { EXIT_FAILED })
}

/// Waits for the child; keys that interrupt are meant for it, not for us.
fn follow(pid: i32) -> i32 {
    for key in [Signal::SIGINT, Signal::SIGQUIT] {
        sys::ignore_signal(key);
    }
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return EXIT_FAILED,
        }
    }
}

/// Files that make names of the cluster resolve.
fn overlaid(folder: &Path) -> io::Result<Vec<(PathBuf, &'static str)>> {
    fs::create_dir_all(folder)?;
    let resolv = format!(
        "nameserver {DNS_ADDRESS}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    );
    let names = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let mut switch: String =
        names.lines().filter(|line| !line.starts_with("hosts:")).map(|line| format!("{line}\n")).collect();
    switch.push_str("hosts: files dns\n");
    let mut files = Vec::new();
    for (name, text, place) in
        [("resolv.conf", resolv, "/etc/resolv.conf"), ("nsswitch.conf", switch, "/etc/nsswitch.conf")]
    {
        let path = folder.join(name);
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            fs::write(&path, text)?;
        }
        files.push((path, place));
    }
    Ok(files)
}

fn exec(
    inside: &Inside,
    files: &[(PathBuf, &'static str)],
    here: Option<&Path>,
) -> Result<std::convert::Infallible, EnterError> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(step("separate the shell's mounts"))?;
    for (file, place) in files {
        if Path::new(place).exists() {
            mount(Some(file), *place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(step("lay a file over /etc"))?;
        } else if let Ok(link) = fs::canonicalize(place) {
            tracing::debug!(link = %link.display(), "no such file on this machine");
        }
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), quiet, None::<&str>).map_err(step("mount /proc"))?;
    if let Some(here) = here {
        // A folder that only the caller may enter stays reachable: files are looked at as the caller.
        nix::unistd::chdir(here).map_err(step("stay in this folder"))?;
    }
    keep_rights()?;
    sys::reset_signals().map_err(step("reset signals"))?;
    sys::die_with_parent().map_err(step("tie this shell to its caller"))?;
    let program =
        inside.argv.first().ok_or_else(|| step("run nothing")(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let Err(error) = execvpe(program, &inside.argv, &inside.env);
    Err(step("run the command")(error))
}

/// A root whose own id the sandbox does not map would lose, at exec, what it may do inside.
fn keep_rights() -> Result<(), EnterError> {
    let failed = |error| step("keep rights inside")(io::Error::other(error));
    let all = caps::read(None, caps::CapSet::Permitted).map_err(failed)?;
    caps::set(None, caps::CapSet::Inheritable, &all).map_err(failed)?;
    for capability in all {
        caps::raise(None, caps::CapSet::Ambient, capability).map_err(failed)?;
    }
    Ok(())
}
