//! A running Pod: logs, exec, port-forward, run.
//!
//! Never here: Deployments (see `workloads`). Called by the suite `kubectl`.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpStream,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{kubectl::Kubectl, sandbox::until};

use super::{LIMIT, WEB, has, sleeper};

fn crashing(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: main, image: busybox, command: [sh, -c, 'echo once more; exit 3']}}\n  - {{name: side, image: busybox, command: [sh, -c, 'echo beside; sleep 600']}}\n"
    )
}

pub(super) fn logs(k: &Kubectl, _: &str) -> Result<()> {
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

pub(super) fn exec(k: &Kubectl, _: &str) -> Result<()> {
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

pub(super) fn port_forward(k: &Kubectl, _: &str) -> Result<()> {
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

pub(super) fn run_attached(k: &Kubectl, _: &str) -> Result<()> {
    let said = k.fed(
        &["run", "once", "--rm", "-i", "--restart=Never", "--image=busybox", "--", "sh", "-c", "cat; echo done"],
        "typed\n",
    )?;
    has(&said.out, "done")?;
    ensure!(said.code == 0, "{}", said.all());
    until("the Pod is gone", LIMIT, || k.fails(&["get", "pod", "once"]).map(drop))
}
