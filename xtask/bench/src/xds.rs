//! The control plane's bench: many streams against one pilot over a generated mesh.
//!
//! Pilot is pinned to one core, the streams to the other. A run: load the mesh, let all streams come at once, change one
//! endpoint, one route and one policy, restart pilot and let all come back with what they have.
//! Never here: an assertion about speed. Called by `bench-xds`.

mod change;
mod mesh;
mod pilot;
mod report;
mod run;
mod stream;
mod wire;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// How a stream asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As a real Envoy: clusters and their endpoints first, then listeners and whole route tables.
    Envoy,
    /// As our proxy: clusters and listeners at once, virtual hosts by themselves.
    Ours,
}

impl Manner {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Ours => "ours",
        }
    }
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) streams: Vec<usize>,
    pub(crate) manners: Vec<Manner>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) pilot: PathBuf,
}

const USAGE: &str = "usage: cargo xtask bench xds [--streams N] [--as envoy|ours] [--json FILE]

Without --streams: 500 and then 2,000. Without --as: both.";

fn read(args: &[String]) -> Result<Options> {
    let programs = std::env::var_os("FERROMESH_BIN").context("FERROMESH_BIN names no folder; run by cargo xtask")?;
    let mut options = Options {
        streams: vec![500, 2000],
        manners: vec![Manner::Ours, Manner::Envoy],
        json: None,
        pilot: PathBuf::from(programs).join("pilot"),
    };
    let mut rest = args.iter();
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{flag} needs a value\n{USAGE}"));
        match flag.as_str() {
            "--streams" => options.streams = vec![value()?.parse().context("--streams wants a number")?],
            "--as" => {
                options.manners = match value()?.as_str() {
                    "envoy" => vec![Manner::Envoy],
                    "ours" => vec![Manner::Ours],
                    other => bail!("--as {other}: expected envoy or ours"),
                }
            }
            "--json" => options.json = Some(value()?.into()),
            _ => bail!("{flag}: unknown\n{USAGE}"),
        }
    }
    Ok(options)
}

/// Runs the bench.
///
/// # Errors
/// Pilot cannot be run, or does not answer within a minute or two.
pub fn main(args: &[String]) -> Result<()> {
    let options = read(args)?;
    run::all(&options)
}
