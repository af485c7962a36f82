//! Tests of `table`: places, links, and what is taken over from the table before.
//!
//! Never here: which rule or chain is chosen (`route`, `chains`). Run by `cargo test -p api`.

use std::time::Duration;

use super::*;
use crate::spec::{
    Action, Balance, Breakers, ChainMatch, Detect, Direction, FilterChain, Forward, HeaderChanges, Network, Route,
    RouteMatch, RouteTable, TcpServer, UpstreamHttp, UpstreamTls, VirtualHost, WeightedCluster,
};

fn cluster(name: &str) -> spec::Cluster {
    spec::Cluster {
        name: name.to_owned(),
        discovery: Discovery::Eds,
        balance: Balance::LeastRequest,
        connect_timeout: Duration::from_secs(1),
        breakers: Breakers::default(),
        outlier: None,
        tls: UpstreamTls::Off,
        http: UpstreamHttp::default(),
        bind_source: None,
        keepalive: None,
        proxy_header: None,
        service: None,
        origin: None,
    }
}

fn way(cluster: &str) -> WeightedCluster {
    WeightedCluster { cluster: cluster.to_owned(), weight: 1, headers: HeaderChanges::default() }
}

fn host(name: &str, to: &str) -> Arc<VirtualHost> {
    let forward = Forward {
        clusters: vec![way(to)],
        timeout: None,
        retry: None,
        path: None,
        authority: None,
        mirrors: Vec::new(),
        retry_buffer_bytes: 0,
    };
    let route = Route {
        name: String::new(),
        matches: RouteMatch::default(),
        action: Action::Forward(Box::new(forward)),
        headers: HeaderChanges::default(),
        fault: None,
        operation: String::new(),
        origin: None,
    };
    Arc::new(VirtualHost { name: name.to_owned(), domains: vec![name.to_owned()], routes: vec![route] })
}

fn listener(name: &str, address: &str, to: &str) -> spec::Listener {
    let server = TcpServer {
        stat_prefix: String::new(),
        clusters: vec![way(to)],
        authorization: Vec::new(),
        access_log: None,
        idle_timeout: Duration::ZERO,
        max_duration: Duration::ZERO,
        metrics: false,
    };
    spec::Listener {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        direction: Direction::Outbound,
        bind: false,
        use_original_destination: false,
        detect: Detect::default(),
        chains: Vec::new(),
        default_chain: Some(FilterChain {
            name: "only".to_owned(),
            matches: ChainMatch::default(),
            tls: None,
            network: Network::Tcp(Box::new(server)),
        }),
        origin: None,
    }
}

/// Clusters `a b`, route hosts `h>a`, listeners `10.0.0.1:80>a`.
fn read(text: &str) -> Spec {
    let mut spec = Spec::default();
    let mut hosts = Vec::new();
    for word in text.split_whitespace() {
        match word.split_once('>') {
            None => drop(spec.clusters.insert(word.to_owned(), Arc::new(cluster(word)))),
            Some((name, to)) if name.contains(':') => {
                spec.listeners.insert(name.to_owned(), Arc::new(listener(name, name, to)));
            }
            Some((name, to)) => hosts.push(host(name, to)),
        }
    }
    let table = RouteTable { name: "t".to_owned(), virtual_hosts: hosts, ignore_port: true, hosts_apart: false };
    spec.routes.insert("t".to_owned(), Arc::new(table));
    spec
}

fn compile(text: &str, previous: Option<&Table>) -> Table {
    Table::compile(&read(text), previous).0
}

fn target(table: &Table, host: &str) -> Option<String> {
    let routes = table.routes("t").unwrap();
    let rule = &routes.host(host, host).unwrap().rules()[0];
    let id = rule.forward.as_ref().unwrap().targets.pick(0).unwrap().cluster?;
    Some(table.cluster(id).unwrap().spec.name.clone())
}

fn same_host(a: &Table, b: &Table, host: &str) -> bool {
    let of = |table: &Table| std::ptr::from_ref(table.routes("t").unwrap().host(host, host).unwrap());
    std::ptr::eq(of(a), of(b))
}

#[test]
fn clusters_keep_their_place_while_they_live() {
    let one = compile("a b c", None);
    let two = compile("b c d", Some(&one));
    let three = compile("a b c d", Some(&two));
    for name in ["b", "c"] {
        assert_eq!(one.cluster_id(name), two.cluster_id(name));
        assert_eq!(two.cluster_id(name), three.cluster_id(name));
        assert!(Arc::ptr_eq(
            one.cluster(one.cluster_id(name).unwrap()).unwrap(),
            two.cluster(two.cluster_id(name).unwrap()).unwrap()
        ));
    }
    assert_eq!(two.cluster_id("a"), None);
    assert_eq!(two.cluster_id("d"), one.cluster_id("a"), "a free place is taken again");
    assert_eq!(three.cluster_places(), 4);
    assert_eq!(three.clusters().count(), 4);
}

#[test]
fn a_rule_follows_its_cluster_by_name() {
    let one = compile("a b h>b", None);
    assert_eq!(target(&one, "h").as_deref(), Some("b"));
    let two = compile("a h>b", Some(&one));
    assert_eq!(target(&two, "h"), None, "the cluster is gone: NC");
    let three = compile("z a h>b", Some(&two));
    assert_eq!(target(&three, "h"), None, "its place went to another");
    let four = compile("z a b h>b", Some(&three));
    assert_eq!(target(&four, "h").as_deref(), Some("b"));
}

#[test]
fn what_did_not_change_is_taken_over() {
    let one = compile("a b h>a i>b 10.0.0.1:80>a", None);
    let same = compile("a b h>a i>b 10.0.0.1:80>a", Some(&one));
    assert!(Arc::ptr_eq(one.routes("t").unwrap(), same.routes("t").unwrap()));
    assert!(Arc::ptr_eq(one.listener("10.0.0.1:80").unwrap(), same.listener("10.0.0.1:80").unwrap()));
    let changed = compile("a b h>b i>b 10.0.0.1:80>a", Some(&one));
    assert!(!same_host(&one, &changed, "h"));
    assert!(same_host(&one, &changed, "i"), "the neighbour is not compiled again");
    assert_eq!(target(&changed, "h").as_deref(), Some("b"));
}

#[test]
fn hosts_are_found_after_others_moved() {
    let one = compile("a b h>a i>b", None);
    let two = compile("a b i>b h>a j>a", Some(&one));
    for (host, want) in [("h", "a"), ("i", "b"), ("j", "a")] {
        assert_eq!(target(&two, host).as_deref(), Some(want), "{host}");
    }
}

#[test]
fn a_redirected_connection_finds_the_listener_of_its_destination() {
    let table = compile("a 10.0.0.1:80>a 0.0.0.0:80>a 0.0.0.0:81>a [::]:82>a", None);
    let found = |address: &str| table.listener_for(address.parse().unwrap()).map(|found| found.spec.name.clone());
    assert_eq!(found("10.0.0.1:80").as_deref(), Some("10.0.0.1:80"));
    assert_eq!(found("[::ffff:10.0.0.1]:80").as_deref(), Some("10.0.0.1:80"));
    assert_eq!(found("10.0.0.2:80").as_deref(), Some("0.0.0.0:80"));
    assert_eq!(found("[fd00::1]:82").as_deref(), Some("[::]:82"));
    assert_eq!(found("10.0.0.2:99"), None);
}

#[test]
fn an_old_connection_finds_its_chain_in_the_new_table() {
    let one = compile("a 10.0.0.1:80>a", None);
    let chain = one.listener("10.0.0.1:80").unwrap().chain_named("only").unwrap();
    let two = compile("a b 10.0.0.1:80>b", Some(&one));
    let next = two.successor(chain).unwrap();
    let Work::Tcp(targets) = &next.work else { panic!("a chain of bytes") };
    assert_eq!(targets.pick(0).unwrap().cluster, two.cluster_id("b"));
    assert!(compile("a", Some(&two)).successor(next).is_none());
}

#[test]
fn endpoints_warm_a_cluster() {
    let mut spec = read("a");
    let cold = Table::compile(&spec, None).0;
    assert!(!cold.clusters().next().unwrap().1.is_warm());
    let endpoints = spec::Endpoints { cluster: "a".to_owned(), localities: Vec::new() };
    spec.endpoints.insert("a".to_owned(), Arc::new(endpoints));
    let warm = Table::compile(&spec, Some(&cold)).0;
    assert!(warm.clusters().next().unwrap().1.is_warm());
    assert_eq!(cold.cluster_id("a"), warm.cluster_id("a"));
}

#[test]
fn what_is_wrong_is_told_and_matches_nothing() {
    let mut spec = read("a h>a h>a");
    let Some(table) = spec.routes.get_mut("t") else { panic!("a table") };
    let mut bad = VirtualHost::clone(&table.virtual_hosts[0]);
    bad.name = "bad".to_owned();
    bad.domains = vec!["bad".to_owned()];
    bad.routes[0].matches.path = spec::PathMatch::Regex("(".to_owned());
    Arc::make_mut(table).virtual_hosts.push(Arc::new(bad));
    let (compiled, notes) = Table::compile(&spec, None);
    let texts: Vec<String> = notes.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:#?}");
    assert!(texts[0].contains("virtual_hosts[bad].routes[0]"), "{texts:#?}");
    assert!(texts[1].contains("earlier virtual host"), "{texts:#?}");
    assert_eq!(target(&compiled, "h").as_deref(), Some("a"));
}
