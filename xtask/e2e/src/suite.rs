//! Runs the tests of one suite in order over one fixture, and says what happened as cargo's own tests do.
//!
//! Never here: what is tested. Called by the `main` of every suite.

use std::{
    fs::OpenOptions,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, ExitCode},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// A test that takes longer hangs, where it does not say otherwise.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// What ends what a hanging suite has started.
static AT_THE_LIMIT: Mutex<Vec<Command>> = Mutex::new(Vec::new());

/// How a test ended, if it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What it asserts holds.
    Passed,
    /// It could not run here, and why.
    NotRun(String),
}

/// What a test does with the fixture.
pub type Check<F> = Box<dyn Fn(&F) -> Result<Outcome>>;

/// One test over a fixture.
pub struct Test<F> {
    /// What holds, in words.
    pub name: String,
    /// Checks it.
    pub run: Check<F>,
    /// Where it takes longer, it hangs.
    limit: Duration,
}

impl<F> Test<F> {
    /// A test that passes when it returns.
    pub fn new(name: impl Into<String>, run: impl Fn(&F) -> Result<()> + 'static) -> Self {
        Self::maybe(name, move |fixture| run(fixture).map(|()| Outcome::Passed))
    }

    /// A test that may say that it could not run.
    pub fn maybe(name: impl Into<String>, run: impl Fn(&F) -> Result<Outcome> + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run), limit: LIMIT }
    }

    /// The same test, which may take so long.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }
}

/// Runs the tests that the arguments name (all, without arguments) and exits as cargo expects it.
///
/// `setup` runs only when a test is to run; the fixture cleans up when it is dropped.
#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a test runner prints, and takes the time")]
pub fn run<F>(suite: &str, tests: Vec<Test<F>>, setup: impl FnOnce() -> Result<F>) -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if std::env::args().any(|arg| arg == "--list") {
        for test in &tests {
            println!("{suite}::{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    let full = |test: &Test<F>| format!("{suite}::{}", test.name);
    let chosen: Vec<Test<F>> = tests
        .into_iter()
        .filter(|test| filters.is_empty() || filters.iter().any(|filter| full(test).contains(filter.as_str())))
        .collect();
    println!("\nrunning {} tests", chosen.len());
    if chosen.is_empty() {
        return finish(0, 0, 0);
    }
    if std::env::var_os("FERROMESH_BIN").is_none() {
        eprintln!("FERROMESH_BIN does not name the folder of the programs; run these tests by `cargo xtask test`");
        return finish(0, chosen.len(), 0);
    }
    let fixture = match setup() {
        Ok(fixture) => fixture,
        Err(error) => {
            println!("test {suite}::setup ... FAILED\n{error:#}");
            return finish(0, chosen.len(), 0);
        }
    };
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for test in &chosen {
        let began = Instant::now();
        let watched = watch(full(test), test.limit);
        let outcome = catch_unwind(AssertUnwindSafe(|| (test.run)(&fixture)));
        drop(watched);
        let took = began.elapsed().as_secs_f64();
        match outcome {
            Ok(Ok(Outcome::Passed)) => {
                passed += 1;
                println!("test {} ... ok ({took:.1} s)", full(test));
            }
            Ok(Ok(Outcome::NotRun(reason))) => {
                not_run += 1;
                println!("test {} ... not run: {reason}", full(test));
                report_not_run(&full(test), &reason);
            }
            Ok(Err(error)) => {
                failed += 1;
                println!("test {} ... FAILED ({took:.1} s)\n{error:#}\n", full(test));
            }
            Err(_) => {
                failed += 1;
                println!("test {} ... FAILED ({took:.1} s): panicked", full(test));
            }
        }
    }
    drop(fixture);
    finish(passed, failed, not_run)
}

/// Has a command run where a test of this suite hangs: nothing is dropped then.
pub fn at_the_limit(command: Command) {
    AT_THE_LIMIT.lock().unwrap_or_else(PoisonError::into_inner).push(command);
}

/// Ends the whole suite where the test still runs at its limit; the test is over when the sender is dropped.
#[expect(clippy::print_stdout, reason = "a test runner prints")]
fn watch(test: String, limit: Duration) -> mpsc::Sender<()> {
    let (running, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            println!("test {test} ... FAILED: still runs after {limit:?}; the suite ends here");
            let mut children = Command::new("pkill");
            children.args(["-KILL", "-P", &std::process::id().to_string()]);
            let mut left = AT_THE_LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
            for command in std::iter::once(&mut children).chain(left.iter_mut()) {
                if let Err(error) = command.status() {
                    eprintln!("{command:?}: {error}");
                }
            }
            std::process::exit(101);
        }
    });
    running
}

/// Adds a line to the list that `cargo xtask test` prints last.
pub fn report_not_run(test: &str, reason: &str) {
    let Some(file) = std::env::var_os("FERROMESH_NOT_RUN") else { return };
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&file)
        .and_then(|mut file| writeln!(file, "{test}: {reason}"));
    if let Err(error) = written {
        eprintln!("could not write {}: {error}", file.display());
    }
}

#[expect(clippy::print_stdout, reason = "a test runner prints")]
fn finish(passed: usize, failed: usize, not_run: usize) -> ExitCode {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {not_run} ignored; 0 measured; 0 filtered out\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
