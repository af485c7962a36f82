//! Begun by `cargo xtask bench xds`: many streams against one pilot.
//!
//! Never here: an assertion about speed. The work is in `bench::xds`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match bench::xds::main(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
