//! `meshctl proxy-config KIND POD` (`pc`): what a proxy has been told, as the proxy itself shows it.
//!
//! Reads the admin pages of the proxy, which have Envoy's shapes, so a real Envoy is shown the same way.
//! Never here: what pilot would send. Called by `main`.

use std::process::ExitCode;

use serde_json::Value;

use crate::{
    cluster::{Target, http_get},
    fail, render,
};

const ADMIN_PORT: u16 = 15000;

/// Flags of `proxy-config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to show.
    kind: Kind,
    /// POD, POD.NAMESPACE or pod/POD.
    pod: String,
    /// Output: short (a table) or json.
    #[arg(short = 'o', long, default_value = "short")]
    output: Output,
    /// Only clusters and endpoints of this host.
    #[arg(long)]
    fqdn: Option<String>,
    /// Only this port.
    #[arg(long)]
    port: Option<u16>,
}

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Clusters.
    #[value(alias = "clusters", alias = "c")]
    Cluster,
    /// Listeners.
    #[value(alias = "listeners", alias = "l")]
    Listener,
    /// Routes.
    #[value(alias = "routes", alias = "r")]
    Route,
    /// Endpoints.
    #[value(alias = "endpoints", alias = "ep")]
    Endpoint,
    /// Certificates.
    #[value(alias = "secrets", alias = "s")]
    Secret,
    /// Everything, as JSON.
    All,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table.
    #[value(alias = "table")]
    Short,
    /// JSON.
    Json,
}

/// Prints it.
pub(crate) async fn run(target: &Target, args: Args) -> anyhow::Result<ExitCode> {
    let client = target.client().await?;
    let (pod, namespace) = named(&args.pod, target.namespace());
    let page = match args.kind {
        Kind::Endpoint => "/clusters?format=json",
        Kind::Cluster | Kind::Listener | Kind::Route | Kind::Secret | Kind::All => "/config_dump",
    };
    let told: Value = serde_json::from_slice(&http_get(&client, namespace, pod, ADMIN_PORT, page).await?)?;
    if args.kind == Kind::All || args.output == Output::Json {
        render::print(&format!("{}\n", serde_json::to_string_pretty(&told)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (heads, mut rows): (&[&str], Vec<Vec<String>>) = match args.kind {
        Kind::Cluster => {
            (&["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"], clusters(&told))
        }
        Kind::Listener => (&["ADDRESSES", "PORT", "MATCH", "DESTINATION"], listeners(&told)),
        Kind::Route => (&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"], routes(&told)),
        Kind::Endpoint => (&["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"], endpoints(&told)),
        Kind::Secret => (
            &["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"],
            secrets(&told),
        ),
        Kind::All => return Err(fail::coded(fail::USAGE, "`all` has no table; say -o json")),
    };
    rows.retain(|row| args.fqdn.as_ref().is_none_or(|fqdn| row.iter().any(|cell| cell.contains(fqdn.as_str()))));
    rows.retain(|row| {
        args.port
            .is_none_or(|port| row.iter().any(|cell| *cell == port.to_string() || cell.ends_with(&format!(":{port}"))))
    });
    rows.sort();
    render::print(&render::table(heads, &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// A Pod's name and namespace. A Pod's name may have dots, a namespace's has none.
fn named<'n>(pod: &'n str, or: &'n str) -> (&'n str, &'n str) {
    let name = pod.strip_prefix("pod/").unwrap_or(pod);
    name.rsplit_once('.').unwrap_or((name, or))
}

/// The sections of a config dump of one type, by the end of its name.
fn sections<'v>(dump: &'v Value, kind: &'static str) -> impl Iterator<Item = &'v Value> {
    dump["configs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(move |section| section["@type"].as_str().is_some_and(|name| name.ends_with(kind)))
}

/// The items below any of these keys of a section.
fn items<'v>(section: &'v Value, keys: &'static [&'static str]) -> impl Iterator<Item = &'v Value> {
    keys.iter().flat_map(|key| section[*key].as_array().into_iter().flatten())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".to_owned(), str::to_owned)
}

fn joined(value: &Value) -> String {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// Where a resource comes from: Istio's metadata `config`, as `NAME.NAMESPACE`.
fn origin(resource: &Value) -> String {
    let path = resource["metadata"]["filter_metadata"]["istio"]["config"].as_str().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., "namespaces", namespace, _, name] => format!("{name}.{namespace}"),
        _ => path.to_owned(),
    }
}

fn clusters(dump: &Value) -> Vec<Vec<String>> {
    let found = sections(dump, "ClustersConfigDump")
        .flat_map(|section| items(section, &["static_clusters", "dynamic_active_clusters"]));
    found
        .map(|item| {
            let cluster = &item["cluster"];
            let name = cluster["name"].as_str().unwrap_or_default();
            let parts: Vec<&str> = name.split('|').collect();
            let kind = text(&cluster["type"]);
            let or_dash = |part: &str| if part.is_empty() { "-".to_owned() } else { part.to_owned() };
            match parts.as_slice() {
                [direction, port, subset, host] => {
                    vec![
                        (*host).to_owned(),
                        or_dash(port),
                        or_dash(subset),
                        (*direction).to_owned(),
                        kind,
                        origin(cluster),
                    ]
                }
                _ => vec![name.to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned(), kind, origin(cluster)],
            }
        })
        .collect()
}

fn listeners(dump: &Value) -> Vec<Vec<String>> {
    let found = sections(dump, "ListenersConfigDump")
        .flat_map(|section| items(section, &["static_listeners", "dynamic_listeners"]));
    let mut rows = Vec::new();
    for item in found {
        let listener = if item["listener"].is_object() { &item["listener"] } else { &item["active_state"]["listener"] };
        let socket = &listener["address"]["socket_address"];
        let (address, port) = (text(&socket["address"]), socket["port_value"].to_string());
        let default = std::iter::once(&listener["default_filter_chain"]).filter(|chain| chain.is_object());
        for chain in listener["filter_chains"].as_array().into_iter().flatten().chain(default) {
            rows.push(vec![
                address.clone(),
                port.clone(),
                chain_match(&chain["filter_chain_match"]),
                destination(chain),
            ]);
        }
    }
    rows
}

fn chain_match(matches: &Value) -> String {
    let mut parts = Vec::new();
    for (label, key) in [("SNI", "server_names"), ("App", "application_protocols")] {
        let list = joined(&matches[key]);
        if !list.is_empty() {
            parts.push(format!("{label}: {list}"));
        }
    }
    if let Some(transport) = matches["transport_protocol"].as_str() {
        parts.push(format!("Trans: {transport}"));
    }
    if let Some(port) = matches["destination_port"].as_u64() {
        parts.push(format!("Addr: *:{port}"));
    }
    if parts.is_empty() { "ALL".to_owned() } else { parts.join("; ") }
}

fn destination(chain: &Value) -> String {
    for filter in chain["filters"].as_array().into_iter().flatten() {
        let typed = &filter["typed_config"];
        if let Some(route) = typed["rds"]["route_config_name"].as_str() {
            return format!("Route: {route}");
        }
        if let Some(route) = typed["route_config"]["name"].as_str() {
            return format!("Inline Route: {route}");
        }
        if let Some(cluster) = typed["cluster"].as_str() {
            return format!("Cluster: {cluster}");
        }
        if typed["weighted_clusters"].is_object() {
            return "Weighted clusters".to_owned();
        }
    }
    "Non-HTTP/Non-TCP".to_owned()
}

fn routes(dump: &Value) -> Vec<Vec<String>> {
    let found = sections(dump, "RoutesConfigDump")
        .flat_map(|section| items(section, &["static_route_configs", "dynamic_route_configs"]));
    let mut rows = Vec::new();
    for item in found {
        let table = &item["route_config"];
        for host in table["virtual_hosts"].as_array().into_iter().flatten() {
            for route in host["routes"].as_array().into_iter().flatten() {
                let matches = &route["match"];
                let path = ["path", "prefix", "path_separated_prefix"]
                    .iter()
                    .find_map(|key| {
                        matches[*key]
                            .as_str()
                            .map(|path| if *key == "path" { path.to_owned() } else { format!("{path}*") })
                    })
                    .or_else(|| matches["safe_regex"]["regex"].as_str().map(|regex| format!("regex {regex}")));
                rows.push(vec![
                    text(&table["name"]),
                    text(&host["name"]),
                    joined(&host["domains"]),
                    path.unwrap_or_else(|| "/*".to_owned()),
                    origin(route),
                ]);
            }
        }
    }
    rows
}

fn endpoints(page: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for cluster in page["cluster_statuses"].as_array().into_iter().flatten() {
        for host in cluster["host_statuses"].as_array().into_iter().flatten() {
            let socket = &host["address"]["socket_address"];
            let address = match host["address"]["pipe"]["path"].as_str() {
                Some(path) => format!("unix://{path}"),
                None => format!("{}:{}", text(&socket["address"]), socket["port_value"]),
            };
            let health = &host["health_status"];
            let ejected = health["failed_outlier_check"].as_bool().unwrap_or(false);
            let status = health["eds_health_status"].as_str().unwrap_or("HEALTHY");
            rows.push(vec![
                address,
                status.to_owned(),
                if ejected { "FAILED" } else { "OK" }.to_owned(),
                text(&cluster["name"]),
            ]);
        }
    }
    rows
}

fn secrets(dump: &Value) -> Vec<Vec<String>> {
    let found = sections(dump, "SecretsConfigDump")
        .flat_map(|section| items(section, &["static_secrets", "dynamic_active_secrets", "dynamic_warming_secrets"]));
    found
        .map(|item| {
            let secret = &item["secret"];
            let kind = if secret["validation_context"].is_object() { "CA" } else { "Cert Chain" };
            let about = &item["certificate"];
            vec![
                text(&item["name"]),
                kind.to_owned(),
                "ACTIVE".to_owned(),
                about["valid"].as_bool().map_or_else(|| "-".to_owned(), |valid| valid.to_string()),
                text(&about["serial_number"]),
                text(&about["not_after"]),
                text(&about["not_before"]),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_named_with_or_without_its_namespace() {
        assert_eq!(named("web-1", "default"), ("web-1", "default"));
        assert_eq!(named("pod/web-1.shop", "default"), ("web-1", "shop"));
        assert_eq!(named("web.v1-1.shop", "default"), ("web.v1-1", "shop"));
    }

    #[test]
    fn a_cluster_name_is_taken_apart() {
        let dump = json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamic_active_clusters": [
            {"cluster": {"name": "outbound|9080|v1|reviews.default.svc.cluster.local", "type": "EDS",
                "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"}}}}},
            {"cluster": {"name": "BlackHoleCluster", "type": "STATIC"}}]}]});
        let rows = clusters(&dump);
        assert_eq!(rows[0], ["reviews.default.svc.cluster.local", "9080", "v1", "outbound", "EDS", "reviews.default"]);
        assert_eq!(rows[1][0], "BlackHoleCluster");
    }

    #[test]
    fn an_ejected_endpoint_is_shown_so() {
        let page = json!({"cluster_statuses": [{"name": "c", "host_statuses": [{"address": {"socket_address": {"address": "198.18.0.5", "port_value": 80}},
            "health_status": {"failed_outlier_check": true, "eds_health_status": "HEALTHY"}}]}]});
        assert_eq!(endpoints(&page), [["198.18.0.5:80", "HEALTHY", "FAILED", "c"]]);
    }
}
