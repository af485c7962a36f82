//! The PROXY protocol, versions 1 and 2: the line or block before a connection's own bytes that tells whose they are.
//!
//! Read as HAProxy's specification ("The PROXY protocol, versions 1 & 2") has it, and no wider: one space between words, no
//! leading zeros, no datagrams. Written towards upstreams that want it.
//! Never here: reading from sockets, or whom to believe. Called by `listen::serve` and `upstream::connect`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use api::spec::ProxyVersion;

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    /// Who began it.
    pub(crate) from: SocketAddr,
    /// Where it was to go.
    pub(crate) to: SocketAddr,
}

/// What the bytes so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A whole header of so many bytes; no ends: the sender speaks for itself, or may not say.
    Is { length: usize, ends: Option<Ends> },
    /// Not enough to tell.
    More,
    /// No header, or a broken one.
    Wrong(&'static str),
}

const V1: &[u8] = b"PROXY ";
/// Longest line of version 1, its end included.
const V1_BYTES_MAX: usize = 107;
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_HEAD_BYTES: usize = 16;

/// Judges the bytes so far.
pub(crate) fn judge(bytes: &[u8]) -> Verdict {
    let starts = |mark: &[u8]| {
        let seen = bytes.len().min(mark.len());
        bytes.get(..seen) == mark.get(..seen)
    };
    if starts(V2) {
        v2(bytes)
    } else if starts(V1) {
        v1(bytes)
    } else {
        Verdict::Wrong("no header of the PROXY protocol")
    }
}

fn v1(bytes: &[u8]) -> Verdict {
    let Some(end) = bytes.iter().take(V1_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < V1_BYTES_MAX { Verdict::More } else { Verdict::Wrong("the line does not end") };
    };
    let line = bytes.get(V1.len()..end).and_then(|line| line.strip_suffix(b"\r"));
    let Some(Ok(line)) = line.map(std::str::from_utf8) else { return Verdict::Wrong("the line ends without CR") };
    let length = end + 1;
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Verdict::Is { length, ends: None };
    }
    let words: [&str; 4] = match words.collect::<Vec<_>>().try_into() {
        Ok(words) => words,
        Err(_) => return Verdict::Wrong("not two addresses and two ports"),
    };
    let [from, to, from_port, to_port] = words;
    let address = |text: &str| match family {
        Some("TCP4") => text.parse().ok().map(IpAddr::V4),
        Some("TCP6") => text.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let ends = match (address(from), address(to), port(from_port), port(to_port)) {
        (Some(from), Some(to), Some(from_port), Some(to_port)) => {
            Ends { from: SocketAddr::new(from, from_port), to: SocketAddr::new(to, to_port) }
        }
        _ => return Verdict::Wrong("an address or port cannot be read"),
    };
    Verdict::Is { length, ends: Some(ends) }
}

/// Digits only: no sign, no leading zero.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn v2(bytes: &[u8]) -> Verdict {
    let Some([command, family, high, low]) = bytes.get(V2.len()..V2_HEAD_BYTES) else { return Verdict::More };
    let body = usize::from(u16::from_be_bytes([*high, *low]));
    let length = V2_HEAD_BYTES + body;
    // All that can be told from the head is told at once: a sender of nonsense is not waited for.
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Verdict::Wrong("unknown version or command"),
    };
    let addresses = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        0x12 | 0x22 | 0x32 => return Verdict::Wrong("datagrams on a connection"),
        _ => return Verdict::Wrong("unknown family"),
    };
    if length > PROXY_HEADER_BYTES_MAX {
        return Verdict::Wrong("the header is too long");
    }
    if !local && body < addresses {
        return Verdict::Wrong("shorter than its addresses");
    }
    let Some(body) = bytes.get(V2_HEAD_BYTES..length) else { return Verdict::More };
    if local {
        return Verdict::Is { length, ends: None };
    }
    let (addresses, rest) = body.split_at_checked(addresses).unwrap_or((body, &[]));
    if !are_values(rest) {
        return Verdict::Wrong("a value is longer than the header");
    }
    Verdict::Is { length, ends: v2_ends(addresses) }
}

fn v2_ends(addresses: &[u8]) -> Option<Ends> {
    let (ips, ports) = addresses.split_at_checked(addresses.len().checked_sub(4)?)?;
    let (from, to) = ips.split_at_checked(ips.len() / 2)?;
    let ip = |bytes: &[u8]| {
        <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    };
    let [a, b, c, d] = <[u8; 4]>::try_from(ports).ok()?;
    let (from_port, to_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Some(Ends { from: SocketAddr::new(ip(from)?, from_port), to: SocketAddr::new(ip(to)?, to_port) })
}

/// Whether the rest is a run of values: type, two bytes of length, and as many bytes.
fn are_values(mut rest: &[u8]) -> bool {
    while let [_, high, low, after @ ..] = rest {
        match after.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(next) => rest = next,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Writes a header.
pub(crate) fn write(version: ProxyVersion, ends: Ends) -> Vec<u8> {
    let (from, to) = (ends.from.ip().to_canonical(), ends.to.ip().to_canonical());
    let ports = (ends.from.port(), ends.to.port());
    match (version, from, to) {
        (ProxyVersion::V1, IpAddr::V4(from), IpAddr::V4(to)) => {
            format!("PROXY TCP4 {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        (ProxyVersion::V1, from, to) => {
            // A mixed pair is written as version 6, where every address has a form.
            format!("PROXY TCP6 {} {} {} {}\r\n", mapped(from), mapped(to), ports.0, ports.1).into_bytes()
        }
        (ProxyVersion::V2, IpAddr::V4(from), IpAddr::V4(to)) => v2_block(0x11, &from.octets(), &to.octets(), ports),
        (ProxyVersion::V2, from, to) => v2_block(0x21, &mapped(from).octets(), &mapped(to).octets(), ports),
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn v2_block(family: u8, from: &[u8], to: &[u8], ports: (u16, u16)) -> Vec<u8> {
    let length = u16::try_from(from.len() + to.len() + 4).unwrap_or(u16::MAX);
    let mut out = [V2, &[0x21, family], &length.to_be_bytes(), from, to].concat();
    out.extend(ports.0.to_be_bytes());
    out.extend(ports.1.to_be_bytes());
    out
}

#[cfg(test)]
pub(crate) mod laws;

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(from: &str, to: &str) -> Ends {
        Ends { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    /// A header, its length and what it says as `FROM TO`, or `-` for nothing.
    fn good(bytes: &[u8], says: &str) {
        let want = says.split_once(' ').map(|(from, to)| ends(from, to));
        let is = Verdict::Is { length: bytes.len(), ends: want };
        assert_eq!(judge(bytes), is, "{bytes:?}");
        let more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(judge(&more), is, "with the connection's own bytes: {bytes:?}");
        for end in 0..bytes.len() {
            assert_eq!(judge(&bytes[..end]), Verdict::More, "{end} bytes of {bytes:?}");
        }
    }

    fn bad(bytes: &[u8]) {
        assert!(matches!(judge(bytes), Verdict::Wrong(_)), "{:?}", String::from_utf8_lossy(bytes));
    }

    fn block(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        [V2, &[command, family], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    }

    #[test]
    fn lines_are_read_in_pieces_and_followed_by_bytes() {
        good(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", "192.0.2.1:56324 198.51.100.2:443");
        good(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", "[2001:db8::1]:1 [2001:db8::2]:65535");
        good(b"PROXY TCP4 192.0.2.1 198.51.100.2 0 0\r\n", "192.0.2.1:0 198.51.100.2:0");
        good(b"PROXY UNKNOWN\r\n", "-");
        good(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "-");
    }

    #[test]
    fn a_line_of_another_form_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXYTCP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 +2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 02\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 \r\n",
            "PROXY TCP4 192.0.02.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP6 ::1%lo ::2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n",
            "PROXY TCP4 192.0.2.1\t198.51.100.2 1 2\r\n",
        ] {
            bad(line.as_bytes());
        }
        bad(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat());
        bad(b"PROXY \xff\r\n");
        assert_eq!(judge(b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r"), Verdict::More);
    }

    #[test]
    fn blocks_are_read_with_and_without_values() {
        let four = [&[192, 0, 2, 1, 198, 51, 100, 2][..], &[0xdc, 4, 1, 0xbb]].concat();
        good(&block(0x21, 0x11, &four), "192.0.2.1:56324 198.51.100.2:443");
        let value = [&four[..], &[4, 0, 2, 0, 0], &[0x20, 0, 0]].concat();
        good(&block(0x21, 0x11, &value), "192.0.2.1:56324 198.51.100.2:443");
        let mut six = vec![0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 7, 9);
        good(&block(0x21, 0x21, &six), "[::1]:7 [::2]:9");
        good(&block(0x21, 0x31, &[0; 216]), "-");
        good(&block(0x21, 0x00, &[]), "-");
        good(&block(0x20, 0x00, &[]), "-");
        good(&block(0x20, 0x11, &[]), "-");
        good(&block(0x20, 0x00, &[9; 40]), "-");
    }

    #[test]
    fn a_block_of_another_form_is_refused() {
        let four = [7; 12];
        bad(&block(0x11, 0x11, &four));
        bad(&block(0x31, 0x11, &four));
        bad(&block(0x22, 0x11, &four));
        bad(&block(0x21, 0x12, &four));
        bad(&block(0x21, 0x22, &[7; 36]));
        bad(&block(0x21, 0x41, &four));
        bad(&block(0x21, 0x13, &four));
        bad(&block(0x21, 0x11, &four[..11]));
        bad(&block(0x21, 0x21, &four));
        bad(&block(0x21, 0x31, &[7; 215]));
        bad(&block(0x21, 0x11, &[&four[..], &[4]].concat()));
        bad(&block(0x21, 0x11, &[&four[..], &[4, 0, 1]].concat()));
        bad(&block(0x21, 0x11, &[&four[..], &[4, 0, 9, 1]].concat()));
        bad(&block(0x21, 0x11, &vec![0; PROXY_HEADER_BYTES_MAX]));
        bad(b"\r\n\r\n\0\r\nQUIX\n");
    }

    #[test]
    fn no_bytes_are_a_panic() {
        let whole = block(0x21, 0x11, &[7; 20]);
        for at in 0..whole.len() {
            for value in [0, 1, 0x11, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                judge(&bytes);
            }
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            for (from, to, back) in [
                ("192.0.2.1:1", "198.51.100.2:65535", "192.0.2.1:1 198.51.100.2:65535"),
                ("[::1]:5", "[2001:db8::2]:0", "[::1]:5 [2001:db8::2]:0"),
                ("[::ffff:192.0.2.1]:5", "198.51.100.2:6", "192.0.2.1:5 198.51.100.2:6"),
                ("192.0.2.1:5", "[::2]:6", "[::ffff:192.0.2.1]:5 [::2]:6"),
            ] {
                good(&write(version, ends(from, to)), back);
            }
        }
        assert_eq!(
            write(ProxyVersion::V1, ends("192.0.2.1:1", "198.51.100.2:2")),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n"
        );
    }
}
