//! Writes access log lines in batches, on a thread of its own, so that a slow disk never slows a request.
//!
//! Workers hand over whole buffers; a full queue or a failed write drops lines and counts them.
//! Never here: formatting. Started by `main`; fed by the workers.

use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use crate::metrics::proxy::ProxyStats;

/// Lines for one file.
#[derive(Debug)]
struct Batch {
    path: Arc<str>,
    text: Vec<u8>,
    lines: u64,
}

/// The way to the writing thread.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: SyncSender<Batch>,
    stats: Arc<ProxyStats>,
}

/// Batches waiting; each holds at least one line.
const BATCHES_MAX: usize = 1024;

impl Writer {
    /// Starts the thread; it ends when the last `Writer` is dropped and all lines are written.
    pub(crate) fn start(stats: Arc<ProxyStats>) -> io::Result<Self> {
        let (queue, batches) = sync_channel(BATCHES_MAX);
        let dropped = Arc::clone(&stats);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(&batches, &dropped))?;
        Ok(Self { queue, stats })
    }

    /// Hands lines over.
    pub(crate) fn send(&self, path: Arc<str>, text: Vec<u8>, lines: u64) {
        match self.queue.try_send(Batch { path, text, lines }) {
            Ok(()) => {}
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                self.stats.log_lines_dropped.add(batch.lines);
            }
        }
    }
}

enum Target {
    Stdout,
    Stderr,
    File(File),
}

impl Target {
    fn open(path: &str) -> io::Result<Self> {
        // Opening /dev/stdout anew fails where it is a socket or owned by another user.
        match path {
            "/dev/stdout" => Ok(Self::Stdout),
            "/dev/stderr" => Ok(Self::Stderr),
            path => OpenOptions::new().create(true).append(true).open(path).map(Self::File),
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(text),
            Self::File(file) => file.write_all(text),
        }
    }
}

fn write_all(batches: &Receiver<Batch>, stats: &ProxyStats) {
    let mut targets: HashMap<Arc<str>, Target> = HashMap::new();
    // What cannot be written is told once, and once more when it can be.
    let mut failing: HashSet<Arc<str>> = HashSet::new();
    while let Ok(batch) = batches.recv() {
        let written = match targets.get_mut(&batch.path) {
            Some(target) => target.write(&batch.text),
            None => Target::open(&batch.path).and_then(|mut target| {
                let written = target.write(&batch.text);
                targets.insert(Arc::clone(&batch.path), target);
                written
            }),
        };
        match written {
            Ok(()) if failing.is_empty() => {}
            Ok(()) => {
                if failing.remove(&batch.path) {
                    tracing::info!(path = %batch.path, "access log is written again");
                }
            }
            Err(error) => {
                stats.log_lines_dropped.add(batch.lines);
                targets.remove(&batch.path);
                if failing.insert(Arc::clone(&batch.path)) {
                    tracing::warn!(path = %batch.path, %error, "access log lines are lost");
                }
            }
        }
    }
}
