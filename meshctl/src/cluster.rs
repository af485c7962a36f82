//! Which cluster a verb talks to, and a client for it.
//!
//! Order: `--name` (a sandbox), `--kubeconfig`, then as kubectl has it: the files that `KUBECONFIG` names, the user's own
//! kubeconfig, the cluster of the Pod it runs in. Never here: what is asked of it. Called by every verb that talks to a
//! cluster.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::fail;

/// Flags that choose a cluster; every verb has them.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// Name of a sandbox of this machine.
    #[arg(long, global = true)]
    pub(crate) name: Option<String>,
    /// Kubeconfig file [default: those of KUBECONFIG, else ~/.kube/config].
    #[arg(short = 'c', long, global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// Namespace.
    #[arg(short = 'n', long, global = true)]
    pub(crate) namespace: Option<String>,
    /// Namespace of the mesh itself.
    #[arg(short = 'i', long = "istioNamespace", global = true, default_value = "istio-system")]
    pub(crate) istio_namespace: String,
}

impl Target {
    /// A client for the chosen cluster.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let options = KubeConfigOptions { context: self.context.clone(), cluster: None, user: None };
        let file = match &self.name {
            Some(name) => Some(crate::cmd::up::kubeconfig_of(name)?),
            None => self.kubeconfig.clone(),
        };
        let unusable =
            |error: &dyn std::error::Error| fail::coded(fail::UNREACHABLE, format!("no cluster is chosen: {error}"));
        let kubeconfig = match file {
            Some(file) => Some(read(&file)?),
            None => named(api_rt::env::Vars::process().text("KUBECONFIG", ""))?,
        };
        let config = match kubeconfig {
            Some(kubeconfig) => {
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error))?
            }
            None if options.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error))?
            }
            None => Config::infer().await.map_err(|error| {
                fail::coded(
                    fail::UNREACHABLE,
                    format!("no cluster is chosen: {error}\n  help: start one with `meshctl up`"),
                )
            })?,
        };
        let server = config.cluster_url.clone();
        let client = Client::try_from(config)?;
        client.apiserver_version().await.map_err(|error| {
            fail::coded(fail::UNREACHABLE, format!("the cluster at {server} does not answer: {}", root_cause(&error)))
        })?;
        Ok(client)
    }

    /// The namespace asked about.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

fn read(file: &Path) -> anyhow::Result<Kubeconfig> {
    Kubeconfig::read_from(file)
        .map_err(|error| fail::coded(fail::UNREACHABLE, format!("could not read {}: {error}", file.display())))
}

/// The files that `KUBECONFIG` names, as one. As for kubectl, one that is absent is none, and the first word counts.
fn named(files: &str) -> anyhow::Result<Option<Kubeconfig>> {
    let mut all: Option<Kubeconfig> = None;
    for file in std::env::split_paths(files).filter(|file| file.is_file()) {
        let next = read(&file)?;
        all = Some(match all {
            None => next,
            Some(all) => all.merge(next).with_context(|| format!("could not use {}", file.display()))?,
        });
    }
    Ok(all)
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Asks a program in a Pod over a port-forward: one HTTP GET, its body.
///
/// # Errors
/// The Pod cannot be reached, or it answers other than 200.
pub(crate) async fn http_get(
    client: &Client,
    namespace: &str,
    pod: &str,
    port: u16,
    path: &str,
) -> anyhow::Result<Vec<u8>> {
    use http_body_util::{BodyExt as _, Empty, Limited};
    const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(client.clone(), namespace);
    let mut forward = pods.portforward(pod, &[port]).await?;
    let stream =
        forward.take_stream(port).ok_or_else(|| anyhow::anyhow!("port {port} of pod {pod} is not forwarded"))?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let request = http::Request::get(path).header("host", "localhost").header("connection", "close");
    let request = request.body(Empty::<hyper::body::Bytes>::new())?;
    let answered = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes().to_vec();
        if !status.is_success() {
            anyhow::bail!("pod {pod} answered {status} for {path}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(body)
    };
    tokio::pin!(answered);
    tokio::pin!(connection);
    let body = tokio::select! {
        body = &mut answered => body,
        ended = &mut connection => { ended?; answered.await }
    };
    forward.abort();
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_kubeconfigs_are_left_out_and_the_first_word_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        for name in ["a", "b"] {
            std::fs::write(file(name), format!("current-context: {name}\ncontexts:\n- name: {name}\n")).unwrap();
        }
        let found = named(&[file("none"), file("a"), file("b")].join(":")).unwrap().unwrap();
        assert_eq!((found.current_context.as_deref(), found.contexts.len()), (Some("a"), 2));
        assert!(named(&file("none")).unwrap().is_none());
        assert!(named("").unwrap().is_none());
    }
}
