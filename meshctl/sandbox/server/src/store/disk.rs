//! The database file: what survives `kill -9`.
//!
//! One thread owns it and commits whatever has queued up in one transaction (group commit), then tells each writer.
//! Never here: what objects mean, the index in memory. Called by `store`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use redb::{Database, Durability, ReadableTable, TableDefinition};
use serde::de::IgnoredAny;
use tokio::sync::oneshot;

use crate::limits::{BATCH_WRITES_MAX, CACHE_BYTES};

/// Key: resource, namespace and name, joined by NUL. Value: the object's revision (8 bytes, big endian) and its JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";

/// The database could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file is not a database of ours, is locked by another process, or is damaged.
    #[error("the database cannot be opened")]
    Open(#[source] Box<redb::Error>),
    /// A read failed.
    #[error("the database cannot be read")]
    Read(#[source] Box<redb::Error>),
    /// An object is not what this program wrote.
    #[error("the database is damaged at {key:?}")]
    Damaged {
        /// Resource, namespace and name, as the database has them.
        key: String,
    },
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
    pub(super) resource: String,
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    pub(super) revision: u64,
    pub(super) json: Bytes,
}

/// The end of the queue that writers hold; dropping it ends the thread after its last commit.
pub(super) struct Disk {
    queue: Option<mpsc::Sender<Op>>,
    thread: Option<thread::JoinHandle<()>>,
    /// A commit has failed: nothing is written any more, as later writes could rest on the lost ones.
    broken: Arc<AtomicBool>,
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
        let (raw, revision) = read(&database).map_err(|error| DiskError::Read(Box::new(error)))?;
        let rows = raw.into_iter().map(row).collect::<Result<_, _>>()?;
        let (queue, ops) = mpsc::channel();
        let broken = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&broken);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(&database, &ops, &told))
            .map_err(DiskError::Thread)?;
        Ok((Self { queue: Some(queue), thread: Some(thread), broken }, rows, revision))
    }

    /// Whether nothing can be written any more, until the next start.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// As after a commit that failed.
    #[cfg(test)]
    pub(super) fn give_up(&self) {
        self.broken.store(true, Ordering::Release);
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

/// A key and its value, as they stand in the file.
type Raw = (String, Vec<u8>);

fn row((key, value): Raw) -> Result<Row, DiskError> {
    let mut parts = key.splitn(3, '\0');
    let names = (parts.next(), parts.next(), parts.next());
    let content = value.split_first_chunk().filter(|(_, json)| serde_json::from_slice::<IgnoredAny>(json).is_ok());
    match (names, content) {
        ((Some(resource), Some(namespace), Some(name)), Some((revision, json))) => Ok(Row {
            resource: resource.to_owned(),
            namespace: namespace.into(),
            name: name.into(),
            revision: u64::from_be_bytes(*revision),
            json: Bytes::copy_from_slice(json),
        }),
        _ => Err(DiskError::Damaged { key }),
    }
}

fn read(database: &Database) -> Result<(Vec<Raw>, u64), redb::Error> {
    use redb::ReadableDatabase as _;
    let transaction = database.begin_read()?;
    let table = transaction.open_table(OBJECTS)?;
    let mut rows = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        rows.push((key.value().to_owned(), value.value().to_owned()));
    }
    let counters = transaction.open_table(COUNTERS)?;
    let revision = counters.get(REVISION)?.map_or(0, |value| value.value());
    Ok((rows, revision))
}

fn write_all(database: &Database, ops: &mpsc::Receiver<Op>, broken: &AtomicBool) {
    while let Ok(first) = ops.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_WRITES_MAX
            && let Ok(next) = ops.try_recv()
        {
            batch.push(next);
        }
        let mut good = !broken.load(Ordering::Acquire);
        if good && let Err(error) = commit(database, &batch) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the store cannot be written; it is read-only now"
            );
            broken.store(true, Ordering::Release);
            good = false;
        }
        for op in batch {
            // The writer may have gone; its write stands.
            op.done.send(good).ok();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, value: &[u8], good: bool) {
        let found = row((key.to_owned(), value.to_owned()));
        assert_eq!(found.is_ok(), good, "{key:?} {value:?}");
    }

    #[test]
    fn a_damaged_object_is_named_and_not_taken_for_an_empty_one() {
        check("pods\0d\0a", b"\0\0\0\0\0\0\0\x01{}", true);
        check("pods\0d\0a", b"\0\0\0\0\0\0\0\x01{", false);
        check("pods\0d\0a", b"\0\0\0", false);
        check("pods", b"\0\0\0\0\0\0\0\x01{}", false);
    }
}
