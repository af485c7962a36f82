//! `meshctl down`: ends a sandbox and removes its state.
//!
//! Waits until every process of it is gone. Never here: cleaning up piece by piece; the kernel does that.
//! Called by `main`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Target;
use crate::sandbox::place::{Base, Place};

const STEP: Duration = Duration::from_millis(10);
const GENTLE_STEPS: u32 = 500;
const HARD_STEPS: u32 = 200;

/// Flags of `down`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    base: Base,
    /// Keep what the API server has stored; the next `up` brings it back.
    #[arg(long)]
    keep_state: bool,
}

/// Runs.
pub(crate) fn run(target: &Target, args: &Args) -> anyhow::Result<ExitCode> {
    let place = args.base.place(target.name.as_deref())?;
    if !place.folder.exists() {
        eprintln!("there is no sandbox {}", place.name);
        return Ok(ExitCode::SUCCESS);
    }
    if !gone(&place, 1)? {
        // Read only now: while nobody has the lock, the numbers in it may be anyone's.
        let Some(record) = place.record() else { bail!("sandbox {} is just starting; try again", place.name) };
        let daemon = Pid::from_raw(record.pid);
        kill(daemon, Signal::SIGTERM).ok();
        if !gone(&place, GENTLE_STEPS)? {
            kill(daemon, Signal::SIGKILL).ok();
            if !gone(&place, HARD_STEPS)? {
                bail!("sandbox {} does not end; its daemon is process {}", place.name, record.pid);
            }
        }
    }
    if !args.keep_state {
        place.remove()?;
    }
    eprintln!("sandbox {} is down{}", place.name, if args.keep_state { "; its state is kept" } else { "" });
    Ok(ExitCode::SUCCESS)
}

/// Whether the daemon has ended, within so many steps.
fn gone(place: &Place, steps: u32) -> anyhow::Result<bool> {
    for _ in 0..steps {
        if place.hold()?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(STEP);
    }
    Ok(false)
}
