//! Keeps a certificate from growing old: makes the key here, asks an authority, and asks again at half of its life.
//!
//! Failures are tried again with growing waits; the old certificate serves until its end. Roots are those of the file
//! (read again when it changes) and the root that came with the certificate.
//! Never here: how the authority is reached (`client`). Run as one task by `main`.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use rand::RngExt as _;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use tokio_util::sync::CancellationToken;

use super::{Authority, Identity, IdentityError};
use crate::{
    clock::Clock,
    retry::BackOff,
    tls::{Certificate, Roots},
};

/// How often the file of roots is looked at.
const ROOTS_CHECK: Duration = Duration::from_secs(5);
/// How often the time of day is looked at where there is no such file.
const CLOCK_CHECK: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// No certificate is replaced sooner.
const KEEP_MIN: Duration = Duration::from_secs(1);

/// What the certificate is asked for; the authority decides by who asks, and refuses other names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A workload's identity: `spiffe://…`.
    Spiffe(String),
    /// The DNS names of a control program.
    DnsNames(Vec<String>),
}

/// What to keep.
#[derive(Debug, Clone)]
pub struct RenewalOptions {
    /// Names to ask for.
    pub wanted: Wanted,
    /// Lifetime to ask for.
    pub lifetime: Duration,
    /// File of the mesh's roots; none: the root that comes with the certificate alone.
    pub roots: Option<PathBuf>,
}

/// The task that keeps an [`Identity`].
pub struct Renewal<A> {
    identity: Identity,
    options: RenewalOptions,
    authority: A,
    clock: Clock,
    file_roots: Option<String>,
    signed_root: Option<String>,
}

impl<A> std::fmt::Debug for Renewal<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewal").field("options", &self.options).finish_non_exhaustive()
    }
}

fn request(wanted: &Wanted) -> Result<(KeyPair, String), IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = match wanted {
        Wanted::Spiffe(id) => vec![SanType::URI(id.as_str().try_into()?)],
        Wanted::DnsNames(names) => names
            .iter()
            .map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)))
            .collect::<Result<_, rcgen::Error>>()?,
    };
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((key, csr))
}

/// How long a certificate that was just signed is kept: for half of its life, a little more or less so that pods do not
/// come together. Measured from now, so that a clock that disagrees with the authority's changes nothing; and as it begins
/// before it was signed, for no longer than half of the life that was asked for.
fn keep_for(certificate: &Certificate, asked: Duration, jitter: f64) -> Duration {
    let life = certificate.not_after().duration_since(certificate.not_before()).unwrap_or_default();
    life.min(asked).mul_f64(0.5 + jitter).max(KEEP_MIN)
}

impl<A: Authority> Renewal<A> {
    /// Will keep `identity` when run.
    pub fn new(identity: Identity, options: RenewalOptions, authority: A, clock: Clock) -> Self {
        Self { identity, options, authority, clock, file_roots: None, signed_root: None }
    }

    /// Asks once and replaces the certificate.
    ///
    /// # Errors
    /// The authority refused or was not reached, or its answer is no good.
    pub async fn renew(&mut self) -> Result<(), IdentityError> {
        let (key, csr) = request(&self.options.wanted)?;
        let chain = self.authority.sign(csr, self.options.lifetime).await?;
        let (root, leafs) = match chain.split_last() {
            Some((root, leafs)) if !leafs.is_empty() => (root, leafs),
            _ => return Err(IdentityError::Refused("its answer holds no chain of leaf and root".to_owned())),
        };
        let certificate = Certificate::from_pem(&joined(leafs), &key.serialize_pem())?;
        self.signed_root = Some(root.clone());
        self.read_roots().await;
        let roots = self.roots()?;
        metrics::gauge!("cert_expiry_seconds")
            .set(certificate.not_after().duration_since(self.clock.now()).unwrap_or_default().as_secs_f64());
        tracing::info!(names = ?certificate.uris(), dns = ?certificate.dns_names(), serial = certificate.serial(), "certificate renewed");
        self.identity.put(certificate, roots);
        Ok(())
    }

    /// Reads the file of roots; true: it changed.
    async fn read_roots(&mut self) -> bool {
        let Some(path) = &self.options.roots else { return false };
        match tokio::fs::read_to_string(path).await {
            Ok(text) if self.file_roots.as_deref() != Some(text.as_str()) => match Roots::from_pem(text.as_bytes()) {
                Ok(_) => {
                    self.file_roots = Some(text);
                    true
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "new roots cannot be read; the old ones stay");
                    false
                }
            },
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "no file of roots");
                false
            }
        }
    }

    fn roots(&self) -> Result<Roots, IdentityError> {
        let texts: BTreeSet<&str> =
            [self.file_roots.as_deref(), self.signed_root.as_deref()].into_iter().flatten().map(str::trim).collect();
        let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
        Ok(Roots::from_pem(joined(&texts).as_bytes())?)
    }

    /// Waits so long, or until the time of day says that it has passed: a machine that slept measures too little.
    async fn until_due(&mut self, wait: Duration) {
        let check = if self.options.roots.is_some() { ROOTS_CHECK } else { CLOCK_CHECK };
        let (latest, due) = (self.clock.instant() + wait, self.clock.now() + wait);
        loop {
            let left = latest.saturating_duration_since(self.clock.instant());
            self.clock.sleep(left.min(check)).await;
            if self.clock.instant() >= latest || self.clock.now() >= due {
                return;
            }
            if self.read_roots().await {
                match self.roots() {
                    Ok(roots) => {
                        tracing::info!("roots changed");
                        self.identity.put_roots(roots);
                    }
                    Err(error) => tracing::warn!(%error, "new roots cannot be used; the old ones stay"),
                }
            }
        }
    }

    /// Keeps the identity until stopped. `waiting` is told of every failure before the first certificate.
    pub async fn run(mut self, stop: CancellationToken, waiting: impl Fn(&str) + Send) {
        let mut back_off = BackOff::new(FIRST_WAIT, LONGEST_WAIT);
        let keep = async {
            loop {
                match self.renew().await {
                    Ok(()) => {
                        back_off.reset();
                        metrics::counter!("cert_renewals_total", "result" => "ok").increment(1);
                        let Some(certificate) = self.identity.certificate().get() else { continue };
                        let jitter = rand::rng().random_range(-0.01..=0.01);
                        self.until_due(keep_for(&certificate, self.options.lifetime, jitter)).await;
                    }
                    Err(error) => {
                        metrics::counter!("cert_renewals_total", "result" => "failed").increment(1);
                        let wait = back_off.next_wait();
                        tracing::warn!(error = %chain(&error), again_in = ?wait, "could not renew the certificate");
                        if self.identity.certificate().get().is_none() {
                            waiting(&chain(&error));
                        }
                        self.clock.sleep(wait).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(keep).await;
    }
}

fn joined(pems: &[String]) -> String {
    pems.iter().map(|pem| pem.trim()).collect::<Vec<_>>().join("\n") + "\n"
}

fn chain(error: &IdentityError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
