//! The keeper's life: PID 1 of the sandbox, one thread, one loop.
//!
//! Sets up the sandbox's namespaces, then does what the daemon asks, reaps, and ends when the daemon does.
//! Never here: waiting for anything but that loop. Called by `birth` in the cloned child.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setresgid, setresuid};

use super::network::{Network, PodSpaces};
use super::process::{become_container, become_extra};
use super::sys::{self, Side};
use super::volume::{self, WORK};
use super::wire::{
    Ask, Exec, Exit, Facts, Place, PodUp, Request, Say, SocketKind, Start, Target, Trouble, receive, send,
};

const EXIT_DONE: i32 = 0;
const EXIT_BROKEN: i32 = 1;

/// A process that was started on request.
struct Running {
    process: u64,
    /// Held for containers: extra processes enter by it.
    pidfd: Option<OwnedFd>,
}

struct Keeper {
    socket: OwnedFd,
    network: Network,
    pods: HashMap<String, PodSpaces>,
    by_pid: HashMap<i32, Running>,
    by_process: HashMap<u64, i32>,
}

/// Runs until the daemon ends. `daemon` is a pidfd of it.
pub(crate) fn live(socket: OwnedFd, daemon: &OwnedFd, name: &str) -> i32 {
    let (network, facts, children) = match settle(daemon, name) {
        Ok(settled) => settled,
        Err(trouble) => {
            // If even this fails, the daemon sees the socket close.
            drop(send(&socket, &Say::Hello(Err(trouble)), &[]));
            return EXIT_BROKEN;
        }
    };
    let hello = send(&socket, &Say::Hello(Ok(facts)), &[]);
    let keeper = Keeper { socket, network, pods: HashMap::new(), by_pid: HashMap::new(), by_process: HashMap::new() };
    match hello.and_then(|()| keeper.serve(daemon, &children)) {
        Ok(()) => EXIT_DONE,
        Err(error) => {
            tracing::error!(%error, "keeper failed");
            EXIT_BROKEN
        }
    }
}

fn trouble<E: Into<io::Error>>(step: &str) -> impl FnOnce(E) -> Trouble {
    let step = step.to_owned();
    move |error| {
        let error: io::Error = error.into();
        Trouble { step, errno: error.raw_os_error().unwrap_or_default(), text: error.to_string() }
    }
}

/// Makes the sandbox's own surroundings, testing on the way what this machine allows.
fn settle(daemon: &OwnedFd, name: &str) -> Result<(Network, Facts, SignalFd), Trouble> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).map_err(trouble("setresgid"))?;
    setresuid(uid, uid, uid).map_err(trouble("setresuid"))?;
    // After the change of user, which clears both.
    sys::die_with_parent().map_err(trouble("death signal"))?;
    sys::be_visible().map_err(trouble("visibility"))?;
    if readable(daemon).map_err(trouble("poll"))? {
        sys::leave(EXIT_DONE);
    }
    nix::unistd::setsid().map_err(trouble("setsid"))?;
    nix::unistd::chdir("/").map_err(trouble("chdir"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(trouble("first mount"))?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), quiet, Some("mode=0755")).map_err(trouble("tmpfs"))?;
    fs::create_dir_all(WORK).map_err(trouble("work folder"))?;
    let proc = mount(Some("proc"), "/proc", Some("proc"), quiet | MsFlags::MS_NOEXEC, None::<&str>);
    proc.map_err(trouble("proc"))?;
    nix::unistd::sethostname(name).map_err(trouble("hostname"))?;
    let sysfs = probe_sysfs().is_ok();
    let network = Network::new().map_err(trouble("network"))?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().map_err(trouble("signals"))?;
    let children =
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(trouble("signals"))?;
    Ok((network, Facts { sysfs }, children))
}

fn probe_sysfs() -> io::Result<()> {
    let place = Path::new(WORK).join("sys");
    fs::create_dir(&place)?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    let mounted = mount(Some("sysfs"), &place, Some("sysfs"), quiet, None::<&str>);
    if mounted.is_ok() {
        nix::mount::umount2(&place, nix::mount::MntFlags::MNT_DETACH)?;
    }
    fs::remove_dir(&place)?;
    Ok(mounted?)
}

fn readable(fd: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

impl Keeper {
    fn serve(mut self, daemon: &OwnedFd, children: &SignalFd) -> io::Result<()> {
        loop {
            let (asked, reaped, gone) = {
                let mut fds = [
                    PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                    PollFd::new(children.as_fd(), PollFlags::POLLIN),
                    PollFd::new(daemon.as_fd(), PollFlags::POLLIN),
                ];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
                let ready = |number: usize| fds.get(number).and_then(PollFd::any).unwrap_or(false);
                (ready(0), ready(1), ready(2))
            };
            if gone {
                return Ok(());
            }
            if reaped {
                while children.read_signal()?.is_some() {}
            }
            self.reap()?;
            if asked {
                match receive::<Ask>(&self.socket)? {
                    None => return Ok(()),
                    Some((ask, fds)) => self.answer(ask, fds)?,
                }
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit { code, signal: None }),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    let number = signal as i32;
                    (pid, Exit { code: 128 + number, signal: Some(number) })
                }
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(running) = self.by_pid.remove(&pid.as_raw()) {
                self.by_process.remove(&running.process);
                send(&self.socket, &Say::Exited { process: running.process, exit }, &[])?;
            }
        }
    }

    fn answer(&mut self, ask: Ask, fds: Vec<OwnedFd>) -> io::Result<()> {
        let result = self.perform(ask.request, fds).map_err(|error| error.to_string());
        let (result, sockets) = match result {
            Ok(sockets) => (Ok(()), sockets),
            Err(text) => (Err(text), Vec::new()),
        };
        let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        send(&self.socket, &Say::Reply { id: ask.id, result }, &borrowed)
    }

    fn perform(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
        match request {
            Request::PodUp(pod) => self.pod_up(&pod).map(|()| Vec::new()),
            Request::PodDown { pod } => self.pod_down(&pod).map(|()| Vec::new()),
            Request::Volume { pod, name, content } => volume::put(&pod, &name, &content).map(|()| Vec::new()),
            Request::Start(start) => self.start(&start, fds).map(|()| Vec::new()),
            Request::Exec(exec) => self.exec(&exec, fds).map(|()| Vec::new()),
            Request::Signal { process, signal } => self.signal(process, signal).map(|()| Vec::new()),
            Request::Sockets { place, kind, count } => self.sockets(&place, kind, count),
            Request::LastWords { pod, process } => Ok(vec![volume::take_last_words(&pod, process)?.into()]),
            Request::Route { address, present } => self.network.route(address, present).map(|()| Vec::new()),
        }
    }

    fn pod(&self, pod: &str) -> io::Result<&PodSpaces> {
        self.pods.get(pod).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no Pod {pod} here")))
    }

    fn pod_up(&mut self, pod: &PodUp) -> io::Result<()> {
        let spaces = self.network.pod(pod)?;
        fs::create_dir_all(volume::pod_folder(&pod.pod))?;
        self.pods.insert(pod.pod.clone(), spaces);
        Ok(())
    }

    fn pod_down(&mut self, pod: &str) -> io::Result<()> {
        if let Some(spaces) = self.pods.remove(pod) {
            self.network.forget(&spaces)?;
        }
        volume::forget(pod)
    }

    fn sockets(&self, place: &Place, kind: SocketKind, count: usize) -> io::Result<Vec<OwnedFd>> {
        let pod = match place {
            Place::Sandbox => None,
            Place::Pod(pod) => Some(self.pod(pod)?),
        };
        self.network.sockets(pod, kind, count)
    }

    fn start(&mut self, start: &Start, fds: Vec<OwnedFd>) -> io::Result<()> {
        let pod = self.pod(&start.pod)?;
        if start.last_words.is_some() {
            volume::make_last_words(&start.pod, start.process)?;
        }
        let spaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        match sys::clone_process(spaces.bits())? {
            Side::Child => sys::leave(become_container(start, pod, fds)),
            Side::Parent(pid) => {
                let pidfd = rustix::process::Pid::from_raw(pid)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
                    .and_then(|pid| Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))?;
                self.by_pid.insert(pid, Running { process: start.process, pidfd: Some(pidfd) });
                self.by_process.insert(start.process, pid);
                Ok(())
            }
        }
    }

    fn exec(&mut self, exec: &Exec, fds: Vec<OwnedFd>) -> io::Result<()> {
        let container = match exec.target {
            Target::Sandbox => None,
            Target::Container(process) => {
                let running = self.by_process.get(&process).and_then(|pid| self.by_pid.get(pid));
                let pidfd = running.and_then(|running| running.pidfd.as_ref());
                Some(pidfd.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the container is not running"))?)
            }
        };
        match sys::fork()? {
            Side::Child => sys::leave(become_extra(&exec.command, container, fds)),
            Side::Parent(pid) => {
                self.by_pid.insert(pid, Running { process: exec.process, pidfd: None });
                self.by_process.insert(exec.process, pid);
                Ok(())
            }
        }
    }

    fn signal(&self, process: u64, signal: i32) -> io::Result<()> {
        let Some(pid) = self.by_process.get(&process) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended"));
        };
        kill(Pid::from_raw(*pid), Signal::try_from(signal)?)?;
        Ok(())
    }
}
