//! A container's log in a file: one line an entry, with time and stream, as container runtimes keep it.
//!
//! Rotates, keeps the run before, and wakes those who follow. Never here: what the client asked in HTTP terms.
//! Written by `container`, read by `kubelet`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::limits::{LINE_BYTES_MAX, LOG_BYTES_MAX, OUTPUT_READ_BYTES};

/// Which of a process's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// How far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub(crate) written: u64,
    pub(crate) rotations: u64,
    pub(crate) ended: bool,
}

/// One run's log, being written.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Mutex<(File, u64)>,
    progress: watch::Sender<Progress>,
}

fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

impl Log {
    /// Begins a log file.
    pub(crate) fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(&path)?;
        Ok(Self { path, file: Mutex::new((file, 0)), progress: watch::Sender::default() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line; `whole` is false where a very long line goes on in the next entry.
    pub(crate) fn add(&self, stream: Stream, line: &[u8], whole: bool, at: Timestamp) {
        let name = match stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        };
        let mut entry = format!("{at:.9} {name} {} ", if whole { 'F' } else { 'P' }).into_bytes();
        entry.extend_from_slice(line);
        entry.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turned = 0;
        if file.1 + entry.len() as u64 > LOG_BYTES_MAX {
            match self.rotate() {
                Ok(fresh) => {
                    *file = (fresh, 0);
                    turned = 1;
                }
                Err(error) => tracing::warn!(path = %self.path.display(), %error, "log not rotated"),
            }
        }
        if let Err(error) = file.0.write_all(&entry) {
            tracing::warn!(path = %self.path.display(), %error, "log line lost");
            return;
        }
        file.1 += entry.len() as u64;
        self.progress.send_modify(|progress| {
            progress.written += 1;
            progress.rotations += turned;
        });
    }

    fn rotate(&self) -> io::Result<File> {
        std::fs::rename(&self.path, rotated(&self.path))?;
        OpenOptions::new().create(true).write(true).truncate(true).open(&self.path)
    }

    /// Says that nothing more comes.
    pub(crate) fn end(&self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}

/// Which lines a reader wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) timestamps: bool,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) since: Option<i64>,
}

/// Reads a log from its beginning, and on as it grows.
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    filter: Filter,
    skip: u64,
}

impl Reader {
    /// Opens the log, its older part included.
    pub(crate) fn open(path: &Path, filter: Filter) -> io::Result<(Self, Vec<u8>)> {
        let mut before = Vec::new();
        let mut count = 0;
        let older = File::open(rotated(path)).ok();
        if filter.tail_lines.is_some() {
            for file in older.iter().map(|file| file.try_clone()).chain([File::open(path)]) {
                for line in BufReader::new(file?).split(b'\n') {
                    if shown(&line?, &filter).is_some() {
                        count += 1;
                    }
                }
            }
        }
        let skip = filter.tail_lines.map_or(0, |tail| u64::saturating_sub(count, tail));
        let mut reader = Self { path: path.to_owned(), file: BufReader::new(File::open(path)?), filter, skip };
        if let Some(mut older) = older {
            older.seek(SeekFrom::Start(0))?;
            let current = std::mem::replace(&mut reader.file, BufReader::new(older));
            reader.more(&mut before)?;
            reader.file = current;
        }
        reader.more(&mut before)?;
        Ok((reader, before))
    }

    /// Adds all whole lines that have come since to `out`.
    pub(crate) fn more(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = self.file.read_until(b'\n', &mut line)?;
            if length == 0 {
                return Ok(());
            }
            if line.pop() != Some(b'\n') {
                // Half an entry: it is read again when whole.
                let back = i64::try_from(length).map_err(io::Error::other)?;
                self.file.seek_relative(-back)?;
                return Ok(());
            }
            if let Some(text) = shown(&line, &self.filter) {
                if self.skip > 0 {
                    self.skip -= 1;
                } else {
                    out.extend_from_slice(&text);
                }
            }
        }
    }

    /// After a rotation: the rest of the old part, then the new one from its beginning.
    pub(crate) fn turn(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.more(out)?;
        self.file = BufReader::new(File::open(&self.path)?);
        self.more(out)
    }
}

/// An entry as the client sees it; `None`: the filter leaves it out.
fn shown(entry: &[u8], filter: &Filter) -> Option<Vec<u8>> {
    let mut parts = entry.splitn(4, |byte| *byte == b' ');
    let (time, _stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if let Some(since) = filter.since {
        let at: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
        if at.as_second() < since {
            return None;
        }
    }
    let mut out = Vec::with_capacity(entry.len());
    if filter.timestamps {
        out.extend_from_slice(time);
        out.push(b' ');
    }
    out.extend_from_slice(text);
    if tag == b"F" {
        out.push(b'\n');
    }
    Some(out)
}

/// Passes a stream on, line by line, to the log; every piece as it came, to `each`.
pub(crate) async fn pump<R: tokio::io::AsyncRead + Unpin>(
    mut from: R,
    stream: Stream,
    log: Arc<Log>,
    mut each: impl FnMut(&[u8]),
) {
    use tokio::io::AsyncReadExt;
    let mut buffer = vec![0; OUTPUT_READ_BYTES];
    let mut line = Vec::new();
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => {
                tracing::debug!(%error, "container output");
                break;
            }
        };
        let piece = buffer.get(..length).unwrap_or_default();
        each(piece);
        let now = Timestamp::now();
        let mut rest = piece;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = rest.split_at(at);
            line.extend_from_slice(head);
            log.add(stream, &line, true, now);
            line.clear();
            rest = tail.get(1..).unwrap_or_default();
        }
        line.extend_from_slice(rest);
        while line.len() > LINE_BYTES_MAX {
            let tail = line.split_off(LINE_BYTES_MAX);
            log.add(stream, &line, false, now);
            line = tail;
        }
    }
    if !line.is_empty() {
        log.add(stream, &line, true, Timestamp::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lines: &[&str]) -> (tempfile::TempDir, Log) {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(folder.path().join("c/0.log")).unwrap();
        for (second, line) in lines.iter().enumerate() {
            log.add(
                Stream::Out,
                line.as_bytes(),
                true,
                Timestamp::from_second(i64::try_from(second).unwrap()).unwrap(),
            );
        }
        (folder, log)
    }

    fn check(filter: Filter, expected: &str) {
        let (_folder, log) = written(&["a", "b", "c"]);
        let (_, text) = Reader::open(log.path(), filter).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn all_lines_come_without_their_marks() {
        check(Filter::default(), "a\nb\nc\n");
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        check(Filter { tail_lines: Some(2), ..Filter::default() }, "b\nc\n");
        check(Filter { tail_lines: Some(0), ..Filter::default() }, "");
    }

    #[test]
    fn older_lines_are_left_out() {
        check(Filter { since: Some(1), ..Filter::default() }, "b\nc\n");
    }

    #[test]
    fn timestamps_have_nanoseconds() {
        check(
            Filter { timestamps: true, tail_lines: Some(1), ..Filter::default() },
            "1970-01-01T00:00:02.000000000Z c\n",
        );
    }

    #[tokio::test]
    async fn a_long_line_is_one_line_for_the_reader() {
        let (_folder, log) = written(&[]);
        let log = Arc::new(log);
        let text = "x".repeat(40_000) + "\nend";
        pump(text.as_bytes(), Stream::Out, Arc::clone(&log), |_| {}).await;
        let (_, read) = Reader::open(log.path(), Filter::default()).unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), text + "\n");
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let (_folder, log) = written(&["a"]);
        let (mut reader, _) = Reader::open(log.path(), Filter::default()).unwrap();
        log.add(Stream::Err, b"later", true, Timestamp::UNIX_EPOCH);
        let mut more = Vec::new();
        reader.more(&mut more).unwrap();
        assert_eq!(more, b"later\n");
    }
}
