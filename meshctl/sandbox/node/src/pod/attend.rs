//! One run of a container: its output, hooks and probes, and how it is brought down.
//!
//! Never here: starting it, or what follows its end. The second half of `container`.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::LifecycleHandler;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::container::{Ending, Stop, Supervised, told};
use super::live::Run;
use super::log::{Filter, Log, Reader, Stream, pump};
use super::probe::{Asked, Counter, ProbeError, Rhythm};
use super::status::{Ended, State};
use crate::event::Tone;
use crate::keeper::wire::{Exit, Request};
use crate::limits::LAST_WORDS_BYTES_MAX;
use crate::link::{Launched, Streams};

/// What SIGKILL leaves.
const EXIT_KILLED: i32 = 137;

impl Supervised {
    /// Stays with a run until it has ended.
    pub(super) async fn attend(
        &self,
        launched: Launched,
        tell: watch::Sender<Option<Exit>>,
        stop: &mut Stop,
    ) -> Ending {
        let began = Timestamp::now();
        let Some(run) = self.kit.live.find(self.board.uid(), self.name()).and_then(|runs| runs.current) else {
            return Ending::Stopped;
        };
        let mut pumps = JoinSet::new();
        let each = |stream| {
            let output = run.output.clone();
            // Nobody attached is no failure.
            move |piece: &[u8]| drop(output.send((stream, Bytes::copy_from_slice(piece))))
        };
        match launched.streams {
            Streams::Pipes { stdout, stderr, .. } => {
                pumps.spawn(pump(stdout, Stream::Out, Arc::clone(&run.log), each(Stream::Out)));
                pumps.spawn(pump(stderr, Stream::Err, Arc::clone(&run.log), each(Stream::Err)));
            }
            Streams::Terminal(terminal) => {
                pumps.spawn(pump(terminal, Stream::Out, Arc::clone(&run.log), each(Stream::Out)));
            }
        }
        self.cell(|cell| cell.state = State::Running { since: began });
        let mut exit = launched.exit;
        let asked = self.asked(&run);
        let (end, stopped, killed) = tokio::select! {
            end = &mut exit => (end, false, None),
            why = self.watch_over(&asked) => {
                self.say(Tone::Normal, "Killing", &why);
                let deadline = Instant::now() + self.grace();
                (self.bring_down(&asked, &mut exit, deadline, stop).await, false, Some(why))
            }
            deadline = told(stop) => {
                self.cell(|cell| cell.ready = false);
                self.say(Tone::Normal, "Killing", &format!("Stopping container {}", self.name()));
                (self.bring_down(&asked, &mut exit, deadline, stop).await, true, None)
            }
        };
        let exit = end.unwrap_or(Exit { code: EXIT_KILLED, signal: Some(9) });
        while pumps.join_next().await.is_some() {}
        run.log.end();
        let reason = if exit.code == 0 { "Completed" } else { "Error" };
        let message = self.last_words(&run.log, run.runner.process, exit).await;
        self.cell(|cell| {
            let ended = Ended {
                code: exit.code,
                signal: None,
                reason: reason.to_owned(),
                message,
                started: Some(began),
                finished: Timestamp::now(),
                id: cell.id.clone(),
            };
            cell.state = State::Ended(ended);
            cell.ready = false;
            cell.started = false;
        });
        tell.send_replace(Some(exit));
        self.kit.live.update(self.board.uid(), self.name(), |runs| runs.current = None);
        if let Some(why) = killed {
            tracing::info!(pod = self.board.title(), container = self.name(), why, "container killed");
        }
        if stopped { Ending::Stopped } else { Ending::Exited(exit) }
    }

    /// This run, as probes and hooks ask it.
    fn asked(&self, run: &Run) -> Asked {
        Asked {
            link: self.kit.link.clone(),
            container: self.container.clone(),
            address: self.place.pod_ip.parse().unwrap_or(crate::net::GATEWAY_ADDRESS),
            runner: run.runner.clone(),
        }
    }

    /// What the container left as the reason of its end.
    async fn last_words(&self, log: &Log, process: u64, exit: Exit) -> Option<String> {
        let request = Request::LastWords { pod: self.board.uid().to_owned(), process };
        if self.container.termination_message_path.is_some()
            && let Ok(fds) = self.kit.link.ask(request, Vec::new()).await
            && let Some(file) = fds.into_iter().next()
        {
            let mut text = Vec::new();
            let read = std::fs::File::from(file).take(LAST_WORDS_BYTES_MAX).read_to_end(&mut text);
            if read.is_ok() && !text.is_empty() {
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
        }
        let wanted = self.container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if !wanted || exit.code == 0 {
            return None;
        }
        let filter = Filter { tail_lines: Some(80), ..Default::default() };
        let (_, text) = Reader::open(log.path(), filter).ok()?;
        let from = text.len().saturating_sub(2048);
        Some(String::from_utf8_lossy(text.get(from..)?).into_owned())
    }

    fn grace(&self) -> Duration {
        let seconds = self.pod().spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// preStop and SIGTERM, then SIGKILL at the deadline (which may come nearer meanwhile).
    async fn bring_down(
        &self,
        asked: &Asked,
        exit: &mut tokio::sync::oneshot::Receiver<Exit>,
        mut deadline: Instant,
        stop: &mut Stop,
    ) -> Result<Exit, tokio::sync::oneshot::error::RecvError> {
        let process = asked.runner.process;
        let hook = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone());
        let gentle = async {
            if let Some(hook) = hook
                && let Err(error) = self.hook(&hook, asked).await
            {
                self.say(Tone::Warning, "FailedPreStopHook", &format!("PreStopHook failed: {error}"));
            }
            let signal = self.stop_signal();
            self.kit.link.signal(process, signal).await;
            std::future::pending::<()>().await;
        };
        let mut gentle = std::pin::pin!(gentle);
        let mut open = true;
        loop {
            tokio::select! {
                end = &mut *exit => return end,
                () = &mut gentle => {}
                () = tokio::time::sleep_until(deadline) => break,
                changed = stop.changed(), if open => {
                    open = changed.is_ok();
                    if let Some(nearer) = *stop.borrow() {
                        deadline = deadline.min(nearer);
                    }
                }
            }
        }
        self.kit.link.signal(process, Signal::SIGKILL).await;
        exit.await
    }

    fn stop_signal(&self) -> Signal {
        let named = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
        named.and_then(|name| name.parse().ok()).unwrap_or(Signal::SIGTERM)
    }

    async fn hook(&self, hook: &LifecycleHandler, asked: &Asked) -> Result<(), ProbeError> {
        if let Some(exec) = &hook.exec {
            return asked.exec(exec.command.as_deref().unwrap_or_default()).await;
        }
        if let Some(get) = &hook.http_get {
            return asked.http_get(get).await;
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        }
        Ok(())
    }

    /// postStart and probes; returns only with a reason to kill.
    async fn watch_over(&self, asked: &Asked) -> String {
        if let Some(hook) = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
            && let Err(error) = self.hook(hook, asked).await
        {
            self.say(Tone::Warning, "FailedPostStartHook", &format!("PostStartHook failed: {error}"));
            return format!("FailedPostStartHook: container {} will be killed", self.name());
        }
        if let Some(probe) = &self.container.startup_probe {
            let mut counter = Counter::new(probe);
            let rhythm = Rhythm::new(probe);
            tokio::time::sleep(rhythm.delay).await;
            // A program that has just begun is asked more often; only what goes by the probe's own period counts.
            let mut eager = EAGER.iter();
            loop {
                let answer = asked.ask(probe).await;
                if answer.is_err()
                    && let Some(wait) = eager.next()
                {
                    tokio::time::sleep((*wait).min(rhythm.period)).await;
                    continue;
                }
                if let Err(error) = &answer {
                    self.say(Tone::Warning, "Unhealthy", &format!("Startup probe failed: {error}"));
                }
                match counter.take(answer.is_ok()) {
                    Some(true) => break,
                    Some(false) => {
                        return format!("Container {} failed startup probe, will be restarted", self.name());
                    }
                    None => tokio::time::sleep(rhythm.period).await,
                }
            }
        }
        let gated = self.container.readiness_probe.is_some();
        self.cell(|cell| {
            cell.started = true;
            cell.ready = !gated;
        });
        tokio::select! {
            () = self.watch_readiness(asked) => unreachable_reason(),
            why = self.watch_life(asked) => why,
        }
    }

    async fn watch_readiness(&self, asked: &Asked) {
        let Some(probe) = &self.container.readiness_probe else { return std::future::pending().await };
        let (mut counter, rhythm) = (Counter::new(probe), Rhythm::new(probe));
        tokio::time::sleep(rhythm.delay).await;
        let mut eager = EAGER.iter();
        loop {
            let answer = asked.ask(probe).await;
            let ready = self.board.read(self.name(), |cell| cell.ready).unwrap_or_default();
            let next = if ready { None } else { eager.next() };
            if let Err(error) = &answer
                && next.is_none()
            {
                self.say(Tone::Warning, "Unhealthy", &format!("Readiness probe failed: {error}"));
            }
            if let Some(verdict) = counter.take(answer.is_ok())
                && verdict != ready
            {
                self.cell(|cell| cell.ready = verdict);
            }
            tokio::time::sleep(next.copied().unwrap_or(rhythm.period).min(rhythm.period)).await;
        }
    }

    async fn watch_life(&self, asked: &Asked) -> String {
        let Some(probe) = &self.container.liveness_probe else { return std::future::pending().await };
        let (mut counter, rhythm) = (Counter::new(probe), Rhythm::new(probe));
        tokio::time::sleep(rhythm.delay).await;
        loop {
            let answer = asked.ask(probe).await;
            if let Err(error) = &answer {
                self.say(Tone::Warning, "Unhealthy", &format!("Liveness probe failed: {error}"));
            }
            if counter.take(answer.is_ok()) == Some(false) {
                return format!("Container {} failed liveness probe, will be restarted", self.name());
            }
            tokio::time::sleep(rhythm.period).await;
        }
    }
}

/// The first waits between probes of a container that is not ready yet, so that a good one is soon.
const EAGER: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1000),
];

fn unreachable_reason() -> String {
    "readiness is no longer watched".to_owned()
}
