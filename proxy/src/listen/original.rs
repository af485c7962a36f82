//! Where a redirected connection wanted to go before it was redirected to us.
//!
//! Never here: deciding what to do with it. Called by `listen::serve`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::TcpStream;

/// The original destination; where nothing was redirected, the address that the client connected to.
pub(crate) fn destination(socket: &TcpStream) -> std::io::Result<SocketAddr> {
    let local = unmapped(socket.local_addr()?);
    let found = if local.is_ipv4() {
        getsockopt(socket, sockopt::OriginalDst).ok().map(|raw| {
            let port = u16::from_be(raw.sin_port);
            let address = IpAddr::from(raw.sin_addr.s_addr.to_ne_bytes());
            SocketAddr::new(address, port)
        })
    } else {
        getsockopt(socket, sockopt::Ip6tOriginalDst).ok().map(|raw| {
            let address = IpAddr::V6(Ipv6Addr::from(raw.sin6_addr.s6_addr));
            SocketAddr::new(address, u16::from_be(raw.sin6_port))
        })
    };
    Ok(found.map_or(local, unmapped))
}

/// An IPv4 address that came through an IPv6 socket, as IPv4.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
