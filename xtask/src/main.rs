//! Every developer command: `cargo xtask ci|test|demo|bench|gen|tidy|bless|release-tree`.
//!
//! Depends on no other package here, so that it starts fast; it runs the others by cargo.
//! Never here: what a command of `meshctl` does. Called by people and by `.ci/run`.

mod bench;
mod ci;
mod demo;
mod generate;
mod release_tree;
mod sh;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::bail;

const USAGE: &str = "usage: cargo xtask COMMAND

  demo           build, start the sandbox, install the mesh, deploy Bookinfo, wait, print the URL
  demo down      stop that sandbox and remove its state
  bench [OPTIONS]      the data plane beside Envoy, HAProxy and nginx
  bench xds [OPTIONS]  the control plane under many streams
  test           everything this repository checks, but for format and lints
  ci             fmt, clippy, deny, gen --check, tidy, and then test
  gen [--check]  write (or compare) what is generated: CRDs, manifests, chart
  tidy           file heads, the crate table, and that ARCHITECTURE.md names what there is
  bless          run tests with BLESS=1: golden files are rewritten, the diff is the review
  release-tree DIR  lay out what a user unpacks: bin/, samples/, install/";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["ci"] => ci::run(),
        ["test", filter @ ..] => test::run(filter),
        ["demo"] => demo::up(),
        ["demo", "down"] => demo::down(),
        ["bench", args @ ..] => bench::run(args),
        ["gen"] => generate::run(generate::Mode::Write),
        ["gen", "--check"] => generate::run(generate::Mode::Check),
        ["tidy"] => tidy::run(),
        ["bless"] => sh::cargo(["test", "--workspace", "--exclude", "e2e"]).env("BLESS", "1").run(),
        ["release-tree", dir] => release_tree::run(dir.as_ref()),
        _ => (|| bail!("{USAGE}"))(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
