//! Faults around the proxy: for each what must hold, and the same without the fault.
//!
//! Applications that die, peers that stall or reset, a full disk, no descriptors, little memory, a pilot that comes and
//! goes, certificates that run out. Memory of both sidecars is printed before and after.
//! Never here: the control plane's own faults (`resilience`). Run by `cargo xtask test`, as a user who may make network
//! namespaces.

mod faults_cases;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    fault::{FaultProxy, Plan},
    processes,
    rig::{LIMIT, PORT, Rig, SERVICE, SPOILER, SPOILT, SmallDisk},
    sandbox::until,
    suite::{self, Test},
};
use faults_cases::{control, machine, peers};

/// Room for the access log of both sidecars.
const DISK_KIB: u32 = 16 * 1024;
/// Most that a sidecar may hold more after a fault than before it: the window of a connection between two sidecars is
/// 16 MiB, and the allocator keeps what was used.
const GROWTH_MIB: u64 = 40;

struct Faults {
    rig: RefCell<Rig>,
    spoiler: FaultProxy,
    // Dropped last: the sidecars write there.
    disk: SmallDisk,
}

impl Faults {
    fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// The access log of both sidecars.
    fn log(&self) -> PathBuf {
        self.disk().join("access.log")
    }
}

fn main() -> ExitCode {
    let tests = vec![
        test("a_full_disk_under_the_log_loses_lines_and_no_request", machine::full_disk),
        test("an_application_that_dies_in_a_body_gives_no_clean_end", peers::dies_in_a_body),
        test("a_stream_cut_at_any_byte_is_never_a_whole_reply", peers::cut_streams),
        test("a_stalled_or_half_open_peer_is_given_up_at_the_limit", peers::stalled),
        test("a_slow_peer_is_waited_for", peers::slow),
        test("storms_of_resets_leave_nothing_behind", peers::reset_storm),
        test("without_descriptors_accepting_pauses_and_comes_back", machine::no_descriptors),
        Test::maybe("readers_that_do_not_read_fit_into_little_memory", |f: &Faults| {
            measured(f, || machine::little_memory(f))
        }),
        test("a_pilot_that_comes_and_goes_fails_no_request", control::flapping_pilot),
        test("a_certificate_renewed_under_load_fails_no_request_and_one_that_ran_out_is_told", control::certificates),
    ];
    suite::run("faults", tests, start)
}

fn test(name: &str, run: fn(&Faults) -> Result<()>) -> Test<Faults> {
    Test::new(name, move |f| measured(f, || run(f)))
}

fn start() -> Result<Faults> {
    let disk = std::env::temp_dir().join(format!("faults-{}", std::process::id()));
    let mounted = SmallDisk::mount(&disk, DISK_KIB)?;
    let rig = Rig::start(&format!("accessLogFile: {}/access.log", disk.display()))?;
    let listen = format!("{SPOILER}:{PORT}").parse()?;
    let spoiler = FaultProxy::start(&rig.wire, "spoiler", listen, format!("198.18.0.11:{PORT}").parse()?)?;
    until("the spoilt way answers", LIMIT, || rig.get(SPOILT, "/size/1").map(drop)).with_context(|| rig.logs())?;
    Ok(Faults { rig: RefCell::new(rig), spoiler, disk: mounted })
}

fn memory(f: &Faults) -> Result<[u64; 2]> {
    let rig = f.rig.borrow();
    Ok([processes::resident_mib(rig.sidecar("client")?)?, processes::resident_mib(rig.sidecar("app")?)?])
}

/// Runs a test between two looks at the sidecars' memory; afterwards all must be as before.
fn measured<T>(f: &Faults, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = memory(f)?;
    let done = run();
    f.spoiler.set(Plan::default());
    let rig = f.rig.borrow();
    let done = done.with_context(|| rig.logs())?;
    until("served again", LIMIT, || rig.get(SERVICE, "/size/1").map(drop))?;
    drop(rig);
    let after = memory(f)?;
    eprintln!("  resident MiB, client's and application's sidecar: {before:?} before, {after:?} after");
    for (before, after) in before.into_iter().zip(after) {
        ensure!(after <= before + GROWTH_MIB, "memory grew from {before} to {after} MiB");
    }
    Ok(done)
}
