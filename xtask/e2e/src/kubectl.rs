//! Runs kubectl and other programs, and keeps what they said.
//!
//! Never here: what is right; tests say that. Called by all suites.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// What a program said.
#[derive(Debug, Clone)]
pub struct Said {
    /// The command line.
    pub command: String,
    /// Exit code; -1 when it was killed.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Runs a program to its end.
    ///
    /// # Errors
    /// It could not be started.
    pub fn of(command: &mut Command) -> Result<Self> {
        Self::fed(command, "")
    }

    /// Runs a program to its end with this on its standard input.
    ///
    /// # Errors
    /// It could not be started.
    pub fn fed(command: &mut Command, input: &str) -> Result<Self> {
        let shown = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned());
        let shown = shown.collect::<Vec<_>>().join(" ");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {shown}"))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let input = input.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        if writer.join().is_err() {
            bail!("{shown}: writing its input panicked");
        }
        Ok(Self {
            command: shown,
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Its standard output, if it ended well.
    ///
    /// # Errors
    /// It did not; everything it said is in the error.
    pub fn ok(self) -> Result<String> {
        if self.code == 0 { Ok(self.out) } else { bail!("{}", self.all()) }
    }

    /// Its standard error, if it failed.
    ///
    /// # Errors
    /// It ended well.
    pub fn fails(self) -> Result<String> {
        if self.code == 0 { bail!("expected a failure\n{}", self.all()) } else { Ok(self.err) }
    }

    /// Everything it said.
    pub fn all(&self) -> String {
        format!("$ {}\nexit code {}\n{}{}", self.command, self.code, self.out, self.err)
    }
}

/// A kubectl that talks to one cluster, in one namespace.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Kubectl {
    /// A kubectl of a certain version.
    pub fn new(program: &Path, kubeconfig: &Path, namespace: &str) -> Self {
        Self { program: program.to_owned(), kubeconfig: kubeconfig.to_owned(), namespace: namespace.to_owned() }
    }

    /// The same in another namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// A command, ready to be changed and run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--namespace", &self.namespace]).args(args).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It could not be started.
    pub fn run(&self, args: &[&str]) -> Result<Said> {
        Said::of(&mut self.command(args))
    }

    /// Runs it; its standard output.
    ///
    /// # Errors
    /// It failed.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        self.run(args)?.ok()
    }

    /// Runs it; its standard error.
    ///
    /// # Errors
    /// It did not fail.
    pub fn fails(&self, args: &[&str]) -> Result<String> {
        self.run(args)?.fails()
    }

    /// Runs it with YAML on standard input.
    ///
    /// # Errors
    /// It could not be started.
    pub fn fed(&self, args: &[&str], yaml: &str) -> Result<Said> {
        Said::fed(&mut self.command(args), yaml)
    }

    /// Applies YAML.
    ///
    /// # Errors
    /// It is refused.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.fed(&["apply", "-f", "-"], yaml)?.ok()
    }
}
