//! Faults of what the sidecars live on: a pilot that comes and goes, certificates that run out.
//!
//! Never here: faults on the way of a request. Called by the suite `faults`.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    rig::{LIMIT, SERVICE},
    sandbox::until,
};

use super::load;
use crate::Faults;

/// How long pilot is away, at the least.
const AWAY: Duration = Duration::from_secs(2);

pub(crate) fn flapping_pilot(f: &Faults) -> Result<()> {
    let connected = |f: &Faults| f.rig.borrow().stat("client", "control_plane.connected_state");
    load::under(f, || {
        for _ in 0..3 {
            f.rig.borrow().kill_pilot()?;
            until("the sidecar sees that pilot has gone", LIMIT, || {
                ensure!(connected(f)? == 0);
                Ok(())
            })?;
            sleep(AWAY);
            f.rig.borrow_mut().start_pilot()?;
            // CONTROL: it is found again.
            until("the sidecar finds pilot again", LIMIT, || {
                ensure!(connected(f)? == 1);
                Ok(())
            })?;
        }
        Ok(())
    })
}

pub(crate) fn certificates(f: &Faults) -> Result<()> {
    let rig = f.rig.borrow();
    // Every request makes a handshake of its own.
    let rule = rig.path("mesh/rule.yaml");
    fs::write(
        &rule,
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: app, namespace: default}\nspec: {host: app, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}\n",
    )?;
    let made = || rig.stat("client", "cluster.outbound|5000||app.default.svc.cluster.local.upstream_cx_total");
    until("every request makes a connection", LIMIT, || {
        let before = made()?;
        for _ in 0..5 {
            rig.get(SERVICE, "/size/1")?;
        }
        ensure!(made()? >= before + 5);
        Ok(())
    })?;
    let both = |life: Option<Duration>| -> Result<()> {
        rig.identity("client", life)?;
        rig.identity("app", life)
    };
    let shown = |life: Duration| {
        until("the certificates are in use", LIMIT, || {
            for host in ["client", "app"] {
                let page = rig.admin(host, "/certs")?;
                let until = page.split("expiration_time\":\"").nth(1).and_then(|rest| rest.split('"').next());
                let year = until.and_then(|text| text.get(..4)).unwrap_or_default();
                ensure!((year == "2090") == life.is_zero(), "{host} shows {page}");
            }
            Ok(())
        })
    };
    load::under(f, || {
        let life = Duration::from_secs(15);
        both(Some(life))?;
        shown(life)?;
        both(None)?;
        shown(Duration::ZERO)?;
        // The load goes on when the first ones have run out.
        sleep(life);
        Ok(())
    })?;
    let life = Duration::from_secs(6);
    both(Some(life))?;
    shown(life)?;
    sleep(life);
    // CONTROL: one that ran out is refused, and the access log says why.
    ensure!(rig.get(SERVICE, "/size/1").is_err(), "a certificate that ran out was taken");
    until("the log tells it", LIMIT, || {
        ensure!(fs::read_to_string(f.log())?.contains("CertExpired"));
        Ok(())
    })?;
    both(None)?;
    shown(Duration::ZERO)?;
    until("served again after renewal", LIMIT, || rig.get(SERVICE, "/size/1").map(drop))?;
    Ok(fs::remove_file(rule)?)
}
