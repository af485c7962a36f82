//! `meshctl version`: of this program, of the control plane, of the proxies.
//!
//! Never here: a failure because no cluster answers; then only this program's version is known. Called by `main`.

use std::{collections::BTreeMap, process::ExitCode};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use serde_json::json;

use crate::{cluster::Target, render};

/// Flags of `version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not ask a cluster.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    remote: bool,
    /// Numbers only.
    #[arg(short = 's', long)]
    short: bool,
    /// Output: json or yaml.
    #[arg(short = 'o', long)]
    output: Option<Output>,
}

/// How to print.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Prints them.
pub(crate) async fn run(target: &Target, args: Args) -> anyhow::Result<ExitCode> {
    let own = env!("CARGO_PKG_VERSION");
    let remote = match args.remote {
        true => match target.client().await {
            Ok(client) => Some(remote(&client, &target.istio_namespace).await?),
            Err(error) => {
                eprintln!("control plane version: unknown ({error})");
                None
            }
        },
        false => None,
    };
    if let Some(output) = args.output {
        let (control, data) = remote.unwrap_or_default();
        let value = json!({"clientVersion": {"version": own}, "meshVersion": control, "dataPlaneVersion": data});
        match output {
            Output::Json => render::print(&format!("{}\n", serde_json::to_string_pretty(&value)?))?,
            Output::Yaml => render::print(&serde_saphyr::to_string(&value)?)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.short && remote.is_none() {
        render::print(&format!("{own}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    render::print(&format!("client version: {own}\n"))?;
    if let Some((control, data)) = remote {
        let control: Vec<String> = control.into_keys().collect();
        render::print(&format!(
            "control plane version: {}\n",
            if control.is_empty() { "none".to_owned() } else { control.join(", ") }
        ))?;
        let data: Vec<String> =
            data.into_iter().map(|(version, count)| format!("{version} ({count} proxies)")).collect();
        render::print(&format!(
            "data plane version: {}\n",
            if data.is_empty() { "none".to_owned() } else { data.join(", ") }
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

type Counts = BTreeMap<String, usize>;

/// Image tags of pilots, and of proxies, with how many run each.
async fn remote(client: &Client, namespace: &str) -> anyhow::Result<(Counts, Counts)> {
    let pods: Api<Pod> = Api::all(client.clone());
    let (mut control, mut data) = (Counts::new(), Counts::new());
    for pod in pods.list(&ListParams::default()).await? {
        let pilot = pod.metadata.namespace.as_deref() == Some(namespace)
            && pod.metadata.labels.as_ref().and_then(|labels| labels.get("app")).is_some_and(|app| app == "istiod");
        let spec = pod.spec.unwrap_or_default();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let counts = match container.name.as_str() {
                "discovery" if pilot => &mut control,
                "istio-proxy" => &mut data,
                _ => continue,
            };
            let image = container.image.as_deref().unwrap_or_default();
            let version = image.rsplit_once(':').map_or("unknown", |(_, tag)| tag);
            *counts.entry(version.trim_start_matches('v').to_owned()).or_default() += 1;
        }
    }
    Ok((control, data))
}
