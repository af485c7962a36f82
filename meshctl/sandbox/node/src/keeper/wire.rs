//! What the daemon and the keeper say to each other, and how it crosses the socket.
//!
//! One JSON message per datagram, descriptors beside it; a body too long for a datagram travels in a memory file.
//! Never here: doing what is asked. Used by `serve` (keeper's end) and `link` (daemon's end).

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sys;
use crate::limits::{BODY_BYTES_MAX, DESCRIPTORS_MAX, INLINE_BYTES_MAX};

/// A request with its number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) id: u64,
    pub(crate) request: Request,
}

/// What the daemon may ask of the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Makes a Pod's namespaces and its network.
    PodUp(PodUp),
    /// Forgets a Pod's namespaces and volumes.
    PodDown { pod: String },
    /// Makes or refreshes a volume of a Pod.
    Volume { pod: String, name: String, content: Volume },
    /// Starts a container's first process. Descriptors: see [`Start`].
    Start(Box<Start>),
    /// Starts one more process in a container, or in the sandbox's own namespaces.
    Exec(Box<Exec>),
    /// Sends a signal to a process that was started.
    Signal { process: u64, signal: i32 },
    /// Opens sockets inside; they come as descriptors.
    Sockets { place: Place, kind: SocketKind, count: usize },
    /// Gives what a container wrote to its termination file, as a descriptor.
    LastWords { pod: String, process: u64 },
    /// Lets an outside address be routed to the sandbox's own Services.
    Route { address: Ipv4Addr, present: bool },
}

/// Whose network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Place {
    /// The sandbox's own.
    Sandbox,
    /// A Pod's, by its uid.
    Pod(String),
}

/// Which sockets.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum SocketKind {
    /// Unconnected, for outgoing connections.
    Tcp,
    /// Bound and listening.
    TcpListener(Ipv4Addr, u16),
    /// Bound.
    Udp(Ipv4Addr, u16),
}

/// A Pod's namespaces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PodUp {
    pub(crate) pod: String,
    /// Its link's number: unique among living Pods.
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) hostname: String,
    pub(crate) sysctls: Vec<(String, String)>,
    /// Uses the sandbox's own network instead.
    pub(crate) host_network: bool,
}

/// A file in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Relative, without `..`.
    pub(crate) path: String,
    #[serde(with = "bytes_as_base64")]
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

/// What a volume holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Volume {
    /// Empty, in memory, at most so many bytes.
    Empty { bytes_max: u64, group: Option<u32> },
    /// Files, swapped in at once through `..data`.
    Files { files: Vec<FileEntry>, group: Option<u32> },
    /// A path of this machine, read-only; where it is absent and may be made, a folder of the sandbox's own.
    Host { path: PathBuf, kind: HostKind },
}

/// What a hostPath volume expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HostKind {
    /// Must be there.
    Present,
    /// A folder, made if absent.
    FolderOrNew,
    /// A file, made if absent.
    FileOrNew,
}

/// Where a mount comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) volume: String,
    pub(crate) sub_path: Option<String>,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

/// Who a process is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// Capabilities it may ever have, by name (`CAP_NET_ADMIN`).
    pub(crate) bounding: Vec<String>,
    /// Those it keeps although it is not root.
    pub(crate) ambient: Vec<String>,
    pub(crate) no_new_privileges: bool,
}

/// How a process begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) directory: String,
    pub(crate) person: Person,
    /// A terminal instead of pipes.
    pub(crate) terminal: bool,
}

/// A folder of programs that a container sees at `at`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Programs {
    pub(crate) folder: PathBuf,
    pub(crate) at: String,
    /// Comes as a detached tree: the keeper could not reach the path.
    pub(crate) detached: bool,
}

/// A container. Descriptors: the complaint pipe; then stdin, stdout, stderr, or with a terminal the socket that takes its
/// master; then one detached tree for each of `programs` that says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) process: u64,
    pub(crate) pod: String,
    pub(crate) command: Command,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) read_only_root: bool,
    /// Files below `/etc` that hide the machine's.
    pub(crate) etc: Vec<(String, String)>,
    pub(crate) programs: Vec<Programs>,
    /// Symbolic links at the root: path, target.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) sysfs: bool,
    /// Where the container may write why it ends.
    pub(crate) last_words: Option<String>,
}

/// Where an extra process runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Target {
    /// In the container whose first process this is.
    Container(u64),
    /// In the sandbox's own namespaces, over the machine's files.
    Sandbox,
}

/// An extra process. Descriptors as for [`Start`], without trees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) process: u64,
    pub(crate) target: Target,
    pub(crate) command: Command,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// As a shell would say it: 128 and the signal where one ended it.
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
}

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Say {
    /// Once, first: it stands, or why not.
    Hello(Result<Facts, Trouble>),
    /// To the request of this number.
    Reply { id: u64, result: Result<(), String> },
    /// A process that was started has ended.
    Exited { process: u64, exit: Exit },
}

/// What the keeper found out about the machine.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) sysfs: bool,
}

/// Which step failed while the sandbox was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trouble {
    pub(crate) step: String,
    pub(crate) errno: i32,
    pub(crate) text: String,
}

mod bytes_as_base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

/// Sends one message.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let mut raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let long;
    let packet = if body.len() <= INLINE_BYTES_MAX {
        [b"J", body.as_slice()].concat()
    } else {
        let file = rustix::fs::memfd_create("message", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        file.write_all(&body)?;
        long = file;
        raw.insert(0, long.as_raw_fd());
        b"M".to_vec()
    };
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    sendmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &[IoSlice::new(&packet)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Takes one message; `None` when the other end is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut packet = vec![0; INLINE_BYTES_MAX + 1];
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX + 1]);
    let mut fds = Vec::new();
    let length = {
        let mut parts = [IoSliceMut::new(&mut packet)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                fds.extend(numbers.into_iter().map(sys::adopt_fd));
            }
        }
        message.bytes
    };
    let body = match packet.first() {
        None => return Ok(None),
        _ if length == 0 => return Ok(None),
        Some(b'J') => packet.get(1..length).unwrap_or_default().to_vec(),
        Some(_) if fds.is_empty() => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        Some(_) => {
            let mut file = std::fs::File::from(fds.remove(0));
            file.rewind()?;
            let mut body = Vec::new();
            file.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
            body
        }
    };
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    fn check(length: usize) {
        let (here, there) = pair();
        let (read, _write) = nix::unistd::pipe().unwrap();
        send(&here, &"x".repeat(length), &[read.as_fd()]).unwrap();
        let (text, fds) = receive::<String>(&there).unwrap().unwrap();
        assert_eq!((text.len(), fds.len()), (length, 1));
    }

    #[test]
    fn a_short_message_arrives_with_its_descriptor() {
        check(10);
    }

    #[test]
    fn a_long_message_arrives_with_its_descriptor() {
        check(3_000_000);
    }

    #[test]
    fn a_closed_end_is_the_end() {
        let (here, there) = pair();
        drop(here);
        assert!(receive::<String>(&there).unwrap().is_none());
    }
}
