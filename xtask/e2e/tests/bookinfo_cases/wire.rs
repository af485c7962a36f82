//! Who is served, who is refused, and what can be read on the way.
//!
//! Never here: identities that are false; `forged` has them. Called by the suite `bookinfo`.

use anyhow::{Result, ensure};
use e2e::{
    bookinfo::{Bookinfo, manifest},
    judge,
    sandbox::until,
    suite::Outcome,
    wiretap::Wiretap,
};

use super::LIMIT;

/// A namespace with a caller and httpbin, with or without sidecars; ready.
pub(super) fn pair(b: &Bookinfo, namespace: &str, injected: bool) -> Result<()> {
    let k = b.kubectl.within(namespace);
    k.ok(&["create", "namespace", namespace])?;
    if injected {
        k.ok(&["label", "namespace", namespace, "istio-injection=enabled"])?;
    }
    for file in ["curl/curl.yaml", "httpbin/httpbin.yaml"] {
        k.ok(&["apply", "-f", &manifest(file)])?;
    }
    k.ok(&["wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s"]).map(drop)
}

pub(super) fn ask(b: &Bookinfo, namespace: &str, url: &str) -> Result<String> {
    b.kubectl.within(namespace).ok(&[
        "exec",
        "deploy/curl",
        "-c",
        "curl",
        "--",
        "curl",
        "-sS",
        "-m",
        "5",
        "-w",
        " %{http_code}",
        url,
    ])
}

pub(crate) fn openssl_sees_the_identity(b: &Bookinfo) -> Result<Outcome> {
    if judge::program("openssl").is_none() {
        return Ok(Outcome::NotRun("openssl is not installed".to_owned()));
    }
    let pod =
        b.kubectl.ok(&["get", "pod", "-l", "app=reviews,version=v1", "-o", "jsonpath={.items[0].status.podIP}"])?;
    let said = b.sandbox.shell(&format!(
        "openssl s_client -connect {pod}:9080 -alpn istio -showcerts </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName"
    ))?;
    let names = said.ok()?;
    ensure!(names.contains("URI:spiffe://cluster.local/ns/default/sa/bookinfo-reviews"), "{names}");
    Ok(Outcome::Passed)
}

pub(crate) fn strict_and_permissive(b: &Bookinfo) -> Result<()> {
    pair(b, "legacy", false)?;
    let reviews = "http://reviews.default:9080/health";
    until("served under PERMISSIVE", LIMIT, || {
        let said = ask(b, "legacy", reviews)?;
        ensure!(said.ends_with(" 200"), "{said}");
        Ok(())
    })?;
    b.kubectl.apply("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n")?;
    until("refused under STRICT", LIMIT, || {
        let said = b.kubectl.within("legacy").run(&[
            "exec",
            "deploy/curl",
            "-c",
            "curl",
            "--",
            "curl",
            "-sS",
            "-m",
            "5",
            reviews,
        ])?;
        ensure!(said.code != 0 && (said.err.contains("reset") || said.err.contains("Empty reply")), "{}", said.all());
        Ok(())
    })?;
    let seen = b.versions(12)?;
    ensure!(!seen.is_empty());
    b.kubectl.ok(&["delete", "peerauthentication", "default"])?;
    until("served again", LIMIT, || {
        let said = ask(b, "legacy", reviews)?;
        ensure!(said.ends_with(" 200"), "{said}");
        Ok(())
    })
}

/// What is sent in the clear is read by whoever listens; with sidecars the same request is not. That the second request
/// was listened to is proven by a third, again in the clear, which is heard after it.
pub(crate) fn marker(b: &Bookinfo) -> Result<Outcome> {
    if judge::program("tcpdump").is_none() {
        return Ok(Outcome::NotRun("tcpdump is not installed".to_owned()));
    }
    pair(b, "in-the-clear", false)?;
    pair(b, "with-sidecars", true)?;
    let tap = Wiretap::start(&b.sandbox)?;
    let send = |namespace: &str, marker: &str| -> Result<()> {
        let said = ask(b, namespace, &format!("http://httpbin:8000/headers?marker={marker}"))?;
        ensure!(said.ends_with(" 200"), "{said}");
        Ok(())
    };
    let heard = |marker: &str| {
        until("what is sent in the clear is heard", LIMIT, || {
            ensure!(tap.heard(marker.as_bytes()), "{marker}");
            Ok(())
        })
    };
    send("in-the-clear", "marker-before-c1f3")?;
    heard("marker-before-c1f3")?;
    send("with-sidecars", "marker-between-90ab")?;
    send("in-the-clear", "marker-after-77d2")?;
    heard("marker-after-77d2")?;
    ensure!(!tap.heard(b"marker-between-90ab"), "a request between two sidecars can be read on the wire");
    // Its connection was heard: the name that Istio's clients give in the clear when they begin.
    let name = b"outbound_.8000_._.httpbin.with-sidecars.svc.cluster.local";
    ensure!(tap.heard(name), "the connection between the two sidecars was not heard");
    drop(tap);
    for namespace in ["in-the-clear", "with-sidecars"] {
        b.kubectl.ok(&["delete", "namespace", namespace, "--wait=false"])?;
    }
    Ok(Outcome::Passed)
}
