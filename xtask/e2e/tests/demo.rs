//! `cargo xtask demo`, as this user and as an ordinary one: it ends well, soon, and `demo down` leaves nothing.
//!
//! Never here: what the demo does; it says itself whether every version of reviews was seen. Run by `cargo xtask test`.

use std::{fs, path::Path, process::Command, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    judge,
    kubectl::Said,
    person::{Ids, Person},
    sandbox::until,
    suite::{self, Outcome, Test},
};

/// From the end of the build to the first page.
const FIRST_PAGE_SECONDS: f64 = 20.0;
const GONE: Duration = Duration::from_secs(5);
const PROGRAMS: [&str; 6] = ["meshctl", "proxy", "pilot", "citadel", "injector", "samples"];

fn main() -> ExitCode {
    let tests = vec![
        Test::new("the_demo_runs_as_this_user", |(): &()| as_this_user()),
        Test::maybe("the_demo_runs_as_an_ordinary_user", |(): &()| as_person(Ids::Subordinate)),
        Test::maybe("the_demo_runs_as_a_user_with_a_single_id", |(): &()| as_person(Ids::One)),
    ];
    suite::run("demo", tests, || Ok(()))
}

/// The demo from the first word to the last; `xtask` gives the command for its arguments.
fn demo(xtask: impl Fn(&[&str]) -> Command, state: &Path) -> Result<()> {
    let said = Said::of(&mut xtask(&["demo"]));
    let judged = said.and_then(|said| {
        let seconds: f64 = said
            .err
            .split_once("first page after ")
            .and_then(|(_, rest)| rest.split_once(" s;")?.0.parse().ok())
            .with_context(|| said.all())?;
        eprintln!("  first page after {seconds} s");
        ensure!(said.code == 0, "{}", said.all());
        ensure!(said.err.contains("served by reviews v1, v2, v3"), "{}", said.err);
        ensure!(seconds <= FIRST_PAGE_SECONDS, "the first page came after {seconds} s:\n{}", said.err);
        Ok(())
    });
    // Also after a failure: nothing may stay.
    Said::of(&mut xtask(&["demo", "down"]))?.ok()?;
    judged?;
    let left: Vec<_> = fs::read_dir(state)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    ensure!(left.is_empty(), "`demo down` leaves {left:?}");
    Ok(())
}

fn as_this_user() -> Result<()> {
    let state = tempfile::tempdir()?;
    let xtask = |args: &[&str]| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(judge::workspace()).arg("xtask").args(args).env("FERROMESH_STATE", state.path());
        command
    };
    demo(xtask, state.path())
}

/// As a user who can read neither this workspace nor its toolchain: with the programs as they are built, and `true` for
/// the cargo that would build them.
fn as_person(ids: Ids) -> Result<Outcome> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Outcome::NotRun("only root can become another user".to_owned()));
    }
    let person = Person::new(ids)?;
    for program in PROGRAMS {
        person.give(&judge::ours(program), &format!("target/demo/{program}"))?;
    }
    let xtask = person.give(&judge::xtask(), "target/xtask")?;
    person.give(&judge::workspace().join("examples/manifests"), "clone/examples/manifests")?;
    let state = person.home().join("state");
    Said::of(person.command("mkdir").arg(&state))?.ok()?;
    let run = |args: &[&str]| {
        let mut command = person.command(&xtask);
        command
            .args(args)
            .env("CARGO", "true")
            .env("CARGO_MANIFEST_DIR", person.home().join("clone/xtask"))
            .env("CARGO_TARGET_DIR", person.home().join("target"))
            .env("FERROMESH_STATE", &state);
        command
    };
    demo(run, &state)?;
    until("every process is gone", GONE, || {
        let left = person.processes()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    Ok(Outcome::Passed)
}
