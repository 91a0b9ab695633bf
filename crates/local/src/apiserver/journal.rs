//! Durability: an append-only log of changes and a snapshot that shortens it.
//!
//! One thread writes. A request is answered only after the change it made, and every change that
//! it could have seen, has reached the disk: a kill at any instant loses nothing that was told.
//! A disk that is full delays answers until they fail; nothing is dropped, writing is tried again.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use matriarch_store::{Change, ObjectKey, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

/// Longest time that an answer waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two attempts to write to a disk that refuses.
const RETRY: Duration = Duration::from_millis(200);
/// Size of the log in bytes at which a snapshot replaces it.
const LONG: u64 = 16 << 20;

/// Why the kept objects cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be made.
    #[error("cannot make {path}")]
    Directory {
        /// Directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another server uses the directory.
    #[error("{path} is in use by another process")]
    InUse {
        /// Lock file.
        path: PathBuf,
    },
    /// A file cannot be opened, read or written.
    #[error("cannot use {path}")]
    File {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than what was written to it.
    #[error("{path} is damaged at line {line}")]
    Damaged {
        /// File.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What an earlier server kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// Newest revision.
    pub revision: u64,
    /// Objects.
    pub objects: BTreeMap<ObjectKey, Value>,
}

#[derive(Serialize, Deserialize)]
struct Record<V> {
    revision: u64,
    key: [String; 4],
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<V>,
}

#[derive(Serialize, Deserialize)]
struct Heading {
    revision: u64,
}

impl<V> Record<V> {
    fn new(revision: u64, key: &ObjectKey, object: Option<V>) -> Self {
        let key = [&key.group, &key.plural, &key.namespace, &key.name].map(Clone::clone);
        Self { revision, key, object }
    }
}

/// The writing end.
pub struct Journal {
    changes: mpsc::Sender<Vec<Change>>,
    durable: watch::Receiver<u64>,
}

impl Journal {
    /// Opens a directory and reads what is kept there.
    pub fn open(directory: &Path) -> Result<(Self, Kept), JournalError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| JournalError::Directory { path: directory.to_owned(), source })?;
        let lock = lock(directory)?;
        let mut writer = Writer::load(directory, lock)?;
        let kept = Kept {
            revision: writer.revision,
            objects: writer
                .mirror
                .iter()
                .map(|(key, object)| (key.clone(), (**object).clone()))
                .collect(),
        };
        // A start is the moment when nobody waits: the log begins anew.
        writer.shorten()?;
        let (changes, incoming) = mpsc::channel();
        let (done, durable) = watch::channel(kept.revision);
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(&incoming, &done))
            .map_err(|source| JournalError::File { path: directory.to_owned(), source })?;
        Ok((Self { changes, durable }, kept))
    }

    /// Hands over changes, in the order of their revisions.
    pub fn append(&self, changes: Vec<Change>) {
        // The thread ends only with this sender; were it gone, nothing would become durable, and
        // `durable` says so to everyone who waits.
        let _ = self.changes.send(changes);
    }

    /// Waits until a revision is durable.
    pub async fn durable(&self, revision: u64) -> Result<(), Refusal> {
        let mut durable = self.durable.clone();
        match tokio::time::timeout(PATIENCE, durable.wait_for(|done| *done >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Refusal::Internal(
                "the change could not be written to disk in time; it is unknown whether it will last".into(),
            )),
        }
    }

    /// The newest durable revision, for watches.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }
}

fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join("lock");
    let file = private()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| JournalError::File { path: path.clone(), source })?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| JournalError::InUse { path })?;
    Ok(file)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

struct Writer {
    directory: PathBuf,
    log: File,
    length: u64,
    revision: u64,
    mirror: BTreeMap<ObjectKey, Arc<Value>>,
    /// Held while the server lives.
    _lock: File,
}

impl Writer {
    fn load(directory: &Path, lock: File) -> Result<Self, JournalError> {
        let snapshot = directory.join("snapshot.jsonl");
        let log_path = directory.join("log.jsonl");
        let log = private()
            .read(true)
            .append(true)
            .create(true)
            .open(&log_path)
            .map_err(|source| JournalError::File { path: log_path.clone(), source })?;
        let mut writer = Self {
            directory: directory.to_owned(),
            log,
            length: 0,
            revision: 1,
            mirror: BTreeMap::new(),
            _lock: lock,
        };
        if snapshot.exists() {
            let lines = whole_lines(&snapshot)?;
            for (index, line) in lines.iter().enumerate() {
                let damaged = |source| JournalError::Damaged {
                    path: snapshot.clone(),
                    line: index + 1,
                    source,
                };
                if index == 0 {
                    let heading: Heading = serde_json::from_str(line).map_err(damaged)?;
                    writer.revision = heading.revision;
                } else {
                    let record: Record<Value> = serde_json::from_str(line).map_err(damaged)?;
                    writer.take(record);
                }
            }
        }
        for (index, line) in whole_lines(&log_path)?.iter().enumerate() {
            let record: Record<Value> = serde_json::from_str(line).map_err(|source| {
                JournalError::Damaged { path: log_path.clone(), line: index + 1, source }
            })?;
            // A crash between snapshot and truncation leaves records that the snapshot has.
            if record.revision > writer.revision {
                writer.revision = record.revision;
                writer.take(record);
            }
        }
        Ok(writer)
    }

    fn take(&mut self, record: Record<Value>) {
        let [group, plural, namespace, name] = record.key;
        let key = ObjectKey { group, plural, namespace, name };
        self.mirror_change(key, record.object.map(Arc::new));
    }

    fn mirror_change(&mut self, key: ObjectKey, object: Option<Arc<Value>>) {
        match object {
            Some(object) => self.mirror.insert(key, object),
            None => self.mirror.remove(&key),
        };
    }

    fn run(mut self, incoming: &mpsc::Receiver<Vec<Change>>, done: &watch::Sender<u64>) {
        while let Ok(first) = incoming.recv() {
            let mut changes = first;
            while let Ok(more) = incoming.try_recv() {
                changes.extend(more);
            }
            let mut lines = Vec::new();
            for change in &changes {
                let record = Record::new(change.revision, &change.key, change.after.as_deref());
                // A JSON value with string keys always has a text.
                if let Ok(text) = serde_json::to_string(&record) {
                    lines.extend_from_slice(text.as_bytes());
                    lines.push(b'\n');
                }
            }
            while let Err(error) = self.append(&lines) {
                tracing::error!(%error, "cannot write the objects' log; trying again");
                thread::sleep(RETRY);
            }
            for change in changes {
                self.revision = change.revision;
                self.mirror_change(change.key, change.after);
            }
            done.send_replace(self.revision);
            if self.length > LONG
                && let Err(error) = self.shorten()
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot shorten the objects' log"
                );
            }
        }
    }

    /// Appends whole lines, or leaves the log as it was.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.log.set_len(self.length)?;
        self.log.write_all(lines)?;
        self.log.sync_data()?;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Writes everything to a new snapshot and empties the log.
    fn shorten(&mut self) -> Result<(), JournalError> {
        let path = self.directory.join("snapshot.jsonl");
        let next = self.directory.join("snapshot.jsonl.new");
        let written = self.write_snapshot(&next).and_then(|()| {
            fs::rename(&next, &path)?;
            File::open(&self.directory)?.sync_all()?;
            self.log.set_len(0)?;
            self.log.rewind()?;
            self.log.sync_all()
        });
        written.map_err(|source| JournalError::File { path, source })?;
        self.length = 0;
        Ok(())
    }

    fn write_snapshot(&self, path: &Path) -> io::Result<()> {
        let file = private().write(true).create(true).truncate(true).open(path)?;
        let mut out = BufWriter::new(file);
        serde_json::to_writer(&mut out, &Heading { revision: self.revision })?;
        out.write_all(b"\n")?;
        for (key, object) in &self.mirror {
            let record = Record::new(self.revision, key, Some(&**object));
            serde_json::to_writer(&mut out, &record)?;
            out.write_all(b"\n")?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// The lines of a file that end; a torn last line was never answered for.
fn whole_lines(path: &Path) -> Result<Vec<String>, JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut lines = Vec::new();
    loop {
        let mut bytes = Vec::new();
        reader.read_until(b'\n', &mut bytes).map_err(failed)?;
        if bytes.pop() != Some(b'\n') {
            return Ok(lines);
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        lines.push(text);
    }
}
