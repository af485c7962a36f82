//! Kills, absences, rollouts and changes under load: no request may fail.
//!
//! Judged by the page's content, and by what every sidecar counted. Never here: what is served when nothing happens.

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bookinfo::{Bookinfo, manifest, whole, whole_pages},
    judge,
    kubectl::Said,
    load::Load,
    processes,
    sandbox::until,
    suite::{self, Test},
};

const PER_SECOND: u32 = 200;
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
        Test::new("a_hundred_changes_fail_no_request_and_no_old_version_serves_after_the_ack", changes),
        Test::new("kill_9_of_the_daemon_leaves_nothing_and_state_comes_back", daemon_killed),
    ];
    suite::run("resilience", tests, || {
        let b = Bookinfo::start("resilience")?;
        b.kubectl.ok(&["apply", "-f", &manifest("bookinfo/networking/destination-rule-all.yaml")])?;
        Ok(b)
    })
}

/// What every sidecar and gateway counted of replies other than 2xx, and of retries: lines of the metric.
fn counted_failures(b: &Bookinfo) -> Result<Vec<String>> {
    let script = "for ip in $(kubectl get pods -A -o jsonpath='{range .items[*]}{.status.podIP}{\"\\n\"}{end}' | sort -u); do \
                  curl -s -m 3 http://$ip:15020/stats/prometheus | grep '^istio_requests_total' || true; done";
    let said = b.sandbox.shell(script)?.ok()?;
    ensure!(said.contains("istio_requests_total"), "no sidecar shows istio_requests_total");
    let bad = |line: &&str| !line.contains("response_code=\"2") && !line.contains("response_code=\"304\"");
    Ok(said.lines().filter(bad).map(str::to_owned).collect())
}

fn under_load(b: &Bookinfo, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = counted_failures(b)?;
    let load = Load::start(b.gateway, "/productpage", PER_SECOND, whole_pages());
    std::thread::sleep(Duration::from_secs(2));
    let acted = act();
    std::thread::sleep(Duration::from_secs(2));
    let report = load.stop()?;
    acted?;
    eprintln!("  {} requests, {} failed, slowest {:?}", report.sent, report.failed, report.slowest);
    report.all_well()?;
    let after = counted_failures(b)?;
    let new: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    ensure!(new.is_empty(), "hops that answered other than 2xx:\n{new:#?}");
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
        std::thread::sleep(Duration::from_secs(20));
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

/// Each change names itself in a reply header; once the gateway's proxy has acknowledged it, no request that starts is
/// answered by an older one.
#[expect(clippy::disallowed_methods, reason = "which request started before which change is told by the clock")]
fn changes(b: &Bookinfo) -> Result<()> {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };
    let floor = Arc::new(std::sync::Mutex::new(vec![(Instant::now(), 0_u64)]));
    let seen = Arc::new(AtomicU64::new(0));
    let (floors, newest) = (Arc::clone(&floor), Arc::clone(&seen));
    let load = Load::start(
        b.gateway,
        "/productpage",
        50,
        Arc::new(move |status, headers: &http::HeaderMap, body: &str, started| {
            let version: u64 = headers
                .get("x-change")
                .and_then(|value| value.to_str().ok())
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            newest.fetch_max(version, Ordering::Relaxed);
            let least = floors
                .lock()
                .ok()?
                .iter()
                .filter(|(at, _)| *at <= started)
                .map(|(_, version)| *version)
                .max()
                .unwrap_or(0);
            let old = (version < least).then(|| {
                format!("served by change {version}, but {least} was acknowledged before the request started")
            });
            whole(status, body).or(old)
        }),
    );
    let base = std::fs::read_to_string(manifest("bookinfo/networking/bookinfo-gateway.yaml"))?;
    let mut times = Vec::new();
    for change in 1..=100_u64 {
        let yaml = base.replace(
            "    route:\n",
            &format!("    headers: {{response: {{set: {{x-change: '{change}'}}}}}}\n    route:\n"),
        );
        let began = Instant::now();
        b.kubectl.apply(&yaml)?;
        // The newest version is seen only after the swap that the ACK follows.
        until("the change is served", Duration::from_secs(2), || {
            let (_, body) = b.page("/productpage")?;
            ensure!(!body.is_empty());
            ensure!(seen.load(Ordering::Relaxed) >= change, "still {}", seen.load(Ordering::Relaxed));
            Ok(())
        })?;
        times.push(began.elapsed());
        if let Ok(mut floors) = floor.lock() {
            floors.push((Instant::now(), change));
        }
    }
    let report = load.stop()?;
    times.sort();
    eprintln!("  change → served: median {:?}, slowest {:?}; {} requests", times[50], times[99], report.sent);
    report.all_well()
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
