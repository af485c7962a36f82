//! The mesh's certificate authority: proves who asks, and signs for exactly that identity.
//!
//! Starts first and needs nobody but the API server (or two files). Its own certificate comes from itself.
//! Never here: decisions (`policy`), signing (`issue`). The parts are joined here and nowhere else.

mod bundle;
mod issue;
mod limits;
mod options;
mod policy;
mod reload;
mod root;
mod serve;
#[cfg(test)]
mod tests;
mod token;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use api_kube::client;
use api_rt::{
    admin::Admin,
    clock::Clock,
    drain::{self, CancellationToken},
    grpc,
    identity::{Identity, Renewal, RenewalOptions, Wanted},
    log, metrics,
    ready::{Gate, Readiness},
    retry::BackOff,
    tls,
};
use api_xds::ca::server::CertificateServer;
use clap::Parser as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    limits::{GRACE, REQUESTS_MAX},
    options::Options,
    policy::{CITADEL, Policy},
    reload::Plugged,
    root::Root,
    serve::Desk,
    token::Tokens,
};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let options = Options::parse();
    tls::install();
    let format = if options.log_as_json { log::Format::Json } else { log::Format::Text };
    let log = log::init(&options.log_level, format)?;
    let stop = drain::on_signal().context("failed to watch for signals")?;
    run(options, log, stop).await
}

/// The root from Kubernetes, waited for as long as it takes.
async fn wait_for_root(secrets: Api<Secret>, organization: &str, clock: Clock, gate: &Gate) -> Root {
    let mut back_off = BackOff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match root::in_cluster(&secrets, organization, clock.now()).await {
            Ok(root) => return root,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error, "no root yet");
                gate.because(format!("root: {error}"));
                clock.sleep(back_off.next_wait()).await;
            }
        }
    }
}

/// What the authority stands on.
struct Trust {
    root: Root,
    /// Where a newer root would be found.
    plugged: Plugged,
    tokens: Tokens,
    /// The API server; none where all of it comes from files.
    client: Option<Client>,
}

/// Root and proofs of tokens, from files or from the API server; none: stopped while waiting.
async fn find_trust(options: &Options, clock: Clock, gate: &Gate, stop: &CancellationToken) -> Result<Option<Trust>> {
    if let Some(folder) = &options.root_folder {
        let root = root::in_folder(folder, &options.trust_domain, clock.now())?;
        let tokens = match &options.jwks {
            Some(jwks) => Tokens::Keys { jwks: jwks.clone(), issuer: options.token_issuer.clone(), clock },
            None => Tokens::Never,
        };
        return Ok(Some(Trust { root, plugged: Plugged::Folder(folder.clone()), tokens, client: None }));
    }
    let client = client::connect(None).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &options.namespace);
    let waiting = wait_for_root(secrets.clone(), &options.trust_domain, clock, gate);
    let Some(root) = stop.run_until_cancelled(waiting).await else { return Ok(None) };
    let tokens = Tokens::Review(client.clone());
    Ok(Some(Trust { root, plugged: Plugged::Secret(Box::new(secrets)), tokens, client: Some(client) }))
}

fn show_expiry(root: &Root, clock: Clock) {
    let end = root.not_after().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let left = root.not_after().duration_since(clock.now()).unwrap_or_default();
    ::metrics::gauge!("citadel_server_root_cert_expiry_timestamp").set(end.as_secs_f64());
    ::metrics::gauge!("citadel_server_root_cert_expiry_seconds").set(left.as_secs_f64());
}

async fn run(options: Options, log: log::Log, stop: CancellationToken) -> Result<()> {
    let clock = Clock::system();
    let ready = Readiness::new();
    let (root_gate, certificate_gate) = (ready.blocked_by("root"), ready.blocked_by("own certificate"));
    let recorder = metrics::install().context("failed to set up metrics")?;
    let mut tasks = JoinSet::new();
    let page = recorder.clone();
    let admin = Admin::new("citadel", env!("CARGO_PKG_VERSION"), &ready).metrics(move || page.render()).logging(log);
    let http = TcpListener::bind(options.http_address)
        .await
        .with_context(|| format!("failed to listen on {}", options.http_address))?;
    tasks.spawn(admin.serve(http, stop.clone()));
    tasks.spawn(recorder.upkeep(stop.clone()));
    let listener = TcpListener::bind(options.grpc_address)
        .await
        .with_context(|| format!("failed to listen on {}", options.grpc_address))?;

    let found = find_trust(&options, clock, &root_gate, &stop).await?;
    let Some(Trust { root, plugged, tokens, client }) = found else { return Ok(()) };
    root_gate.open();
    show_expiry(&root, clock);
    if let Some(client) = client {
        let gate = ready.blocked_by("root in every namespace");
        let (root, stop) = (root.root_pem().to_owned(), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(bundle::keep(client, root, gate)).await;
        });
    }

    let policy = Policy {
        trust_domain: options.trust_domain.clone(),
        namespace: options.namespace.clone(),
        cluster_domain: options.cluster_domain,
        default_lifetime: options.default_lifetime,
        longest_lifetime: options.longest_lifetime,
    };
    let (current, root) = watch::channel(Arc::new(root));
    let ending = stop.clone();
    tasks.spawn(async move {
        let changed = move |root: &Root| show_expiry(root, clock);
        ending.run_until_cancelled(reload::keep(plugged, current, clock, changed)).await;
    });
    let desk = Desk { root, policy, tokens, clock, turns: Arc::new(Semaphore::new(REQUESTS_MAX)) };
    let identity = Identity::new();
    let own = RenewalOptions {
        wanted: Wanted::DnsNames(vec![format!("{CITADEL}.{}.svc", options.namespace)]),
        lifetime: options.default_lifetime,
        roots: None,
    };
    tasks.spawn(Renewal::new(identity.clone(), own, desk.clone(), clock).run(stop.clone(), |_: &str| {}));
    if stop.run_until_cancelled(identity.wait()).await.is_none() {
        return Ok(());
    }
    certificate_gate.open();

    let tls = identity.server_config(false, vec![options.trust_domain], vec![b"h2".to_vec()])?;
    let routes = tonic::service::Routes::new(CertificateServer::new(desk));
    tracing::info!(address = %options.grpc_address, "certificate service is up");
    let serving = grpc::serve(listener, Some(tls), routes, GRACE, stop.clone());
    drain::beside(serving, tasks, &stop).await?.context("the certificate service failed")
}
