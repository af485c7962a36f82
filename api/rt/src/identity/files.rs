//! An identity kept in files by someone else: `cert-chain.pem`, `key.pem`, `root-cert.pem` in one folder.
//!
//! Looked at every few seconds and taken when all three belong together; a half-written change waits for its other half.
//! Never here: renewal. Run as one task by `main` where the user provides certificates.

use std::{path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Identity, IdentityError};
use crate::{
    clock::Clock,
    tls::{Certificate, Roots},
};

/// How often the files are looked at.
const CHECK: Duration = Duration::from_secs(2);

/// The task that keeps an [`Identity`] from files.
#[derive(Debug)]
pub struct Files {
    identity: Identity,
    folder: PathBuf,
    clock: Clock,
    seen: Option<[String; 3]>,
}

impl Files {
    /// Will keep `identity` from this folder when run.
    pub fn new(identity: Identity, folder: impl Into<PathBuf>, clock: Clock) -> Self {
        Self { identity, folder: folder.into(), clock, seen: None }
    }

    async fn text(&self, name: &str) -> Result<String, IdentityError> {
        let path = self.folder.join(name);
        tokio::fs::read_to_string(&path).await.map_err(|source| IdentityError::File { path, source })
    }

    /// Reads the files; true: they changed and were taken.
    ///
    /// # Errors
    /// One cannot be read, or they do not belong together.
    pub async fn read(&mut self) -> Result<bool, IdentityError> {
        let found =
            [self.text("cert-chain.pem").await?, self.text("key.pem").await?, self.text("root-cert.pem").await?];
        if self.seen.as_ref() == Some(&found) {
            return Ok(false);
        }
        let [chain, key, roots] = &found;
        let certificate = Certificate::from_pem(chain, key)?;
        self.identity.put(certificate, Roots::from_pem(roots.as_bytes())?);
        self.seen = Some(found);
        Ok(true)
    }

    /// Keeps the identity until stopped. `waiting` is told of every failure before the first certificate.
    pub async fn run(mut self, stop: CancellationToken, waiting: impl Fn(&str) + Send) {
        let keep = async {
            loop {
                match self.read().await {
                    Ok(true) => tracing::info!(folder = %self.folder.display(), "certificate read"),
                    Ok(false) => {}
                    Err(error) if self.seen.is_none() => waiting(&error.to_string()),
                    Err(error) => tracing::warn!(%error, "changed certificate files cannot be used; the old ones stay"),
                }
                self.clock.sleep(CHECK).await;
            }
        };
        stop.run_until_cancelled(keep).await;
    }
}
