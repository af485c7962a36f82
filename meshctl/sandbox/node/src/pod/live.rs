//! What runs now: handles by which logs, exec, attach and probes reach a container.
//!
//! Never here: deciding what runs. Filled by `container`, read by `kubelet` and `probe`.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::net::unix::pipe;
use tokio::sync::{broadcast, watch};

use super::log::{Log, Stream};
use crate::keeper::wire::{Command, Exit, Target};
use crate::link::{Launched, Link, LinkError};
use crate::terminal::Terminal;

/// By which extra processes enter a running container.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) link: Link,
    pub(crate) process: u64,
    /// The container's own command: extra processes share its environment, folder and person.
    pub(crate) command: Arc<Command>,
}

impl Runner {
    /// Starts an extra process.
    pub(crate) async fn exec(&self, argv: Vec<String>, terminal: bool, stdin: bool) -> Result<Launched, LinkError> {
        let mut command = Command { argv, terminal, ..(*self.command).clone() };
        if terminal && !command.env.iter().any(|(name, _)| name == "TERM") {
            command.env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        self.link.exec(Target::Container(self.process), command, stdin).await
    }
}

/// Where a container's input goes.
#[derive(Clone)]
pub(crate) enum Input {
    None,
    Pipe(Arc<tokio::sync::Mutex<Option<pipe::Sender>>>),
    Terminal(Terminal),
}

/// One run of a container.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) runner: Runner,
    pub(crate) log: Arc<Log>,
    pub(crate) output: broadcast::Sender<(Stream, Bytes)>,
    pub(crate) input: Input,
    pub(crate) stdin_once: bool,
    pub(crate) exit: watch::Receiver<Option<Exit>>,
}

/// A container's runs: the last one, and the log of the one before.
#[derive(Clone, Default)]
pub(crate) struct Runs {
    pub(crate) current: Option<Run>,
    /// Logs of runs, newest last; at most two.
    pub(crate) logs: Vec<(Option<Arc<Log>>, PathBuf)>,
}

/// All containers of this node's Pods, by Pod uid and name.
#[derive(Clone, Default)]
pub(crate) struct Live {
    pods: Arc<Mutex<HashMap<String, BTreeMap<String, Runs>>>>,
}

impl Live {
    fn pods(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, Runs>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a Pod, with the containers it will have.
    pub(crate) fn begin(&self, pod: &str, containers: impl IntoIterator<Item = String>) {
        let runs = containers.into_iter().map(|name| (name, Runs::default())).collect();
        self.pods().insert(pod.to_owned(), runs);
    }

    /// Forgets a Pod.
    pub(crate) fn end(&self, pod: &str) {
        self.pods().remove(pod);
    }

    /// Changes what is known of a container.
    pub(crate) fn update(&self, pod: &str, container: &str, change: impl FnOnce(&mut Runs)) {
        if let Some(runs) = self.pods().get_mut(pod).and_then(|pod| pod.get_mut(container)) {
            change(runs);
        }
    }

    /// A container's runs; `None`: no such Pod or container here.
    pub(crate) fn find(&self, pod: &str, container: &str) -> Option<Runs> {
        self.pods().get(pod).and_then(|pod| pod.get(container)).cloned()
    }

    /// Whether the Pod is here.
    pub(crate) fn has(&self, pod: &str) -> bool {
        self.pods().contains_key(pod)
    }
}
