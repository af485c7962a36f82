//! Pilot: reads what users stored, and tells every proxy what to do.
//!
//! Starts the parts and waits for them: source → push → serve, and beside them webhook, status and debug pages.
//! Never here: anything but the wiring. Run as a Deployment in `istio-system`, or over a folder of files.

mod cache;
mod certificates;
mod config;
mod debug;
mod limits;
mod push;
mod registry;
mod rights;
mod serve;
mod session;
mod status;
mod webhook;
mod world;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use api_kube::{
    bundle::{self, BundleOptions, WebhookKind},
    lease::Candidate,
    source::{Selection, Source, everything},
    webhook::Webhooks,
};
use api_mesh::{model::Catalog, object::Kind};
use api_rt::{
    admin::Admin,
    clock::Clock,
    drain,
    grpc::{self, Target},
    identity::{CaClient, CaOptions, Files, Identity, Renewal, RenewalOptions, Wanted},
    log,
    metrics::{self, Metrics},
    ready::Readiness,
    tls::{self, ClientOptions, Expect, Peers},
};
use api_xds::{ca::server::CertificateServer, discovery::AggregatedServer};
use clap::Parser as _;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    cache::Cache,
    certificates::PassedOn,
    config::{Certificate, Options, Port},
    limits::{STREAM_GRACE, WAITING_CONNECTIONS},
    push::Push,
    registry::Registry,
    rights::{Reviews, Rights},
    serve::{Control, Door},
    webhook::Judge,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const LEASE: &str = "istio-status-leader";

fn main() -> ExitCode {
    let options = Options::parse();
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "pilot ended");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Options) -> anyhow::Result<()> {
    let format = if options.log_as_json { log::Format::Json } else { log::Format::Text };
    let log = log::init(&options.log_level, format)?;
    tls::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(run(options, log)))
}

fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(WAITING_CONNECTIONS)
    };
    listen().with_context(|| format!("{what}: cannot listen on {address}"))
}

/// What every part is given.
struct Parts {
    clock: Clock,
    identity: Identity,
    ready: Readiness,
    stop: CancellationToken,
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
}

async fn run(options: Options, log: log::Log) -> anyhow::Result<()> {
    let metrics = metrics::install()?;
    let mut parts = Parts {
        clock: Clock::system(),
        identity: Identity::new(),
        ready: Readiness::new(),
        stop: drain::on_signal()?,
        tasks: JoinSet::new(),
    };
    let synced = parts.ready.blocked_by("objects: waiting for the source to be read");
    let cache = Arc::new(Cache::default());
    let registry = Arc::new(Registry::default());
    let push = Push::new(Catalog::new(options.settings()), Arc::clone(&cache), parts.clock.instant());
    let (worlds, notes, carrying) = (push.worlds(), push.notes(), push.carrying());

    // Pages first, so that whoever waits sees what for.
    let shown = debug::Shown {
        worlds: worlds.clone(),
        registry: Arc::clone(&registry),
        cache: Arc::clone(&cache),
        notes: notes.clone(),
        pod: options.pod.clone(),
    };
    parts.serve_pages(options.http, &shown, metrics, log)?;
    parts.keep_identity(&options);
    let (source, client) = match &options.folder {
        Some(path) => (Source::folder(path)?, None),
        None => {
            let client = api_kube::client::connect(None).await?;
            (Source::cluster(&client, selections(&options)), Some(client))
        }
    };
    let rights = client.as_ref().map_or(Rights::ByIdentity, |client| Rights::ByReview(Reviews::new(client.clone())));
    let control = Control::new(worlds.clone(), Arc::clone(&cache), registry, rights, parts.clock, parts.stop.clone());
    let control = Arc::new(control);
    parts.serve_xds(&options, &control)?;

    let stop = parts.stop.clone();
    parts.spawn("push", async move {
        push.run(source, stop).await;
        Ok(())
    });
    let (mut first, stop) = (worlds.clone(), parts.stop.clone());
    parts.spawn("first snapshot", async move {
        if let Some(first) = stop.run_until_cancelled(first.wait_for(Option::is_some)).await {
            first?;
            synced.open();
        }
        Ok(())
    });
    if let Some(client) = client {
        parts.judge_objects(&options, &client, worlds)?;
        let candidate = Candidate::new(client.clone(), &options.namespace, LEASE, &options.pod, parts.clock);
        let reports = status::Reports { notes, carrying, leads: candidate.leads() };
        let (clock, stop) = (parts.clock, parts.stop.clone());
        parts.spawn("status", async move {
            status::run(client, reports, clock, stop).await;
            Ok(())
        });
        let stop = parts.stop.clone();
        parts.spawn("lease", async move {
            candidate.run(stop).await;
            Ok(())
        });
    }
    tracing::info!(version = VERSION, "pilot started");
    parts.wait().await
}

/// What is read from a cluster: not the many secrets and settings that are none of the mesh's business.
fn selections(options: &Options) -> Vec<Selection> {
    let others =
        "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=kubernetes.io/dockerconfigjson";
    let narrow = |selection: Selection| {
        if selection.kind == Kind::Secret {
            selection.with_fields(others)
        } else if selection.kind == Kind::ConfigMap {
            selection.within(&options.namespace)
        } else {
            selection
        }
    };
    everything().into_iter().map(narrow).collect()
}

impl Parts {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Readiness, metrics and debug pages.
    fn serve_pages(
        &mut self,
        address: SocketAddr,
        shown: &debug::Shown,
        metrics: Metrics,
        log: log::Log,
    ) -> anyhow::Result<()> {
        let page = metrics.clone();
        let admin = Admin::new("pilot", VERSION, &self.ready).metrics(move || page.render()).logging(log);
        let admin = debug::routes(admin, shown);
        let listener = bind("admin", address)?;
        let stop = self.stop.clone();
        self.spawn("admin", async move {
            admin.serve(listener, stop).await;
            Ok(())
        });
        let stop = self.stop.clone();
        self.spawn("metrics", async move {
            metrics.upkeep(stop).await;
            Ok(())
        });
        Ok(())
    }

    /// Gets a certificate and keeps it fresh, as the configuration says.
    fn keep_identity(&mut self, options: &Options) {
        if options.certificate() == Certificate::None {
            return;
        }
        let gate = self.ready.blocked_by("certificate: waiting for it");
        let (identity, clock, stop) = (self.identity.clone(), self.clock, self.stop.clone());
        let there = identity.clone();
        let waiting = gate.shared();
        let told = waiting.clone();
        let ending = stop.clone();
        self.spawn("first certificate", async move {
            if ending.run_until_cancelled(there.wait()).await.is_some() {
                waiting.open();
            }
            Ok(())
        });
        let tell = move |reason: &str| told.because(format!("certificate: {reason}"));
        match options.certificate() {
            Certificate::None => {}
            Certificate::Files(folder) => self.spawn("identity", async move {
                Files::new(identity, folder, clock).run(stop, tell).await;
                Ok(())
            }),
            Certificate::Citadel(address) => {
                let ca = CaOptions {
                    mark: None,
                    address,
                    name: None,
                    roots: options.ca_root.clone(),
                    token: Some(options.ca_token.clone()),
                    cluster: options.cluster_id.clone(),
                };
                let citadel = CaClient::new(ca, identity.certificate().clone());
                let wanted = Wanted::DnsNames(options.dns_names());
                let renewal =
                    RenewalOptions { wanted, lifetime: options.lifetime, roots: Some(options.ca_root.clone()) };
                self.spawn("identity", async move {
                    Renewal::new(identity, renewal, citadel, clock).run(stop, tell).await;
                    Ok(())
                });
            }
        }
    }

    /// Serves ADS in plaintext and over mutual TLS, and there passes requests for certificates on.
    fn serve_xds(&mut self, options: &Options, control: &Arc<Control>) -> anyhow::Result<()> {
        if let Port::At(address) = options.xds {
            let listener = bind("plaintext xDS", address)?;
            let routes = Routes::new(AggregatedServer::new(control.behind(Door::Open)));
            let stop = self.stop.clone();
            self.spawn("xds", async move { Ok(grpc::serve(listener, None, routes, STREAM_GRACE, stop).await?) });
        }
        if let Port::At(address) = options.secure
            && options.certificate() != Certificate::None
        {
            let listener = bind("secure xDS", address)?;
            let mut routes = Routes::new(AggregatedServer::new(control.behind(Door::Proven)));
            if let Certificate::Citadel(address) = options.certificate() {
                let name = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned();
                // Without pilot's own certificate: the caller's token is all that may speak for it.
                let tls = tls::client_config(ClientOptions {
                    certificate: None,
                    expect: Expect { roots: self.identity.roots().clone(), peers: Peers::ServerName },
                    alpn: vec![b"h2".to_vec()],
                    only_tls13: false,
                })?;
                let target = Target { address, tls: Some((tls, name)), mark: None };
                routes = routes.add_service(CertificateServer::new(PassedOn::to(grpc::channel(&target)?)));
            }
            let tls = self.identity.server_config(false, vec![options.trust_domain.clone()], vec![b"h2".to_vec()])?;
            let (identity, stop) = (self.identity.clone(), self.stop.clone());
            self.spawn("secure xds", async move {
                if stop.run_until_cancelled(identity.wait()).await.is_none() {
                    return Ok(());
                }
                Ok(grpc::serve(listener, Some(tls), routes, STREAM_GRACE, stop).await?)
            });
        }
        Ok(())
    }

    /// Serves the validating webhook and keeps its CA bundle.
    fn judge_objects(
        &mut self,
        options: &Options,
        client: &kube::Client,
        worlds: push::Published,
    ) -> anyhow::Result<()> {
        let Port::At(address) = options.webhook else { return Ok(()) };
        let listener = bind("webhook", address)?;
        let judge = Judge::new(worlds, options.settings());
        let webhooks = Webhooks::new().at("/validate", move |review| judge.clone().judge(review));
        let tls = self.identity.anonymous_server_config(vec![b"h2".to_vec(), b"http/1.1".to_vec()])?;
        let stop = self.stop.clone();
        self.spawn("webhook", async move {
            api_kube::webhook::serve(listener, tls, webhooks, stop).await;
            Ok(())
        });
        let namespace = options.namespace.clone();
        let bundle = BundleOptions {
            kind: WebhookKind::Validating,
            name: format!("istio-validator-{namespace}"),
            service: (namespace, "istiod".to_owned()),
            failure_policy: Some("Fail"),
        };
        let (client, identity, clock, stop) = (client.clone(), self.identity.clone(), self.clock, self.stop.clone());
        self.spawn("bundle", async move {
            bundle::keep(client, bundle, identity, clock, stop, |_| {}).await;
            Ok(())
        });
        Ok(())
    }

    /// Waits for the end: a signal, or a part that failed.
    async fn wait(mut self) -> anyhow::Result<()> {
        let mut failed = None;
        while let Some(ended) = self.tasks.join_next().await {
            let (name, outcome) = ended?;
            if let Err(error) = outcome {
                failed.get_or_insert(error.context(name));
                self.stop.cancel();
            } else if name == "push" && !self.stop.is_cancelled() {
                failed.get_or_insert(anyhow::anyhow!("{name} ended"));
                self.stop.cancel();
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn pilot_ends_when_told_to_although_its_certificate_has_not_come() {
        let args = ["pilot", "--folder=/x", "--ca=127.0.0.1:1", "--xds=off", "--secure=127.0.0.1:0"];
        let options = Options::try_parse_from(args).unwrap();
        let mut parts = Parts {
            clock: Clock::system(),
            identity: Identity::new(),
            ready: Readiness::new(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        parts.keep_identity(&options);
        let (stop, ready) = (parts.stop.clone(), parts.ready.clone());
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), parts.wait()).await.expect("it ends").unwrap();
        assert!(!ready.is_ready());
    }
}
