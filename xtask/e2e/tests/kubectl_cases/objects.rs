//! Objects read and written: get, apply, diff, create, edit, patch, label.
//!
//! Never here: what runs (see `workloads`, `pods`). Called by the suite `kubectl`.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::kubectl::Kubectl;

use super::{WEB, has, map};

pub(super) fn get_output_forms(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&map("one"))?;
    let table = k.ok(&["get", "configmaps"])?;
    has(&table, "NAME")?;
    has(&table, "DATA")?;
    ensure!(
        table.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().get(..2) == Some(&["one", "2"])),
        "{table}"
    );
    has(&k.ok(&["get", "nodes", "-o", "wide"])?, "INTERNAL-IP")?;
    has(&k.ok(&["get", "cm", "one", "-o", "yaml"])?, "kind: ConfigMap")?;
    let json: serde_json::Value = serde_json::from_str(&k.ok(&["get", "cm", "one", "-o", "json"])?)?;
    ensure!(json["data"]["a"] == "1", "{json}");
    ensure!(k.ok(&["get", "cm", "one", "-o", "jsonpath={.data.b}"])? == "2");
    let custom = k.ok(&["get", "cm", "one", "-o", "custom-columns=N:.metadata.name,A:.data.a"])?;
    ensure!(custom.split_whitespace().collect::<Vec<_>>() == ["N", "A", "one", "1"], "{custom}");
    ensure!(k.ok(&["get", "cm", "one", "-o", "name"])?.trim() == "configmap/one");
    has(&k.ok(&["get", "all", "-A"])?, "service/kubernetes")
}

pub(super) fn get_watch(k: &Kubectl, _: &str) -> Result<()> {
    let mut child =
        k.command(&["get", "cm", "-w", "-o", "name"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    k.apply(&map("seen"))?;
    let found = (|| {
        for _ in 0..10 {
            if lines.next().context("the watch ended")??.trim() == "configmap/seen" {
                return Ok(());
            }
        }
        bail!("not among the first ten lines")
    })();
    child.kill()?;
    child.wait()?;
    found
}

pub(super) fn selectors(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&[map("one"), map("two")].join("---\n"))?;
    let names = |args: &[&str]| -> Result<String> { k.ok(&[&["get", "cm", "-o", "name"], args].concat()) };
    ensure!(names(&["-l", "tier=one"])?.trim() == "configmap/one");
    ensure!(names(&["-l", "tier in (two,three)"])?.trim() == "configmap/two");
    ensure!(names(&["-l", "tier,tier!=two"])?.trim() == "configmap/one");
    ensure!(names(&["--field-selector", "metadata.name=two"])?.trim() == "configmap/two");
    Ok(())
}

pub(super) fn apply_and_prune_fields(k: &Kubectl, _: &str) -> Result<()> {
    has(&k.apply(&map("one"))?, "created")?;
    has(&k.apply(&map("one"))?, "unchanged")?;
    has(&k.apply(&map("one").replace("b: \"2\"", "c: \"3\""))?, "configured")?;
    ensure!(k.ok(&["get", "cm", "one", "-o", "jsonpath={.data}"])? == r#"{"a":"1","c":"3"}"#);
    k.apply(WEB)?;
    k.apply(&WEB.replace("replicas: 1", "replicas: 2"))?;
    ensure!(k.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"])? == "2");
    Ok(())
}

pub(super) fn apply_server_side(k: &Kubectl, _: &str) -> Result<()> {
    has(&k.fed(&["apply", "--server-side", "-f", "-"], &map("one"))?.ok()?, "serverside-applied")?;
    let other = map("one").replace("\"1\"", "\"9\"");
    let conflict = k.fed(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &other)?.fails()?;
    has(&conflict, "conflict")?;
    has(&conflict, ".data.a")?;
    k.fed(&["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"], &other)?.ok()?;
    ensure!(k.ok(&["get", "cm", "one", "-o", "jsonpath={.data.a}"])? == "9");
    Ok(())
}

pub(super) fn diff(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&map("one"))?;
    ensure!(k.fed(&["diff", "-f", "-"], &map("one"))?.code == 0);
    let said = k.fed(&["diff", "-f", "-"], &map("one").replace("\"1\"", "\"7\""))?;
    ensure!(said.code == 1, "{}", said.all());
    has(&said.out, "+  a: \"7\"")
}

pub(super) fn create(k: &Kubectl, _: &str) -> Result<()> {
    has(&k.ok(&["create", "configmap", "made", "--from-literal=x=y"])?, "created")?;
    has(&k.fails(&["create", "configmap", "made", "--from-literal=x=y"])?, "already exists")?;
    has(&k.ok(&["create", "secret", "generic", "s", "--from-literal=p=q"])?, "created")?;
    ensure!(k.ok(&["get", "secret", "s", "-o", "jsonpath={.data.p}"])? == "cQ==");
    has(
        &k.ok(&["create", "deployment", "d", "--image=registry.istio.io/release/examples-helloworld-v1:1.0"])?,
        "created",
    )?;
    has(&k.ok(&["create", "serviceaccount", "robot"])?, "created")
}

pub(super) fn edit(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&map("one"))?;
    let mut command = k.command(&["edit", "cm", "one"]);
    command.env("KUBE_EDITOR", "sed -i -e 's/a: \"1\"/a: \"5\"/'");
    has(&e2e::kubectl::Said::of(&mut command)?.ok()?, "edited")?;
    ensure!(k.ok(&["get", "cm", "one", "-o", "jsonpath={.data.a}"])? == "5");
    Ok(())
}

pub(super) fn patch_three_kinds(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    k.ok(&[
        "patch",
        "deploy",
        "web",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}"#,
    ])?;
    let image = k.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"])?;
    has(&image, "helloworld")?;
    k.ok(&["patch", "deploy", "web", "--type=merge", "-p", r#"{"metadata":{"labels":{"m":"1"}}}"#])?;
    k.ok(&[
        "patch",
        "deploy",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/metadata/labels/m","value":"2"}]"#,
    ])?;
    ensure!(k.ok(&["get", "deploy", "web", "-o", "jsonpath={.metadata.labels.m}"])? == "2");
    Ok(())
}

pub(super) fn label_and_annotate(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&map("one"))?;
    has(&k.ok(&["label", "cm", "one", "x=1"])?, "labeled")?;
    has(&k.fails(&["label", "cm", "one", "x=2"])?, "already has a value")?;
    k.ok(&["label", "cm", "one", "x=2", "--overwrite"])?;
    k.ok(&["label", "cm", "one", "tier-"])?;
    has(&k.ok(&["annotate", "cm", "one", "note=hello"])?, "annotate")?;
    ensure!(k.ok(&["get", "cm", "one", "-o", "jsonpath={.metadata.labels.x} {.metadata.labels.tier}"])?.trim() == "2");
    Ok(())
}
