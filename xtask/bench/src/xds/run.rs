//! The order of a run: load, herd, changes, restart; measured from outside by the kernel's counters.
//!
//! Never here: how a stream talks (`stream`), or how a result is shown (`report`). Called by `bench::xds`.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use api_xds::{TYPE_URL_ENDPOINTS, TYPE_URL_LISTENER, TYPE_URL_ROUTES, TYPE_URL_VIRTUAL_HOST};
use tokio::task::LocalSet;

use super::{
    Manner, Options,
    change::Awaited,
    mesh::{self, Folder},
    pilot::{self, Pilot},
    report::{self, Herd, Load, Outcome, Restart, Spread},
    stream::{Board, Client},
};

/// How long a herd may take.
const HERD_LIMIT: Duration = Duration::from_secs(180);
/// How long a change may take to reach the last stream.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);
/// Pilot rests when it used less than a tick over this time.
const REST: Duration = Duration::from_millis(200);
/// Times that each change is made; medians are told.
const ROUNDS: usize = 3;

#[expect(clippy::disallowed_methods, reason = "a bench measures")]
fn now() -> Instant {
    Instant::now()
}

/// Runs every combination asked for, and prints and writes what came of it.
pub(crate) fn all(options: &Options) -> Result<()> {
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most)?;
    pilot::pin_client()?;
    let mut outcomes = Vec::new();
    for streams in &options.streams {
        for manner in &options.manners {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let outcome = LocalSet::new().block_on(&runtime, one(options, *streams, *manner))?;
            report::show(&outcome);
            outcomes.push(outcome);
        }
    }
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&outcomes)?;
        std::fs::write(file, json + "\n").with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(())
}

struct Run<'o> {
    options: &'o Options,
    streams: usize,
    manner: Manner,
    folder: Folder,
    pilot: Pilot,
    board: Rc<Board>,
}

async fn one(options: &Options, streams: usize, manner: Manner) -> Result<Outcome> {
    let folder = Folder::write()?;
    let pilot = Pilot::start(&options.pilot, folder.path(), None)?;
    let mut run = Run { options, streams, manner, folder, pilot, board: Rc::default() };
    let ready = run.pilot.ready_after;
    run.rest().await?;
    let load = Load { ready_s: ready.as_secs_f64(), rss_mb: run.pilot.rss_mb()? };
    let herd = run.herd().await?;
    let (routes, host) = match manner {
        Manner::Ours => (TYPE_URL_VIRTUAL_HOST, mesh::changed_host()),
        Manner::Envoy => (TYPE_URL_ROUTES, mesh::HTTP_PORT.to_string()),
    };
    // sidecars of one namespace in so many
    let selected = (0..streams).filter(|index| index % mesh::NAMESPACES == 0).count();
    let endpoint = run.change(TYPE_URL_ENDPOINTS, &mesh::changed_cluster(), streams, Folder::move_endpoint).await?;
    let route = run.change(routes, &host, streams, Folder::set_header).await?;
    let policy = run.change(TYPE_URL_LISTENER, "virtualInbound", selected, Folder::set_policy).await?;
    let peak = run.pilot.peak_mb()?;
    let restart = run.restart().await?;
    Ok(Outcome { streams, manner: manner.name(), load, herd, peak_mb: peak, endpoint, route, policy, restart })
}

impl Run<'_> {
    /// Waits until pilot does nothing more.
    async fn rest(&self) -> Result<()> {
        let mut before = (self.pilot.cpu()?, self.board.bytes.get());
        loop {
            tokio::time::sleep(REST).await;
            let after = (self.pilot.cpu()?, self.board.bytes.get());
            if after == before {
                return Ok(());
            }
            before = after;
        }
    }

    /// Waits for something that streams tell of.
    async fn until(&self, what: &str, limit: Duration, done: impl Fn(&Board) -> bool) -> Result<()> {
        let began = now();
        while !done(&self.board) {
            ensure!(
                began.elapsed() < limit,
                "{what}: not within {limit:?}; {} of {} streams open, {} configured, {} cut",
                self.board.open.get(),
                self.streams,
                self.board.configured.borrow().len(),
                self.board.cut.get()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    async fn herd(&mut self) -> Result<Herd> {
        let (cpu, began) = (self.pilot.cpu()?, now());
        for index in 0..self.streams {
            tokio::task::spawn_local(Client::new(index, self.manner, &self.board).run(self.pilot.address));
        }
        let streams = self.streams;
        self.until("all configured", HERD_LIMIT, |board| board.configured.borrow().len() >= streams).await?;
        let times: Vec<Duration> =
            self.board.configured.borrow().iter().map(|at| at.saturating_duration_since(began)).collect();
        self.rest().await?;
        let each = 1.0 / report::number(self.streams);
        Ok(Herd {
            configured_s: report::spread(&times),
            cpu_ms_each: (self.pilot.cpu()? - cpu).as_secs_f64() * 1e3 * each,
            mb_each: report::number(usize::try_from(self.board.bytes.get())?) / 1e6 * each,
            rss_mb: self.pilot.rss_mb()?,
            peak_mb: self.pilot.peak_mb()?,
            cut: self.board.cut.take(),
            refused: self.board.refused.take(),
        })
    }

    async fn change(
        &mut self,
        type_url: &'static str,
        name: &str,
        concerned: usize,
        make: impl Fn(&Folder, usize) -> Result<()>,
    ) -> Result<Spread> {
        let mut rounds = Vec::new();
        for round in 1..=ROUNDS {
            let cpu = self.pilot.cpu()?;
            *self.board.awaited.borrow_mut() = Some(Awaited::new(type_url, name, now()));
            make(&self.folder, round)?;
            let all_saw = |board: &Board| board.awaited.borrow().as_ref().is_some_and(|a| a.count() >= concerned);
            self.until(&format!("the change of {name}"), CHANGE_LIMIT, all_saw).await?;
            self.rest().await?;
            let awaited = self.board.awaited.borrow_mut().take().context("nobody watched")?;
            let [first, middle, last] = awaited.spread();
            rounds.push(Spread {
                concerned,
                first_s: first.as_secs_f64(),
                median_s: middle.as_secs_f64(),
                last_s: last.as_secs_f64(),
                cpu_ms: (self.pilot.cpu()? - cpu).as_secs_f64() * 1e3,
                cpu_ms_each: (self.pilot.cpu()? - cpu).as_secs_f64() * 1e3 / report::number(self.streams),
                kb_each: report::number(awaited.bytes()) / 1e3 / report::number(concerned),
            });
        }
        rounds.sort_by(|a, b| a.last_s.total_cmp(&b.last_s));
        Ok(rounds.swap_remove(ROUNDS / 2))
    }

    /// Pilot is killed and comes back; an endpoint changes meanwhile, so that every stream has something to be told.
    async fn restart(mut self) -> Result<Restart> {
        let address = self.pilot.address;
        self.board.restarting.set(true);
        self.pilot.kill()?;
        self.until("all streams see the end", CHANGE_LIMIT, |board| board.open.get() == 0).await?;
        self.folder.move_endpoint(ROUNDS + 1 - 2)?;
        *self.board.awaited.borrow_mut() = Some(Awaited::new(TYPE_URL_ENDPOINTS, mesh::changed_cluster(), now()));
        let before = self.board.bytes.get();
        self.pilot = Pilot::start(&self.options.pilot, self.folder.path(), Some(address))?;
        self.board.restarting.set(false);
        let streams = self.streams;
        let all = |board: &Board| board.awaited.borrow().as_ref().is_some_and(|a| a.count() >= streams);
        self.until("all streams are told again", HERD_LIMIT, all).await?;
        self.rest().await?;
        let awaited = self.board.awaited.borrow_mut().take().context("nobody watched")?;
        let [_, middle, last] = awaited.spread();
        let bytes = usize::try_from(self.board.bytes.get() - before)?;
        Ok(Restart {
            median_s: middle.as_secs_f64(),
            last_s: last.as_secs_f64(),
            kb_each: report::number(bytes) / 1e3 / report::number(self.streams),
            cpu_ms_each: self.pilot.cpu()?.as_secs_f64() * 1e3 / report::number(self.streams),
            peak_mb: self.pilot.peak_mb()?,
            cut: self.board.cut.take(),
            refused: self.board.refused.take(),
        })
    }
}
