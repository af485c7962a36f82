//! Links, addresses and routes, over one rtnetlink socket.
//!
//! Builds each message by hand: the keeper has one thread and no runtime for an asynchronous client.
//! Never here: which links a Pod has. Called by `network`.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const ACK: u16 = 0x4;
const REQUEST: u16 = 0x1;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const REPLACE: u16 = 0x100;
const IFF_UP: u32 = 1;
const VETH_INFO_PEER: u16 = 1;
/// Link scope: the target is on the link itself.
const SCOPE_LINK: u8 = 253;
const SCOPE_GLOBAL: u8 = 0;
/// The index of `lo` in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// An rtnetlink socket of the namespace it was opened in.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// Attributes under construction.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self
    }

    fn name(self, kind: u16, name: &str) -> Self {
        self.put(kind, &[name.as_bytes(), b"\0"].concat())
    }
}

fn link_head(index: u32, flags: u32) -> Vec<u8> {
    let mut head = vec![0; 4];
    head.extend(index.to_ne_bytes());
    head.extend(flags.to_ne_bytes());
    head.extend(flags.to_ne_bytes());
    head
}

/// A route to add.
pub(crate) struct Route {
    /// `None`: everything else.
    pub(crate) to: Option<(Ipv4Addr, u8)>,
    pub(crate) link: u32,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) source: Option<Ipv4Addr>,
}

impl Netlink {
    /// Opens a socket in the current network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        Ok(Self { socket, sequence: 0 })
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(16 + body.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | ACK | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let code = answer.get(16..20).filter(|_| length >= 20).and_then(|bytes| bytes.try_into().ok());
        match code.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// Sets a link up.
    pub(crate) fn up(&mut self, index: u32) -> io::Result<()> {
        self.ask(libc::RTM_NEWLINK, 0, &link_head(index, IFF_UP))
    }

    /// Makes a pair of links: `name` here, `peer` (index 2) in another namespace. Both have the given MTU.
    pub(crate) fn pair(&mut self, name: &str, index: u32, peer: &str, there: impl AsFd, mtu: u32) -> io::Result<()> {
        let there: RawFd = there.as_fd().as_raw_fd();
        let mut other = link_head(2, 0);
        other.extend(
            Attributes::default()
                .name(libc::IFLA_IFNAME, peer)
                .put(libc::IFLA_MTU, &mtu.to_ne_bytes())
                .put(libc::IFLA_NET_NS_FD, &there.to_ne_bytes())
                .0,
        );
        let inner = Attributes::default().put(VETH_INFO_PEER, &other);
        let info = Attributes::default().name(libc::IFLA_INFO_KIND, "veth").put(libc::IFLA_INFO_DATA, &inner.0);
        let mut body = link_head(index, 0);
        let outer = Attributes::default()
            .name(libc::IFLA_IFNAME, name)
            .put(libc::IFLA_MTU, &mtu.to_ne_bytes())
            .put(libc::IFLA_LINKINFO, &info.0);
        body.extend(outer.0);
        self.ask(libc::RTM_NEWLINK, CREATE | EXCLUSIVE, &body)
    }

    /// Removes a link, and with it its peer.
    pub(crate) fn remove(&mut self, index: u32) -> io::Result<()> {
        self.ask(libc::RTM_DELLINK, 0, &link_head(index, 0))
    }

    /// Gives a link an address.
    pub(crate) fn address(&mut self, link: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut body = vec![family(), 32, 0, SCOPE_GLOBAL];
        body.extend(link.to_ne_bytes());
        let attributes =
            Attributes::default().put(libc::IFA_LOCAL, &address.octets()).put(libc::IFA_ADDRESS, &address.octets());
        body.extend(attributes.0);
        self.ask(libc::RTM_NEWADDR, CREATE | REPLACE, &body)
    }

    /// Adds a route.
    pub(crate) fn route(&mut self, route: &Route) -> io::Result<()> {
        self.ask(libc::RTM_NEWROUTE, CREATE | REPLACE, &route_body(route))
    }

    /// Takes a route away.
    pub(crate) fn unroute(&mut self, route: &Route) -> io::Result<()> {
        self.ask(libc::RTM_DELROUTE, 0, &route_body(route))
    }
}

fn family() -> u8 {
    u8::try_from(libc::AF_INET).unwrap_or_default()
}

fn route_body(route: &Route) -> Vec<u8> {
    let prefix = route.to.map_or(0, |(_, prefix)| prefix);
    let scope = if route.gateway.is_some() { SCOPE_GLOBAL } else { SCOPE_LINK };
    let (table, boot, unicast) = (254, 3, 1);
    let mut body = vec![family(), prefix, 0, 0, table, boot, scope, unicast, 0, 0, 0, 0];
    let mut attributes = Attributes::default().put(libc::RTA_OIF, &route.link.to_ne_bytes());
    if let Some((to, _)) = route.to {
        attributes = attributes.put(libc::RTA_DST, &to.octets());
    }
    if let Some(gateway) = route.gateway {
        attributes = attributes.put(libc::RTA_GATEWAY, &gateway.octets());
    }
    if let Some(source) = route.source {
        attributes = attributes.put(libc::RTA_PREFSRC, &source.octets());
    }
    body.extend(attributes.0);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes() {
        assert_eq!(Attributes::default().name(3, "v1").0, [7, 0, 3, 0, b'v', b'1', 0, 0]);
    }

    #[test]
    fn a_default_route_names_no_target() {
        let route = Route { to: None, link: 2, gateway: Some(Ipv4Addr::new(198, 18, 0, 1)), source: None };
        let body = route_body(&route);
        assert_eq!(body.len(), 12 + 8 + 8);
        assert_eq!(body[1], 0);
    }
}
