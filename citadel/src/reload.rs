//! Takes in a plugged authority that was changed under the same root (a new intermediate), without a restart.
//!
//! Another root is not taken: those who hold the old one would refuse those who hold the new one. As in Istio, that needs
//! a restart on purpose; what is wrong or gone changes nothing either.
//! Never here: reading the parts (`root`). One task, run by `main`.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use api_rt::clock::Clock;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::sync::watch;

use crate::{
    limits::LOOK_EVERY,
    root::{self, Root, RootError},
};

/// Where the user's authority is.
pub(crate) enum Plugged {
    /// In Secret `cacerts`.
    Secret(Box<Api<Secret>>),
    /// In files.
    Folder(PathBuf),
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing, or what is in use.
    NothingNew,
    /// Another authority under the same root; it signs from now on.
    Taken,
    /// An authority under another root.
    OtherRoot,
}

/// Looks for a changed authority until dropped; tells `changed` of each that signs from now on.
pub(crate) async fn keep(plugged: Plugged, current: watch::Sender<Arc<Root>>, clock: Clock, changed: impl Fn(&Root)) {
    let mut told = String::new();
    loop {
        clock.sleep(LOOK_EVERY).await;
        let complaint = match look(&plugged, &current, clock.now()).await {
            Ok(Found::NothingNew) => String::new(),
            Ok(Found::Taken) => {
                tracing::info!("the authority that the user provides was changed; it signs from now on");
                changed(&current.borrow());
                String::new()
            }
            Ok(Found::OtherRoot) => "it has another root; restart citadel to begin to trust that one".to_owned(),
            Err(error) => format!("{:#}", anyhow::Error::new(error)),
        };
        // Said once, not at every look.
        if !complaint.is_empty() && complaint != told {
            tracing::warn!(reason = complaint, "the changed authority is not taken");
        }
        told = complaint;
    }
}

async fn look(plugged: &Plugged, current: &watch::Sender<Arc<Root>>, now: SystemTime) -> Result<Found, RootError> {
    let found = match plugged {
        Plugged::Secret(secrets) => root::plugged(secrets, now).await?,
        Plugged::Folder(folder) => root::read_folder(folder, now)?,
    };
    let Some(new) = found else { return Ok(Found::NothingNew) };
    let (same_root, same) = {
        let old = current.borrow();
        (old.root_pem() == new.root_pem(), old.chain() == new.chain())
    };
    Ok(match (same_root, same) {
        (true, true) => Found::NothingNew,
        (true, false) => {
            current.send_replace(Arc::new(new));
            Found::Taken
        }
        (false, _) => Found::OtherRoot,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::root::tests::{intermediate, now, write};

    #[tokio::test(start_paused = true)]
    async fn a_new_intermediate_signs_from_the_next_look_on_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (Root::generate("corporate", now()).unwrap(), Root::generate("other", now()).unwrap());
        write(folder.path(), &intermediate(&root));
        let first = Arc::new(root::read_folder(folder.path(), now()).unwrap().unwrap());
        let (current, mut seen) = watch::channel(Arc::clone(&first));
        let clock = Clock::starting_at(now());
        let keeper = tokio::spawn(keep(Plugged::Folder(folder.path().to_owned()), current, clock, |_| {}));
        let mut after_a_look = async |parts: Option<&[(&str, String)]>| {
            match parts {
                Some(parts) => write(folder.path(), parts),
                None => std::fs::remove_file(folder.path().join("ca-cert.pem")).unwrap(),
            }
            tokio::time::sleep(LOOK_EVERY + Duration::from_secs(1)).await;
            let changed = seen.has_changed().unwrap();
            (changed, Arc::clone(&seen.borrow_and_update()))
        };
        assert!(!after_a_look(Some(&[])).await.0, "nothing new");
        assert!(!after_a_look(Some(&intermediate(&other))).await.0, "another root");
        let mut foreign = intermediate(&other);
        foreign[3] = ("root-cert.pem", root.root_pem().to_owned());
        assert!(!after_a_look(Some(&foreign)).await.0, "another root's, beside the right one");
        assert!(!after_a_look(None).await.0, "half of it");
        let (changed, now_used) = after_a_look(Some(&intermediate(&root))).await;
        assert!(changed && now_used.chain() != first.chain());
        assert_eq!(now_used.root_pem(), first.root_pem());
        keeper.abort();
    }
}
