//! `meshctl install`: puts the objects of a profile into a cluster and waits until they are ready.
//!
//! The objects are those of `meshctl manifest generate`; applying them again is harmless.
//! Never here: what they are. Called by `main`.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
    discovery::Scope,
    runtime::{conditions, wait::await_condition},
};
use serde_json::Value;

use crate::{
    cluster::Target,
    fail,
    install::{self, Component, Profile, Setting},
};

const FIELD_MANAGER: &str = "meshctl-install";

/// Flags of `install`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// NAME=VALUE; `profile=demo` chooses a profile.
    #[arg(short = 's', long = "set")]
    set: Vec<Setting>,
    /// Profile: default, demo, demo-auth, minimal or empty.
    #[arg(long)]
    profile: Option<String>,
    /// Do not ask.
    #[arg(short = 'y', long = "skip-confirmation")]
    yes: bool,
    /// How long to wait for it to be ready, in seconds.
    #[arg(long = "readiness-timeout", default_value_t = 300)]
    timeout: u64,
    /// Print the objects instead of installing them.
    #[arg(long)]
    dry_run: bool,
}

/// Installs.
pub(crate) async fn run(target: &Target, args: Args) -> anyhow::Result<ExitCode> {
    let mut settings = args.set;
    if let Some(profile) = &args.profile {
        settings.push(format!("profile={profile}").parse()?);
    }
    let profile = Profile::from_settings(&target.istio_namespace, &settings)
        .map_err(|error| fail::coded(fail::USAGE, error.to_string()))?;
    if args.dry_run {
        crate::render::print(&install::manifest(&profile, install::Crds::With))?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = target.client().await?;
    let version = env!("CARGO_PKG_VERSION");
    if !args.yes
        && !confirmed(&format!(
            "This will install Ferromesh {version} \"{}\" profile into the cluster. Proceed? (y/N) ",
            profile.name
        ))?
    {
        eprintln!("Cancelled.");
        return Ok(ExitCode::from(fail::FAILED));
    }
    let limit = Duration::from_secs(args.timeout);
    apply_all(&client, &install::namespace_yaml(&profile.namespace)).await?;
    let crds = apply_all(&client, install::crds_yaml()).await?;
    tokio::time::timeout(limit, established(&client, &crds))
        .await
        .map_err(|_| fail::coded(fail::TIMED_OUT, format!("the CRDs are not served after {limit:?}")))??;
    step(&format!("CRDs ({})", crds.len()));
    for component in &profile.components {
        apply_all(&client, &install::component_yaml(*component, &profile)).await?;
    }
    for component in &profile.components {
        ready(&client, &profile.namespace, *component, limit).await?;
        step(&component.to_string());
    }
    eprintln!("✔ Installation complete\n  next: kubectl label namespace default istio-injection=enabled");
    Ok(ExitCode::SUCCESS)
}

fn step(what: &str) {
    eprintln!("✔ {what}");
}

/// Asks on the terminal; without one the answer is no.
pub(crate) fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        eprintln!("{question}\n  help: without a terminal, say -y");
        return Ok(false);
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn ready(client: &Client, namespace: &str, component: Component, limit: Duration) -> anyhow::Result<()> {
    let Some(name) = component.deployment() else {
        return Ok(());
    };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let available = await_condition(deployments, name, conditions::is_deployment_completed());
    match tokio::time::timeout(limit, available).await {
        Ok(done) => done.map(drop).with_context(|| format!("could not watch deployment {name}")),
        Err(_) => {
            let waiting = waiting_pods(client, namespace).await.unwrap_or_default();
            Err(fail::coded(fail::TIMED_OUT, format!("{component} is not ready after {limit:?}{waiting}")))
        }
    }
}

/// Why Pods are not ready, a line each.
async fn waiting_pods(client: &Client, namespace: &str) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut text = String::new();
    for pod in pods.list(&ListParams::default()).await? {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        for status in statuses.filter(|status| !status.ready) {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            let reason = waiting.map_or("not ready", |waiting| waiting.reason.as_deref().unwrap_or("waiting"));
            let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
            text.push_str(&format!(
                "\n  pod {} container {}: {reason} {message}",
                pod.metadata.name.as_deref().unwrap_or("?"),
                status.name
            ));
        }
    }
    Ok(text)
}

async fn established(client: &Client, crds: &[String]) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in crds {
        await_condition(api.clone(), name, conditions::is_crd_established()).await?;
    }
    Ok(())
}

/// Applies every document of a YAML text by server-side apply; gives the names.
async fn apply_all(client: &Client, yaml: &str) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for object in install::documents(yaml)? {
        let (api, name) = api_of(client, &object)?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(&object))
            .await
            .with_context(|| format!("could not apply {} {name}", object["kind"]))?;
        names.push(name);
    }
    Ok(names)
}

/// The API that an object of the install belongs to, and its name.
pub(crate) fn api_of(client: &Client, object: &Value) -> anyhow::Result<(Api<DynamicObject>, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, version) = match object["apiVersion"].as_str().unwrap_or_default().split_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), text(&object["apiVersion"])),
    };
    let kind = text(&object["kind"]);
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(&group, &version, &kind));
    let api = match scope(&kind) {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(
            client.clone(),
            object["metadata"]["namespace"].as_str().unwrap_or("default"),
            &resource,
        ),
    };
    Ok((api, text(&object["metadata"]["name"])))
}

/// Scope of the kinds that an install is made of.
fn scope(kind: &str) -> Scope {
    match kind {
        "Namespace"
        | "CustomResourceDefinition"
        | "ClusterRole"
        | "ClusterRoleBinding"
        | "MutatingWebhookConfiguration"
        | "ValidatingWebhookConfiguration" => Scope::Cluster,
        _ => Scope::Namespaced,
    }
}
