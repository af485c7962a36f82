//! The database file: what survives `kill -9`.
//!
//! One thread owns it and commits whatever has queued up in one transaction (group commit), then tells each writer.
//! Never here: what objects mean, the index in memory. Called by `store`.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use redb::{Database, Durability, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

/// Key: resource, namespace and name, joined by NUL. Value: the object's revision (8 bytes, big endian) and its JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";

/// Writes that one transaction takes at most.
const BATCH_MAX: usize = 1024;
/// redb's own page cache; the index in memory answers all reads.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The database could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file is not a database of ours, is locked by another process, or is damaged.
    #[error("the database cannot be opened")]
    Open(#[source] Box<redb::Error>),
    /// A read failed.
    #[error("the database cannot be read")]
    Read(#[source] Box<redb::Error>),
    /// The writer's thread could not be started.
    #[error("the database's thread cannot be started")]
    Thread(#[source] std::io::Error),
}

pub(super) struct Op {
    pub(super) key: String,
    pub(super) revision: u64,
    /// `None` deletes.
    pub(super) json: Option<Bytes>,
    pub(super) done: oneshot::Sender<bool>,
}

pub(super) struct Row {
    pub(super) key: String,
    pub(super) revision: u64,
    pub(super) json: Bytes,
}

/// The end of the queue that writers hold; dropping it ends the thread after its last commit.
pub(super) struct Disk {
    queue: Option<mpsc::Sender<Op>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Disk {
    /// Opens the file, gives all rows and the last revision.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Row>, u64), DiskError> {
        let open = |error: redb::Error| DiskError::Open(Box::new(error));
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| open(error.into()))?;
        let begin = database.begin_write().map_err(|error| open(error.into()))?;
        begin.open_table(OBJECTS).map_err(|error| open(error.into()))?;
        begin.open_table(COUNTERS).map_err(|error| open(error.into()))?;
        begin.commit().map_err(|error| open(error.into()))?;
        let (rows, revision) = read(&database).map_err(|error| DiskError::Read(Box::new(error)))?;
        let (queue, ops) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(&database, &ops))
            .map_err(DiskError::Thread)?;
        Ok((Self { queue: Some(queue), thread: Some(thread) }, rows, revision))
    }

    /// Queues a write; the order of calls is the order on disk.
    pub(super) fn push(&self, op: Op) {
        if let Some(queue) = &self.queue
            && let Err(mpsc::SendError(op)) = queue.send(op)
        {
            op.done.send(false).ok();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread ended badly");
        }
    }
}

fn read(database: &Database) -> Result<(Vec<Row>, u64), redb::Error> {
    use redb::ReadableDatabase as _;
    let transaction = database.begin_read()?;
    let table = transaction.open_table(OBJECTS)?;
    let mut rows = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let (revision, json) = value.value().split_at_checked(8).unwrap_or_default();
        let revision = <[u8; 8]>::try_from(revision).map(u64::from_be_bytes).unwrap_or_default();
        rows.push(Row { key: key.value().to_owned(), revision, json: Bytes::copy_from_slice(json) });
    }
    let counters = transaction.open_table(COUNTERS)?;
    let revision = counters.get(REVISION)?.map_or(0, |value| value.value());
    Ok((rows, revision))
}

fn write_all(database: &Database, ops: &mpsc::Receiver<Op>) {
    // After a failed commit nothing may be acknowledged: later writes could rest on the lost ones.
    let mut broken = false;
    while let Ok(first) = ops.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = ops.try_recv()
        {
            batch.push(next);
        }
        if !broken && let Err(error) = commit(database, &batch) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the store cannot be written; it is read-only now"
            );
            broken = true;
        }
        for op in batch {
            // The writer may have gone; its write stands.
            op.done.send(!broken).ok();
        }
    }
}

fn commit(database: &Database, batch: &[Op]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut table = transaction.open_table(OBJECTS)?;
        let mut value = Vec::new();
        for op in batch {
            match &op.json {
                Some(json) => {
                    value.clear();
                    value.extend_from_slice(&op.revision.to_be_bytes());
                    value.extend_from_slice(json);
                    table.insert(op.key.as_str(), value.as_slice())?;
                }
                None => {
                    table.remove(op.key.as_str())?;
                }
            }
        }
        let mut counters = transaction.open_table(COUNTERS)?;
        if let Some(last) = batch.iter().map(|op| op.revision).max() {
            counters.insert(REVISION, last)?;
        }
    }
    transaction.commit()?;
    Ok(())
}
