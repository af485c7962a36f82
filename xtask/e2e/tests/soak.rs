//! Half load with twenty changes a second for a while: no request fails, and no process grows.
//!
//! About 20 s, and as many as `FERROMESH_SOAK_SECONDS` says; memory is judged where a first minute has passed.
//! Never here: faults. Run by `cargo xtask test`, as a user who may make network namespaces.

mod soak_cases;

use std::{fs, process::ExitCode, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    processes,
    rig::{LIMIT, Rig, SERVICE},
    sandbox::until,
    suite::{self, Test},
};
use soak_cases::{
    changes::{Changes, OTHER, pod},
    load::Load,
};

const SECONDS: u64 = 20;
/// How long the most that the sidecars can do is looked for.
const MEASURE: Duration = Duration::from_secs(4);
/// Memory is compared with what it is after so long, and must stay within this share of it.
const FIRST: Duration = Duration::from_secs(60);
const GROWTH_PERCENT: u64 = 10;
/// What it may take beside its length: to measure first, and to see the last change served.
const AROUND: Duration = Duration::from_secs(5 * 60);
/// Pause between looks at memory.
const LOOK: Duration = Duration::from_secs(5);
/// Fewer changes a second than this are not the twenty that were meant.
const CHANGES_MIN: u64 = 18;

fn main() -> ExitCode {
    let length = match length() {
        Ok(length) => length,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let test = Test::new("half_load_under_changes_fails_nothing_and_grows_nothing", move |rig: &Rig| soak(rig, length));
    suite::run("soak", vec![test.within(length + AROUND)], || {
        let mut rig = Rig::start("accessLogFile: /dev/null")?;
        rig.workload("other", OTHER)?;
        fs::write(rig.path("mesh/other.yaml"), pod())?;
        Ok(rig)
    })
}

/// How long it is to last.
fn length() -> Result<Duration> {
    let asked = std::env::var_os("FERROMESH_SOAK_SECONDS");
    let seconds = asked.map_or(Ok(SECONDS), |text| text.to_string_lossy().parse()).context("FERROMESH_SOAK_SECONDS")?;
    Ok(Duration::from_secs(seconds))
}

/// Resident KiB of pilot and the three sidecars.
fn memory(rig: &Rig) -> Result<[u64; 4]> {
    let kib = |pid: Result<i32>| processes::resident_kib(pid?);
    Ok([kib(rig.pilot())?, kib(rig.sidecar("client"))?, kib(rig.sidecar("app"))?, kib(rig.sidecar("other"))?])
}

fn soak(rig: &Rig, length: Duration) -> Result<()> {
    let most = Load::start(rig, None)?;
    sleep(MEASURE);
    let most = most.stop()?;
    ensure!(most.failed == 0, "without changes: {:?}", most.failures);
    let half = u32::try_from(most.sent / MEASURE.as_secs() / 2)?.max(1);

    let changes = Changes::start(&rig.path("mesh"));
    let load = Load::start(rig, Some(half))?;
    let looks = u32::try_from(length.as_secs() / LOOK.as_secs())?.max(1);
    let (mut first, mut highest) = (None, [0; 4]);
    for look in 1..=looks {
        sleep(LOOK);
        let now = memory(rig)?;
        if LOOK * look >= FIRST.min(length / 2) {
            first.get_or_insert(now);
            highest = [0, 1, 2, 3].map(|at| now[at].max(highest[at]));
        }
    }
    let report = load.stop();
    let changed = changes.stop()?;
    let report = report?;
    let first = first.context("memory was never looked at")?;
    eprintln!(
        "  {} s at {half} requests/s (the most was {}): {} requests, {} failed, slowest {:?}",
        length.as_secs(),
        half * 2,
        report.sent,
        report.failed,
        report.slowest
    );
    eprintln!("  {changed} changes; replies showed another version {} times", report.versions);
    eprintln!("  KiB of pilot and the sidecars of client, app and other: {first:?} first, {highest:?} at the most");
    ensure!(report.failed == 0, "{} of {} failed: {:#?}", report.failed, report.sent, report.failures);
    ensure!(changed >= CHANGES_MIN * length.as_secs(), "only {changed} changes");
    // CONTROL: the changes came to the client's sidecar while the load ran, and both endpoints served.
    ensure!(report.versions > 0, "no change was seen by any request");
    until("the last change is served", LIMIT, || {
        let head = rig.head(SERVICE, "/size/1")?.to_ascii_lowercase();
        ensure!(head.contains(&format!("x-change: {changed}\r\n")), "expected change {changed}: {head}");
        Ok(())
    })?;
    let served = rig.stat("other", "listener.downstream_cx_total")?;
    ensure!(served > 0, "the second endpoint never served");
    if length >= 2 * FIRST {
        for (first, highest) in first.into_iter().zip(highest) {
            let most = first + first * GROWTH_PERCENT / 100;
            ensure!(highest <= most, "memory grew from {first} to {highest} KiB");
        }
    }
    Ok(())
}
