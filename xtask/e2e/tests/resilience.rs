//! Kills, absences, rollouts and changes under load: no request may fail.
//!
//! Judged by the page's content, and by what every sidecar counted. Never here: what is served when nothing happens.

mod resilience_cases;

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bookinfo::{Bookinfo, manifest, whole, whole_pages},
    counters::{Counters, Watch},
    judge,
    kubectl::Said,
    load::Load,
    processes,
    sandbox::until,
    suite::{self, Test},
};
use resilience_cases::changes;

const PER_SECOND: u32 = 200;
/// Requests before something is done, and after it.
const AROUND: u64 = 400;
/// How long a part of the control plane is away.
const AWAY: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let tests = vec![
        Test::new("pilot_killed_and_away_fails_no_request", |b: &Bookinfo| killed_and_away(b, "istio-pilot", "pilot")),
        Test::new("citadel_killed_and_away_fails_no_request", |b: &Bookinfo| {
            killed_and_away(b, "istio-citadel", "citadel")
        }),
        Test::new("injector_killed_and_away_fails_no_request", |b: &Bookinfo| {
            killed_and_away(b, "istio-sidecar-injector", "injector")
        }),
        Test::new("restarting_every_deployment_fails_no_request", rollouts),
        Test::new("a_hundred_changes_fail_no_request_and_no_old_version_serves_after_the_ack", changes::changes),
        Test::new("kill_9_of_the_daemon_leaves_nothing_and_state_comes_back", daemon_killed),
    ];
    suite::run("resilience", tests, || {
        let b = Bookinfo::start("resilience")?;
        b.kubectl.ok(&["apply", "-f", &manifest("bookinfo/networking/destination-rule-all.yaml")])?;
        Ok(b)
    })
}

/// The hop of a page at productpage's own sidecar.
fn at_productpage(pod: &str, series: &str) -> bool {
    pod.starts_with("productpage-")
        && series.starts_with("istio_requests_total")
        && series.contains("reporter=\"destination\"")
}

/// A reply that no hop may give.
fn failed(_: &str, series: &str) -> bool {
    let good = series.contains("response_code=\"2") || series.contains("response_code=\"304\"");
    series.starts_with("istio_requests_total") && !good
}

fn retried(_: &str, series: &str) -> bool {
    series.starts_with("envoy_cluster_upstream_rq_retry{")
}

/// Does something under load: every page is whole, and every hop of it is counted and answered by 2xx, also at Pods that
/// end meanwhile.
fn under_load(b: &Bookinfo, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = Counters::read(&b.sandbox)?;
    let watch = Watch::start(&b.sandbox);
    let load = Load::start(b.gateway, "/productpage", PER_SECOND, whole_pages());
    load.goes_on(AROUND)?;
    let acted = act();
    let went_on = load.goes_on(AROUND);
    let report = load.stop()?;
    let after = watch.stop(&b.sandbox)?;
    acted?;
    went_on?;
    let retries: u64 = after.added(&before, retried).iter().map(|(_, more)| more).sum();
    let counted: u64 = after.added(&before, at_productpage).iter().map(|(_, more)| more).sum();
    eprintln!(
        "  {} requests, {} failed, {retries} retries by sidecars and gateways, slowest {:?}",
        report.sent, report.failed, report.slowest
    );
    for (series, more) in after.added(&before, retried) {
        eprintln!("    {more} retries: {series}");
    }
    let failed = after.added(&before, failed);
    report.all_well().with_context(|| format!("hops that answered other than 2xx: {failed:#?}"))?;
    ensure!(failed.is_empty(), "hops that answered other than 2xx:\n{failed:#?}");
    ensure!(counted >= report.sent, "of {} requests only {counted} were counted at productpage", report.sent);
    Ok(())
}

fn killed_and_away(b: &Bookinfo, deployment: &str, program: &str) -> Result<()> {
    let k = b.kubectl.within("istio-system");
    under_load(b, || {
        let pids = processes::below(b.sandbox.pid()?, program)?;
        ensure!(!pids.is_empty(), "no process of {program}");
        for pid in pids {
            Said::of(Command::new("kill").args(["-9", &pid.to_string()]))?.ok()?;
        }
        k.ok(&["rollout", "status", &format!("deploy/{deployment}"), "--timeout=60s"])?;
        k.ok(&["scale", "deploy", deployment, "--replicas=0"])?;
        std::thread::sleep(AWAY);
        k.ok(&["scale", "deploy", deployment, "--replicas=1"])?;
        k.ok(&["rollout", "status", &format!("deploy/{deployment}"), "--timeout=60s"]).map(drop)
    })
}

fn rollouts(b: &Bookinfo) -> Result<()> {
    under_load(b, || {
        for name in b.kubectl.ok(&["get", "deployments", "-o", "name"])?.lines() {
            b.kubectl.ok(&["rollout", "restart", name])?;
        }
        for name in b.kubectl.ok(&["get", "deployments", "-o", "name"])?.lines() {
            b.kubectl.ok(&["rollout", "status", name, "--timeout=120s"])?;
        }
        Ok(())
    })
}

fn daemon_killed(b: &Bookinfo) -> Result<()> {
    let before = b.kubectl.ok(&["get", "deployments", "-A", "-o", "name"])?;
    let pid = b.sandbox.pid()?;
    let children: Vec<i32> = ["pilot", "citadel", "injector", "proxy", "samples"]
        .iter()
        .map(|program| processes::below(pid, program))
        .collect::<Result<Vec<_>>>()?
        .concat();
    ensure!(children.len() > 10, "only {children:?}");
    Said::of(Command::new("kill").args(["-9", &pid.to_string()]))?.ok()?;
    until("every process is gone", Duration::from_secs(2), || {
        let alive: Vec<&i32> = children.iter().filter(|pid| processes::running(**pid)).collect();
        ensure!(alive.is_empty(), "{alive:?}");
        Ok(())
    })?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&b.sandbox.state().display().to_string()), "a mount is left:\n{mounts}");
    let links = Said::of(Command::new(judge::program("ip").context("no ip")?).args(["-o", "link"]))?.ok()?;
    ensure!(!links.contains("veth"), "an interface is left:\n{links}");
    b.sandbox.meshctl(&["up"])?.ok()?;
    ensure!(b.kubectl.ok(&["get", "deployments", "-A", "-o", "name"])? == before, "not every Deployment came back");
    until("productpage answers again", LIMIT, || {
        let (status, body) = b.page("/productpage")?;
        ensure!(whole(status, &body).is_none(), "{status}");
        Ok(())
    })
}
