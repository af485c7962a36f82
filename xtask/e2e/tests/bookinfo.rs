//! Bookinfo through the mesh: what the page shows, what the wire shows, who is served.
//!
//! Never here: faults; the suite `resilience` makes them. Run by `cargo xtask test`.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    bookinfo::{Bookinfo, manifest},
    judge,
    sandbox::until,
    suite::{self, Outcome, Test},
};

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let tests = vec![
        Test::new("sixty_loads_show_all_versions_of_reviews", all_versions),
        Test::new("rules_move_traffic", rules_move_traffic),
        Test::maybe("openssl_sees_the_spiffe_identity", openssl_sees_the_identity),
        Test::new("a_pod_without_sidecar_is_refused_under_strict_and_served_under_permissive", strict_and_permissive),
        Test::new("samples_get_ready_under_both_kinds_of_injection", samples_get_ready),
        Test::maybe("every_public_sample_applies_but_the_listed", every_public_sample_applies),
        Test::new("bad_input_is_refused_by_object_and_path", bad_input),
        Test::new("proxies_are_listed_and_in_sync", proxies_in_sync),
        Test::maybe("chart_manifest_and_meshctl_name_the_same_objects", same_objects),
        Test::new("uninstall_leaves_nothing", uninstall_leaves_nothing),
    ];
    suite::run("bookinfo", tests, || Bookinfo::start("bookinfo"))
}

fn all_versions(b: &Bookinfo) -> Result<()> {
    let seen = b.versions(60)?;
    ensure!(seen == ["v1", "v2", "v3"], "{seen:?}");
    Ok(())
}

fn rules_move_traffic(b: &Bookinfo) -> Result<()> {
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

/// A namespace with a caller and httpbin, with or without sidecars; ready.
fn pair(b: &Bookinfo, namespace: &str, injected: bool) -> Result<()> {
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

fn ask(b: &Bookinfo, namespace: &str, url: &str) -> Result<String> {
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

fn openssl_sees_the_identity(b: &Bookinfo) -> Result<Outcome> {
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

fn strict_and_permissive(b: &Bookinfo) -> Result<()> {
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

fn samples_get_ready(b: &Bookinfo) -> Result<()> {
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
    ("bookinfo-psa.yaml", "names namespaces of its own"),
];

fn every_public_sample_applies(b: &Bookinfo) -> Result<Outcome> {
    let shared = match judge::shared() {
        Ok(shared) => shared.join("istio/samples"),
        Err(reason) => return Ok(Outcome::NotRun(reason)),
    };
    let k = b.kubectl.within("public-samples");
    k.ok(&["create", "namespace", "public-samples"])?;
    let mut folders = vec![shared.clone()];
    let (mut applied, mut wrong) = (0, Vec::new());
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
                (0, Some(_)) | (_, Some(_)) => {}
                (_, None) => wrong.push(format!("{name}: {}", said.err.trim())),
            }
        }
    }
    k.ok(&["delete", "namespace", "public-samples", "--wait=false"])?;
    ensure!(wrong.is_empty(), "{applied} files applied, and these did not:\n{}", wrong.join("\n"));
    Ok(Outcome::Passed)
}

fn bad_input(b: &Bookinfo) -> Result<()> {
    let route = |rest: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: bad}}\nspec:\n  hosts: [reviews]\n  http:\n  - {rest}\n"
        )
    };
    let refused = |yaml: &str, parts: &[&str]| -> Result<()> {
        let err = b.kubectl.fed(&["apply", "-f", "-"], yaml)?.fails()?;
        for part in parts {
            ensure!(err.contains(part), "expected {part:?} in: {err}");
        }
        Ok(())
    };
    refused(&route("route: [{destination: {host: reviews}, weight: -1}]"), &["spec.http[0].route[0].weight"])?;
    refused(
        &route("{match: [{uri: {regex: '(('}}], route: [{destination: {host: reviews}}]}"),
        &["spec.http[0].match[0].uri"],
    )?;
    refused(&route("{route: [{destination: {host: reviews}}], timeut: 1s}"), &["timeut"])?;
    refused(&route("{route: [{destination: {host: reviews}}], timeout: [1]}"), &["timeout"])?;
    refused("apiVersion: v1\nkind: [", &[])?;
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: guard}\nspec: {action: DENY, rules: [{}]}\n";
    refused(policy, &["AuthorizationPolicy", "not enforced"])?;
    let warned = b.kubectl.fed(
        &["apply", "-f", "-"],
        &route("route: [{destination: {host: nowhere.example}}]").replace("bad", "warned"),
    )?;
    ensure!(warned.code == 0 && warned.err.contains("nowhere.example"), "{}", warned.all());
    b.kubectl.ok(&["delete", "virtualservice", "warned"])?;
    let left = b.kubectl.ok(&["get", "virtualservices", "-o", "name"])?;
    ensure!(!left.contains("bad"), "{left}");
    ensure!(!b.versions(3)?.is_empty());
    Ok(())
}

fn proxies_in_sync(b: &Bookinfo) -> Result<()> {
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

/// Kind and name of every object in a YAML text.
fn named(yaml: &str) -> Result<std::collections::BTreeMap<String, serde_json::Value>> {
    let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).map_err(|error| anyhow::anyhow!("{error}"))?;
    let documents = all.into_iter().filter(|one| !one.is_null() && one["kind"] != "Namespace");
    Ok(documents.map(|one| (format!("{}/{}", one["kind"], one["metadata"]["name"]), one)).collect())
}

fn same_objects(b: &Bookinfo) -> Result<Outcome> {
    let ours = named(&b.sandbox.meshctl(&["manifest", "generate", "--set", "profile=demo"])?.ok()?)?;
    let deploy = judge::workspace().join("deploy");
    let mut plain = named(&std::fs::read_to_string(deploy.join("manifests/istio-demo.yaml"))?)?;
    for crds in ["crds/istio.yaml", "crds/old.yaml"] {
        plain.extend(named(&std::fs::read_to_string(deploy.join(crds))?)?);
    }
    ensure!(ours == plain, "deploy/manifests/istio-demo.yaml differs from `meshctl manifest generate`");
    let Some(helm) = judge::program("helm") else {
        return Ok(Outcome::NotRun("helm is not installed".to_owned()));
    };
    let chart = judge::workspace().join("deploy/charts/istio");
    let mut command = std::process::Command::new(helm);
    let rendered =
        e2e::kubectl::Said::of(command.args(["template", "istio"]).arg(chart).args(["--namespace", "istio-system"]))?
            .ok()?;
    let chart = named(&rendered)?;
    for (name, object) in &ours {
        ensure!(chart.get(name) == Some(object), "{name} differs in the chart");
    }
    ensure!(chart.len() == ours.len(), "the chart has objects of its own");
    Ok(Outcome::Passed)
}

fn uninstall_leaves_nothing(b: &Bookinfo) -> Result<()> {
    b.sandbox.meshctl(&["uninstall", "--purge", "-y"])?.ok()?;
    let mut left = Vec::new();
    for kind in [
        "customresourcedefinitions",
        "clusterroles",
        "clusterrolebindings",
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "namespaces",
    ] {
        let names = b.kubectl.ok(&["get", kind, "-o", "name"])?;
        left.extend(names.lines().filter(|name| name.contains("istio")).map(str::to_owned));
    }
    let maps = b.kubectl.ok(&["get", "configmaps", "-A", "-o", "name"])?;
    left.extend(maps.lines().filter(|name| name.contains("istio-ca-root-cert")).map(str::to_owned));
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}
