//! Looks at processes of a sandbox through /proc: which there are, whether they live, how much memory they hold.
//!
//! Never here: ending any that a sandbox did not start. Called by suites that kill or measure.

use std::fs;

use anyhow::{Context as _, Result};

const DEPTH_MAX: usize = 64;

/// Processes below this one that run a program of this name.
///
/// # Errors
/// /proc cannot be read.
pub fn below(ancestor: i32, program: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(command) = fs::read(path.join("cmdline")) else { continue };
        let first = String::from_utf8_lossy(command.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        if first.rsplit('/').next() == Some(program) && descends(pid, ancestor) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn descends(mut pid: i32, ancestor: i32) -> bool {
    for _ in 0..DEPTH_MAX {
        if pid == ancestor {
            return true;
        }
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split_whitespace().nth(1))
            .and_then(|text| text.parse().ok());
        match parent {
            Some(parent) if parent > 0 => pid = parent,
            _ => return false,
        }
    }
    false
}

/// Whether a process lives; a zombie does not.
pub fn running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    stat.and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with('Z'))).unwrap_or(false)
}

/// Resident memory of a process in MiB.
///
/// # Errors
/// It is gone.
pub fn resident_mib(pid: i32) -> Result<u64> {
    Ok(resident_kib(pid)? / 1024)
}

/// Resident memory of a process in KiB.
///
/// # Errors
/// It is gone.
pub fn resident_kib(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
