//! The files below `/etc` that a Pod's containers share.
//!
//! Pure. Never here: writing them. Called by `worker`.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::PodSpec;

use crate::net::DNS_ADDRESS;

/// `/etc/hosts` of a Pod.
pub(super) fn hosts(spec: &PodSpec, address: Ipv4Addr, hostname: &str, namespace: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    match &spec.subdomain {
        Some(subdomain) => {
            text += &format!("{address}\t{hostname}.{subdomain}.{namespace}.svc.cluster.local\t{hostname}\n");
        }
        None => text += &format!("{address}\t{hostname}\n"),
    }
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        text += &format!("{}\t{names}\n", alias.ip);
    }
    text
}

/// `/etc/resolv.conf` of a Pod.
pub(super) fn resolv(spec: &PodSpec, namespace: &str) -> String {
    let config = spec.dns_config.clone().unwrap_or_default();
    let own = spec.dns_policy.as_deref() == Some("None");
    let (mut servers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
    if !own {
        servers.push(DNS_ADDRESS.to_string());
        search.push(format!("{namespace}.svc.cluster.local"));
        search.extend(["svc.cluster.local".to_owned(), "cluster.local".to_owned()]);
        options.push("ndots:5".to_owned());
    }
    servers.extend(config.nameservers.unwrap_or_default());
    search.extend(config.searches.unwrap_or_default());
    for option in config.options.unwrap_or_default() {
        let name = option.name.unwrap_or_default();
        options.retain(|old| old.split(':').next() != Some(name.as_str()));
        options.push(option.value.map_or(name.clone(), |value| format!("{name}:{value}")));
    }
    let mut text = String::new();
    for server in servers {
        text += &format!("nameserver {server}\n");
    }
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_searched_from_the_pods_namespace() {
        let text = resolv(&PodSpec::default(), "shop");
        assert_eq!(
            text,
            "nameserver 198.19.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        );
    }

    #[test]
    fn a_pods_own_option_replaces_ours() {
        let spec: PodSpec = serde_json::from_value(
            json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}),
        )
        .unwrap();
        assert!(resolv(&spec, "a").ends_with("options ndots:2\n"));
    }

    #[test]
    fn aliases_are_in_hosts() {
        let spec: PodSpec = serde_json::from_value(
            json!({"containers": [], "hostAliases": [{"ip": "203.0.113.1", "hostnames": ["a", "b"]}]}),
        )
        .unwrap();
        let text = hosts(&spec, Ipv4Addr::new(198, 18, 0, 2), "web", "shop");
        assert!(text.contains("198.18.0.2\tweb\n") && text.contains("203.0.113.1\ta\tb\n"));
    }
}
