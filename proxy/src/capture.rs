//! `proxy iptables`: makes the pod's traffic pass through the proxy (Istio's `istio-init`).
//!
//! Takes the flags of `istio-iptables`, turns them into one nftables ruleset (or, where there is no `nft`, into input for
//! `iptables-restore`) and applies it in one transaction. The proxy's own connections are told by user and group id, or
//! by packet mark where ids cannot be used.
//! Never here: accepting what is redirected. Called by `main`.

mod plan;

use std::{
    io::Write,
    net::{AddrParseError, IpAddr},
    process::{Command, Stdio},
    str::FromStr,
};

use ipnet::IpNet;
use plan::Family;
pub(crate) use plan::{Own, Plan, Ports};

use crate::env::flags::pairs;

/// Packet mark of the proxy's own connections.
pub(crate) const MARK: u32 = 1337;

/// Why the rules could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    #[error("{}", .0.join("; "))]
    Flags(Vec<String>),
    #[error("neither nft nor iptables-restore is installed")]
    NoTool,
    #[error("could not run {tool}")]
    Run { tool: &'static str, source: std::io::Error },
    #[error("{tool} refused the rules: {message}")]
    Refused { tool: &'static str, message: String },
}

const BARE: &[&str] = &[
    "--redirect-dns",
    "--capture-all-dns",
    "--drop-invalid",
    "--dual-stack",
    "--cni-mode",
    "--native-nftables",
    "--reconcile",
    "--cleanup-only",
    "--dry-run",
    "-n",
    "--run-validation",
    "--skip-rule-apply",
    "--restore-format",
    "--force-apply",
];

/// What `proxy iptables` was asked for.
#[derive(Debug)]
pub(crate) struct Request {
    plan: Plan,
    cleanup_only: bool,
    dry_run: bool,
}

/// The parts of a list with commas.
fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn numbers<T: FromStr>(list: &str) -> Result<Vec<T>, T::Err> {
    parts(list).map(str::parse::<T>).collect()
}

/// CIDRs; an address alone stands for itself.
fn ranges(list: &str) -> Result<Vec<IpNet>, AddrParseError> {
    parts(list).map(|part| part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from))).collect()
}

/// Reads the flags of `istio-iptables`.
///
/// # Errors
/// All values that cannot be, and modes that are not offered.
pub(crate) fn parse(args: &[String], ids_usable: bool) -> Result<Request, CaptureError> {
    let found = pairs(args, BARE).map_err(CaptureError::Flags)?;
    let mut plan = Plan::default();
    let mut errors = Vec::new();
    let (mut cleanup_only, mut dry_run) = (false, false);
    let (mut uids, mut gids, mut mark) = (vec![1337], Vec::new(), None);
    for (name, value) in found {
        let value = value.trim();
        let mut bad = |what: &str| errors.push(format!("{name}: {value:?} is not {what}"));
        match name.as_str() {
            "-p" | "--envoy-port" => value.parse().map_or_else(|_| bad("a port"), |p| plan.outbound_port = p),
            "-z" | "--inbound-capture-port" => value.parse().map_or_else(|_| bad("a port"), |p| plan.inbound_port = p),
            "-e" | "--inbound-tunnel-port" => value.parse().map_or_else(|_| bad("a port"), |p| plan.tunnel_port = p),
            "-u" | "--proxy-uid" => {
                numbers::<u32>(value).map_or_else(|_| bad("a list of user ids"), |found| uids = found)
            }
            "-g" | "--proxy-gid" => {
                numbers::<u32>(value).map_or_else(|_| bad("a list of group ids"), |found| gids = found)
            }
            "--mark" => value.parse().map_or_else(|_| bad("a mark"), |found| mark = Some(found)),
            "-m" | "--istio-inbound-interception-mode" => {
                if value != "REDIRECT" {
                    bad("REDIRECT, the only interception mode offered");
                }
            }
            "-b" | "--istio-inbound-ports" => match value {
                "*" => plan.inbound = Ports::All,
                _ => {
                    numbers(value).map_or_else(|_| bad("\"*\" or a list of ports"), |p| plan.inbound = Ports::These(p))
                }
            },
            "-d" | "--istio-local-exclude-ports" => {
                numbers(value).map_or_else(|_| bad("a list of ports"), |p| plan.inbound_excluded = p);
            }
            "-i" | "--istio-service-cidr" => match value {
                "*" => plan.ranges = None,
                _ => ranges(value).map_or_else(|_| bad("\"*\" or a list of CIDRs"), |r| plan.ranges = Some(r)),
            },
            "-x" | "--istio-service-exclude-cidr" => {
                ranges(value).map_or_else(|_| bad("a list of CIDRs"), |r| plan.ranges_excluded = r);
            }
            "-q" | "--istio-outbound-ports" => {
                numbers(value).map_or_else(|_| bad("a list of ports"), |p| plan.outbound_included = p);
            }
            "-o" | "--istio-local-outbound-ports-exclude" => {
                numbers(value).map_or_else(|_| bad("a list of ports"), |p| plan.outbound_excluded = p);
            }
            "-c" | "--istio-exclude-interfaces" => plan.interfaces_excluded = parts(value).map(str::to_owned).collect(),
            "--drop-invalid" => plan.drop_invalid = value == "true",
            "--cleanup-only" => cleanup_only = value == "true",
            "--dry-run" | "-n" => dry_run = value == "true",
            "-k" | "--kube-virt-interfaces" | "--capture-all-dns" | "--cni-mode"
                if value != "true" && value.is_empty() => {}
            // Always so here: both families, one transaction, nftables first.
            "--dual-stack" | "--native-nftables" | "--reconcile" | "--force-apply" | "--restore-format" => {}
            "--run-validation" | "--skip-rule-apply" if value != "true" => {}
            "--log_output_level" | "--probe-timeout" | "--iptables-probe-port" => {}
            _ => errors.push(format!("{name}: not offered")),
        }
    }
    plan.own = match mark {
        Some(mark) => Own::Mark(mark),
        None if ids_usable => Own::Ids { uids, gids },
        None => Own::Mark(MARK),
    };
    if plan.interfaces_excluded.iter().any(|n| !n.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))) {
        errors.push("-c: an interface name holds characters that none may hold".to_owned());
    }
    if errors.is_empty() { Ok(Request { plan, cleanup_only, dry_run }) } else { Err(CaptureError::Flags(errors)) }
}

/// Whether user id 1337 exists in this user namespace.
pub(crate) fn ids_usable(uid_map: &str) -> bool {
    uid_map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        let (first, _, length) = (numbers.next(), numbers.next(), numbers.next());
        matches!((first, length), (Some(first), Some(length)) if first <= 1337 && 1337 < first + length)
    })
}

/// Applies (or prints) the rules.
///
/// # Errors
/// No tool, or one that refuses.
pub(crate) fn run(request: &Request, print: impl FnOnce(&str)) -> Result<(), CaptureError> {
    let script = if request.cleanup_only { plan::nft_cleanup() } else { request.plan.nft() };
    if request.dry_run {
        print(&script);
        return Ok(());
    }
    match feed("nft", &["-f", "-"], &script) {
        Err(CaptureError::Run { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        other => return other,
    }
    if request.cleanup_only {
        return Err(CaptureError::NoTool);
    }
    for (tool, family) in [("iptables-restore", Family::V4), ("ip6tables-restore", Family::V6)] {
        match feed(tool, &["--noflush"], &request.plan.iptables(family)) {
            Err(CaptureError::Run { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                if family == Family::V4 {
                    return Err(CaptureError::NoTool);
                }
            }
            other => other?,
        }
    }
    Ok(())
}

fn feed(tool: &'static str, args: &[&str], input: &str) -> Result<(), CaptureError> {
    let failed = |source| CaptureError::Run { tool, source };
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(CaptureError::Refused { tool, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(|a| if a == "''" { String::new() } else { a.to_owned() }).collect()
    }

    #[test]
    fn istio_init_flags_are_understood() {
        let line = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x '' -b * -d 15090,15021,15020 --log_output_level=default:info";
        let request = parse(&args(line), true).unwrap();
        assert_eq!(request.plan.inbound_excluded, [15090, 15021, 15020]);
        assert_eq!(request.plan.own, Own::Ids { uids: vec![1337], gids: vec![] });
        assert_eq!(request.plan.ranges, None);
    }

    #[test]
    fn without_ids_the_mark_tells_the_proxy() {
        assert_eq!(parse(&args("-p 15001"), false).unwrap().plan.own, Own::Mark(MARK));
        assert_eq!(parse(&args("--mark 7"), true).unwrap().plan.own, Own::Mark(7));
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        let CaptureError::Flags(errors) = parse(&args("-m TPROXY -b x --capture-all-dns"), true).unwrap_err() else {
            panic!("expected flags")
        };
        assert_eq!(errors.len(), 3, "{errors:?}");
    }

    #[test]
    fn a_uid_map_says_whether_1337_exists() {
        assert!(ids_usable("         0          0 4294967295\n"));
        assert!(ids_usable("0 1000 1\n1 100000 65535\n"));
        assert!(!ids_usable("0 1000 1\n"));
    }
}
