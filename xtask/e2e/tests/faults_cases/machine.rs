//! Faults of the machine: a full disk, no descriptors, little memory.
//!
//! Never here: faults of peers. Called by the suite `faults`.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering::Relaxed,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    kubectl::Said,
    processes,
    rig::{self, LIMIT, PROXY_UID, Rig, SERVICE},
    sandbox::until,
    suite::Outcome,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::load;
use crate::Faults;

/// Connections at once where descriptors are few.
const CROWD: usize = 200;
/// How long the processor time of a sidecar without descriptors is measured, and the most it may take then.
const MEASURED: Duration = Duration::from_secs(2);
const SPENT_MAX: u64 = 50;
/// As long as it may take until everything that can be held is held: nothing tells it.
const HELD_WITHIN: Duration = Duration::from_secs(3);

pub(crate) fn full_disk(f: &Faults) -> Result<()> {
    const REQUESTS: u32 = 100;
    let rig = f.rig.borrow();
    let lost = || rig.stat("client", "access_log.lines_dropped");
    let logged = || -> Result<usize> { Ok(fs::read_to_string(f.log())?.matches("outbound|5000||app").count()) };
    // CONTROL: while there is room, no line is lost.
    let before = until("the log is there", LIMIT, logged)?;
    rig.get(SERVICE, "/size/1")?;
    until("the line is there", LIMIT, || {
        ensure!(logged()? > before, "{before} lines");
        Ok(())
    })?;
    ensure!(lost()? == 0, "lines were lost before the disk was full");
    let filler = f.disk().join("filler");
    fill(&filler)?;
    rig.at_client(load::requests(REQUESTS))?;
    until("lines are lost and counted", LIMIT, || {
        ensure!(lost()? > 0, "no line was lost");
        Ok(())
    })?;
    eprintln!("  {REQUESTS} requests, none failed, {} lines lost", lost()?);
    fs::remove_file(&filler)?;
    until("lines are written again", LIMIT, || {
        let (lines, dropped) = (logged()?, lost()?);
        rig.get(SERVICE, "/size/1")?;
        until("the line is written or lost", LIMIT, || {
            ensure!(logged()? > lines || lost()? > dropped, "neither");
            Ok(())
        })?;
        ensure!(lost()? == dropped, "{lines} lines, {dropped} lost");
        Ok(())
    })
}

/// Writes until there is no room for another byte.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let mut piece = 64 * 1024;
    while piece > 0 {
        match file.write(&vec![0; piece]) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOSPC) => piece /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Processor time of a process in hundredths of a second.
fn processor(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("no stat")?;
    let fields: Vec<u64> = rest.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(fields.iter().sum())
}

/// Changes how many files a process of the proxy's user may open; the hard limit stays.
fn limit_descriptors(pid: i32, most: u32) -> Result<()> {
    let user = PROXY_UID.to_string();
    let limit = ["prlimit", "--pid", &pid.to_string(), &format!("--nofile={most}:")];
    Said::of(Command::new("setpriv").args(["--reuid", &user, "--regid", &user, "--clear-groups"]).args(limit))?
        .ok()
        .map(drop)
}

/// Connections on which nothing is said.
fn crowd(rig: &Rig) -> Result<Vec<std::net::TcpStream>> {
    rig.at_client(async {
        let connect = || std::net::TcpStream::connect(rig::service()).context("the crowd cannot connect");
        (0..CROWD).map(|_| connect()).collect()
    })
}

pub(crate) fn no_descriptors(f: &Faults) -> Result<()> {
    let rig = f.rig.borrow();
    let pid = rig.sidecar("client")?;
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    // CONTROL: with descriptors enough the same crowd is taken, and disturbs nobody.
    let few = open()?;
    let there = crowd(&rig)?;
    // Connections that were kept from before may end meanwhile.
    let many = few + CROWD * 3 / 4;
    until("the crowd is taken", LIMIT, || {
        ensure!(open()? >= many, "{} of {many} are open", open()?);
        Ok(())
    })?;
    rig.get(SERVICE, "/size/1")?;
    drop(there);
    until("the crowd has gone", LIMIT, || {
        ensure!(open()? < few + CROWD / 4, "{} are open", open()?);
        Ok(())
    })?;

    let most = open()? + 40;
    limit_descriptors(pid, u32::try_from(most)?)?;
    let there = crowd(&rig)?;
    until("the descriptors are used up", LIMIT, || {
        ensure!(open()? >= most - 2, "{} of {most} are open", open()?);
        Ok(())
    })?;
    let before = processor(pid)?;
    sleep(MEASURED);
    let spent = processor(pid)? - before;
    ensure!(processes::running(pid), "the sidecar has died");
    ensure!(spent < SPENT_MAX, "{spent} hundredths of a second in {MEASURED:?} without descriptors");
    drop(there);
    // With as few descriptors as before: those of the crowd are given back.
    until("served again", LIMIT, || rig.get(SERVICE, "/size/1").map(drop))?;
    eprintln!("  {most} descriptors, {spent} hundredths of processor time in {MEASURED:?} without any");
    limit_descriptors(pid, 4096)
}

/// A control group of its own for one process, which goes back to the root's when it is dropped.
struct Group {
    path: PathBuf,
    pid: i32,
}

impl Group {
    const ALL: &str = "/sys/fs/cgroup/memory";

    /// None: there are no memory groups of version 1.
    fn of(pid: i32, bytes: u64) -> Result<Option<Self>> {
        let all = Path::new(Self::ALL);
        if !all.join("memory.limit_in_bytes").exists() {
            return Ok(None);
        }
        let group = Self { path: all.join(format!("faults-{}", std::process::id())), pid };
        fs::create_dir(&group.path)?;
        fs::write(group.path.join("memory.limit_in_bytes"), bytes.to_string())?;
        fs::write(group.path.join("cgroup.procs"), pid.to_string())?;
        Ok(Some(group))
    }

    fn most(&self) -> Result<u64> {
        Ok(fs::read_to_string(self.path.join("memory.max_usage_in_bytes"))?.trim().parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let back = fs::write(Path::new(Self::ALL).join("cgroup.procs"), self.pid.to_string());
        if let Err(error) = back.and_then(|()| fs::remove_dir(&self.path)) {
            eprintln!("{} stays: {error}", self.path.display());
        }
    }
}

pub(crate) fn little_memory(f: &Faults) -> Result<Outcome> {
    const READERS: u32 = 150;
    const BODY_BYTES: u64 = 5_000_000;
    let rig = f.rig.borrow();
    let pid = rig.sidecar("client")?;
    let limit = (processes::resident_mib(pid)? + 96) << 20;
    // CONTROL: all at once are far more than there is room for.
    ensure!(u64::from(READERS) * BODY_BYTES > 4 * limit);
    let Some(group) = Group::of(pid, limit)? else {
        return Ok(Outcome::NotRun("no memory cgroup of version 1".to_owned()));
    };
    let asked = rig.seen.load(Relaxed);
    let read = rig.at_client(async {
        // CONTROL: the same again takes no more.
        lazy_readers(READERS, BODY_BYTES).await?;
        lazy_readers(READERS, BODY_BYTES).await
    });
    let (most, asked, alive) = (group.most()?, rig.seen.load(Relaxed) - asked, processes::running(pid));
    drop(group);
    ensure!(alive, "the sidecar was killed");
    ensure!(read? > BODY_BYTES, "the reader got less than its body");
    // CONTROL: the application had begun to answer all of them.
    ensure!(asked >= 2 * u64::from(READERS), "the application saw {asked} requests");
    eprintln!("  {READERS} replies of {BODY_BYTES} bytes under {} MiB: at most {} MiB", limit >> 20, most >> 20);
    Ok(Outcome::Passed)
}

/// Asks for many bodies and reads only the last one; its length.
async fn lazy_readers(count: u32, bytes: u64) -> Result<u64> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(rig::service()).await.context("a reader cannot connect")?;
        socket.write_all(rig::request(&format!("/size/{bytes}")).as_bytes()).await?;
        all.push(socket);
    }
    tokio::time::sleep(HELD_WITHIN).await;
    let Some(mut reader) = all.pop() else { bail!("no reader") };
    let mut reply = Vec::new();
    while !load::whole(&reply) {
        ensure!(reader.read_buf(&mut reply).await.context("the reader cannot read")? > 0, "the reply ended early");
    }
    Ok(reply.len() as u64)
}
