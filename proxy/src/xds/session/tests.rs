//! Conversations with pilot, response by response.
//!
//! Never here: sockets or protobuf. Run by `cargo test -p proxy`.

use std::time::Duration;

use api::spec::{Balance, Breakers, Cluster, Endpoints, RouteTable, UpstreamHttp, VirtualHost};

use super::*;

fn cluster(name: &str) -> Resource {
    Resource::Cluster(Arc::new(Cluster {
        name: name.into(),
        discovery: Discovery::Eds,
        balance: Balance::RoundRobin,
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
    }))
}

fn endpoints(name: &str) -> Resource {
    Resource::Endpoints(Arc::new(Endpoints { cluster: name.into(), localities: Vec::new() }))
}

fn response(kind: ResourceKind, nonce: &str, resources: Vec<(&str, Result<Resource, String>)>) -> Response {
    let resources = resources
        .into_iter()
        .map(|(name, resource)| Received { name: name.into(), version: format!("v-{nonce}"), resource })
        .collect();
    Response { kind, nonce: nonce.into(), resources, removed: Vec::new() }
}

#[test]
fn a_stream_begins_with_the_wildcards() {
    let opened = Session::default().open();
    let kinds: Vec<_> = opened.iter().map(|r| (r.kind, r.subscribe.clone())).collect();
    assert_eq!(kinds, [(ResourceKind::Cluster, vec!["*".into()]), (ResourceKind::Listener, vec!["*".into()])]);
}

#[test]
fn a_cluster_brings_its_endpoints_and_is_acknowledged_once_it_serves() {
    let mut session = Session::default();
    session.open();
    let next = session.on_response(response(ResourceKind::Cluster, "1", vec![("a", Ok(cluster("a")))]));
    assert_eq!((next.len(), next[0].kind, next[0].subscribe.clone()), (1, ResourceKind::Endpoints, vec!["a".into()]));
    assert_eq!(session.awaited(), 1);
    session.on_response(response(ResourceKind::Endpoints, "2", vec![("a", Ok(endpoints("a")))]));
    assert_eq!(session.awaited(), 0);
    let acks = session.served(&[]);
    assert_eq!(acks.iter().map(|r| r.nonce.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert!(acks.iter().all(|r| r.refused.is_none()));
    assert!(session.served(&[]).is_empty(), "acknowledged once only");
}

#[test]
fn a_bad_resource_is_refused_with_its_reason_and_does_not_stop_a_good_one() {
    let mut session = Session::default();
    let mixed = vec![("a", Ok(cluster("a"))), ("b", Err("no such field".to_owned()))];
    session.on_response(response(ResourceKind::Cluster, "1", mixed));
    assert!(session.spec().clusters.contains_key("a"));
    let acks = session.served(&[(ResourceKind::Cluster, "a".into(), "cannot be built".into())]);
    assert_eq!(acks[0].refused.as_deref(), Some("b: no such field; a: cannot be built"));
}

#[test]
fn what_was_held_before_a_lost_stream_is_kept_and_named() {
    let mut session = Session::default();
    session.open();
    session.on_response(response(ResourceKind::Cluster, "1", vec![("a", Ok(cluster("a")))]));
    session.on_response(response(ResourceKind::Endpoints, "2", vec![("a", Ok(endpoints("a")))]));
    let opened = session.open();
    assert_eq!(opened[0].held["a"], "v-1");
    assert_eq!(opened[1].held["a"], "v-2");
    assert!(session.spec().clusters.contains_key("a"));
    assert!(session.served(&[]).is_empty(), "nonces of the old stream are void");
}

#[test]
fn a_removed_cluster_takes_its_endpoints_along() {
    let mut session = Session::default();
    session.on_response(response(ResourceKind::Cluster, "1", vec![("a", Ok(cluster("a")))]));
    session.on_response(response(ResourceKind::Endpoints, "2", vec![("a", Ok(endpoints("a")))]));
    let gone = Response { removed: vec!["a".into()], ..response(ResourceKind::Cluster, "3", vec![]) };
    let next = session.on_response(gone);
    assert_eq!(next[0].unsubscribe, ["a"]);
    assert!(session.spec().endpoints.is_empty());
}

#[test]
fn a_resource_of_the_wrong_type_is_refused() {
    let mut session = Session::default();
    let routes = Resource::Routes(Arc::new(RouteTable {
        name: "a".into(),
        virtual_hosts: vec![],
        ignore_port: false,
        hosts_apart: false,
    }));
    session.on_response(response(ResourceKind::Cluster, "1", vec![("a", Ok(routes))]));
    assert!(session.served(&[])[0].refused.is_some());
    assert!(session.spec().routes.is_empty());
}

fn table(name: &str, hosts_apart: bool) -> Resource {
    Resource::Routes(Arc::new(RouteTable { name: name.into(), virtual_hosts: vec![], ignore_port: true, hosts_apart }))
}

fn host(name: &str) -> Resource {
    Resource::VirtualHost(Arc::new(VirtualHost { name: name.into(), domains: vec![name.into()], routes: vec![] }))
}

fn hosts_of(session: &Session, table: &str) -> String {
    let table = &session.spec().routes[table];
    table.virtual_hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// A session that has table 80 with hosts a and b, which came by themselves.
fn with_hosts() -> Session {
    let mut session = Session::default();
    session.on_response(response(ResourceKind::Routes, "1", vec![("80", Ok(table("80", true)))]));
    let both = vec![("80/a", Ok(host("a"))), ("80/b", Ok(host("b")))];
    session.on_response(response(ResourceKind::VirtualHost, "2", both));
    session
}

#[test]
fn hosts_that_stand_apart_are_asked_for_by_table_and_awaited() {
    let mut session = Session::default();
    let next = session.on_response(response(ResourceKind::Routes, "1", vec![("80", Ok(table("80", true)))]));
    let asked = next.iter().find(|request| request.kind == ResourceKind::VirtualHost).unwrap();
    assert_eq!(asked.subscribe, ["80"]);
    assert_eq!(session.awaited(), 1);
    session.on_response(response(ResourceKind::VirtualHost, "2", vec![("80/a", Ok(host("a")))]));
    assert_eq!((session.awaited(), hosts_of(&session, "80")), (0, "a".to_owned()));
}

#[test]
fn a_host_that_names_no_table_is_refused() {
    let mut session = with_hosts();
    session.served(&[]);
    for name in ["c", "80/", "/c"] {
        session.on_response(response(
            ResourceKind::VirtualHost,
            "3",
            vec![(name, Ok(host("c"))), ("80/d", Ok(host("d")))],
        ));
        let refused = session.served(&[]).remove(0).refused;
        assert_eq!(refused, Some(format!("{name:?}: names no table: it must be written TABLE/HOST")));
    }
    assert_eq!(hosts_of(&session, "80"), "a b d");
}

#[test]
fn a_changed_host_is_joined_with_the_others() {
    let mut session = with_hosts();
    assert_eq!(hosts_of(&session, "80"), "a b");
    session.on_response(response(ResourceKind::VirtualHost, "3", vec![("80/c", Ok(host("c")))]));
    assert_eq!(hosts_of(&session, "80"), "a b c");
    let gone = Response { removed: vec!["80/a".into()], ..response(ResourceKind::VirtualHost, "4", vec![]) };
    session.on_response(gone);
    assert_eq!(hosts_of(&session, "80"), "b c");
}

#[test]
fn a_table_without_hosts_is_not_awaited_for_ever() {
    let mut session = Session::default();
    session.on_response(response(ResourceKind::Routes, "1", vec![("80", Ok(table("80", true)))]));
    session.on_response(Response { removed: vec!["80".into()], ..response(ResourceKind::VirtualHost, "2", vec![]) });
    assert_eq!(session.awaited(), 0);
}

#[test]
fn a_table_that_comes_whole_again_needs_no_hosts() {
    let mut session = with_hosts();
    let next = session.on_response(response(ResourceKind::Routes, "3", vec![("80", Ok(table("80", false)))]));
    let asked = next.iter().find(|request| request.kind == ResourceKind::VirtualHost).unwrap();
    assert_eq!(asked.unsubscribe, ["80"]);
    assert_eq!(hosts_of(&session, "80"), "");
    assert!(session.open().iter().all(|request| request.kind != ResourceKind::VirtualHost));
}

#[test]
fn hosts_are_named_when_a_stream_is_resumed_and_refused_by_name() {
    let mut session = with_hosts();
    let fault = (ResourceKind::Routes, "80".to_owned(), "virtual_hosts[b].routes[0]: bad".to_owned());
    let refused = |answer: &Request| answer.refused.is_some();
    let answers = session.served(&[fault]);
    assert_eq!(
        answers.iter().filter(|answer| refused(answer)).map(|a| a.kind).collect::<Vec<_>>(),
        [ResourceKind::Routes, ResourceKind::VirtualHost]
    );
    let opened = session.open();
    let resumed = opened.iter().find(|request| request.kind == ResourceKind::VirtualHost).unwrap();
    assert_eq!(resumed.subscribe, ["80"]);
    assert_eq!(resumed.held.keys().collect::<Vec<_>>(), ["80/a", "80/b"]);
}
