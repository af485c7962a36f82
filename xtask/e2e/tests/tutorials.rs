//! Five public tutorials, from the first command to the last before their dashboards.
//!
//! Each command stands in the tutorial's text, or in the list of substitutions with the reason. They run in one bash
//! inside `meshctl shell`, over the release tree. Never here: a command that neither says.

mod tutorial_cases;

use std::process::ExitCode;

use e2e::{
    judge,
    suite::{self, Outcome, Test},
};

fn main() -> ExitCode {
    let tests = tutorial_cases::ALL
        .iter()
        .map(|tutorial| {
            Test::maybe(tutorial.name, move |(): &()| match judge::shared() {
                Ok(shared) => tutorial_cases::run(tutorial, &shared).map(|()| Outcome::Passed),
                Err(reason) => Ok(Outcome::NotRun(reason)),
            })
        })
        .collect();
    suite::run("tutorials", tests, || Ok(()))
}
