//! Memory pressure: how full the process is, and what it gives up for it, step by step.
//!
//! The control thread reads memory a few times a second; workers look at one atomic number. Each step is taken back a
//! little below where it was taken, so that it does not flutter.
//! Never here: how memory is measured (`system`), or what a step does to a connection (its owner asks). Held by
//! `worker::Shared`.

pub(crate) mod system;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    limits::{OVERLOAD_BACK, OVERLOAD_IDLE, OVERLOAD_LOOK, OVERLOAD_STEPS},
    worker::Shared,
};

/// What the process gives up, each with all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Nothing.
    Calm,
    /// Idle connections end soon.
    Short,
    /// Connections end after the request under way: `connection: close`, GOAWAY.
    Parting,
    /// New requests are refused: 503 `overload`.
    Refusing,
    /// New connections are closed.
    Shut,
}

impl Step {
    const ALL: [Self; 5] = [Self::Calm, Self::Short, Self::Parting, Self::Refusing, Self::Shut];

    fn at(number: usize) -> Self {
        Self::ALL.get(number).copied().unwrap_or(Self::Shut)
    }

    fn number(self) -> usize {
        Self::ALL.iter().position(|step| *step == self).unwrap_or(0)
    }

    /// The step that follows from memory.
    fn next(self, memory: Memory) -> Self {
        let percent = memory.used.saturating_mul(100).checked_div(memory.limit).unwrap_or(0);
        let reached = |percent: u64| OVERLOAD_STEPS.iter().filter(|at| percent >= **at).count();
        let (up, down) = (reached(percent), reached(percent.saturating_add(OVERLOAD_BACK)));
        Self::at(self.number().clamp(up, down))
    }
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) used: u64,
    /// 0: none is set.
    pub(crate) limit: u64,
}

/// Why nobody knows how much memory is used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the state of the process could not be read: {0}")]
    Status(io::Error),
    #[error("the state of the process does not say how much memory it uses")]
    NotSaid,
}

/// Where memory is read; tests have their own.
pub(crate) trait Monitor {
    /// What is used and what there is.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&mut self) -> Result<Memory, Unreadable>;
    /// Gives back to the system what is free.
    fn shrink(&mut self);
}

/// The process's step, and how many connections it takes.
#[derive(Debug)]
pub(crate) struct Overload {
    step: AtomicU8,
    /// Memory could not be read when it was looked at last.
    blind: AtomicBool,
    connections_max: u64,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Memory.
    Memory,
    /// As many connections as file descriptors allow.
    Connections,
}

impl Overload {
    /// Takes so many connections at once.
    pub(crate) fn new(connections_max: u64) -> Self {
        Self { step: AtomicU8::new(0), blind: AtomicBool::new(false), connections_max }
    }

    /// The step.
    pub(crate) fn step(&self) -> Step {
        Step::at(usize::from(self.step.load(Relaxed)))
    }

    /// Whether one more connection is taken, beside those that are open.
    pub(crate) fn room(&self, open: u64) -> Result<(), Full> {
        if self.step() >= Step::Shut {
            return Err(Full::Memory);
        }
        if open >= self.connections_max { Err(Full::Connections) } else { Ok(()) }
    }

    /// How long a connection may be idle; `zero`: for ever.
    pub(crate) fn idle(&self, timeout: Duration) -> Duration {
        match self.step() {
            Step::Calm => timeout,
            Step::Short | Step::Parting | Step::Refusing | Step::Shut if timeout.is_zero() => OVERLOAD_IDLE,
            Step::Short | Step::Parting | Step::Refusing | Step::Shut => timeout.min(OVERLOAD_IDLE),
        }
    }

    /// Takes the step that follows from memory; gives it where it is another one.
    fn update(&self, memory: Memory) -> Option<Step> {
        let before = self.step();
        let step = before.next(memory);
        self.step.store(u8::try_from(step.number()).unwrap_or(u8::MAX), Relaxed);
        (step != before).then_some(step)
    }
}

/// Watches memory for ever.
pub(crate) async fn watch(shared: Arc<Shared>, mut monitor: impl Monitor) {
    let mut looks = tokio::time::interval(OVERLOAD_LOOK);
    loop {
        looks.tick().await;
        look(&shared, &mut monitor);
    }
}

pub(crate) fn look(shared: &Shared, monitor: &mut impl Monitor) {
    let memory = monitor.read();
    let was_blind = shared.overload.blind.swap(memory.is_err(), Relaxed);
    let memory = match memory {
        Ok(memory) => memory,
        // The step stays: that files have run out, too, is no sign that memory has come back.
        Err(error) if was_blind => return tracing::trace!(%error, "memory cannot be read"),
        Err(error) => {
            return tracing::warn!(%error, "memory cannot be read: load is shed neither more nor less than now");
        }
    };
    if was_blind {
        tracing::info!("memory can be read again");
    }
    let changed = shared.overload.update(memory);
    let step = shared.overload.step();
    shared.stats.memory_used.set(memory.used);
    shared.stats.memory_limit.set(memory.limit);
    shared.stats.overload_step.set(step.number() as u64);
    match changed {
        Some(Step::Calm) => tracing::info!(used = memory.used, limit = memory.limit, "memory is sufficient again"),
        Some(step) => tracing::warn!(used = memory.used, limit = memory.limit, ?step, "memory is short"),
        None => {}
    }
    if changed.is_some() {
        shared.rouse();
    }
    if step > Step::Calm {
        monitor.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(overload: &Overload, percent: u64, want: Step) {
        overload.update(Memory { used: percent * 10, limit: 1000 });
        assert_eq!(overload.step(), want, "{percent} %");
    }

    #[test]
    fn steps_are_taken_at_their_share_and_taken_back_below_it() {
        let overload = Overload::new(10);
        for (percent, step) in [
            (84, Step::Calm),
            (85, Step::Short),
            (84, Step::Short),
            (82, Step::Calm),
            (93, Step::Parting),
            (99, Step::Shut),
            (97, Step::Shut),
            (95, Step::Refusing),
            (91, Step::Parting),
            (10, Step::Calm),
        ] {
            check(&overload, percent, step);
        }
    }

    #[test]
    fn without_a_limit_there_is_no_pressure() {
        let overload = Overload::new(10);
        overload.update(Memory { used: u64::MAX, limit: 0 });
        assert_eq!(overload.step(), Step::Calm);
    }

    #[test]
    fn connections_have_a_limit_of_their_own() {
        let overload = Overload::new(10);
        assert_eq!((overload.room(9), overload.room(10)), (Ok(()), Err(Full::Connections)));
        check(&overload, 98, Step::Shut);
        assert_eq!(overload.room(0), Err(Full::Memory));
    }

    #[test]
    fn idle_connections_end_sooner_where_memory_is_short() {
        let overload = Overload::new(10);
        let hour = Duration::from_secs(3600);
        assert_eq!((overload.idle(hour), overload.idle(Duration::ZERO)), (hour, Duration::ZERO));
        check(&overload, 86, Step::Short);
        assert_eq!((overload.idle(hour), overload.idle(Duration::ZERO)), (OVERLOAD_IDLE, OVERLOAD_IDLE));
        assert_eq!(overload.idle(Duration::from_secs(1)), Duration::from_secs(1));
    }
}
