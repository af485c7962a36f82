//! The everyday things, one function each: kubectl does it, and says what a real cluster would make it say.
//!
//! Never here: which versions do them. Called by the suite `kubectl`.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpStream,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{kubectl::Kubectl, sandbox::until};

/// One thing: a kubectl in a fresh namespace, and its version.
pub(crate) type Case = fn(&Kubectl, &str) -> Result<()>;

/// Everything.
pub(crate) const CASES: &[(&str, Case)] = &[
    ("get_output_forms", get_output_forms),
    ("get_watch", get_watch),
    ("selectors", selectors),
    ("apply_and_prune_fields", apply_and_prune_fields),
    ("apply_server_side", apply_server_side),
    ("diff", diff),
    ("create", create),
    ("edit", edit),
    ("patch_three_kinds", patch_three_kinds),
    ("label_and_annotate", label_and_annotate),
    ("scale", scale),
    ("rollout", rollout),
    ("describe", describe),
    ("logs", logs),
    ("exec", exec),
    ("port_forward", port_forward),
    ("wait", wait),
    ("run_attached", run_attached),
    ("expose", expose),
    ("explain", explain),
    ("api_resources", api_resources),
    ("delete_with_cascade_modes", delete_with_cascade_modes),
    ("events", events),
    ("refusals", refusals),
    ("unknown_image", unknown_image),
    ("custom_resources", custom_resources),
];

/// What every version does.
pub(crate) const SHORT: &[&str] = &[
    "get_output_forms",
    "apply_and_prune_fields",
    "rollout",
    "logs",
    "exec",
    "port_forward",
    "run_attached",
    "custom_resources",
];

const LIMIT: Duration = Duration::from_secs(60);

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: registry.istio.io/release/examples-helloworld-v1:1.0
        ports: [{containerPort: 5000}]
        readinessProbe: {httpGet: {path: /health, port: 5000}, periodSeconds: 1}
";

fn map(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{tier: {name}}}}}\ndata: {{a: \"1\", b: \"2\"}}\n"
    )
}

fn has(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "expected {part:?} in:\n{text}");
    Ok(())
}

fn get_output_forms(k: &Kubectl, _: &str) -> Result<()> {
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

fn get_watch(k: &Kubectl, _: &str) -> Result<()> {
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

fn selectors(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&[map("one"), map("two")].join("---\n"))?;
    let names = |args: &[&str]| -> Result<String> { k.ok(&[&["get", "cm", "-o", "name"], args].concat()) };
    ensure!(names(&["-l", "tier=one"])?.trim() == "configmap/one");
    ensure!(names(&["-l", "tier in (two,three)"])?.trim() == "configmap/two");
    ensure!(names(&["-l", "tier,tier!=two"])?.trim() == "configmap/one");
    ensure!(names(&["--field-selector", "metadata.name=two"])?.trim() == "configmap/two");
    Ok(())
}

fn apply_and_prune_fields(k: &Kubectl, _: &str) -> Result<()> {
    has(&k.apply(&map("one"))?, "created")?;
    has(&k.apply(&map("one"))?, "unchanged")?;
    has(&k.apply(&map("one").replace("b: \"2\"", "c: \"3\""))?, "configured")?;
    ensure!(k.ok(&["get", "cm", "one", "-o", "jsonpath={.data}"])? == r#"{"a":"1","c":"3"}"#);
    k.apply(WEB)?;
    k.apply(&WEB.replace("replicas: 1", "replicas: 2"))?;
    ensure!(k.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"])? == "2");
    Ok(())
}

fn apply_server_side(k: &Kubectl, _: &str) -> Result<()> {
    has(&k.fed(&["apply", "--server-side", "-f", "-"], &map("one"))?.ok()?, "serverside-applied")?;
    let other = map("one").replace("\"1\"", "\"9\"");
    let conflict = k.fed(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &other)?.fails()?;
    has(&conflict, "conflict")?;
    has(&conflict, ".data.a")?;
    k.fed(&["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"], &other)?.ok()?;
    ensure!(k.ok(&["get", "cm", "one", "-o", "jsonpath={.data.a}"])? == "9");
    Ok(())
}

fn diff(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&map("one"))?;
    ensure!(k.fed(&["diff", "-f", "-"], &map("one"))?.code == 0);
    let said = k.fed(&["diff", "-f", "-"], &map("one").replace("\"1\"", "\"7\""))?;
    ensure!(said.code == 1, "{}", said.all());
    has(&said.out, "+  a: \"7\"")
}

fn create(k: &Kubectl, _: &str) -> Result<()> {
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

fn edit(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&map("one"))?;
    let mut command = k.command(&["edit", "cm", "one"]);
    command.env("KUBE_EDITOR", "sed -i -e 's/a: \"1\"/a: \"5\"/'");
    has(&e2e::kubectl::Said::of(&mut command)?.ok()?, "edited")?;
    ensure!(k.ok(&["get", "cm", "one", "-o", "jsonpath={.data.a}"])? == "5");
    Ok(())
}

fn patch_three_kinds(k: &Kubectl, _: &str) -> Result<()> {
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

fn label_and_annotate(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&map("one"))?;
    has(&k.ok(&["label", "cm", "one", "x=1"])?, "labeled")?;
    has(&k.fails(&["label", "cm", "one", "x=2"])?, "already has a value")?;
    k.ok(&["label", "cm", "one", "x=2", "--overwrite"])?;
    k.ok(&["label", "cm", "one", "tier-"])?;
    has(&k.ok(&["annotate", "cm", "one", "note=hello"])?, "annotate")?;
    ensure!(k.ok(&["get", "cm", "one", "-o", "jsonpath={.metadata.labels.x} {.metadata.labels.tier}"])?.trim() == "2");
    Ok(())
}

fn scale(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    has(&k.ok(&["scale", "deploy", "web", "--replicas=2"])?, "scaled")?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    ensure!(k.ok(&["get", "pods", "-l", "app=web", "-o", "name"])?.lines().count() == 2);
    k.ok(&["scale", "deploy", "web", "--replicas=0"])?;
    until("no Pods", LIMIT, || {
        ensure!(k.ok(&["get", "pods", "-l", "app=web", "-o", "name"])?.is_empty());
        Ok(())
    })
}

fn rollout(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    has(&k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?, "successfully rolled out")?;
    k.ok(&["rollout", "restart", "deploy/web"])?;
    has(&k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?, "successfully rolled out")?;
    has(&k.ok(&["rollout", "history", "deploy/web"])?, "2")?;
    has(&k.ok(&["rollout", "undo", "deploy/web"])?, "rolled back")?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    let restarted = k.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.metadata.annotations}"])?;
    ensure!(!restarted.contains("restartedAt"), "{restarted}");
    Ok(())
}

fn describe(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    let pod = k.ok(&["describe", "pods", "-l", "app=web"])?;
    for part in ["Controlled By:", "Readiness:", "Started", "helloworld"] {
        has(&pod, part)?;
    }
    has(&k.ok(&["describe", "deploy", "web"])?, "NewReplicaSetAvailable")?;
    has(&k.ok(&["describe", "namespaces", "default"])?, "Status:")?;
    has(&k.ok(&["describe", "nodes"])?, "Allocatable")?;
    has(&k.ok(&["describe", "svc", "kubernetes", "-n", "default"])?, "ClusterIP")
}

fn crashing(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: main, image: busybox, command: [sh, -c, 'echo once more; exit 3']}}\n  - {{name: side, image: busybox, command: [sh, -c, 'echo beside; sleep 600']}}\n"
    )
}

fn logs(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(&crashing("p"))?;
    until("the side container's line", LIMIT, || has(&k.ok(&["logs", "p", "-c", "side"])?, "beside"))?;
    until("the log of the container that ended before", LIMIT, || {
        has(&k.ok(&["logs", "p", "-c", "main", "--previous"])?, "once more")
    })?;
    let status = k.ok(&[
        "get",
        "pod",
        "p",
        "-o",
        "jsonpath={.status.containerStatuses[?(@.name=='main')].lastState.terminated.exitCode}",
    ])?;
    ensure!(status == "3", "{status}");
    let mut child =
        k.command(&["logs", "-f", "p", "-c", "side"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let first = BufReader::new(child.stdout.take().context("no output")?).lines().next();
    child.kill()?;
    child.wait()?;
    has(&first.context("no line")??, "beside")
}

fn sleeper(k: &Kubectl) -> Result<()> {
    k.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: sleeper, labels: {app: sleeper}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {name: main, image: curlimages/curl, command: [sleep, '600']}\n")?;
    k.ok(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]).map(drop)
}

fn exec(k: &Kubectl, _: &str) -> Result<()> {
    sleeper(k)?;
    ensure!(k.ok(&["exec", "sleeper", "--", "hostname"])?.trim() == "sleeper");
    ensure!(k.run(&["exec", "sleeper", "--", "sh", "-c", "exit 7"])?.code == 7);
    ensure!(k.fed(&["exec", "-i", "sleeper", "--", "cat"], "through and back")?.ok()? == "through and back");
    // A terminal: `script` gives kubectl one, `tty` in the container says it has one.
    let Some(script) = e2e::judge::program("script") else { return Ok(()) };
    let line = k.command(&["exec", "-it", "sleeper", "--", "tty"]);
    let words: Vec<String> = std::iter::once(line.get_program())
        .chain(line.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut command = std::process::Command::new(script);
    command.args(["-qec", &words.join(" "), "/dev/null"]);
    for (name, value) in line.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    has(&e2e::kubectl::Said::of(&mut command)?.ok()?, "/dev/pts/")
}

fn port_forward(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    let mut child =
        k.command(&["port-forward", "deploy/web", ":5000"]).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let asked = (|| {
        let mut line = String::new();
        // Kept until the end: kubectl goes on writing to it.
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        output.read_line(&mut line)?;
        let port =
            line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split_whitespace().next()).context(line.clone())?;
        let mut socket = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        socket.set_read_timeout(Some(LIMIT))?;
        std::io::Write::write_all(&mut socket, b"GET /hello HTTP/1.0\r\nhost: web\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        has(&answer, "Hello version: v1")
    })();
    child.kill()?;
    child.wait()?;
    asked
}

fn wait(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    has(&k.ok(&["wait", "--for=condition=Available", "deploy/web", "--timeout=60s"])?, "condition met")?;
    has(&k.fails(&["wait", "--for=condition=Nothing", "deploy/web", "--timeout=1s"])?, "timed out")?;
    let pod = k.ok(&["get", "pods", "-l", "app=web", "-o", "name"])?;
    k.ok(&["delete", pod.trim(), "--wait=false"])?;
    k.ok(&["wait", "--for=delete", pod.trim(), "--timeout=60s"]).map(drop)
}

fn run_attached(k: &Kubectl, _: &str) -> Result<()> {
    let said = k.fed(
        &["run", "once", "--rm", "-i", "--restart=Never", "--image=busybox", "--", "sh", "-c", "cat; echo done"],
        "typed\n",
    )?;
    has(&said.out, "done")?;
    ensure!(said.code == 0, "{}", said.all());
    until("the Pod is gone", LIMIT, || k.fails(&["get", "pod", "once"]).map(drop))
}

fn expose(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    has(&k.ok(&["expose", "deploy", "web", "--port=80", "--target-port=5000"])?, "exposed")?;
    sleeper(k)?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    until("the Service answers", LIMIT, || {
        has(&k.ok(&["exec", "sleeper", "--", "curl", "-s", "-m", "5", "http://web/hello"])?, "Hello version")
    })
}

fn explain(k: &Kubectl, _: &str) -> Result<()> {
    has(&k.ok(&["explain", "pods.spec.containers"])?, "image")?;
    has(&k.ok(&["explain", "deployment.spec.replicas"])?, "integer")
}

fn api_resources(k: &Kubectl, _: &str) -> Result<()> {
    let all = k.ok(&["api-resources"])?;
    for part in ["deployments", "configmaps", "customresourcedefinitions"] {
        has(&all, part)?;
    }
    has(&k.ok(&["api-versions"])?, "apps/v1")
}

fn delete_with_cascade_modes(k: &Kubectl, _: &str) -> Result<()> {
    let pods = || k.ok(&["get", "pods", "-l", "app=web", "-o", "name"]);
    k.apply(WEB)?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    k.ok(&["delete", "deploy", "web", "--cascade=orphan"])?;
    ensure!(pods()?.lines().count() == 1, "orphans stay");
    k.ok(&["delete", "rs", "-l", "app=web", "--cascade=foreground"])?;
    until("no Pods", LIMIT, || {
        ensure!(pods()?.is_empty());
        Ok(())
    })?;
    k.apply(WEB)?;
    k.ok(&["delete", "deploy", "web"])?;
    until("no Pods", LIMIT, || {
        ensure!(pods()?.is_empty());
        Ok(())
    })
}

fn events(k: &Kubectl, _: &str) -> Result<()> {
    k.apply(WEB)?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    let events = k.ok(&["get", "events"])?;
    for part in ["Scheduled", "Started", "ScalingReplicaSet", "SuccessfulCreate"] {
        has(&events, part)?;
    }
    Ok(())
}

/// What is refused, with the message a real server gives.
fn refusals(k: &Kubectl, _: &str) -> Result<()> {
    has(&k.fails(&["get", "pod", "absent"])?, "pods \"absent\" not found")?;
    has(&k.fails(&["get", "zork"])?, "the server doesn't have a resource type \"zork\"")?;
    let bad = k.fed(&["create", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_b}\n")?.fails()?;
    has(&bad, "a lowercase RFC 1123 subdomain must consist of")?;
    let selector = WEB.replace("selector: {matchLabels: {app: web}}", "selector: {matchLabels: {app: other}}");
    has(&k.fed(&["create", "-f", "-"], &selector)?.fails()?, "`selector` does not match template `labels`")?;
    has(&k.fed(&["create", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x\n")?.fails()?, "error")?;
    has(&k.fails(&["top", "pods"])?, "Metrics API not available")
}

fn unknown_image(k: &Kubectl, _: &str) -> Result<()> {
    k.ok(&["run", "odd", "--image=registry.example.com/nobody/knows:1"])?;
    until("the reason is told", LIMIT, || {
        let reason =
            k.ok(&["get", "pod", "odd", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}"])?;
        ensure!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}");
        Ok(())
    })?;
    has(&k.ok(&["get", "events"])?, "registry.example.com/nobody/knows:1")
}

fn custom_resources(k: &Kubectl, version: &str) -> Result<()> {
    let group = format!("v{}.example.com", version.replace('.', ""));
    let crd = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: widgets.{group}}}\nspec:\n  group: {group}\n  scope: Namespaced\n  names: {{plural: widgets, singular: widget, kind: Widget}}\n  versions:\n  - name: v1\n    served: true\n    storage: true\n    additionalPrinterColumns: [{{name: Color, type: string, jsonPath: .spec.color}}]\n    schema:\n      openAPIV3Schema:\n        type: object\n        properties:\n          spec:\n            type: object\n            properties:\n              color: {{type: string, enum: [red, blue]}}\n              size: {{type: integer, default: 3}}\n"
    );
    k.apply(&crd)?;
    k.ok(&["wait", "--for=condition=Established", &format!("crd/widgets.{group}"), "--timeout=30s"])?;
    let widget = |color: &str| {
        format!("apiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: w}}\nspec: {{color: {color}}}\n")
    };
    has(&k.fed(&["apply", "-f", "-"], &widget("green"))?.fails()?, "Unsupported value: \"green\"")?;
    k.apply(&widget("red"))?;
    has(&k.ok(&["get", &format!("widgets.{group}")])?, "COLOR")?;
    ensure!(k.ok(&["get", &format!("widgets.{group}"), "w", "-o", "jsonpath={.spec.size}"])? == "3");
    k.ok(&["delete", "crd", &format!("widgets.{group}")]).map(drop)
}
