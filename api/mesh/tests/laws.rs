//! Laws that hold for every mesh, tried on meshes put together at random.
//!
//! Never here: examples (`golden.rs`, `rules.rs`).
//! Called by `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::collections::BTreeMap;

use api::spec::{Node, ProxyKind, ResourceKind};
use api_mesh::{
    mesh::{self, Difference, Key, Mesh},
    model::{Catalog, Change, Settings},
    object::Stored,
};
use proptest::prelude::*;
use support::{catalog, node, objects};

/// Objects that mean something to one another, of which a mesh takes any.
const PARTS: &str = include_str!("../testdata/parts.yaml");

fn parts() -> Vec<Stored> {
    objects(PARTS)
}

fn nodes() -> Vec<Node> {
    let gateway = [("istio", "ingressgateway")];
    let mut proxyless = node(ProxyKind::Sidecar, "grpc", "default", "198.18.0.40", &[]);
    proxyless.proxyless = true;
    vec![
        on_demand(),
        node(ProxyKind::Sidecar, "a-1", "default", "198.18.0.1", &[("app", "a"), ("version", "v1")]),
        node(ProxyKind::Sidecar, "b-1", "other", "198.18.0.3", &[("app", "b")]),
        node(ProxyKind::Gateway, "gw", "istio-system", "198.18.0.9", &gateway),
        proxyless,
    ]
}

/// A sidecar that takes virtual hosts as resources of their own.
fn on_demand() -> Node {
    let mut node = node(ProxyKind::Sidecar, "c-1", "default", "198.18.0.5", &[("app", "c")]);
    (node.ours, node.on_demand_hosts) = (true, true);
    node
}

/// The hosts of each table of a proxy, by name.
fn hosts_of(mesh: &Mesh, node: &Node) -> BTreeMap<String, BTreeMap<String, String>> {
    let tables = mesh::spec(mesh, node).routes;
    let hosts = |table: &api::spec::RouteTable| {
        table.virtual_hosts.iter().map(|host| (host.name.clone(), format!("{host:?}"))).collect()
    };
    tables.into_iter().map(|(name, table)| (name, hosts(&table))).collect()
}

/// Every resource of every proxy, with its version.
fn everything(mesh: &Mesh) -> BTreeMap<(usize, Key), (u64, String)> {
    let mut all = BTreeMap::new();
    for (index, node) in nodes().iter().enumerate() {
        for key in mesh::view(mesh, node).iter() {
            let built = format!("{:?}", mesh::build(mesh, key));
            all.insert((index, key.clone()), (mesh.version_of(key), built));
        }
    }
    all
}

fn some_parts() -> impl Strategy<Value = Vec<Stored>> {
    let all = parts();
    let count = all.len();
    (proptest::collection::vec(any::<bool>(), count), Just(all)).prop_map(|(chosen, all)| {
        all.into_iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(part, _)| part).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_objects_does_not_matter(parts in some_parts().prop_flat_map(|parts| (Just(parts.clone()), Just(parts).prop_shuffle()))) {
        let (one, other) = parts;
        let ((one, one_notes), (other, other_notes)) = (mesh::resolve(&catalog(&one)), mesh::resolve(&catalog(&other)));
        prop_assert_eq!(everything(&one), everything(&other));
        prop_assert_eq!(one_notes, other_notes);
    }

    #[test]
    fn what_is_deleted_leaves_nothing(parts in some_parts(), gone in some_parts()) {
        let mut churned = catalog(&parts);
        for object in &gone {
            churned.apply(object);
        }
        for object in &gone {
            churned.delete(&object.reference());
        }
        let kept: Vec<Stored> = parts.into_iter().filter(|part| !gone.contains(part)).collect();
        prop_assert_eq!(everything(&mesh::resolve(&churned).0), everything(&mesh::resolve(&catalog(&kept)).0));
    }

    #[test]
    fn equal_versions_build_equal_resources(before in some_parts(), after in some_parts()) {
        let (before, after) = (everything(&mesh::resolve(&catalog(&before)).0), everything(&mesh::resolve(&catalog(&after)).0));
        for (key, (version, built)) in &before {
            if let Some((other, rebuilt)) = after.get(key) && version == other {
                prop_assert_eq!(built, rebuilt, "{:?}", key);
            }
        }
    }

    #[test]
    fn hosts_that_stand_apart_are_those_of_the_whole_table(parts in some_parts()) {
        let mesh = mesh::resolve(&catalog(&parts)).0;
        let whole = Node { on_demand_hosts: false, ..on_demand() };
        prop_assert_eq!(hosts_of(&mesh, &on_demand()), hosts_of(&mesh, &whole));
    }

    #[test]
    fn a_difference_touches_all_that_differs(parts in some_parts(), more in some_parts()) {
        let mut catalog = catalog(&parts);
        let mut before = mesh::resolve(&catalog).0;
        for object in &more {
            catalog.apply(object);
            let after = mesh::resolve(&catalog).0;
            let difference = Difference::between(&before, &after);
            for node in nodes() {
                let scope = mesh::scope(&before, &node);
                let keys = mesh::outbound(&before, &scope);
                if difference.keys_stay() {
                    prop_assert_eq!(&scope, &mesh::scope(&after, &node));
                    prop_assert_eq!(&keys, &mesh::outbound(&after, &scope));
                }
                for key in keys.iter().filter(|key| !difference.touches(key)) {
                    prop_assert_eq!(before.version_of(key), after.version_of(key), "{:?}", key);
                }
                if difference.own_stays(&node) {
                    let own = mesh::own(&before, &node);
                    prop_assert_eq!(&own, &mesh::own(&after, &node));
                    for key in own.iter() {
                        prop_assert_eq!(before.version_of(key), after.version_of(key), "{:?}", key);
                    }
                }
            }
            before = after;
        }
    }

    #[test]
    fn the_short_lane_leads_to_the_same_mesh(parts in some_parts(), more in some_parts()) {
        let mut catalog = catalog(&parts);
        let mut mesh = mesh::resolve(&catalog).0;
        for object in &more {
            match catalog.apply(object) {
                Change::Nothing => {}
                Change::Endpoints(services) => {
                    let next = mesh.with_endpoints(&catalog, &services);
                    let difference = Difference::of_endpoints(&mesh, &next, services.clone());
                    for node in nodes().iter().filter(|node| difference.own_stays(node)) {
                        let own = mesh::own(&mesh, node);
                        prop_assert_eq!(&own, &mesh::own(&next, node), "{}", node.id);
                        for key in own.iter() {
                            prop_assert_eq!(mesh.version_of(key), next.version_of(key), "{:?}", key);
                        }
                    }
                    if !mesh.clusters_differ(&next, &services) {
                        let kind = |mesh: &Mesh, key: &Key| (key.kind() != ResourceKind::Endpoints).then(|| mesh.version_of(key));
                        for node in nodes() {
                            for key in mesh::view(&mesh, &node).outbound().iter() {
                                prop_assert_eq!(kind(&mesh, key), kind(&next, key), "{:?}", key);
                            }
                        }
                    }
                    mesh = next;
                }
                Change::Everything => mesh = mesh::resolve(&catalog).0,
            }
        }
        prop_assert_eq!(everything(&mesh), everything(&mesh::resolve(&catalog).0));
    }
}

#[test]
fn one_header_touches_one_virtual_host() {
    let all = parts();
    let before = mesh::resolve(&catalog(&all)).0;
    let changed: Vec<Stored> = all
        .iter()
        .map(|part| {
            let mut value = part.to_json().unwrap();
            if value["kind"] == "VirtualService" && value["metadata"]["name"] == "a" {
                value["spec"]["http"][0]["headers"] = serde_json::json!({ "request": { "set": { "x": "1" } } });
            }
            support::object(value).unwrap()
        })
        .collect();
    assert_ne!(all, changed, "there is a VirtualService a");
    let after = mesh::resolve(&catalog(&changed)).0;
    let difference = Difference::between(&before, &after);
    assert!(difference.keys_stay() && difference.own_stays(&on_demand()));
    let differs = |key: &&Key| difference.touches(key) && before.version_of(key) != after.version_of(key);
    let view = mesh::view(&after, &on_demand());
    let names: Vec<&str> = view.iter().filter(differs).map(|key| &**key.name()).collect();
    assert_eq!(names, ["80/a.default.svc.cluster.local:80"]);
}

/// Whether the short lane says that the inbound side of sidecar `a-1` stays, and whether it does, when this object comes.
fn own_stays_when(before: &[Stored], comes: &Stored) -> (bool, bool) {
    let mut catalog = catalog(before);
    let before = mesh::resolve(&catalog).0;
    let Change::Endpoints(services) = catalog.apply(comes) else { panic!("endpoints only") };
    let after = before.with_endpoints(&catalog, &services);
    let sidecar = &nodes()[1];
    let says = Difference::of_endpoints(&before, &after, services).own_stays(sidecar);
    (says, mesh::own(&before, sidecar) == mesh::own(&after, sidecar))
}

#[test]
fn the_short_lane_knows_what_is_a_proxys_own() {
    let named = |kind: &str, name: &str| {
        parts().into_iter().find(|part| part.reference().kind == kind && part.reference().name == name).unwrap()
    };
    let service = &[named("Service", "a")];
    // its own Pod says which port `web` is
    assert_eq!(own_stays_when(service, &named("Pod", "a-1")), (false, false));
    assert_eq!(own_stays_when(service, &named("Pod", "a-2")), (true, true));
    // a service without selector leads to an address
    let service = &objects("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}");
    let slice = |ip: &str| {
        let slice = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, labels: {{kubernetes.io/service-name: s}}}}\n\
             addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [{ip}]}}]"
        );
        objects(&slice).remove(0)
    };
    assert_eq!(own_stays_when(service, &slice("198.18.0.1")), (false, false));
    assert_eq!(own_stays_when(service, &slice("198.18.0.2")), (true, true));
}

#[test]
fn one_endpoint_changes_one_resource() {
    let mut catalog = Catalog::new(Settings::default());
    for object in parts() {
        catalog.apply(&object);
    }
    let before = mesh::resolve(&catalog).0;
    let slice = objects(PARTS).into_iter().find(|part| part.reference().name == "a-slice").unwrap();
    let Stored::EndpointSlice(slice) = slice else { panic!("a slice") };
    let mut slice = (*slice).clone();
    slice.endpoints[1].addresses = vec!["198.18.0.77".to_owned()];
    let Change::Endpoints(services) = catalog.apply(&Stored::from(slice)) else { panic!("endpoints only") };
    let after = before.with_endpoints(&catalog, &services);
    assert!(!before.clusters_differ(&after, &services), "the same service account answers");
    let sidecar = &nodes()[1];
    let changed: Vec<String> = mesh::view(&after, sidecar)
        .iter()
        .filter(|key| before.version_of(key) != after.version_of(key))
        .map(|key| format!("{:?} {}", key.kind(), key.name()))
        .collect();
    let expected = |name: &str| format!("{:?} {name}", ResourceKind::Endpoints);
    assert_eq!(
        changed,
        [expected("outbound|80|v1|a.default.svc.cluster.local"), expected("outbound|80||a.default.svc.cluster.local")]
    );
}
