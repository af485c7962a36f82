//! The mutating webhook: adds a proxy to Pods as they are created.
//!
//! Its certificate comes from citadel, its settings from two ConfigMaps; it keeps its own CA bundle at the API server and is
//! ready when all three are in place. Never here: how a Pod is injected (`api_mesh::inject`). The parts are joined here.

mod options;
mod review;
mod settings;

use std::time::Duration;

use anyhow::{Context as _, Result};
use api_kube::{
    bundle::{self, BundleOptions, WebhookKind},
    client,
    webhook::{self, Verdict, Webhooks},
};
use api_rt::{
    admin::Admin,
    clock::Clock,
    drain::{self, CancellationToken},
    identity::{CaClient, CaOptions, Identity, Renewal, RenewalOptions, Wanted},
    log, metrics,
    ready::Readiness,
    tls,
};
use clap::Parser as _;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    options::Options,
    review::Outcome,
    settings::{Current, Names},
};

/// Lifetime of the certificate that is asked for.
const LIFETIME: Duration = Duration::from_secs(86_400);

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let options = Options::parse();
    tls::install();
    let format = if options.log_as_json { log::Format::Json } else { log::Format::Text };
    let log = log::init(&options.log_level, format)?;
    let stop = drain::on_signal().context("failed to watch for signals")?;
    run(options, log, stop).await
}

fn webhooks(current: Current) -> Webhooks {
    Webhooks::new().at("/inject", move |asked| {
        ::metrics::counter!("sidecar_injection_requests_total").increment(1);
        let config = current.borrow().clone();
        let verdict = match config {
            None => {
                ::metrics::counter!("sidecar_injection_failure_total").increment(1);
                Verdict { refused: Some((500, "the injector has no settings yet".to_owned())), ..Verdict::allow() }
            }
            Some(config) => {
                let (verdict, outcome) = review::answer(&asked, &config);
                match outcome {
                    Outcome::Injected => ::metrics::counter!("sidecar_injection_success_total").increment(1),
                    Outcome::Skipped => ::metrics::counter!("sidecar_injection_skip_total").increment(1),
                    Outcome::Refused => ::metrics::counter!("sidecar_injection_failure_total").increment(1),
                }
                verdict
            }
        };
        std::future::ready(verdict)
    })
}

/// Who signs the certificate, and how it is asked.
fn authority(options: &Options) -> CaOptions {
    CaOptions {
        mark: None,
        address: options.authority(),
        name: None,
        roots: options.ca_roots.clone(),
        token: Some(options.token.clone()),
        cluster: "Kubernetes".to_owned(),
    }
}

async fn run(options: Options, log: log::Log, stop: CancellationToken) -> Result<()> {
    let clock = Clock::system();
    let ready = Readiness::new();
    let certificate = ready.blocked_by("certificate from citadel");
    let settings_gate = ready.blocked_by("settings");
    let bundle_switch = ready.switch("CA bundle in the webhook configuration");
    let recorder = metrics::install().context("failed to set up metrics")?;
    let mut tasks = JoinSet::new();
    let page = recorder.clone();
    let admin = Admin::new("injector", env!("CARGO_PKG_VERSION"), &ready).metrics(move || page.render()).logging(log);
    let bind =
        async |address| TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"));
    tasks.spawn(admin.serve(bind(options.http_address).await?, stop.clone()));
    tasks.spawn(recorder.upkeep(stop.clone()));
    let listener = bind(options.https_address).await?;
    let client = client::connect(None).await?;

    let (current, settings) = watch::channel(None);
    let names = Names {
        namespace: options.namespace.clone(),
        injection: options.config_map.clone(),
        mesh: options.mesh_config_map.clone(),
    };
    let keeping = settings::keep(client.clone(), names, current, settings_gate);
    let ending = stop.clone();
    tasks.spawn(async move {
        ending.run_until_cancelled(keeping).await;
    });

    let identity = Identity::new();
    let authority = CaClient::new(authority(&options), identity.certificate().clone());
    let wanted = Wanted::DnsNames(vec![options.dns_name()]);
    let renewal = RenewalOptions { wanted, lifetime: LIFETIME, roots: Some(options.ca_roots.clone()) };
    let certificate = certificate.shared();
    let told = certificate.clone();
    let waiting = move |reason: &str| told.because(format!("certificate from citadel: {reason}"));
    tasks.spawn(Renewal::new(identity.clone(), renewal, authority, clock).run(stop.clone(), waiting));
    if stop.run_until_cancelled(identity.wait()).await.is_none() {
        return Ok(());
    }
    certificate.open();

    let tls = identity.anonymous_server_config(vec![b"h2".to_vec(), b"http/1.1".to_vec()])?;
    let registration = BundleOptions {
        kind: WebhookKind::Mutating,
        name: options.webhook_configuration.clone(),
        service: (options.namespace.clone(), options.service.clone()),
        failure_policy: None,
    };
    let mut set_once = false;
    let state = move |problem: Option<&str>| match problem {
        None => {
            set_once = true;
            bundle_switch.on();
        }
        // Once set, a bundle stays good while the API server is away.
        Some(_) if set_once => {}
        Some(why) => bundle_switch.off(format!("CA bundle: {why}")),
    };
    tasks.spawn(bundle::keep(client, registration, identity, clock, stop.clone(), state));
    tracing::info!(address = %options.https_address, "webhook is up");
    drain::beside(webhook::serve(listener, tls, webhooks(settings), stop.clone()), tasks, &stop).await?;
    Ok(())
}
