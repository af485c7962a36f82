//! What the page shows, what rules change in it, and what the proxies report.
//!
//! Never here: who may call whom. Called by the suite `bookinfo`.

use anyhow::{Result, ensure};
use e2e::{
    bookinfo::{Bookinfo, manifest},
    sandbox::until,
};

use super::LIMIT;

pub(crate) fn all_versions(b: &Bookinfo) -> Result<()> {
    let seen = b.versions(60)?;
    ensure!(seen == ["v1", "v2", "v3"], "{seen:?}");
    Ok(())
}

pub(crate) fn rules_move_traffic(b: &Bookinfo) -> Result<()> {
    let networking = |file: &str| manifest(&format!("bookinfo/networking/{file}"));
    b.kubectl.ok(&["apply", "-f", &networking("destination-rule-all.yaml")])?;
    b.kubectl.ok(&["apply", "-f", &networking("virtual-service-reviews-v3.yaml")])?;
    until("only v3", LIMIT, || {
        let seen = b.versions(12)?;
        ensure!(seen == ["v3"], "{seen:?}");
        Ok(())
    })?;
    b.kubectl.ok(&["apply", "-f", &networking("virtual-service-reviews-50-v3.yaml")])?;
    until("v1 and v3", LIMIT, || {
        let seen = b.versions(40)?;
        ensure!(seen == ["v1", "v3"], "{seen:?}");
        Ok(())
    })?;
    b.kubectl.ok(&["delete", "virtualservice", "reviews"])?;
    b.kubectl.ok(&["delete", "destinationrule", "--all"]).map(drop)
}

pub(crate) fn proxies_in_sync(b: &Bookinfo) -> Result<()> {
    until("all in sync", LIMIT, || {
        let table = b.sandbox.meshctl(&["proxy-status"])?.ok()?;
        for part in ["productpage-v1-", "reviews-v3-", "istio-ingressgateway-"] {
            ensure!(table.contains(part), "{table}");
        }
        ensure!(!table.contains("STALE"), "{table}");
        Ok(())
    })?;
    let pod = b.kubectl.ok(&["get", "pod", "-l", "app=productpage", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let clusters = b.sandbox.meshctl(&["proxy-config", "cluster", &pod])?.ok()?;
    ensure!(clusters.contains("reviews.default.svc.cluster.local"), "{clusters}");
    let version = b.sandbox.meshctl(&["version"])?.ok()?;
    ensure!(version.contains("proxies"), "{version}");
    Ok(())
}
