//! `meshctl up`: starts a sandbox and waits until it is ready. Doing it again changes nothing.
//!
//! Starts this program once more as the daemon, with one thread, so that its keeper can be made first.
//! Never here: what a sandbox is. Called by `main`.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::cluster::Target;
use crate::fail;
use crate::sandbox::daemon::{self, Start};
use crate::sandbox::place::{Base, LOG_BYTES_MAX, Place, State};

const SHOWN_LINES: usize = 12;
/// For a sandbox that another `up` is starting: longer than that may take.
const OTHER_STEPS: u32 = 400;
const OTHER_STEP: Duration = Duration::from_millis(100);

/// Flags of `up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    base: Base,
    /// Table of images and the programs they stand for, one `image-pattern = /path/to/program args…` a line
    /// [default: `images` in the sandbox's state folder].
    #[arg(long, value_name = "FILE")]
    images: Option<PathBuf>,
    /// Be the daemon.
    #[arg(long, hide = true)]
    daemon: bool,
}

/// Runs.
pub(crate) fn run(target: &Target, args: Args) -> anyhow::Result<ExitCode> {
    let place = args.base.place(target.name.as_deref())?;
    let images = match args.images {
        Some(file) => std::path::absolute(file)?,
        None => place.folder.join("images"),
    };
    if args.daemon {
        let exe = std::env::current_exe().context("could not find this program")?;
        let programs = exe.parent().unwrap_or(Path::new("/")).to_owned();
        let vars = api_rt::env::Vars::process();
        let path = std::env::split_paths(vars.text("PATH", "/usr/bin:/bin"))
            .filter(|folder| shared(folder))
            .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
            .collect();
        return match daemon::run(&Start { place, images, programs, path }) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => {
                eprintln!("error: {error:#}");
                Ok(ExitCode::from(fail::FAILED))
            }
        };
    }
    match place.state()?.0 {
        State::Running => {}
        State::Starting | State::Stopped => start(&place, &args.base, &images)?,
    }
    print_next(&place);
    Ok(ExitCode::SUCCESS)
}

/// Whether containers see this folder of the machine at the same path.
fn shared(folder: &Path) -> bool {
    ["/usr", "/bin", "/sbin", "/opt"].iter().any(|top| folder.starts_with(top))
}

fn start(place: &Place, base: &Base, images: &Path) -> anyhow::Result<()> {
    place.make()?;
    let log = place.log();
    place.trim_log(LOG_BYTES_MAX).with_context(|| format!("could not put {} aside", log.display()))?;
    let errors = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
    let errors = errors.with_context(|| format!("could not open {}", log.display()))?;
    let begins_at = errors.metadata()?.len();
    let exe = std::env::current_exe().context("could not find this program")?;
    let mut child = Command::new(exe)
        .args(["up", "--daemon", "--name", &place.name])
        .arg("--state")
        .arg(base.folder()?)
        .arg("--images")
        .arg(images)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .context("could not start the sandbox")?;
    let told = child.stdout.take().context("the sandbox has no output")?;
    for line in BufReader::new(told).lines() {
        let line = line?;
        if line == "ready" {
            return Ok(());
        }
    }
    let ended = child.wait()?;
    let text = std::fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(usize::try_from(begins_at)?..).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let error = lines.iter().position(|line| line.starts_with("error: "));
    let from = error.unwrap_or_else(|| lines.len().saturating_sub(SHOWN_LINES));
    let shown = lines.get(from..).unwrap_or_default().join("\n");
    let shown = shown.strip_prefix("error: ").unwrap_or(&shown);
    if other_started(place)? {
        return Ok(());
    }
    Err(fail::coded(fail::FAILED, format!("the sandbox did not start ({ended})\n{shown}\n  log: {}", log.display())))
}

/// Another `up` at the same moment may have won: then its sandbox is waited for.
fn other_started(place: &Place) -> anyhow::Result<bool> {
    for _ in 0..OTHER_STEPS {
        match place.state()?.0 {
            State::Running => return Ok(true),
            State::Stopped => return Ok(false),
            State::Starting => std::thread::sleep(OTHER_STEP),
        }
    }
    Ok(false)
}

fn print_next(place: &Place) {
    let name =
        if place.name == crate::sandbox::place::DEFAULT { String::new() } else { format!(" --name {}", place.name) };
    eprintln!("sandbox {} is up", place.name);
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    let first: u16 = first.trim().parse().unwrap_or(1024);
    if !nix::unistd::geteuid().is_root() && first > 80 {
        eprintln!(
            "  ports below {first} are not this user's: LoadBalancers answer there inside `meshctl shell{name}` only, \
             elsewhere use the NodePort"
        );
    }
    eprintln!("  eval \"$(meshctl env{name})\"    # kubectl and meshctl now talk to it");
    eprintln!("  meshctl shell{name}            # a shell inside its network");
    eprintln!("  meshctl install{name} -y       # the mesh");
    eprintln!("  meshctl down{name}");
}

/// The kubeconfig of a sandbox of this machine.
pub(crate) fn kubeconfig_of(name: &str) -> anyhow::Result<PathBuf> {
    let place = Base::from_env().place(Some(name))?;
    place.running()?;
    Ok(place.kubeconfig())
}
