//! `meshctl status` (`proxy-status`, `ps`): which proxies have the configuration they should have.
//!
//! Asks every pilot what it sent and what was acknowledged. Never here: a judgement of its own. Called by `main`.

use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use serde_json::Value;

use crate::{
    cluster::{Target, http_get},
    fail, render,
};

const PILOT_SELECTOR: &str = "app=istiod";
const PILOT_PORT: u16 = 15014;
const TYPES: [&str; 4] = ["CDS", "LDS", "EDS", "RDS"];

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this proxy: POD or POD.NAMESPACE.
    proxy: Option<String>,
    /// Output: table or json.
    #[arg(short = 'o', long, default_value = "table")]
    output: Output,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table.
    Table,
    /// What pilot says, as JSON.
    Json,
}

/// Prints them.
pub(crate) async fn run(target: &Target, args: Args) -> anyhow::Result<ExitCode> {
    let client = target.client().await?;
    let mut proxies = Vec::new();
    for pilot in pilots(&client, &target.istio_namespace).await? {
        let page = http_get(&client, &target.istio_namespace, &pilot, PILOT_PORT, "/debug/syncz").await?;
        let told: Vec<Value> = serde_json::from_slice(&page)?;
        proxies.extend(told.into_iter().map(|mut proxy| {
            proxy["istiod"] = Value::from(pilot.clone());
            proxy
        }));
    }
    if let Some(wanted) = &args.proxy {
        let namespace = target.namespace();
        proxies.retain(|proxy| {
            let name = proxy["proxy"].as_str().unwrap_or_default();
            name == wanted || name == format!("{wanted}.{namespace}")
        });
        if proxies.is_empty() {
            return Err(fail::coded(fail::FAILED, format!("no pilot knows a proxy {wanted}")));
        }
    }
    proxies.sort_by_key(|proxy| proxy["proxy"].as_str().unwrap_or_default().to_owned());
    match args.output {
        Output::Json => render::print(&format!("{}\n", serde_json::to_string_pretty(&proxies)?))?,
        Output::Table => {
            let rows: Vec<Vec<String>> = proxies.iter().map(row).collect();
            let heads = ["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ISTIOD", "VERSION"];
            render::print(&render::table(&heads, &rows))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(proxy: &Value) -> Vec<String> {
    let text = |name: &str| proxy[name].as_str().unwrap_or("-").to_owned();
    let mut cells = vec![text("proxy"), text("cluster_id")];
    cells.extend(TYPES.map(|kind| proxy["status"][kind].as_str().unwrap_or("NOT SENT").to_owned()));
    cells.extend([text("istiod"), text("istio_version")]);
    cells
}

/// Names of the pilots that run.
async fn pilots(client: &Client, namespace: &str) -> anyhow::Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods.list(&ListParams::default().labels(PILOT_SELECTOR)).await?;
    let running = list.into_iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
    });
    let names: Vec<String> = running.filter_map(|pod| pod.metadata.name).collect();
    if names.is_empty() {
        let text = format!("no pilot runs in namespace {namespace}\n  help: meshctl install");
        return Err(fail::coded(fail::UNREACHABLE, text));
    }
    Ok(names)
}
