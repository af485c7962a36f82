//! The few kernel calls that no safe wrapper offers, each made safe here.
//!
//! Raw `clone`, mount trees and their attributes, death signals, terminals.
//! Never here: what a sandbox looks like; a policy. Called by the keeper's other files only.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::libc;

/// Who one is after a [`clone_process`].
pub(crate) enum Side {
    /// The caller; the child's process id, as seen here.
    Parent(i32),
    /// The new process.
    Child,
}

/// Forks into new namespaces. The caller must have one thread only: the child goes on with a copy of its memory.
pub(crate) fn clone_process(namespaces: i32) -> io::Result<Side> {
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: with no CLONE_VM and no stack this is fork(2); all pointers are null and unused without their flags.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(i32::try_from(pid).map_err(io::Error::other)?)),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A detached copy of the mount tree at `path`, submounts included.
pub(crate) fn copy_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = libc::c_long::from(libc::OPEN_TREE_CLONE) | libc::c_long::from(libc::AT_RECURSIVE) | CLOEXEC;
    // SAFETY: a NUL-terminated path that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// A detached copy of the mount tree at an opened place.
pub(crate) fn copy_tree_at(place: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::c_long::from(libc::OPEN_TREE_CLONE)
        | libc::c_long::from(libc::AT_RECURSIVE | libc::AT_EMPTY_PATH)
        | CLOEXEC;
    // SAFETY: an open descriptor and a constant empty string.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, place.as_fd().as_raw_fd(), c"".as_ptr(), flags) })
}

const CLOEXEC: libc::c_long = libc::O_CLOEXEC as libc::c_long;

/// What a mount tree may not be used for.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// No writing.
    pub(crate) read_only: bool,
    /// No set-user-id programs, no device nodes.
    pub(crate) no_privilege: bool,
}

/// Takes rights away from a detached tree and everything below it.
pub(crate) fn limit_tree(tree: impl AsFd, limits: Limits) -> io::Result<()> {
    let mut set = 0;
    if limits.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if limits.no_privilege {
        set |= libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    }
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::c_long::from(libc::AT_EMPTY_PATH | libc::AT_RECURSIVE);
    // SAFETY: an open descriptor, a constant empty string, and a struct whose true size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts a detached tree at an opened place.
pub(crate) fn attach_tree(tree: impl AsFd, place: impl AsFd) -> io::Result<()> {
    let flags = libc::c_long::from(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    // SAFETY: two open descriptors and constant empty strings.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            place.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const MOVE_MOUNT_F_EMPTY_PATH: i32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: i32 = 0x40;

/// Is killed when the thread that forked us ends. A change of the kernel's user id clears it.
pub(crate) fn die_with_parent() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(io::Error::from)
}

/// Lets our owner look into `/proc/PID` again after a change of user id.
pub(crate) fn be_visible() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(true).map_err(io::Error::from)
}

/// No later exec gains rights.
pub(crate) fn no_new_privileges() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs().map_err(io::Error::from)
}

/// Keeps permitted capabilities across a change of user id.
pub(crate) fn keep_capabilities() -> io::Result<()> {
    nix::sys::prctl::set_keepcaps(true).map_err(io::Error::from)
}

/// Makes `fd` the descriptor `number`, which survives exec.
pub(crate) fn place_fd(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: plain descriptor calls; the standard streams are the only numbers given, and we own this process.
    let done = unsafe { if raw == number { libc::fcntl(raw, libc::F_SETFD, 0) } else { libc::dup2(raw, number) } };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Moves a descriptor above the standard streams, so that placing those cannot close it.
pub(crate) fn lift_fd(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: a plain descriptor call on an open descriptor.
    owned(unsafe { libc::c_long::from(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10)) })
}

/// Marks every descriptor from 3 on to close at exec.
pub(crate) fn close_rest_on_exec() -> io::Result<()> {
    // SAFETY: sets a flag on descriptors; closes none now.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from 3 on but those given.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: called in a fresh child whose other descriptors are copies that nothing here owns any more.
            let done = unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Opens the terminal multiplexer at `ptmx`: the master's descriptor and the slave's number.
pub(crate) fn open_terminal(ptmx: &CStr) -> io::Result<(OwnedFd, u32)> {
    // SAFETY: a NUL-terminated path.
    let master = owned(libc::c_long::from(unsafe {
        libc::open(ptmx.as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)
    }))?;
    let unlocked: libc::c_int = 0;
    let mut number: libc::c_uint = 0;
    // SAFETY: both requests take a pointer to one int, which outlives the calls.
    let done = unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, std::ptr::from_ref(&unlocked)) < 0 {
            -1
        } else {
            libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, std::ptr::from_mut(&mut number))
        }
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok((master, number)) }
}

/// Makes `slave` the controlling terminal of this session.
pub(crate) fn control_terminal(slave: impl AsFd) -> io::Result<()> {
    // SAFETY: the request takes an int.
    if unsafe { libc::ioctl(slave.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sets a terminal's size.
pub(crate) fn set_window(terminal: impl AsFd, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize, which outlives the call.
    if unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(&size)) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Gives every signal its default action and blocks none, as a program expects it.
pub(crate) fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: only default dispositions are set; failures (reserved numbers) do no harm.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(io::Error::from)
}

/// Leaves without running anything the parent had registered.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// A plain fork; the caller has one thread.
pub(crate) fn fork() -> io::Result<Side> {
    // SAFETY: the keeper and its children have one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid)),
    }
}

/// An open descriptor handed over by number, as `exec` passes it.
pub(crate) fn adopt_fd(number: RawFd) -> OwnedFd {
    // SAFETY: called once per number with descriptors that the sender's message has just delivered to us.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Lets tokio watch a descriptor that its wrapper owns.
pub(crate) fn watched<T: Into<OwnedFd> + AsRawFd>(fd: T) -> io::Result<tokio::io::unix::AsyncFd<T>> {
    // SAFETY: a type that can give up an OwnedFd owns its descriptor: it stays open, and the same, until dropped.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(fd) }?)
}

/// Lets a signal pass by.
pub(crate) fn ignore_signal(which: nix::sys::signal::Signal) {
    // SAFETY: ignoring a signal runs no code of ours; it fails for KILL and STOP only, which nobody gives.
    unsafe { nix::sys::signal::signal(which, nix::sys::signal::SigHandler::SigIgn) }.ok();
}

/// Leaves the standard streams but the error stream.
pub(crate) fn no_input_or_output() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    place_fd(&null, 0)?;
    place_fd(&null, 1)
}
