//! One container's life: image, start, restarts with their pauses, end.
//!
//! A loop that reports to the Pod's board and obeys its stop. Never here: how one run starts (`start`) or goes on
//! (`attend`), the Pod's order of containers.
//! Spawned by `worker`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::board::Board;
use super::env::Place;
use super::kit::Kit;
use super::status::{Cell, State, is_sidecar};
use crate::event::Tone;
use crate::image::Image;
use crate::keeper::wire::Exit;

const RETRY_CONFIG: Duration = Duration::from_secs(2);
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
