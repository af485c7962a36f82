//! Pages for operators below `/debug`, in istiod's shapes where tools read them.
//!
//! Private keys are never shown.
//! Never here: state of its own. Served by `api-rt`'s admin server on 15014, read by `meshctl` and people.

use std::{collections::BTreeMap, sync::Arc};

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
    let answer = |path: String, shown: Shown| async move { page(&path, &shown) };
    let (index, below) = (shown.clone(), shown.clone());
    admin
        .route("/debug", move |_| answer(String::new(), index.clone()))
        .below("/debug/", move |ask: Ask| answer(ask.uri().to_string(), below.clone()))
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
