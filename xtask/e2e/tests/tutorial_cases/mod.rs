//! How a tutorial becomes a script: its commands, what takes their place and why, and what must come of them.
//!
//! Never here: a tutorial; each has a file. Called by the suite `tutorials`.

mod deploy;
mod getting_started;
mod managing;
mod one_o_one;
mod why;

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{judge, kubectl::Said, sandbox::Sandbox};

/// All of them, the simplest first.
pub(crate) const ALL: &[&Tutorial] =
    &[&one_o_one::TUTORIAL, &getting_started::TUTORIAL, &managing::TUTORIAL, &why::TUTORIAL, &deploy::TUTORIAL];

/// Finds a file's text in a tutorial's.
pub(crate) type Find = fn(&str) -> Result<String>;

/// A tutorial.
pub(crate) struct Tutorial {
    /// Name of the test.
    pub(crate) name: &'static str,
    /// File below `tutorials/`.
    pub(crate) file: &'static str,
    /// Files that the text tells a reader to write: name, and how to find them in the text.
    pub(crate) files: &'static [(&'static str, Find)],
    /// What is done, in order.
    pub(crate) steps: &'static [Step],
}

/// One step of a tutorial.
pub(crate) enum Step {
    /// A command that stands in the text.
    Verbatim(&'static str),
    /// A command in place of one that stands in the text.
    Instead {
        /// As the text has it.
        of: &'static str,
        /// What is run.
        run: &'static str,
        /// Why.
        because: Because,
    },
    /// What a reader does or waits for without the text naming a command.
    Reader(&'static str),
    /// The output of the step before must hold each of these.
    Shows(&'static [&'static str]),
    /// The output of the step before must hold none of these.
    ShowsNot(&'static [&'static str]),
}

/// Why a command is not run as the text has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Because {
    /// kubectl no longer takes this syntax.
    KubectlSyntax,
    /// Flags of Helm 2.
    Helm2,
    /// A name that differs on every cluster (a Pod's, an address).
    NameOfTheDay,
    /// It would not end.
    Endless,
    /// A download that the release tree stands for.
    Download,
    /// Jobs of Galley and Mixer, which pilot and the proxies do.
    OtherPods,
    /// A file at a place that only the author's machine has.
    AuthorsMachine,
}

/// Runs a tutorial in a sandbox of its own.
pub(crate) fn run(tutorial: &Tutorial, shared: &Path) -> Result<()> {
    let text = fs::read_to_string(shared.join("tutorials").join(tutorial.file)).context(tutorial.file)?;
    let spaced = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for step in tutorial.steps {
        if let Step::Verbatim(command) | Step::Instead { of: command, .. } = step {
            ensure!(spaced(&text).contains(&spaced(command)), "the text does not say: {command}");
        }
        if let Step::Instead { of, run, because } = step {
            eprintln!("  instead of `{}` ({because:?}): {}", spaced(of), spaced(run));
        }
    }
    let tree = tempfile::tempdir()?;
    for (name, find) in tutorial.files {
        let path = tree.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(tree.path()))?;
        fs::write(&path, find(&text).with_context(|| format!("{name} is not in the text"))?)?;
    }
    let laid = Said::of(
        Command::new("cargo").current_dir(judge::workspace()).args(["xtask", "release-tree"]).arg(tree.path()),
    )?;
    laid.ok()?;
    fs::write(tree.path().join("tutorial.sh"), script(tutorial, tree.path()))?;
    let sandbox = Sandbox::start(tutorial.name)?;
    let said = sandbox.shell(&format!("bash {}/tutorial.sh 2>&1", tree.path().display()))?;
    check(tutorial, &said)
}

/// One bash for all steps, with a line before each; a failing command ends it.
fn script(tutorial: &Tutorial, tree: &Path) -> String {
    let mut text = format!("set -uo pipefail\ncd {0}\nexport PATH={0}/bin:$PATH\n", tree.display());
    for (i, step) in tutorial.steps.iter().enumerate() {
        if let Step::Verbatim(command) | Step::Instead { run: command, .. } | Step::Reader(command) = step {
            let _infallible = write!(text, "echo '#step {i}'\n{{ {command}\n}} || {{ echo '#failed {i}'; exit 1; }}\n");
        }
    }
    text
}

fn check(tutorial: &Tutorial, said: &Said) -> Result<()> {
    let mut output = String::new();
    for (i, step) in tutorial.steps.iter().enumerate() {
        match step {
            Step::Verbatim(command) | Step::Instead { run: command, .. } | Step::Reader(command) => {
                let mark = format!("#step {i}\n");
                let rest =
                    said.out.split_once(&mark).with_context(|| format!("never came to: {command}\n{}", said.all()))?.1;
                output = rest.split("#step ").next().unwrap_or_default().to_owned();
                if output.contains(&format!("#failed {i}")) {
                    bail!("failed: {command}\n{output}\n{}", said.err);
                }
            }
            Step::Shows(parts) => {
                for part in *parts {
                    ensure!(output.contains(part), "expected {part:?} in:\n{output}");
                }
            }
            Step::ShowsNot(parts) => {
                for part in *parts {
                    ensure!(!output.contains(part), "expected no {part:?} in:\n{output}");
                }
            }
        }
    }
    Ok(())
}

/// The fenced block of a text that holds this.
pub(crate) fn fenced(text: &str, holding: &str) -> Result<String> {
    let block = text.split("~~~").find(|block| block.contains(holding) && block.contains("apiVersion"));
    Ok(block.context("no such block")?.trim().to_owned() + "\n")
}

/// The lines of a text from one that is `first` to the last before one that starts with `end`.
pub(crate) fn lines_between(text: &str, after: &str, end: &str) -> Result<String> {
    let rest = text.split_once(after).context("not found")?.1;
    let body: Vec<&str> = rest.lines().skip(1).take_while(|line| !line.trim_start().starts_with(end)).collect();
    Ok(body.join("\n").trim().to_owned() + "\n")
}
