//! The ways to install the mesh: by meshctl, by `install.sh` with kubectl alone, and by the rendered chart.
//!
//! Each leads to Bookinfo answering in a sandbox of its own, and to the same objects; and nothing is left of it after
//! `meshctl uninstall`. Never here: what the objects are. Run by `cargo xtask test`.

use std::{cell::RefCell, collections::BTreeMap, process::Command, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bookinfo::{Bookinfo, FILES, manifest},
    installed::{self, Objects},
    judge,
    kubectl::{Kubectl, Said},
    sandbox::{Sandbox, until},
    suite::{self, Outcome, Test},
};
use serde_json::Value;

const GONE: Duration = Duration::from_secs(60);

/// What each way has put into its sandbox.
#[derive(Default)]
struct Installs(RefCell<BTreeMap<&'static str, Objects>>);

/// A way to install: its name, and what it does.
type Way = (&'static str, fn(&Sandbox) -> Result<()>);

const WAYS: [Way; 3] = [("meshctl", by_meshctl), ("script", by_script), ("chart", by_chart)];

fn main() -> ExitCode {
    let answers = |number: usize| move |installs: &Installs| answers_and_goes(installs, WAYS[number]);
    let tests = vec![
        Test::new("bookinfo_answers_after_meshctl_install_and_uninstall_leaves_nothing", answers(0)),
        Test::new("bookinfo_answers_after_install_sh_and_uninstall_leaves_nothing", answers(1)),
        Test::maybe("bookinfo_answers_after_the_rendered_chart_and_uninstall_leaves_nothing", move |installs| {
            Ok(if judge::program("helm").is_some() {
                answers(2)(installs)?;
                Outcome::Passed
            } else {
                Outcome::NotRun("helm is not installed".to_owned())
            })
        }),
        Test::new("every_way_gives_the_same_objects", same_in_the_cluster),
        Test::maybe("chart_manifest_and_meshctl_name_the_same_objects", same_in_files),
    ];
    suite::run("install", tests, || Ok(Installs::default()))
}

fn by_meshctl(sandbox: &Sandbox) -> Result<()> {
    sandbox.meshctl(&["install", "--set", "profile=demo", "-y"])?.ok().map(drop)
}

fn by_script(sandbox: &Sandbox) -> Result<()> {
    let script = judge::workspace().join("deploy/install.sh");
    Said::of(Command::new("sh").arg(script).arg("demo").env("KUBECONFIG", sandbox.kubeconfig()))?.ok().map(drop)
}

fn by_chart(sandbox: &Sandbox) -> Result<()> {
    let kubectl = sandbox.kubectl()?.within("istio-system");
    kubectl.ok(&["create", "namespace", "istio-system"])?;
    let rendered = rendered()?.context("helm is not installed")?;
    // Helm itself sends CRDs first; kubectl takes them in the order they stand.
    kubectl.fed(&["apply", "--server-side", "-f", "-"], &rendered)?.ok()?;
    kubectl.ok(&["wait", "--for=condition=Available", "deployment", "--all", "--timeout=300s"]).map(drop)
}

/// The chart with its own values; none: Helm is not there.
fn rendered() -> Result<Option<String>> {
    let Some(helm) = judge::program("helm") else { return Ok(None) };
    let chart = judge::workspace().join("deploy/charts/istio");
    let mut command = Command::new(helm);
    command.args(["template", "istio"]).arg(chart).args(["--namespace", "istio-system"]);
    Said::of(&mut command)?.ok().map(Some)
}

fn answers_and_goes(installs: &Installs, (name, install): Way) -> Result<()> {
    let sandbox = Sandbox::start(&format!("install-{name}"))?;
    let kubectl = sandbox.kubectl()?;
    let before = installed::all(&kubectl)?;
    install(&sandbox)?;
    let mut objects = installed::declared(&installed::all(&kubectl)?);
    // The namespace is no part of a chart: who applies it makes it.
    objects.retain(|name, _| !before.contains_key(name) && name != "Namespace//istio-system");
    installs.0.borrow_mut().insert(name, objects);

    let bookinfo = Bookinfo::deploy(sandbox)?;
    let seen = bookinfo.versions(30)?;
    ensure!(seen == ["v1", "v2", "v3"], "{seen:?}");

    for file in FILES {
        kubectl.ok(&["delete", "-f", &manifest(file)])?;
    }
    bookinfo.sandbox.meshctl(&["uninstall", "--purge", "-y"])?.ok()?;
    until("nothing is left", GONE, || nothing_left(&kubectl, &before))
}

/// Same names as before the install, and no label or data of the mesh on what is there.
fn nothing_left(kubectl: &Kubectl, before: &Objects) -> Result<()> {
    let after = installed::all(kubectl)?;
    let left: Vec<&String> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    let lost: Vec<&String> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    ensure!(left.is_empty() && lost.is_empty(), "left behind: {left:?}; lost: {lost:?}");
    Ok(())
}

fn same_in_the_cluster(installs: &Installs) -> Result<()> {
    for way in WAYS {
        if !installs.0.borrow().contains_key(way.0) && (way.0 != "chart" || judge::program("helm").is_some()) {
            answers_and_goes(installs, way)?;
        }
    }
    let installs = installs.0.borrow();
    let ours = installs.get("meshctl").context("meshctl has not installed")?;
    ensure!(ours.len() > 40, "only {} objects", ours.len());
    for (name, objects) in installs.iter() {
        let differences = installed::differences(ours, objects);
        ensure!(differences.is_empty(), "{name} against meshctl:\n{}", differences.join("\n"));
    }
    Ok(())
}

/// Kind and name of every object in a YAML text, and the object.
fn named(yaml: &str) -> Result<BTreeMap<String, Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).map_err(|error| anyhow::anyhow!("{error}"))?;
    let documents = all.into_iter().filter(|one| !one.is_null() && one["kind"] != "Namespace");
    Ok(documents.map(|one| (format!("{}/{}", one["kind"], one["metadata"]["name"]), one)).collect())
}

fn same_in_files(_: &Installs) -> Result<Outcome> {
    let generate =
        Said::of(Command::new(judge::ours("meshctl")).args(["manifest", "generate", "--set", "profile=demo"]));
    let ours = named(&generate?.ok()?)?;
    let deploy = judge::workspace().join("deploy");
    let mut plain = named(&std::fs::read_to_string(deploy.join("manifests/istio-demo.yaml"))?)?;
    for crds in ["crds/istio.yaml", "crds/old.yaml"] {
        plain.extend(named(&std::fs::read_to_string(deploy.join(crds))?)?);
    }
    ensure!(ours == plain, "deploy/manifests/istio-demo.yaml differs from `meshctl manifest generate`");
    let Some(rendered) = rendered()? else { return Ok(Outcome::NotRun("helm is not installed".to_owned())) };
    let chart = named(&rendered)?;
    for (name, object) in &ours {
        ensure!(chart.get(name) == Some(object), "{name} differs in the chart");
    }
    ensure!(chart.len() == ours.len(), "the chart has objects of its own");
    Ok(Outcome::Passed)
}
