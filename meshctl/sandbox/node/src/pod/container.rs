//! One container's life: image, environment, start, probes, restarts, end.
//!
//! A loop that reports to the Pod's board and obeys its stop. Never here: the Pod's order of containers.
//! Spawned by `worker`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::Api;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::board::Board;
use super::env::{self, Place, Sources};
use super::kit::Kit;
use super::live::{Input, Run, Runner};
use super::log::Log;
use super::person;
use super::status::{Cell, State, is_sidecar};
use crate::event::Tone;
use crate::image::{Image, LINKS, PROGRAMS};
use crate::keeper::birth::Users;
use crate::keeper::wire::{Command, Exit, Mount, Programs, Start};
use crate::link::{Launched, LinkError, Streams};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const RETRY_CONFIG: Duration = Duration::from_secs(2);
const OUTPUT_PIECES_MAX: usize = 256;
const EXIT_NOT_STARTED: i32 = 128;

/// When a container must have ended; `None`: it may run.
pub(crate) type Stop = watch::Receiver<Option<Instant>>;

/// How a container's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its last run succeeded and it is not started again.
    Succeeded,
    /// Its last run failed and it is not started again.
    Failed,
    /// It was told to stop.
    Stopped,
}

/// A container of a Pod, with what it needs.
pub(crate) struct Supervised {
    pub(crate) kit: Arc<Kit>,
    pub(crate) board: Arc<Board>,
    pub(crate) container: Container,
    /// Runs to its end before others begin.
    pub(crate) init: bool,
    pub(crate) place: Place,
    pub(crate) hosts: String,
    pub(crate) resolv: String,
    pub(crate) hostname: String,
}

/// Why a container does not start, with the reason its status shows.
struct NotStarted {
    reason: &'static str,
    message: String,
}

/// Why a run ended.
pub(super) enum Ending {
    Exited(Exit),
    Stopped,
}

impl Supervised {
    pub(super) fn pod(&self) -> Arc<Pod> {
        self.board.pod()
    }

    pub(super) fn name(&self) -> &str {
        &self.container.name
    }

    pub(super) fn cell(&self, change: impl FnOnce(&mut Cell)) {
        self.board.cell(self.name(), change);
    }

    fn waiting(&self, reason: &str, message: Option<String>) {
        self.cell(|cell| cell.state = State::Waiting { reason: reason.to_owned(), message });
    }

    pub(super) fn say(&self, tone: Tone, reason: &str, text: &str) {
        let field = if self.init || is_sidecar(&self.container) { "initContainers" } else { "containers" };
        let about = self.board.reference(Some(format!("spec.{field}{{{}}}", self.name())));
        self.kit.events.say(&about, tone, reason, text);
    }

    /// Whether a run that ended with this code is followed by another.
    fn again(&self, code: i32) -> bool {
        if is_sidecar(&self.container) && !self.init {
            return true;
        }
        match self.pod().spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => false,
            Some("OnFailure") => code != 0,
            Some(_) | None => code != 0 || !self.init,
        }
    }

    /// Runs it, again and again, until its policy or `stop` ends that.
    pub(crate) async fn run(self, mut stop: Stop) -> Outcome {
        let (mut restarts, mut images) = (Backoff::restarts(), Backoff::images());
        loop {
            if stop.borrow().is_some() {
                return self.finish(Outcome::Stopped);
            }
            let Some(image) = self.image(&mut images, &mut stop).await else { return self.finish(Outcome::Stopped) };
            let began = Instant::now();
            let ending = match self.start(&image).await {
                Ok((launched, run_exit)) => Box::pin(self.attend(launched, run_exit, &mut stop)).await,
                Err(failure) if failure.reason == "CreateContainerConfigError" => {
                    self.say(Tone::Warning, "Failed", &format!("Error: {}", failure.message));
                    self.waiting(failure.reason, Some(failure.message));
                    if pause(RETRY_CONFIG, &mut stop).await {
                        return self.finish(Outcome::Stopped);
                    }
                    continue;
                }
                Err(failure) => {
                    self.say(Tone::Warning, "Failed", &format!("Error: {}", failure.message));
                    self.cell(|cell| {
                        cell.fail(failure.reason, EXIT_NOT_STARTED, Timestamp::now());
                        if let State::Ended(end) = &mut cell.state {
                            end.message = Some(failure.message);
                        }
                    });
                    Ending::Exited(Exit { code: EXIT_NOT_STARTED, signal: None })
                }
            };
            let exit = match ending {
                Ending::Stopped => return self.finish(Outcome::Stopped),
                Ending::Exited(exit) => exit,
            };
            if !self.again(exit.code) {
                return self.finish(if exit.code == 0 { Outcome::Succeeded } else { Outcome::Failed });
            }
            let wait = restarts.after(began.elapsed());
            if !wait.is_zero() {
                let text = format!(
                    "back-off {}s restarting failed container={} pod={}",
                    wait.as_secs(),
                    self.name(),
                    self.board.title()
                );
                self.say(
                    Tone::Warning,
                    "BackOff",
                    &format!("Back-off restarting failed container {} in pod {}", self.name(), self.board.title()),
                );
                self.cell(|cell| {
                    keep_last(cell);
                    cell.state = State::Waiting { reason: "CrashLoopBackOff".to_owned(), message: Some(text) };
                });
                if pause(wait, &mut stop).await {
                    return self.finish(Outcome::Stopped);
                }
            }
            self.cell(|cell| {
                keep_last(cell);
                cell.restarts += 1;
            });
        }
    }

    fn finish(&self, outcome: Outcome) -> Outcome {
        self.cell(|cell| {
            cell.done = true;
            cell.ready = false;
            cell.started = false;
            if outcome == Outcome::Stopped
                && matches!(cell.state, State::Waiting { .. })
                && let Some(last) = cell.last.take()
            {
                cell.state = State::Ended(last);
            }
        });
        outcome
    }

    /// Finds the image's program, waiting while there is none. `None`: told to stop.
    async fn image(&self, backoff: &mut Backoff, stop: &mut Stop) -> Option<Image> {
        let name = self.container.image.clone().unwrap_or_default();
        loop {
            let found = self.kit.images.find(&name, |path| std::fs::read_to_string(path).ok(), executable);
            let error = match found {
                Ok(image) => {
                    self.say(Tone::Normal, "Pulled", &format!("Container image \"{name}\" already present on machine"));
                    self.cell(|cell| cell.image_id.clone_from(&image.id));
                    return Some(image);
                }
                Err(error) => error.to_string(),
            };
            self.say(Tone::Warning, "Failed", &format!("Failed to pull image \"{name}\": {error}"));
            self.waiting("ErrImagePull", Some(error));
            if pause(RETRY_CONFIG, stop).await {
                return None;
            }
            let text = format!("Back-off pulling image \"{name}\"");
            self.say(Tone::Normal, "BackOff", &text);
            self.waiting("ImagePullBackOff", Some(text));
            if pause(backoff.after(Duration::ZERO), stop).await {
                return None;
            }
        }
    }

    /// Everything the keeper must know.
    async fn command(&self, image: &Image) -> Result<Command, NotStarted> {
        let config = |message: String| NotStarted { reason: "CreateContainerConfigError", message };
        let pod = self.pod();
        let sources = self.sources().await.map_err(|error| config(error.to_string()))?;
        let services = self.kit.services.borrow().clone();
        let mut env: BTreeMap<String, String> = BTreeMap::from([
            ("PATH".to_owned(), format!("{LINKS}:{PROGRAMS}:{PATH}")),
            ("HOSTNAME".to_owned(), self.hostname.clone()),
        ]);
        env.extend(image.env.iter().cloned());
        let own = env::build(&pod, &self.container, &services, &sources, &self.place);
        env.extend(own.map_err(|error| config(error.to_string()))?);
        let person = person::person(&pod, &self.container, self.kit.users, image.sidecar);
        let person = person.map_err(|error| config(error.to_string()))?;
        env.entry("HOME".to_owned()).or_insert_with(|| if person.uid == 0 { "/root" } else { "/" }.to_owned());
        if self.container.tty == Some(true) {
            env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
        }
        let filled = |words: &Option<Vec<String>>| -> Vec<String> {
            let words = words.iter().flatten();
            words.map(|word| env::expand(word, |name| env.get(name).cloned())).collect()
        };
        let (command, args) = (filled(&self.container.command), filled(&self.container.args));
        let mut argv = if command.is_empty() { image.entrypoint.clone() } else { command.clone() };
        if !args.is_empty() {
            argv.extend(args);
        } else if command.is_empty() {
            argv.extend(image.cmd.iter().cloned());
        }
        Ok(Command {
            argv,
            env: env.into_iter().collect(),
            directory: self.container.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            person,
            terminal: self.container.tty == Some(true),
        })
    }

    async fn sources(&self) -> Result<Sources, kube::Error> {
        let (maps, secrets) = env::needed(&self.container);
        let namespace = self.pod().metadata.namespace.clone().unwrap_or_default();
        let mut sources = Sources::default();
        let api: Api<ConfigMap> = Api::namespaced(self.kit.client.clone(), &namespace);
        for name in maps {
            let found = api.get_opt(&name).await?.map(|map| map.data.unwrap_or_default());
            sources.config_maps.insert(name, found);
        }
        let api: Api<Secret> = Api::namespaced(self.kit.client.clone(), &namespace);
        for name in secrets {
            let found = api.get_opt(&name).await?.map(|secret| {
                let values = secret.data.into_iter().flatten();
                values.map(|(key, bytes)| (key, String::from_utf8_lossy(&bytes.0).into_owned())).collect()
            });
            sources.secrets.insert(name, found);
        }
        Ok(sources)
    }

    /// Starts one run. What is returned is running.
    async fn start(&self, image: &Image) -> Result<(Launched, watch::Sender<Option<Exit>>), NotStarted> {
        let failed = |message: String| NotStarted { reason: "StartError", message };
        let command = self.command(image).await?;
        let pod = self.pod();
        let uid = self.board.uid().to_owned();
        let detached = self.kit.users == Users::High;
        let mut trees = Vec::new();
        let mut programs = Vec::new();
        if let Some(folder) = &image.folder {
            if detached {
                let tree = crate::keeper::sys::copy_tree(folder);
                trees.push(tree.map_err(|error| failed(format!("{}: {error}", folder.display())))?);
            }
            programs.push(Programs { folder: folder.clone(), at: PROGRAMS.to_owned(), detached });
        }
        let mounts = self.container.volume_mounts.iter().flatten().map(|mount| Mount {
            volume: mount.name.clone(),
            sub_path: sub_path(mount.sub_path.as_deref(), mount.sub_path_expr.as_deref(), &command.env),
            target: mount.mount_path.clone(),
            read_only: mount.read_only == Some(true) || is_fixed(&pod, &mount.name),
        });
        let start = Start {
            process: 0,
            pod: uid.clone(),
            command: command.clone(),
            mounts: mounts.collect(),
            read_only_root: self
                .container
                .security_context
                .as_ref()
                .is_some_and(|context| context.read_only_root_filesystem == Some(true)),
            etc: vec![
                ("resolv.conf".to_owned(), self.resolv.clone()),
                ("hosts".to_owned(), self.hosts.clone()),
                ("hostname".to_owned(), format!("{}\n", self.hostname)),
            ],
            programs,
            links: image.links.clone(),
            sysfs: self.kit.link.facts().sysfs,
            last_words: self.container.termination_message_path.clone().filter(|path| path.starts_with('/')),
        };
        let restarts = self.board.read(self.name(), |cell| cell.restarts).unwrap_or_default();
        let log = Log::create(self.kit.log_path(&pod, self.name(), restarts));
        let log = Arc::new(log.map_err(|error| failed(format!("log file: {error}")))?);
        self.say(Tone::Normal, "Created", &format!("Created container: {}", self.name()));
        let stdin = self.container.stdin == Some(true);
        let started = async {
            let mut launched = self.kit.link.start(start, stdin, trees).await?;
            launched.begun().await.map(|()| launched)
        };
        let mut launched = started.await.map_err(|error| {
            // There was no run: kept, these files would grow in number with every attempt.
            remove_log(log.path());
            failed(error.to_string())
        })?;
        let (exit_sender, exit) = watch::channel(None);
        let (output, _) = broadcast::channel(OUTPUT_PIECES_MAX);
        let input = match &mut launched.streams {
            Streams::Terminal(terminal) => Input::Terminal(terminal.clone()),
            Streams::Pipes { stdin, .. } => {
                stdin.take().map_or(Input::None, |stdin| Input::Pipe(Arc::new(tokio::sync::Mutex::new(Some(stdin)))))
            }
        };
        let runner = Runner { link: self.kit.link.clone(), process: launched.process, command: Arc::new(command) };
        let run = Run {
            runner,
            log: Arc::clone(&log),
            output,
            input,
            stdin_once: self.container.stdin_once == Some(true),
            exit,
        };
        let id = format!("sandbox://{uid}-{}-{restarts}", self.name());
        self.kit.live.update(&uid, self.name(), |runs| {
            runs.current = Some(run);
            runs.logs.push((Some(Arc::clone(&log)), log.path().to_owned()));
            if runs.logs.len() > 2 {
                let (_, old) = runs.logs.remove(0);
                remove_log(&old);
            }
        });
        self.cell(|cell| cell.id = id);
        self.say(Tone::Normal, "Started", &format!("Started container {}", self.name()));
        Ok((launched, exit_sender))
    }
}

fn keep_last(cell: &mut Cell) {
    if let State::Ended(end) = &cell.state {
        cell.last = Some(end.clone());
    }
}

/// Waits; true: told to stop meanwhile.
async fn pause(wait: Duration, stop: &mut Stop) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => stop.borrow().is_some(),
        _ = told(stop) => true,
    }
}

/// Waits until told to stop.
pub(super) async fn told(stop: &mut Stop) -> Instant {
    loop {
        if let Some(deadline) = *stop.borrow_and_update() {
            return deadline;
        }
        if stop.changed().await.is_err() {
            return Instant::now();
        }
    }
}

fn executable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}

fn sub_path(plain: Option<&str>, expression: Option<&str>, env: &[(String, String)]) -> Option<String> {
    let lookup = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let found = expression.map(|text| env::expand(text, lookup)).or_else(|| plain.map(str::to_owned));
    found.filter(|path| !path.is_empty())
}

/// Volumes that the node writes are read-only to containers.
fn is_fixed(pod: &Pod, name: &str) -> bool {
    let volume = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).find(|volume| volume.name == name);
    volume.is_some_and(|volume| volume.empty_dir.is_none() && volume.host_path.is_none())
}

fn remove_log(path: &Path) {
    for path in [path.to_owned(), path.with_extension("log.1")] {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "old log not removed");
        }
    }
}

impl From<LinkError> for NotStarted {
    fn from(error: LinkError) -> Self {
        Self { reason: "StartError", message: error.to_string() }
    }
}
