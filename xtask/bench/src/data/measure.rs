//! One measurement: warm up, load, and what the proxies used meanwhile.
//!
//! CPU is divided by what was done between the two readings, and by nothing else.
//! Never here: repetition. Called by `data` for each contender and pass.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    certificates::CLIENT,
    load,
    rig::{Places, Rig},
    shape::{Contender, Load, Shape},
};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
const SETTLE: Duration = Duration::from_secs(1);

/// Figures by name, in the order of [`super::report::COLUMNS`].
pub(super) type Figures = BTreeMap<&'static str, f64>;

fn cpu(rig: &Rig) -> Result<Vec<f64>> {
    rig.proxies.iter().map(|proxy| Ok(proxy.cpu()?.as_secs_f64())).collect()
}

fn resident_kib(rig: &Rig) -> Result<Vec<f64>> {
    rig.proxies.iter().map(|proxy| Ok(proxy.resident_kib()? as f64)).collect()
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Measures once.
pub(super) fn once(places: &Places, shape: &Shape, contender: &Contender, length: Duration) -> Result<Figures> {
    let rig = places.start(contender, shape)?;
    if let Load::Idle { connections } = shape.load {
        return idle(&rig, connections);
    }
    let certificates = places.dir.join(CLIENT);
    let target = places.target(&rig, &certificates);
    load::run(target, shape.load, SETTLE)?;
    let before = cpu(&rig)?;
    let done = load::run(target, shape.load, length)?;
    let used: Vec<f64> = cpu(&rig)?.iter().zip(&before).map(|(after, before)| after - before).collect();
    ensure!(done.failed == 0, "{} of {} failed", done.failed, done.count + done.failed);
    ensure!(done.count > 0, "nothing was answered");
    Ok(figures(shape, &done, &used, most(&resident_kib(&rig)?)))
}

fn figures(shape: &Shape, done: &load::Done, used: &[f64], resident_kib: f64) -> Figures {
    let (count, took) = (done.count as f64, done.took.as_secs_f64());
    let mut figures = Figures::from([("rss_mib", resident_kib / 1024.0)]);
    if matches!(shape.load, Load::Bytes { .. }) {
        figures.insert("gib_s", count / GIB / took);
        figures.insert("cpu_s_gib", used.iter().sum::<f64>() / (count / GIB));
        return figures;
    }
    figures.insert("per_s", count / took);
    if let Some((half, most)) = done.latency {
        figures.insert("p50_us", half);
        figures.insert("p99_us", most);
    }
    let each: Vec<f64> = used.iter().map(|seconds| seconds * 1e6 / count).collect();
    figures.insert("cpu_us", each.iter().sum::<f64>() / each.len() as f64);
    for (name, value) in ["cpu_us_a", "cpu_us_b"].into_iter().zip(&each).filter(|_| each.len() > 1) {
        figures.insert(name, *value);
    }
    figures
}

/// Memory for each connection that waits.
#[expect(clippy::disallowed_methods, reason = "waits until memory is stable")]
fn idle(rig: &Rig, connections: usize) -> Result<Figures> {
    let before = resident_kib(rig)?[0];
    let held = load::idle(rig.address, connections)?;
    let began = Instant::now();
    let mut after = resident_kib(rig)?[0];
    while began.elapsed() < SETTLE {
        std::thread::sleep(SETTLE / 10);
        after = resident_kib(rig)?[0];
    }
    let kib = (after - before) / held.len() as f64;
    Ok(Figures::from([("kib_each", kib), ("rss_mib", after / 1024.0)]))
}
