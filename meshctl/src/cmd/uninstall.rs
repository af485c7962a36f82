//! `meshctl uninstall`: removes what `install` put in, and what the programs made while they ran.
//!
//! With `--purge` also CRDs (and with them every object of theirs) and the mesh's namespace.
//! Never here: users' own workloads. Called by `main`.

use std::{process::ExitCode, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PropagationPolicy},
};

use crate::{
    cluster::Target,
    cmd::install::{api_of, confirmed},
    fail,
    install::{self, Component, Profile},
};

const GONE_LIMIT: Duration = Duration::from_secs(120);

/// Flags of `uninstall`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also CRDs, every object of theirs, and the mesh's namespace.
    #[arg(long)]
    purge: bool,
    /// Do not ask.
    #[arg(short = 'y', long = "skip-confirmation")]
    yes: bool,
}

/// Removes.
pub(crate) async fn run(target: &Target, args: Args) -> anyhow::Result<ExitCode> {
    let client = target.client().await?;
    let what =
        if args.purge { "the mesh, its CRDs with every object of theirs, and its namespace" } else { "the mesh" };
    if !args.yes && !confirmed(&format!("This will remove {what} from the cluster. Proceed? (y/N) "))? {
        eprintln!("Cancelled.");
        return Ok(ExitCode::from(fail::FAILED));
    }
    let namespace = &target.istio_namespace;
    let profile = Profile::from_settings(namespace, &["profile=demo".parse()?])?;
    // Webhooks and programs go before what they watch, so that nothing is made again behind our back.
    for component in Component::ALL.iter().rev() {
        delete_all(&client, &install::component_yaml(*component, &profile)).await?;
    }
    made_at_run_time(&client, namespace).await?;
    if args.purge {
        delete_all(&client, install::crds_yaml()).await?;
        delete_all(&client, &install::namespace_yaml(namespace)).await?;
        gone(&client, namespace).await?;
    }
    eprintln!("✔ Uninstall complete");
    Ok(ExitCode::SUCCESS)
}

async fn delete_all(client: &Client, yaml: &str) -> anyhow::Result<()> {
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    for object in install::documents(yaml)?.iter().rev() {
        let (api, name) = api_of(client, object)?;
        match api.delete(&name, &params).await {
            Ok(_) => eprintln!("  removed {} {name}", object["kind"].as_str().unwrap_or_default()),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The root's Secret and ConfigMaps, and leases.
async fn made_at_run_time(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let params = DeleteParams::default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    ignore_absent(secrets.delete("istio-ca-secret", &params).await.map(drop))?;
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(client.clone(), namespace);
    for lease in leases.list(&ListParams::default()).await? {
        let name = lease.metadata.name.unwrap_or_default();
        ignore_absent(leases.delete(&name, &params).await.map(drop))?;
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for one in namespaces.list(&ListParams::default()).await? {
        let name = one.metadata.name.unwrap_or_default();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
        ignore_absent(maps.delete("istio-ca-root-cert", &params).await.map(drop))?;
    }
    Ok(())
}

fn ignore_absent(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

async fn gone(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let Some(found) = api.get_opt(namespace).await? else {
        return Ok(());
    };
    let uid = found.metadata.uid.unwrap_or_default();
    let deleted = kube::runtime::wait::await_condition(api, namespace, kube::runtime::conditions::is_deleted(&uid));
    tokio::time::timeout(GONE_LIMIT, deleted).await.map_err(|_| {
        fail::coded(fail::TIMED_OUT, format!("namespace {namespace} is still there after {GONE_LIMIT:?}"))
    })??;
    Ok(())
}
