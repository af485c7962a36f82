//! The redirect rules as plain text, made from what is wanted.
//!
//! Order and meaning are those of `istio-iptables`; one table, replaced whole, so that running twice changes nothing.
//! Never here: running a tool. Called by `capture`.

use ipnet::IpNet;

/// What is redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) outbound_port: u16,
    pub(crate) inbound_port: u16,
    pub(crate) tunnel_port: u16,
    pub(crate) own: Own,
    pub(crate) inbound: Ports,
    pub(crate) inbound_excluded: Vec<u16>,
    /// Destinations captured; none: all.
    pub(crate) ranges: Option<Vec<IpNet>>,
    pub(crate) ranges_excluded: Vec<IpNet>,
    pub(crate) outbound_included: Vec<u16>,
    pub(crate) outbound_excluded: Vec<u16>,
    pub(crate) interfaces_excluded: Vec<String>,
    pub(crate) drop_invalid: bool,
}

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ports {
    All,
    These(Vec<u16>),
}

/// How the proxy's own connections are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Own {
    Ids { uids: Vec<u32>, gids: Vec<u32> },
    Mark(u32),
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            own: Own::Ids { uids: vec![1337], gids: Vec::new() },
            inbound: Ports::All,
            inbound_excluded: Vec::new(),
            ranges: None,
            ranges_excluded: Vec::new(),
            outbound_included: Vec::new(),
            outbound_excluded: Vec::new(),
            interfaces_excluded: Vec::new(),
            drop_invalid: false,
        }
    }
}

const TABLE: &str = "inet ferromesh_capture";

/// A script that takes the rules away.
pub(super) fn nft_cleanup() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

fn set<T: ToString>(items: &[T]) -> String {
    format!("{{ {} }}", items.iter().map(T::to_string).collect::<Vec<_>>().join(", "))
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(net: &IpNet) -> Self {
        if net.addr().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As nft names it.
    fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

impl Plan {
    /// The conditions that tell the proxy, each with its negation, for nft.
    fn own_nft(&self) -> Vec<(String, String)> {
        let pair = |key: &str, value: u32| (format!("meta {key} {value}"), format!("meta {key} != {value}"));
        match &self.own {
            Own::Mark(mark) => vec![pair("mark", *mark)],
            Own::Ids { uids, gids } => {
                uids.iter().map(|u| pair("skuid", *u)).chain(gids.iter().map(|g| pair("skgid", *g))).collect()
            }
        }
    }

    /// The same for iptables.
    fn own_iptables(&self) -> Vec<(String, String)> {
        let owner = |key: &str, id: &u32| (format!("-m owner --{key} {id}"), format!("-m owner ! --{key} {id}"));
        match &self.own {
            Own::Mark(mark) => vec![(format!("-m mark --mark {mark}"), format!("-m mark ! --mark {mark}"))],
            Own::Ids { uids, gids } => {
                let users = uids.iter().map(|id| owner("uid-owner", id));
                users.chain(gids.iter().map(|id| owner("gid-owner", id))).collect()
            }
        }
    }

    /// The rules for `nft -f -`.
    pub(crate) fn nft(&self) -> String {
        let mut text = nft_cleanup();
        let mut out = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        out(&format!("table {TABLE} {{"));
        if self.drop_invalid {
            out("  chain invalid { type filter hook prerouting priority -150; policy accept;");
            out("    ct state invalid drop");
            out("  }");
        }
        out("  chain prerouting { type nat hook prerouting priority -100; policy accept;");
        for nic in &self.interfaces_excluded {
            out(&format!("    iifname \"{nic}\" return"));
        }
        out(&format!("    tcp dport {} return", self.tunnel_port));
        match &self.inbound {
            Ports::All => {
                if !self.inbound_excluded.is_empty() {
                    out(&format!("    tcp dport {} return", set(&self.inbound_excluded)));
                }
                out(&format!("    meta l4proto tcp redirect to :{}", self.inbound_port));
            }
            Ports::These(ports) if ports.is_empty() => {}
            Ports::These(ports) => out(&format!("    tcp dport {} redirect to :{}", set(ports), self.inbound_port)),
        }
        out("  }");
        out("  chain output { type nat hook output priority -100; policy accept;");
        for nic in &self.interfaces_excluded {
            out(&format!("    oifname \"{nic}\" return"));
        }
        if !self.outbound_excluded.is_empty() {
            out(&format!("    tcp dport {} return", set(&self.outbound_excluded)));
            out(&format!("    udp dport {} return", set(&self.outbound_excluded)));
        }
        out("    oifname \"lo\" ip saddr 127.0.0.6 return");
        out("    oifname \"lo\" ip6 saddr ::6 return");
        let (tunnel, inbound) = (self.tunnel_port, self.inbound_port);
        for (own, other) in self.own_nft() {
            let to_self = format!("tcp dport != {tunnel} {own} redirect to :{inbound}");
            out(&format!("    oifname \"lo\" ip daddr != 127.0.0.1 {to_self}"));
            out(&format!("    oifname \"lo\" ip6 daddr != ::1 {to_self}"));
            out(&format!("    oifname \"lo\" {other} return"));
            out(&format!("    {own} return"));
        }
        out("    ip daddr 127.0.0.1 return");
        out("    ip6 daddr ::1 return");
        for net in &self.ranges_excluded {
            out(&format!("    {} daddr {net} return", Family::of(net).nft()));
        }
        let port = self.outbound_port;
        if !self.outbound_included.is_empty() {
            out(&format!("    tcp dport {} redirect to :{port}", set(&self.outbound_included)));
        }
        match &self.ranges {
            None => out(&format!("    meta l4proto tcp redirect to :{port}")),
            Some(ranges) => {
                for net in ranges {
                    out(&format!("    {} daddr {net} meta l4proto tcp redirect to :{port}", Family::of(net).nft()));
                }
            }
        }
        out("  }");
        out("}");
        text
    }

    /// The rules of our own chains, for one family.
    fn chains_iptables(&self, family: Family) -> String {
        let mut rules = String::new();
        let mut rule = |line: String| {
            rules.push_str(&format!("-A {line}\n"));
        };
        let (loopback, passthrough) = match family {
            Family::V4 => ("127.0.0.1/32", "127.0.0.6/32"),
            Family::V6 => ("::1/128", "::6/128"),
        };
        for nic in &self.interfaces_excluded {
            rule(format!("ISTIO_INBOUND -i {nic} -j RETURN"));
            rule(format!("ISTIO_OUTPUT -o {nic} -j RETURN"));
        }
        rule(format!("ISTIO_INBOUND -p tcp --dport {} -j RETURN", self.tunnel_port));
        rule(format!("ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports {}", self.outbound_port));
        rule(format!("ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports {}", self.inbound_port));
        match &self.inbound {
            Ports::All => {
                for port in &self.inbound_excluded {
                    rule(format!("ISTIO_INBOUND -p tcp --dport {port} -j RETURN"));
                }
                rule("ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT".to_owned());
            }
            Ports::These(ports) => {
                for port in ports {
                    rule(format!("ISTIO_INBOUND -p tcp --dport {port} -j ISTIO_IN_REDIRECT"));
                }
            }
        }
        for port in &self.outbound_excluded {
            rule(format!("ISTIO_OUTPUT -p tcp --dport {port} -j RETURN"));
            rule(format!("ISTIO_OUTPUT -p udp --dport {port} -j RETURN"));
        }
        rule(format!("ISTIO_OUTPUT -o lo -s {passthrough} -j RETURN"));
        for (own, other) in self.own_iptables() {
            let tunnel = self.tunnel_port;
            rule(format!("ISTIO_OUTPUT -o lo ! -d {loopback} -p tcp ! --dport {tunnel} {own} -j ISTIO_IN_REDIRECT"));
            rule(format!("ISTIO_OUTPUT -o lo {other} -j RETURN"));
            rule(format!("ISTIO_OUTPUT {own} -j RETURN"));
        }
        rule(format!("ISTIO_OUTPUT -d {loopback} -j RETURN"));
        let same = |net: &&IpNet| Family::of(net) == family;
        for net in self.ranges_excluded.iter().filter(same) {
            rule(format!("ISTIO_OUTPUT -d {net} -j RETURN"));
        }
        for port in &self.outbound_included {
            rule(format!("ISTIO_OUTPUT -p tcp --dport {port} -j ISTIO_REDIRECT"));
        }
        match &self.ranges {
            None => rule("ISTIO_OUTPUT -j ISTIO_REDIRECT".to_owned()),
            Some(ranges) => {
                for net in ranges.iter().filter(same) {
                    rule(format!("ISTIO_OUTPUT -d {net} -j ISTIO_REDIRECT"));
                }
            }
        }
        rules
    }

    /// The whole input of one family for `iptables-restore --noflush`.
    pub(super) fn iptables(&self, family: Family) -> String {
        // Naming a chain empties it; the jumps are made once because their chains of origin are emptied with them.
        let mut text = String::from("*nat\n");
        for chain in ["ISTIO_INBOUND", "ISTIO_OUTPUT", "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT"] {
            text.push_str(&format!(":{chain} - [0:0]\n"));
        }
        text.push_str(":PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
        text.push_str("-A PREROUTING -p tcp -j ISTIO_INBOUND\n-A OUTPUT -j ISTIO_OUTPUT\n");
        text.push_str(&self.chains_iptables(family));
        text.push_str("COMMIT\n");
        if self.drop_invalid {
            text.push_str(
                "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(chain: &str, text: &str) -> Vec<String> {
        let start = text.find(&format!("chain {chain}")).expect("chain");
        text[start..].lines().skip(1).take_while(|l| l.trim() != "}").map(|l| l.trim().to_owned()).collect()
    }

    #[test]
    fn the_default_plan_is_istios() {
        let plan = Plan { inbound_excluded: vec![15090, 15021], ..Plan::default() };
        let text = plan.nft();
        assert_eq!(
            body("prerouting", &text),
            ["tcp dport 15008 return", "tcp dport { 15090, 15021 } return", "meta l4proto tcp redirect to :15006",]
        );
        let output = body("output", &text);
        assert_eq!(output.last().map(String::as_str), Some("meta l4proto tcp redirect to :15001"));
        let own = output.iter().position(|l| l == "meta skuid 1337 return").expect("own");
        let back = output.iter().position(|l| l.contains("redirect to :15006")).expect("to self");
        assert!(back < own);
    }

    #[test]
    fn only_given_ranges_and_ports_are_captured() {
        let plan = Plan {
            inbound: Ports::These(vec![80]),
            ranges: Some(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]),
            own: Own::Mark(7),
            ..Plan::default()
        };
        let text = plan.nft();
        assert_eq!(body("prerouting", &text)[1], "tcp dport { 80 } redirect to :15006");
        assert!(text.contains("ip daddr 10.0.0.0/8 meta l4proto tcp redirect to :15001"));
        assert!(text.contains("ip6 daddr fd00::/8 meta l4proto tcp"));
        assert!(text.contains("meta mark 7 return"));
        assert!(plan.iptables(Family::V4).contains("-d 10.0.0.0/8 -j ISTIO_REDIRECT"));
        assert!(!plan.iptables(Family::V4).contains("fd00"));
    }
}
