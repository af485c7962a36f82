//! Which filter chain serves a connection: Envoy's order, the most specific value at each step, no way back.
//!
//! Destination port, then the longest address range, then server name (exact, longest `*.suffix`, none), then whether TLS
//! was seen, then the first of the client's protocols that a chain asks for, then the longest range of the source. Every
//! combination that a chain takes is one entry of a sorted list; each step narrows the list by binary search.
//! Never here: what a chain does. Built and asked by `table`.

use std::{
    cmp::Ordering,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use crate::spec::{ChainMatch, Transport};

/// What is known of a connection before a chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Where the client wanted to go (original destination).
    pub destination: SocketAddr,
    /// The direct peer.
    pub source: IpAddr,
    /// Whether TLS was seen.
    pub transport: Transport,
    /// Server name of the ClientHello, lower case.
    pub server_name: Option<&'a str>,
    /// Protocols that the client offers in its ClientHello, or the one detected in plain bytes, in order.
    pub protocols: &'a [&'a str],
}

/// One combination that a chain takes; absent and empty parts take what no other entry asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    port: Option<u16>,
    range: Option<IpNet>,
    /// Exact, or `.suffix` for `*.suffix`.
    name: Box<str>,
    transport: Option<Transport>,
    protocol: Box<str>,
    source: Option<IpNet>,
    chain: u32,
}

/// The entries of a listener, sorted.
#[derive(Debug, Clone, Default)]
pub(super) struct Chains(Box<[Entry]>);

/// The parts of a list, or one absent part for an empty list.
fn parts<T: Clone>(list: &[T]) -> Vec<Option<T>> {
    if list.is_empty() { vec![None] } else { list.iter().cloned().map(Some).collect() }
}

impl Chains {
    /// Builds the list; of equal combinations the first chain counts, and the others are told to `twice`.
    pub(super) fn build<'m>(chains: impl Iterator<Item = &'m ChainMatch>, mut twice: impl FnMut(u32)) -> Self {
        let mut entries = Vec::new();
        for (chain, matches) in (0..).zip(chains) {
            let ChainMatch {
                destination_port,
                destination_ranges,
                server_names,
                transport,
                application_protocols,
                source_ranges,
            } = matches;
            for range in parts(destination_ranges) {
                for name in parts(server_names) {
                    let name = name.unwrap_or_default().to_ascii_lowercase();
                    let name = name.strip_prefix('*').unwrap_or(&name);
                    for protocol in parts(application_protocols) {
                        for source in parts(source_ranges) {
                            entries.push(Entry {
                                port: *destination_port,
                                range: range.map(|range| range.trunc()),
                                name: name.into(),
                                transport: *transport,
                                protocol: protocol.as_deref().unwrap_or_default().into(),
                                source: source.map(|range| range.trunc()),
                                chain,
                            });
                        }
                    }
                }
            }
        }
        entries.sort_unstable();
        entries.dedup_by(|later, first| {
            let same = Entry { chain: first.chain, ..later.clone() } == *first;
            if same && later.chain != first.chain {
                twice(later.chain);
            }
            same
        });
        Self(entries.into())
    }

    /// What the choice of a chain depends on for connections to a destination: whether TLS was seen (or what its
    /// ClientHello says), and which protocol the plain bytes are.
    pub(super) fn depends(&self, destination: SocketAddr) -> (bool, bool) {
        let entries = self.at(destination);
        let seen = |entry: &Entry| entry.transport.is_some() || !entry.name.is_empty() || !entry.protocol.is_empty();
        let read = |entry: &Entry| !entry.protocol.is_empty() && entry.transport != Some(Transport::Tls);
        (entries.iter().any(seen), entries.iter().any(read))
    }

    /// The entries for a destination.
    fn at(&self, destination: SocketAddr) -> &[Entry] {
        let all = &*self.0;
        let port = Some(destination.port());
        let ported = narrow(all, |entry| entry.port.cmp(&port));
        let ported = if ported.is_empty() { narrow(all, |entry| entry.port.cmp(&None)) } else { ported };
        longest(ported, destination.ip(), |entry| entry.range)
    }

    /// The place of the chain that serves a connection.
    pub(super) fn find(&self, arrival: &Arrival<'_>) -> Option<u32> {
        let named = by_name(self.at(arrival.destination), arrival.server_name.unwrap_or_default());
        let seen = narrow(named, |entry| entry.transport.cmp(&Some(arrival.transport)));
        let seen = if seen.is_empty() { narrow(named, |entry| entry.transport.cmp(&None)) } else { seen };
        let asked = arrival
            .protocols
            .iter()
            .filter(|protocol| !protocol.is_empty())
            .map(|protocol| narrow(seen, |entry| (*entry.protocol).cmp(protocol)))
            .find(|entries| !entries.is_empty())
            .unwrap_or_else(|| narrow(seen, |entry| (*entry.protocol).cmp("")));
        longest(asked, arrival.source, |entry| entry.source).first().map(|entry| entry.chain)
    }
}

/// The entries that compare equal; they lie side by side.
fn narrow(entries: &[Entry], compare: impl Fn(&Entry) -> Ordering) -> &[Entry] {
    let start = entries.partition_point(|entry| compare(entry) == Ordering::Less);
    let rest = entries.get(start..).unwrap_or_default();
    let end = rest.partition_point(|entry| compare(entry) == Ordering::Equal);
    rest.get(..end).unwrap_or_default()
}

/// The entries of the longest range that holds an address, else those without range.
fn longest(entries: &[Entry], address: IpAddr, range: impl Fn(&Entry) -> Option<IpNet>) -> &[Entry] {
    let address = address.to_canonical();
    let mut best: (&[Entry], Option<u8>) = (&[], None);
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let value = range(first);
        let end = rest.partition_point(|entry| range(entry) == value);
        let (group, after) = rest.split_at(end.max(1));
        let length = match value {
            None if best.0.is_empty() => Some(None),
            Some(net) if net.contains(&address) => Some(Some(net.prefix_len())),
            None | Some(_) => None,
        };
        if let Some(length) = length.filter(|length| best.0.is_empty() || *length > best.1) {
            best = (group, length);
        }
        rest = after;
    }
    best.0
}

fn by_name<'e>(entries: &'e [Entry], name: &str) -> &'e [Entry] {
    let mut ends = name.char_indices().filter(|(_, c)| *c == '.').filter_map(|(at, _)| name.get(at..));
    let exact = (!name.is_empty()).then(|| narrow(entries, |entry| (*entry.name).cmp(name)));
    exact
        .filter(|found| !found.is_empty())
        .or_else(|| {
            ends.find_map(|end| Some(narrow(entries, |entry| (*entry.name).cmp(end))).filter(|found| !found.is_empty()))
        })
        .unwrap_or_else(|| narrow(entries, |entry| (*entry.name).cmp("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chains as `port=80 range=10.0.0.0/8 name=a.com tls|raw alpn=h2,istio from=…`, separated by `;`.
    fn read(text: &str) -> Vec<ChainMatch> {
        let list = |value: &str| value.split(',').map(str::to_owned).collect::<Vec<_>>();
        let nets = |value: &str| value.split(',').map(|net| net.parse().unwrap()).collect();
        text.split(';')
            .map(|chain| {
                let mut matches = ChainMatch::default();
                for word in chain.split_whitespace() {
                    match word.split_once('=').unwrap_or((word, "")) {
                        ("port", value) => matches.destination_port = Some(value.parse().unwrap()),
                        ("range", value) => matches.destination_ranges = nets(value),
                        ("name", value) => matches.server_names = list(value),
                        ("alpn", value) => matches.application_protocols = list(value),
                        ("from", value) => matches.source_ranges = nets(value),
                        ("tls", _) => matches.transport = Some(Transport::Tls),
                        ("raw", _) => matches.transport = Some(Transport::Raw),
                        ("any", _) => {}
                        other => panic!("{other:?}"),
                    }
                }
                matches
            })
            .collect()
    }

    /// Connections as `IP:PORT [tls=NAME] [alpn=…] [from=IP]`.
    fn check(chains: &str, connection: &str, want: Option<u32>) {
        let chains = read(chains);
        let index = Chains::build(chains.iter(), |_| ());
        let mut words = connection.split(' ');
        let destination = words.next().unwrap().parse().unwrap();
        let mut protocols = Vec::new();
        let mut arrival = Arrival {
            destination,
            source: [192, 0, 2, 1].into(),
            transport: Transport::Raw,
            server_name: None,
            protocols: &[],
        };
        for word in words {
            match word.split_once('=').unwrap() {
                ("tls", name) => {
                    arrival.transport = Transport::Tls;
                    arrival.server_name = (!name.is_empty()).then_some(name);
                }
                ("alpn", value) => protocols = value.split(',').collect(),
                ("from", value) => arrival.source = value.parse().unwrap(),
                other => panic!("{other:?}"),
            }
        }
        arrival.protocols = &protocols;
        assert_eq!(index.find(&arrival), want, "{chains:?}: {connection}");
    }

    #[test]
    fn the_port_comes_first_and_there_is_no_way_back() {
        check("any; port=80", "10.0.0.1:80", Some(1));
        check("any; port=80", "10.0.0.1:81", Some(0));
        check("any; port=80 tls", "10.0.0.1:80", None);
    }

    #[test]
    fn the_longest_range_wins() {
        let chains = "range=10.0.0.0/8; range=10.1.0.0/16; any; range=fd00::/8";
        check(chains, "10.1.2.3:80", Some(1));
        check(chains, "10.2.2.3:80", Some(0));
        check(chains, "11.2.2.3:80", Some(2));
        check(chains, "[fd00::1]:80", Some(3));
        check(chains, "[::ffff:10.1.2.3]:80", Some(1));
    }

    #[test]
    fn server_names_go_from_exact_to_none() {
        let chains = "name=a.b.com tls; name=*.b.com tls; name=*.com tls; tls";
        check(chains, "10.0.0.1:443 tls=a.b.com", Some(0));
        check(chains, "10.0.0.1:443 tls=x.b.com", Some(1));
        check(chains, "10.0.0.1:443 tls=b.com", Some(2));
        check(chains, "10.0.0.1:443 tls=a.net", Some(3));
        check(chains, "10.0.0.1:443 tls=", Some(3));
        check(chains, "10.0.0.1:443", None);
    }

    #[test]
    fn permissive_chains_tell_mtls_tls_and_plain_apart() {
        let chains = "tls alpn=istio,istio-peer-exchange,istio-h2; tls; raw alpn=http/1.1,h2c; raw";
        check(chains, "10.0.0.1:80 tls=x alpn=istio-h2,h2", Some(0));
        check(chains, "10.0.0.1:80 tls=x alpn=h2", Some(1));
        check(chains, "10.0.0.1:80 alpn=http/1.1", Some(2));
        check(chains, "10.0.0.1:80", Some(3));
    }

    #[test]
    fn the_clients_order_of_protocols_counts() {
        check("alpn=h2; alpn=http/1.1", "10.0.0.1:80 tls=x alpn=http/1.1,h2", Some(1));
    }

    #[test]
    fn only_what_tells_chains_apart_must_be_found_out() {
        let check = |chains: &str, destination: &str, want| {
            let chains = read(chains);
            let index = Chains::build(chains.iter(), |_| ());
            assert_eq!(index.depends(destination.parse().unwrap()), want, "{chains:?}: {destination}");
        };
        let ports = "port=25; port=80 tls; port=80 raw; port=81 tls alpn=istio; port=81 raw alpn=http/1.1; any";
        check(ports, "10.0.0.1:25", (false, false));
        check(ports, "10.0.0.1:80", (true, false));
        check(ports, "10.0.0.1:81", (true, true));
        check(ports, "10.0.0.1:82", (false, false));
        check("range=10.0.0.0/8 name=a.com tls; any", "10.0.0.1:443", (true, false));
        check("range=10.0.0.0/8 name=a.com tls; any", "11.0.0.1:443", (false, false));
    }

    #[test]
    fn sources_come_last() {
        check("from=192.0.2.0/24; any", "10.0.0.1:80", Some(0));
        check("from=192.0.2.0/24; any", "10.0.0.1:80 from=198.51.100.1", Some(1));
    }

    #[test]
    fn the_first_of_equal_chains_counts() {
        let chains = read("port=80; port=80");
        let mut twice = Vec::new();
        let index = Chains::build(chains.iter(), |at| twice.push(at));
        let arrival = Arrival {
            destination: ([10, 0, 0, 1], 80).into(),
            source: [10, 0, 0, 1].into(),
            transport: Transport::Raw,
            server_name: None,
            protocols: &[],
        };
        assert_eq!((index.find(&arrival), twice), (Some(0), vec![1]));
    }
}
