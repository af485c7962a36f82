//! Pages for operators below `/debug`, in istiod's shapes where tools read them.
//!
//! Private keys are never shown.
//! Never here: state of its own. Served by `api-rt`'s admin server on 15014, read by `meshctl` and people.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use api::{
    note::Notes,
    spec::{Resource, ResourceKind},
};
use api_mesh::mesh::{self, Keys};
use api_rt::admin::{Admin, Ask, Reply, json, text};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::{
    cache::Cache,
    push::Published,
    registry::{Client, Registry},
    rights::Right,
    serve::type_label,
    session::{Protocol, Watched},
    world::{KINDS, World},
};

/// What the pages show.
#[derive(Clone)]
pub(crate) struct Shown {
    /// Snapshots.
    pub(crate) worlds: Published,
    /// Clients.
    pub(crate) registry: Arc<Registry>,
    /// Encoded resources.
    pub(crate) cache: Arc<Cache>,
    /// What there is to say about objects.
    pub(crate) notes: watch::Receiver<Arc<Notes>>,
    /// This replica's name.
    pub(crate) pod: String,
}

type Page = fn(&Shown, &World, &BTreeMap<String, String>) -> Result<Value, String>;

const PAGES: [(&str, &str, Page); 8] = [
    ("syncz", "how each proxy stands, type by type", |shown, _, _| Ok(Value::Array(syncz(shown)))),
    ("connections", "who is connected", |shown, _, _| Ok(connections(shown))),
    ("adsz", "who is connected, with all that was asked for", |shown, _, _| Ok(adsz(shown))),
    ("registryz", "services and their addresses, as a sidecar of namespace= (default: default) sees them", registryz),
    ("endpointz", "endpoints, as a sidecar of namespace= sees them", endpointz),
    ("config_dump", "everything that proxyID= is told", config_dump),
    ("push_status", "the newest snapshot", |shown, world, _| Ok(push_status(shown, world))),
    ("configz", "what there is to say about objects", |shown, _, _| Ok(configz(shown))),
];

/// Adds the pages.
pub(crate) fn routes(admin: Admin, shown: &Shown) -> Admin {
    let (index, below) = (shown.clone(), shown.clone());
    admin
        .route("/debug", move |ask: Ask| std::future::ready(answer(&ask, "", &index)))
        .below("/debug/", move |ask: Ask| std::future::ready(answer(&ask, &ask.uri().to_string(), &below)))
}

/// What the mesh looks like is for those who may enter the Pod, not for everyone who reaches its port.
fn answer(ask: &Ask, path: &str, shown: &Shown) -> Reply {
    if ask.extensions().get::<SocketAddr>().is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
        page(path, shown)
    } else {
        text(StatusCode::FORBIDDEN, "debug pages are shown to this machine only; use a port-forward\n")
    }
}

fn page(uri: &str, shown: &Shown) -> Reply {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let name = path.rsplit('/').next().unwrap_or_default();
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(name, value)| (name.to_owned(), value.replace("%7E", "~"))).collect();
    let Some((_, _, page)) = PAGES.iter().find(|(known, _, _)| *known == name) else {
        let list: String = PAGES.iter().map(|(name, what, _)| format!("/debug/{name}: {what}\n")).collect();
        return text(if name.is_empty() { StatusCode::OK } else { StatusCode::NOT_FOUND }, list);
    };
    let Some(world) = shown.worlds.borrow().clone() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the mesh has not been read yet\n");
    };
    match page(shown, &world, &query) {
        Ok(value) => json(StatusCode::OK, &value),
        Err(why) => text(StatusCode::NOT_FOUND, format!("{why}\n")),
    }
}

/// `SYNCED`, `STALE`, `NOT SENT` or `ERROR`, as `istioctl proxy-status` says.
fn standing(watched: Option<&Watched>) -> &'static str {
    match watched {
        None => "NOT SENT",
        Some(watched) if watched.edition.is_none() => "NOT SENT",
        Some(watched) if watched.refusal.is_some() => "ERROR",
        Some(watched) if watched.answered == watched.sent => "SYNCED",
        Some(_) => "STALE",
    }
}

fn syncz(shown: &Shown) -> Vec<Value> {
    let name = |kind: ResourceKind| match kind {
        ResourceKind::Cluster => "cluster",
        ResourceKind::Endpoints => "endpoint",
        ResourceKind::Listener => "listener",
        ResourceKind::Routes => "route",
        ResourceKind::VirtualHost => "virtual_host",
        ResourceKind::Secret => "secret",
    };
    let one = |client: &Client| {
        let mut fields = Map::new();
        fields.insert("cluster_id".to_owned(), json!(client.node.cluster_id));
        fields.insert("proxy".to_owned(), json!(format!("{}.{}", client.node.name, client.node.namespace)));
        let kind = if client.node.kind == api::spec::ProxyKind::Gateway { "router" } else { "sidecar" };
        fields.insert("proxy_type".to_owned(), json!(kind));
        fields.insert("istio_version".to_owned(), json!(client.version));
        fields.insert("istiod".to_owned(), json!(shown.pod));
        let mut states = Map::new();
        for kind in KINDS {
            let watched = client.watched.get(&kind);
            if let Some(watched) = watched {
                let nonce = |number: u64| if number == 0 { String::new() } else { number.to_string() };
                fields.insert(format!("{}_sent", name(kind)), json!(nonce(watched.sent)));
                fields.insert(format!("{}_acked", name(kind)), json!(nonce(watched.answered)));
            }
            states.insert(type_label(kind).to_uppercase(), json!(standing(watched)));
        }
        fields.insert("status".to_owned(), Value::Object(states));
        Value::Object(fields)
    };
    shown.registry.all().iter().map(one).collect()
}

fn connections(shown: &Shown) -> Value {
    let all = shown.registry.all();
    let clients: Vec<Value> = all.iter().map(client).collect();
    json!({ "totalClients": clients.len(), "clients": clients })
}

fn client(client: &Client) -> Value {
    json!({
        "connectionId": format!("{}-{}", client.node.id, client.stream),
        "connectedAt": jiff::Timestamp::try_from(client.since).map(|time| time.to_string()).unwrap_or_default(),
        "address": client.address.to_string(),
        "identity": client.identity.as_ref().map(ToString::to_string),
        "protocol": if client.protocol == Protocol::Delta { "delta" } else { "sotw" },
    })
}

fn adsz(shown: &Shown) -> Value {
    let all = shown.registry.all();
    let clients: Vec<Value> = all
        .iter()
        .map(|one| {
            let mut value = client(one);
            let watched: Map<String, Value> = one
                .watched
                .iter()
                .map(|(kind, watched)| {
                    let state = json!({ "names": watched.names, "sent": watched.sent, "answered": watched.answered,
                        "edition": watched.edition, "refusal": watched.refusal, "status": standing(Some(watched)) });
                    (type_label(*kind).to_owned(), state)
                })
                .collect();
            value["watches"] = Value::Object(watched);
            value["certificates"] = json!(match one.right {
                Right::None => "none: no gateway that proved who it is",
                Right::Granted => "granted",
                Right::Withheld => "withheld: its ServiceAccount may not list the Secrets of its namespace",
            });
            value
        })
        .collect();
    json!({ "totalClients": clients.len(), "clients": clients })
}

fn push_status(shown: &Shown, world: &World) -> Value {
    let (resources, bytes) = shown.cache.size();
    json!({ "edition": world.edition, "clients": shown.registry.all().len(),
            "cachedResources": resources, "cachedBytes": bytes })
}

fn configz(shown: &Shown) -> Value {
    let notes = Arc::clone(&shown.notes.borrow());
    serde_json::to_value(notes.iter().collect::<Vec<_>>()).unwrap_or_default()
}

/// What a sidecar of this namespace that belongs to no service is told.
fn stranger(query: &BTreeMap<String, String>) -> api::spec::Node {
    let namespace = query.get("namespace").map_or("default", String::as_str).to_owned();
    api::spec::Node {
        kind: api::spec::ProxyKind::Sidecar,
        id: format!("sidecar~0.0.0.0~debug.{namespace}~{namespace}.svc.cluster.local"),
        name: "debug".to_owned(),
        namespace,
        service_account: "default".to_owned(),
        address: std::net::IpAddr::from([0, 0, 0, 0]),
        labels: BTreeMap::new(),
        domain: "cluster.local".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        workload: "debug".to_owned(),
        on_demand_hosts: false,
        ours: true,
        proxy_header: false,
        proxyless: false,
    }
}

fn registryz(_: &Shown, world: &World, query: &BTreeMap<String, String>) -> Result<Value, String> {
    let keys = mesh::view(&world.mesh, &stranger(query));
    Ok(Value::Array(dump(world, &keys, ResourceKind::Cluster)))
}

fn endpointz(_: &Shown, world: &World, query: &BTreeMap<String, String>) -> Result<Value, String> {
    let keys = mesh::view(&world.mesh, &stranger(query));
    Ok(Value::Array(dump(world, &keys, ResourceKind::Endpoints)))
}

fn config_dump(shown: &Shown, world: &World, query: &BTreeMap<String, String>) -> Result<Value, String> {
    let proxy = query.get("proxyID").ok_or("give proxyID=NAME.NAMESPACE")?;
    let client = shown.registry.find(proxy).ok_or_else(|| format!("{proxy} is not connected to {}", shown.pod))?;
    let keys = mesh::view(&world.mesh, &client.node);
    let kinds = KINDS.iter().filter(|kind| **kind != ResourceKind::Secret);
    Ok(Value::Object(
        kinds.map(|kind| (type_label(*kind).to_owned(), Value::Array(dump(world, &keys, *kind)))).collect(),
    ))
}

fn dump(world: &World, keys: &Keys, kind: ResourceKind) -> Vec<Value> {
    let one = |resource: Resource| match resource {
        Resource::Cluster(cluster) => serde_json::to_value(&*cluster),
        Resource::Endpoints(endpoints) => serde_json::to_value(&*endpoints),
        Resource::Listener(listener) => serde_json::to_value(&*listener),
        Resource::Routes(routes) => serde_json::to_value(&*routes),
        Resource::VirtualHost(host) => serde_json::to_value(&*host),
        Resource::Secret(secret) => Ok(json!({ "name": secret.name })),
    };
    keys.of(kind).filter_map(|key| one(mesh::build(&world.mesh, key)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use api_mesh::model::{Catalog, Settings};
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::push::Push;

    fn shown() -> Shown {
        let now = tokio::time::Instant::now();
        let cache = Arc::new(Cache::default());
        let mut push = Push::new(Catalog::new(Settings::default()), Arc::clone(&cache), now);
        push.take_in(&mut vec![api_kube::source::Event::Synced], now);
        push.publish_due(now);
        let registry = Arc::new(Registry::default());
        Shown { worlds: push.worlds(), registry, cache, notes: push.notes(), pod: "pilot-0".into() }
    }

    async fn ask(peer: &str, path: &str) -> (u16, String) {
        let mut ask = Ask::default();
        ask.extensions_mut().insert(peer.parse::<SocketAddr>().unwrap());
        let reply = answer(&ask, path, &shown());
        let status = reply.status().as_u16();
        (status, String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn pages_are_shown_to_this_machine_only() {
        assert_eq!(ask("198.18.0.1:4", "/debug/syncz").await.0, 403);
        assert_eq!(ask("127.0.0.1:4", "/debug/syncz").await, (200, "[]".into()));
        assert_eq!(ask("[::1]:4", "/debug/push_status").await.0, 200);
    }

    #[tokio::test]
    async fn the_index_names_every_page() {
        let (status, index) = ask("127.0.0.1:4", "").await;
        assert!(status == 200 && PAGES.iter().all(|(name, _, _)| index.contains(name)));
        assert_eq!(ask("127.0.0.1:4", "/debug/nothing").await.0, 404);
        assert_eq!(ask("127.0.0.1:4", "/debug/config_dump?proxyID=a.b").await.0, 404);
    }

    #[test]
    fn a_type_stands_as_its_last_response_was_taken() {
        let watched = |edition, sent, answered, refusal: Option<&str>| Watched {
            edition,
            sent,
            answered,
            refusal: refusal.map(str::to_owned),
            names: 1,
        };
        assert_eq!(standing(None), "NOT SENT");
        assert_eq!(standing(Some(&watched(None, 0, 0, None))), "NOT SENT");
        assert_eq!(standing(Some(&watched(Some(1), 2, 1, None))), "STALE");
        assert_eq!(standing(Some(&watched(Some(1), 2, 2, None))), "SYNCED");
        assert_eq!(standing(Some(&watched(Some(1), 2, 2, Some("bad")))), "ERROR");
    }
}
