//! The sandbox's network and each Pod's: namespaces, links, addresses, kernel settings, sockets.
//!
//! Pods are routed, not bridged: one link pair and one /32 each. Sockets are opened in the namespace asked for.
//! Never here: rules for Services. Called by `serve` inside the keeper.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};

use super::netlink::{LOOPBACK, Netlink, Route};
use super::wire::{PodUp, SocketKind};
use crate::limits::DATAGRAMS_WAITING_BYTES;
use crate::net::{API_ADDRESS, DNS_ADDRESS, GATEWAY_ADDRESS, SERVICE_PREFIX};

const LINK_MTU: u32 = 65_535;
/// Link numbers of Pods begin here, above whatever a new namespace has.
const LINK_BASE: u32 = 1_000;
const BACKLOG: i32 = 4096;

/// A Pod's namespaces, held by descriptor.
pub(crate) struct PodSpaces {
    net: Option<File>,
    uts: File,
    ipc: File,
    link: Option<u32>,
}

fn own(kind: &str) -> io::Result<File> {
    File::open(format!("/proc/thread-self/ns/{kind}"))
}

fn set(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// The sandbox's own network.
pub(crate) struct Network {
    links: Netlink,
    net: File,
    uts: File,
    ipc: File,
}

impl Network {
    /// Sets up the namespace the keeper was born into.
    pub(crate) fn new() -> io::Result<Self> {
        let mut links = Netlink::open()?;
        links.up(LOOPBACK)?;
        for address in [GATEWAY_ADDRESS, API_ADDRESS, DNS_ADDRESS] {
            links.address(LOOPBACK, address)?;
        }
        links.route(&Route {
            to: Some(SERVICE_PREFIX),
            link: LOOPBACK,
            gateway: None,
            source: Some(GATEWAY_ADDRESS),
        })?;
        set("/proc/sys/net/ipv4/ip_forward", "1")?;
        set("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
        set("/proc/sys/net/ipv4/ping_group_range", "0 65535")
            .or_else(|_| set("/proc/sys/net/ipv4/ping_group_range", "0 0"))?;
        Ok(Self { links, net: own("net")?, uts: own("uts")?, ipc: own("ipc")? })
    }

    /// Makes a Pod's namespaces and joins them to the sandbox.
    pub(crate) fn pod(&mut self, pod: &PodUp) -> io::Result<PodSpaces> {
        let mut kinds = CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
        if !pod.host_network {
            kinds |= CloneFlags::CLONE_NEWNET;
        }
        unshare(kinds)?;
        let inside = inside(pod);
        self.home()?;
        let (mut spaces, links) = inside?;
        if let (Some(net), Some(mut links)) = (&spaces.net, links) {
            let index = LINK_BASE + pod.index;
            self.links.pair(&format!("v{}", pod.index), index, "eth0", net, LINK_MTU)?;
            spaces.link = Some(index);
            let joined = self.join(&mut links, index, pod.address);
            if joined.is_err() {
                self.links.remove(index)?;
            }
            joined?;
        }
        Ok(spaces)
    }

    fn join(&mut self, inside: &mut Netlink, index: u32, address: Ipv4Addr) -> io::Result<()> {
        const ETH0: u32 = 2;
        self.links.address(index, GATEWAY_ADDRESS)?;
        self.links.up(index)?;
        inside.up(LOOPBACK)?;
        inside.address(ETH0, address)?;
        inside.up(ETH0)?;
        inside.route(&Route { to: Some((GATEWAY_ADDRESS, 32)), link: ETH0, gateway: None, source: None })?;
        inside.route(&Route { to: None, link: ETH0, gateway: Some(GATEWAY_ADDRESS), source: None })?;
        self.links.route(&Route { to: Some((address, 32)), link: index, gateway: None, source: None })
    }

    /// Removes a Pod's link; its namespaces go with their last process.
    pub(crate) fn forget(&mut self, pod: &PodSpaces) -> io::Result<()> {
        pod.link.map_or(Ok(()), |link| self.links.remove(link))
    }

    /// Back into the sandbox's own namespaces.
    pub(crate) fn home(&self) -> io::Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET)?;
        setns(&self.uts, CloneFlags::CLONE_NEWUTS)?;
        setns(&self.ipc, CloneFlags::CLONE_NEWIPC)?;
        Ok(())
    }

    /// Opens sockets in the sandbox's network, or in a Pod's.
    pub(crate) fn sockets(&self, pod: Option<&PodSpaces>, kind: SocketKind, count: usize) -> io::Result<Vec<OwnedFd>> {
        if let Some(net) = pod.and_then(|pod| pod.net.as_ref()) {
            setns(net, CloneFlags::CLONE_NEWNET)?;
        }
        let sockets = (0..count).map(|_| open(kind)).collect();
        setns(&self.net, CloneFlags::CLONE_NEWNET)?;
        sockets
    }

    /// Routes an outside address to this sandbox's Services, or no longer.
    pub(crate) fn route(&mut self, address: Ipv4Addr, present: bool) -> io::Result<()> {
        let route = Route { to: Some((address, 32)), link: LOOPBACK, gateway: None, source: Some(GATEWAY_ADDRESS) };
        if present { self.links.route(&route) } else { self.links.unroute(&route) }
    }
}

impl PodSpaces {
    /// Takes the calling process into the Pod.
    pub(crate) fn enter(&self) -> io::Result<()> {
        if let Some(net) = &self.net {
            setns(net, CloneFlags::CLONE_NEWNET)?;
        }
        setns(&self.uts, CloneFlags::CLONE_NEWUTS)?;
        setns(&self.ipc, CloneFlags::CLONE_NEWIPC)?;
        Ok(())
    }
}

/// What is done from within the new namespaces.
fn inside(pod: &PodUp) -> io::Result<(PodSpaces, Option<Netlink>)> {
    nix::unistd::sethostname(&pod.hostname)?;
    let net = if pod.host_network { None } else { Some(own("net")?) };
    let links = net.as_ref().map(|_| Netlink::open()).transpose()?;
    if net.is_some() {
        set("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
        set("/proc/sys/net/ipv4/ping_group_range", "0 65535")
            .or_else(|_| set("/proc/sys/net/ipv4/ping_group_range", "0 0"))?;
        for (name, value) in &pod.sysctls {
            set(&format!("/proc/sys/{}", name.replace('.', "/")), value)?;
        }
    }
    Ok((PodSpaces { net, uts: own("uts")?, ipc: own("ipc")?, link: None }, links))
}

fn open(kind: SocketKind) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    match kind {
        SocketKind::Tcp => Ok(socket(AddressFamily::Inet, SockType::Stream, flags, None)?),
        SocketKind::TcpListener(address, port) => {
            let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
            setsockopt(&listener, sockopt::ReuseAddr, &true)?;
            bind_to(&listener, address, port)?;
            listen(&listener, Backlog::new(BACKLOG)?)?;
            Ok(listener)
        }
        SocketKind::Udp(address, port) => {
            let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
            setsockopt(&socket, sockopt::RcvBuf, &DATAGRAMS_WAITING_BYTES)?;
            bind_to(&socket, address, port)?;
            Ok(socket)
        }
    }
}

fn bind_to(socket: impl AsFd, address: Ipv4Addr, port: u16) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    bind(socket.as_fd().as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, port)))?;
    Ok(())
}
