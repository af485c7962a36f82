//! Faults of peers: an application that dies, streams that are cut, stalled or slow, storms of resets.
//!
//! Never here: what the machine lacks. Called by the suite `faults`.

use std::{fs, sync::atomic::Ordering::Relaxed, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    fault::{Cut, Plan, Way},
    rig::{self, LIMIT, PORT, Rig, SERVICE, SPOILT},
    sandbox::until,
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::load;
use crate::Faults;

const SPOILT_CLUSTER: &str = "cluster.outbound|5000||spoilt.default.svc.cluster.local";

/// One request through the host that spoils.
struct Reply {
    /// 0: no whole reply.
    status: u16,
    seconds: f64,
}

fn ask(rig: &Rig, path: &str) -> Result<Reply> {
    let url = format!("http://{SPOILT}:{PORT}{path}");
    let host = format!("host: spoilt.default.svc.cluster.local:{PORT}");
    let out = ["-sS", "-m", "15", "-o", "/dev/null", "-w", "%{http_code} %{time_total}"];
    let said = rig.wire.run("client", "curl", &[&out[..], &["-H", &host, &url]].concat())?;
    let (status, seconds) = said.out.trim().split_once(' ').context("curl says nothing")?;
    let status = if said.code == 0 { status.parse()? } else { 0 };
    Ok(Reply { status, seconds: seconds.parse()? })
}

fn served(rig: &Rig) -> Result<()> {
    until("served again", LIMIT, || {
        let found = ask(rig, "/size/100000")?.status;
        ensure!(found == 200, "{found}");
        Ok(())
    })
}

/// Asks until the fault has happened to a request; its status.
fn spoilt(f: &Faults, rig: &Rig, plan: Plan, path: &str) -> Result<u16> {
    let cuts = f.spoiler.cuts();
    f.spoiler.set(plan);
    // A connection that the sidecar kept is closed now, and it may notice late.
    until("the fault happens", LIMIT, || {
        let found = ask(rig, path)?.status;
        ensure!(f.spoiler.cuts() > cuts, "none yet, and the status was {found}");
        Ok(found)
    })
}

pub(crate) fn dies_in_a_body(f: &Faults) -> Result<()> {
    let rig = f.rig.borrow();
    // CONTROL: the same size from an application that lives.
    ensure!(rig.get(SERVICE, "/size/1000000")?.len() == 1_000_000);
    let before = rig.seen.load(Relaxed);
    for _ in 0..20 {
        ensure!(rig.get(SERVICE, "/die/1000000").is_err(), "half a body passed for a whole one");
    }
    let asked = rig.seen.load(Relaxed) - before;
    ensure!(asked == 20, "the application saw {asked} requests of 20: some were sent twice after bytes had come");
    ensure!(rig.get(SERVICE, "/size/1000000")?.len() == 1_000_000);
    Ok(())
}

pub(crate) fn cut_streams(f: &Faults) -> Result<()> {
    let rig = f.rig.borrow();
    // CONTROL: without a cut.
    served(&rig)?;
    for cut in [Cut::Reset, Cut::Close, Cut::HalfClose] {
        for at in [0, 1, 20, 16_384, 100_000] {
            let down = Way { cut: Some((at, cut)), ..Way::default() };
            let found = spoilt(f, &rig, Plan { down, ..Plan::default() }, "/size/100000")?;
            // Past the head there is nothing left to say but that it ended early.
            let may: &[u16] = if at > 100 { &[0] } else { &[502, 503] };
            ensure!(may.contains(&found), "{cut:?} at byte {at}: {found}");
        }
    }
    f.spoiler.set(Plan::default());
    served(&rig)
}

pub(crate) fn stalled(f: &Faults) -> Result<()> {
    let rig = f.rig.borrow();
    // CONTROL: without a stall.
    served(&rig)?;
    let swallow = Plan { up: Way { cut: Some((0, Cut::Swallow)), ..Way::default() }, ..Plan::default() };
    let stall = Plan { down: Way { cut: Some((0, Cut::Stall)), ..Way::default() }, ..Plan::default() };
    let in_body = Plan { down: Way { cut: Some((50_000, Cut::Stall)), ..Way::default() }, ..Plan::default() };
    for (plan, wanted) in [(swallow, 504), (stall, 504), (in_body, 0)] {
        let found = spoilt(f, &rig, plan, "/size/100000")?;
        ensure!(found == wanted, "{plan:?}: {found}");
        until("the slot is free again", LIMIT, || {
            let active = rig.stat("client", &format!("{SPOILT_CLUSTER}.upstream_rq_active"))?;
            ensure!(active == 0, "{active} requests are still counted");
            Ok(())
        })?;
    }
    f.spoiler.set(Plan::default());
    served(&rig)
}

pub(crate) fn slow(f: &Faults) -> Result<()> {
    const DELAY: Duration = Duration::from_millis(200);
    let rig = f.rig.borrow();
    // CONTROL: each way adds its delay at least once, so the peer was slow indeed.
    let wanted = 2.0 * DELAY.as_secs_f64();
    let way = Way { delay: DELAY, rate: Some(100_000), cut: None };
    f.spoiler.set(Plan { up: way, down: way });
    until("a slow peer answers", LIMIT, || {
        let found = ask(&rig, "/size/10000")?;
        ensure!(found.seconds >= wanted, "after {} s", found.seconds);
        ensure!(found.status == 200, "{} after {} s", found.status, found.seconds);
        Ok(())
    })
}

pub(crate) fn reset_storm(f: &Faults) -> Result<()> {
    const STORMS: u32 = 1500;
    let rig = f.rig.borrow();
    let before = rig.stat("client", "listener.downstream_cx_total")?;
    drop(rig);
    load::under(f, || {
        let reset = f.rig.borrow().at_client(async {
            let mut reset = 0;
            for number in 0..STORMS {
                let mut socket = TcpStream::connect(rig::service()).await?;
                // Some say nothing, some half a head, some a whole request.
                let text = rig::request("/size/100000");
                let said = match number % 3 {
                    0 => "",
                    1 => text.get(..20).unwrap_or_default(),
                    _ => text.as_str(),
                };
                socket.write_all(said.as_bytes()).await?;
                if number % 2 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
                reset += 1;
            }
            Ok(reset)
        })?;
        ensure!(reset == STORMS);
        Ok(())
    })?;
    let rig = f.rig.borrow();
    let seen = rig.stat("client", "listener.downstream_cx_total")? - before;
    ensure!(seen >= u64::from(STORMS), "the sidecar saw {seen} connections");
    until("nothing is left open", LIMIT, || {
        let open = rig.stat("client", "listener.downstream_cx_active")?;
        ensure!(open <= 2, "{open} connections are still open");
        Ok(())
    })?;
    // Half a head that breaks off is no reason to connect to anywhere.
    let elsewhere = fs::read_to_string(f.log())?.matches("PassthroughCluster").count();
    ensure!(elsewhere == 0, "{elsewhere} connections were passed on as they came");
    Ok(())
}
