//! Our own identity: from citadel, from files, or none.
//!
//! The key is made here and never leaves; the certificate is renewed at half of its life. Readiness names what is waited
//! for until the first certificate is there.
//! Never here: how certificates are used (`table`, `listen`). Started by `run` and `agent`.

use std::{future::Future, time::Duration};

use api::name::SpiffeId;
use api_rt::{
    clock::Clock,
    identity::{CaClient, CaOptions, Files, Identity, Renewal, RenewalOptions, Wanted},
    ready::Readiness,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    capture::MARK,
    env::{IdentityConfig, NodeConfig},
};

/// Lifetime that is asked for.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What we should be, whether or not we have proven it yet.
pub(crate) fn principal(trust_domain: &str, node: &NodeConfig) -> String {
    format!("{trust_domain}/ns/{}/sa/{}", node.namespace, node.service_account)
}

/// Keeps the identity until stopped.
///
/// # Errors
/// The names of namespace and service account cannot be those of an identity.
pub(crate) fn keep(
    config: &IdentityConfig,
    trust_domain: &str,
    node: &NodeConfig,
    ready: &Readiness,
    stop: CancellationToken,
) -> anyhow::Result<(Identity, impl Future<Output = ()> + Send + 'static)> {
    let identity = Identity::new();
    let wanted = SpiffeId::new(trust_domain, &node.namespace, &node.service_account)?.to_string();
    let gate = (*config != IdentityConfig::Nothing).then(|| ready.blocked_by("certificate"));
    let (reasons, mut told) = mpsc::channel::<String>(1);
    let waiting = move |reason: &str| {
        // Full: an older reason has not been read yet, which says as much.
        let _told = reasons.try_send(format!("certificate: {reason}")).is_ok();
    };
    let keeping = {
        let (config, identity) = (config.clone(), identity.clone());
        let cluster = node.cluster_id.clone();
        async move {
            match config {
                IdentityConfig::Nothing => stop.cancelled().await,
                IdentityConfig::Files { folder } => {
                    Files::new(identity, folder, Clock::system()).run(stop, waiting).await;
                }
                IdentityConfig::Citadel { address, name, token, roots } => {
                    let options = CaOptions {
                        address,
                        name,
                        roots: roots.clone(),
                        token: Some(token),
                        cluster,
                        mark: Some(MARK),
                    };
                    let authority = CaClient::new(options, identity.certificate().clone());
                    let options =
                        RenewalOptions { wanted: Wanted::Spiffe(wanted), lifetime: LIFETIME, roots: Some(roots) };
                    Renewal::new(identity, options, authority, Clock::system()).run(stop, waiting).await;
                }
            }
        }
    };
    let opening = {
        let identity = identity.clone();
        async move {
            let Some(gate) = gate else { return };
            loop {
                tokio::select! {
                    () = identity.wait() => break,
                    Some(reason) = told.recv() => gate.because(reason),
                }
            }
            gate.open();
        }
    };
    Ok((identity, async move {
        tokio::join!(keeping, opening);
    }))
}
