//! The data plane side by side: our proxy, Envoy, HAProxy, nginx and a bare floor in one run.
//!
//! Passes are interleaved (A B C A B C), so that a slow minute of the machine hits all alike.
//! Never here: the control plane, or an assertion about speed. Run as `bench-data`.

mod certificates;
mod envoy;
mod load;
mod measure;
mod ours;
mod plain;
mod report;
mod rig;
mod shape;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use report::{Report, Row};
use rig::Places;
use shape::{Peer, Shape};

const USAGE: &str = "usage: cargo xtask bench [flags]

  --only SHAPE        this shape only; may be given more than once (a part of the name will do)
  --peer NAME         this peer only; may be given more than once
  --seconds N         length of one measurement (5)
  --passes N          measurements of each (3)
  --json FILE         where the figures go (none)
  --compare OLD.json  show changes against an older run
  --list              the shapes";

#[derive(Debug)]
struct Options {
    only: Vec<String>,
    peers: Vec<String>,
    seconds: u64,
    passes: usize,
    json: Option<PathBuf>,
    compare: Option<PathBuf>,
    list: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options =
            Self { only: vec![], peers: vec![], seconds: 5, passes: 3, json: None, compare: None, list: false };
        let mut rest = args.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().cloned().with_context(|| format!("{flag} needs a value\n{USAGE}"));
            match flag.as_str() {
                "--only" => options.only.push(value()?),
                "--peer" => options.peers.push(value()?),
                "--seconds" => options.seconds = value()?.parse().context("--seconds")?,
                "--passes" => options.passes = value()?.parse().context("--passes")?,
                "--json" => options.json = Some(value()?.into()),
                "--compare" => options.compare = Some(value()?.into()),
                "--list" => options.list = true,
                _ => bail!("{flag}: no such flag\n{USAGE}"),
            }
        }
        ensure!(options.seconds > 0 && options.passes > 0, "--seconds and --passes count from 1");
        Ok(options)
    }

    fn wants(&self, shape: &Shape) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| shape.name.contains(only.as_str()))
    }
}

/// Measures, prints, and writes.
///
/// # Errors
/// Flags make no sense, or our own programs are missing. A peer that fails is a line of the report.
#[expect(clippy::print_stdout, reason = "a command that prints")]
pub fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let shapes: Vec<Shape> = shape::all().into_iter().filter(|shape| options.wants(shape)).collect();
    if options.list {
        for shape in &shapes {
            println!("{:14}{}", shape.name, shape.what);
        }
        return Ok(());
    }
    let older = options.compare.as_deref().map(Report::read).transpose()?;
    let programs = std::env::current_exe()?.parent().context("a program has a folder")?.to_path_buf();
    let cores = std::thread::available_parallelism()?.get();
    let dir = tempfile::Builder::new().prefix("bench").tempdir()?;
    let places = Places { programs, dir: dir.path().to_path_buf(), load_core: 0, proxy_core: 1.min(cores - 1) };
    places.check()?;
    certificates::write(dir.path())?;
    // The load runs in this process, too.
    let mut core = CpuSet::new();
    core.set(places.load_core)?;
    sched_setaffinity(Pid::from_raw(0), &core)?;
    let mut report = Report { cores, seconds: options.seconds, passes: options.passes, rows: Vec::new() };
    for shape in &shapes {
        report.rows.extend(rows(&places, shape, &options));
        println!("\n{}: {}\n\n{}", shape.name, shape.what, report.table(shape.name, older.as_ref()));
    }
    if let Some(path) = &options.json {
        report.write(path)?;
    }
    Ok(())
}

/// All contenders of one shape, pass by pass.
fn rows(places: &Places, shape: &Shape, options: &Options) -> Vec<Row> {
    let contenders: Vec<_> = shape
        .contenders
        .iter()
        .filter(|contender| options.peers.is_empty() || options.peers.iter().any(|name| name == contender.peer.name()))
        .collect();
    let mut passes = vec![(Vec::new(), None::<String>); contenders.len()];
    for (contender, (_, broken)) in contenders.iter().zip(&mut passes) {
        let program = contender.peer.name();
        if matches!(contender.peer, Peer::Envoy | Peer::Haproxy | Peer::Nginx) && !rig::found(program) {
            *broken = Some(format!("not run: {program} is not on the search path"));
        }
    }
    for _ in 0..options.passes {
        for (contender, (figures, broken)) in contenders.iter().zip(&mut passes) {
            if broken.is_some() {
                continue;
            }
            match measure::once(places, shape, contender, Duration::from_secs(options.seconds)) {
                Ok(found) => figures.push(found),
                Err(error) => {
                    eprintln!("{}: {}: {error:#}", shape.name, contender.name());
                    *broken = Some(format!("{error:#}"));
                }
            }
        }
    }
    let gathered = contenders.iter().zip(passes);
    gathered.map(|(contender, (figures, broken))| Row::of(shape.name, contender.name(), &figures, broken)).collect()
}
