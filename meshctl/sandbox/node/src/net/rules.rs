//! Services as nft rules: maps, not a chain each, so that a transaction stays small.
//!
//! Pure: from what is in force and what is wanted to the text of the change. Never here: running nft.
//! Called by `services`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::net::Ipv4Addr;

use super::{API_ADDRESS, DNS_ADDRESS, SERVICE_PREFIX};
use crate::limits::ELEMENTS_MAX;

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What a client calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Front {
    pub(crate) address: Ipv4Addr,
    pub(crate) transport: Transport,
    pub(crate) port: u16,
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {} . {}", self.address, self.transport, self.port)
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Backends {
    pub(crate) ends: Vec<(Ipv4Addr, u16)>,
    /// A client keeps its endpoint for so many seconds.
    pub(crate) affinity: Option<u32>,
}

impl Backends {
    fn chain(&self) -> Chain {
        Chain { count: self.ends.len(), affinity: self.affinity }
    }
}

/// One chain serves all Services with as many endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Chain {
    count: usize,
    affinity: Option<u32>,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.affinity {
            None => write!(f, "of{}", self.count),
            Some(seconds) => write!(f, "of{}_for{seconds}", self.count),
        }
    }
}

/// All of it: what is in force, or what is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) fronts: BTreeMap<Front, Backends>,
    /// Pods, which may call themselves through a Service.
    pub(crate) pods: BTreeSet<Ipv4Addr>,
    chains: BTreeSet<Chain>,
}

/// The table, before any Service.
pub(crate) fn base() -> String {
    let (net, prefix) = SERVICE_PREFIX;
    let key = "ip daddr . meta l4proto . th dport";
    format!(
        "table ip ferromesh {{
  map front {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map end {{ type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map client {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service : mark; flags dynamic,timeout; timeout 3h; size 65535; }}
  set self {{ type ipv4_addr . ipv4_addr; }}
  chain pick {{ dnat ip to {key} . meta mark map @end; }}
  chain prerouting {{ type nat hook prerouting priority dstnat; {key} vmap @front; }}
  chain output {{ type nat hook output priority -100; {key} vmap @front; }}
  chain postrouting {{ type nat hook postrouting priority srcnat; ct status dnat ip saddr . ip daddr @self masquerade; }}
  chain refuse {{ ip daddr != {net}/{prefix} return; ip daddr {{ {API_ADDRESS}, {DNS_ADDRESS} }} return; \
meta l4proto tcp reject with tcp reset; reject; }}
  chain refuse_in {{ type filter hook prerouting priority 0; jump refuse; }}
  chain refuse_out {{ type filter hook output priority 0; jump refuse; }}
}}
"
    )
}

impl Rules {
    /// The transactions that lead from here to `wanted`, and what is in force after them.
    pub(crate) fn change(&self, wanted: &Self) -> (Vec<String>, Self) {
        let mut after = wanted.clone();
        // An empty Service is not in the table: the refusing chain answers for it.
        after.fronts.retain(|_, backends| !backends.ends.is_empty());
        after.chains.clone_from(&self.chains);
        let mut lines = Vec::new();
        for chain in after.fronts.values().map(Backends::chain).collect::<BTreeSet<_>>() {
            if after.chains.insert(chain) {
                lines.extend(chain_lines(chain));
            }
        }
        let (mut remove, mut add, mut sticky) = (Vec::new(), Vec::new(), false);
        for (front, old) in &self.fronts {
            let new = after.fronts.get(front);
            if new == Some(old) {
                continue;
            }
            sticky |= old.affinity.is_some();
            if new.map(Backends::chain) != Some(old.chain()) {
                remove.push(format!("delete element ip ferromesh front {{ {front} : goto {} }}", old.chain()));
            }
            for (number, end) in old.ends.iter().enumerate() {
                if new.and_then(|new| new.ends.get(number)) != Some(end) {
                    remove.push(format!(
                        "delete element ip ferromesh end {{ {front} . {number} : {} . {} }}",
                        end.0, end.1
                    ));
                }
            }
        }
        for (front, new) in &after.fronts {
            let old = self.fronts.get(front);
            if old == Some(new) {
                continue;
            }
            for (number, end) in new.ends.iter().enumerate() {
                if old.and_then(|old| old.ends.get(number)) != Some(end) {
                    add.push(format!("add element ip ferromesh end {{ {front} . {number} : {} . {} }}", end.0, end.1));
                }
            }
            if old.map(Backends::chain) != Some(new.chain()) {
                add.push(format!("add element ip ferromesh front {{ {front} : goto {} }}", new.chain()));
            }
        }
        lines.extend(remove);
        lines.extend(add);
        if sticky {
            lines.push("flush map ip ferromesh client".to_owned());
        }
        for (verb, pods) in [("delete", self.pods.difference(&after.pods)), ("add", after.pods.difference(&self.pods))]
        {
            lines.extend(pods.map(|pod| format!("{verb} element ip ferromesh self {{ {pod} . {pod} }}")));
        }
        let transactions = lines.chunks(ELEMENTS_MAX).map(|lines| lines.join("\n") + "\n").collect();
        (transactions, after)
    }
}

fn chain_lines(chain: Chain) -> Vec<String> {
    let mut lines = vec![format!("add chain ip ferromesh {chain}")];
    let rule = format!("add rule ip ferromesh {chain} meta mark set");
    let count = chain.count;
    match chain.affinity {
        None => lines.push(format!("{rule} numgen random mod {count} goto pick")),
        Some(seconds) => {
            let client = "ip saddr . ip daddr . meta l4proto . th dport";
            lines.push(format!("{rule} {client} map @client goto pick"));
            let mut keep = format!("{rule} numgen random mod {count} ");
            // Writing to a String cannot fail.
            write!(keep, "update @client {{ {client} timeout {seconds}s : meta mark }} goto pick").ok();
            lines.push(keep);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(port: u16) -> Front {
        Front { address: Ipv4Addr::new(198, 19, 0, 5), transport: Transport::Tcp, port }
    }

    fn rules(ends: &[u8]) -> Rules {
        let ends = ends.iter().map(|last| (Ipv4Addr::new(198, 18, 0, *last), 80)).collect();
        let fronts = BTreeMap::from([(front(80), Backends { ends, affinity: None })]);
        Rules { fronts, ..Rules::default() }
    }

    fn check(from: &[u8], to: &[u8], expected: &[&str]) {
        let (_, now) = Rules::default().change(&rules(from));
        let (transactions, _) = now.change(&rules(to));
        let lines: Vec<&str> = transactions.iter().flat_map(|text| text.lines()).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn nothing_changed_is_no_transaction() {
        check(&[2, 3], &[2, 3], &[]);
    }

    #[test]
    fn a_replaced_endpoint_touches_one_element() {
        check(
            &[2, 3],
            &[2, 4],
            &[
                "delete element ip ferromesh end { 198.19.0.5 . tcp . 80 . 1 : 198.18.0.3 . 80 }",
                "add element ip ferromesh end { 198.19.0.5 . tcp . 80 . 1 : 198.18.0.4 . 80 }",
            ],
        );
    }

    #[test]
    fn the_last_endpoint_takes_the_service_out() {
        check(
            &[2],
            &[],
            &[
                "delete element ip ferromesh front { 198.19.0.5 . tcp . 80 : goto of1 }",
                "delete element ip ferromesh end { 198.19.0.5 . tcp . 80 . 0 : 198.18.0.2 . 80 }",
            ],
        );
    }

    #[test]
    fn one_more_endpoint_brings_its_chain() {
        check(
            &[2],
            &[2, 3],
            &[
                "add chain ip ferromesh of2",
                "add rule ip ferromesh of2 meta mark set numgen random mod 2 goto pick",
                "delete element ip ferromesh front { 198.19.0.5 . tcp . 80 : goto of1 }",
                "add element ip ferromesh end { 198.19.0.5 . tcp . 80 . 1 : 198.18.0.3 . 80 }",
                "add element ip ferromesh front { 198.19.0.5 . tcp . 80 : goto of2 }",
            ],
        );
    }

    #[test]
    fn many_services_come_in_parts() {
        let backends = Backends { ends: vec![(Ipv4Addr::new(198, 18, 0, 2), 80)], affinity: None };
        let fronts = (1..=1000).map(|port| (front(port), backends.clone())).collect();
        let (transactions, _) = Rules::default().change(&Rules { fronts, ..Rules::default() });
        assert_eq!(transactions.len(), (2 + 2000_usize).div_ceil(ELEMENTS_MAX));
    }

    #[test]
    fn affinity_remembers_the_client() {
        let mut wanted = rules(&[2]);
        wanted.fronts.values_mut().for_each(|backends| backends.affinity = Some(10_800));
        let (transactions, _) = Rules::default().change(&wanted);
        assert!(transactions[0].contains("add chain ip ferromesh of1_for10800"));
        assert!(transactions[0].contains("timeout 10800s : meta mark"));
    }
}
