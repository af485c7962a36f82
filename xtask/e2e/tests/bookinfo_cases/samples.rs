//! Samples, our own and the public ones: which apply, and which get ready.
//!
//! Never here: what they answer. Called by the suite `bookinfo`.

use anyhow::{Result, ensure};
use e2e::{
    bookinfo::{Bookinfo, manifest},
    judge,
    suite::Outcome,
};

pub(crate) fn samples_get_ready(b: &Bookinfo) -> Result<()> {
    let samples = [
        "bookinfo/platform/kube/bookinfo.yaml",
        "helloworld/helloworld.yaml",
        "httpbin/httpbin.yaml",
        "curl/curl.yaml",
    ];
    for (namespace, by_webhook) in [("by-webhook", true), ("by-hand", false)] {
        let k = b.kubectl.within(namespace);
        k.ok(&["create", "namespace", namespace])?;
        if by_webhook {
            k.ok(&["label", "namespace", namespace, "istio-injection=enabled"])?;
        }
        for sample in samples {
            if by_webhook {
                k.ok(&["apply", "-f", &manifest(sample)])?;
            } else {
                k.apply(&b.sandbox.meshctl(&["kube-inject", "-f", &manifest(sample)])?.ok()?)?;
            }
        }
        k.ok(&["wait", "--for=condition=Available", "deployment", "--all", "--timeout=180s"])?;
        let ready = k.ok(&["get", "pods", "--no-headers"])?;
        ensure!(ready.lines().all(|line| line.contains("2/2")), "{namespace}:\n{ready}");
        k.ok(&["delete", "namespace", namespace, "--wait=false"])?;
    }
    Ok(())
}

/// Files of the public samples that a single-stack cluster with Istio's CRDs alone refuses too, and those not yet honoured.
const REFUSED: &[(&str, &str)] = &[
    ("gateway-api/", "kinds of the Gateway API"),
    ("bookinfo-certificate.yaml", "a kind of cert-manager"),
    ("certmanager-gateway.yaml", "a kind of cert-manager"),
    ("dualstack", "IPv6 families on a single-stack cluster"),
    ("dual-stack", "IPv6 families on a single-stack cluster"),
    ("tcp-echo-ipv6.yaml", "IPv6 families on a single-stack cluster"),
    ("productpage_envoy_ratelimit.yaml", "EnvoyFilter is refused until it is enforced"),
    ("ratelimit/local-rate-limit-service.yaml", "EnvoyFilter is refused until it is enforced"),
];

pub(crate) fn every_public_sample_applies(b: &Bookinfo) -> Result<Outcome> {
    let shared = match judge::shared() {
        Ok(shared) => shared.join("istio/samples"),
        Err(reason) => return Ok(Outcome::NotRun(reason)),
    };
    let k = b.kubectl.within("public-samples");
    k.ok(&["create", "namespace", "public-samples"])?;
    let mut folders = vec![shared.clone()];
    let (mut applied, mut refused, mut wrong) = (0, 0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|ending| ending != "yaml") {
                continue;
            }
            let name = path.strip_prefix(&shared)?.display().to_string();
            let listed = REFUSED.iter().find(|(part, _)| name.contains(part));
            let said = k.run(&["apply", "-f", &path.display().to_string()])?;
            match (said.code, listed) {
                (0, None) => applied += 1,
                (0, Some((_, reason))) => wrong.push(format!("{name} applies, but is listed: {reason}")),
                (_, Some(_)) => refused += 1,
                (_, None) => wrong.push(format!("{name}: {}", said.err.trim())),
            }
        }
    }
    k.ok(&["delete", "namespace", "public-samples", "--wait=false"])?;
    eprintln!("  {applied} files applied, {refused} were refused as listed");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(applied > 0 && refused > 0, "{applied} applied, {refused} refused");
    Ok(Outcome::Passed)
}
