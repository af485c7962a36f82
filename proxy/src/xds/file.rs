//! Runs from a file instead of pilot: a whole spec as JSON, read again when it changes.
//!
//! For running without a control plane and for tests. A file that cannot be read changes nothing.
//! Never here: building tables. Run as one task by `run`.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use api::spec::Spec;
use tokio_util::sync::CancellationToken;

use crate::control::Control;

/// Pause between looks at the file.
const LOOK: Duration = Duration::from_millis(250);

/// Serves what the file says until stopped.
pub(crate) async fn run(path: &Path, mut control: Control, stop: CancellationToken) {
    let mut seen: Option<SystemTime> = None;
    let mut spec = Spec::default();
    loop {
        let changed = tokio::fs::metadata(path).await.and_then(|meta| meta.modified());
        match changed {
            Ok(changed) if Some(changed) != seen => {
                seen = Some(changed);
                match read(path).await {
                    Ok(read) => {
                        spec = read;
                        control.apply(&spec);
                    }
                    Err(error) => tracing::warn!(path = %path.display(), %error, "spec not taken"),
                }
            }
            Ok(_) => {}
            Err(error) if seen.is_none() => control.waiting(&format!("{}: {error}", path.display())),
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = control.names_changed() => drop(control.apply(&spec)),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn read(path: &Path) -> anyhow::Result<Spec> {
    Ok(serde_json::from_slice(&tokio::fs::read(path).await?)?)
}
