//! `meshctl shell`: a shell, or one command, inside a sandbox's network.
//!
//! Files are the user's own; names, addresses and processes are the sandbox's. Never here: the entering itself.
//! Called by `main`, with one thread.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use sandbox_node::{Inside, run_inside};

use crate::cluster::Target;
use crate::sandbox::place::Base;

/// Says, inside, in which sandbox one is.
const MARK: &str = "FERROMESH_SANDBOX";

/// Flags of `shell`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    base: Base,
    /// Run this command line by a shell (also `-c`).
    #[arg(long, value_name = "COMMAND LINE")]
    command: Option<String>,
    /// Run this program with these arguments.
    #[arg(last = true)]
    argv: Vec<OsString>,
}

/// `-c` means a command line here, as shells have it; elsewhere it is the kubeconfig, as istioctl has it.
pub(crate) fn spell(args: Vec<OsString>) -> Vec<OsString> {
    let Some(verb) = args.iter().skip(1).position(|arg| arg == "shell").map(|at| at + 1) else { return args };
    let mut given = false;
    args.into_iter()
        .enumerate()
        .map(|(number, arg)| {
            given |= arg == "--";
            if number > verb && !given && arg == "-c" { OsString::from("--command") } else { arg }
        })
        .collect()
}

/// Runs.
pub(crate) fn run(target: &Target, args: Args) -> anyhow::Result<ExitCode> {
    let place = args.base.place(target.name.as_deref())?;
    let vars = api_rt::env::Vars::process();
    let shell = |or: &str| {
        let own = vars.get("SHELL").filter(|shell| Path::new(shell).is_file());
        own.map_or_else(|| OsString::from(or), OsString::from)
    };
    let bash = ["/bin/bash", "/bin/sh"].into_iter().find(|path| Path::new(path).is_file()).unwrap_or("/bin/sh");
    let argv: Vec<OsString> = match (args.command, args.argv) {
        (Some(line), rest) => [bash.into(), "-c".into(), line.into()].into_iter().chain(rest).collect(),
        (None, rest) if rest.is_empty() => vec![shell(bash)],
        (None, rest) => rest,
    };
    let programs = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    if vars.get(MARK) == Some(&place.name) {
        let (program, rest) = argv.split_first().context("no command")?;
        let error = Command::new(program).args(rest).exec();
        return Err(error).with_context(|| format!("could not run {}", program.display()));
    }
    let record = place.running()?;
    let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    env.insert("KUBECONFIG".into(), place.kubeconfig().into());
    env.insert(MARK.into(), place.name.clone().into());
    env.insert("FERROMESH_STATE".into(), args.base.folder()?.into());
    let old = env.get(&OsString::from("PATH")).cloned().unwrap_or_default();
    let path = programs.into_iter().chain(std::env::split_paths(&old));
    env.insert("PATH".into(), std::env::join_paths(path.collect::<Vec<PathBuf>>())?);
    let c_string = |text: OsString| CString::new(text.into_vec()).context("a NUL in the command or environment");
    let pair = |(name, value): (OsString, OsString)| {
        let mut text = name;
        text.push("=");
        text.push(value);
        c_string(text)
    };
    let inside = Inside {
        keeper: record.keeper,
        folder: place.folder.join("shell"),
        argv: argv.into_iter().map(c_string).collect::<anyhow::Result<_>>()?,
        env: env.into_iter().map(pair).collect::<anyhow::Result<_>>()?,
    };
    let code = run_inside(&inside)?;
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let spelled = spell(line.split(' ').map(OsString::from).collect());
        let spelled: Vec<String> = spelled.into_iter().map(|arg| arg.into_string().unwrap()).collect();
        assert_eq!(spelled.join(" "), expected);
    }

    #[test]
    fn a_shells_c_is_a_command_line() {
        check("meshctl shell -c ls --name x", "meshctl shell --command ls --name x");
        check("meshctl shell -- sh -c ls", "meshctl shell -- sh -c ls");
        check("meshctl get vs -c file", "meshctl get vs -c file");
    }
}
