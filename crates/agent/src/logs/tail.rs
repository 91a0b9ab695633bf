//! Reading PostgreSQL's log files as they grow.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::record;
use crate::root::Root;

/// Name of the file of what the postmaster says before its own log is open.
pub const STANDARD_ERROR: &str = "postmaster.stderr";
/// Most that is read of one file at a time, and so the longest record that is kept whole.
const CHUNK: u64 = 1 << 20;
const POSITIONS: &str = "positions";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    Json,
    Csv,
    Plain,
}

fn format(name: &str) -> Option<Format> {
    match Path::new(name).extension()?.to_str()? {
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        "log" | "stderr" => Some(Format::Plain),
        _ => None,
    }
}

/// The log directory and how far each file was read.
#[derive(Debug)]
pub struct Tail {
    directory: PathBuf,
    positions: BTreeMap<String, u64>,
}

impl Tail {
    /// Goes on where the last agent of this container stopped.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        let directory = root.log();
        let positions = std::fs::read(directory.join(POSITIONS))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { directory, positions }
    }

    /// Hands over what is new, and removes files that are done.
    pub fn read(&mut self, mut print: impl FnMut(Map<String, Value>)) {
        let mut names: Vec<(Format, String)> = std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| Some((format(&name)?, name)))
            .collect();
        names.sort();
        let before = self.positions.clone();
        for (index, (format, name)) in names.iter().enumerate() {
            let ended = self.read_file(*format, name, &mut print);
            // The collector never goes back to a file after it has begun a later one.
            let superseded = names
                .get(index + 1)
                .is_some_and(|(next, later)| next == format && later != STANDARD_ERROR);
            if ended && superseded && name != STANDARD_ERROR {
                if let Err(error) = std::fs::remove_file(self.directory.join(name)) {
                    tracing::warn!(file = name, %error, "cannot remove a log file");
                }
                self.positions.remove(name);
            }
        }
        if self.positions != before {
            self.save();
        }
    }

    fn save(&self) {
        let path = self.directory.join(POSITIONS);
        let temporary = self.directory.join("positions.new");
        let bytes = serde_json::to_vec(&self.positions).unwrap_or_default();
        // Without it, the next agent prints lines again.
        let _unsaved =
            std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
    }

    /// Reads what is new in one file; true if its end was reached.
    fn read_file(
        &mut self,
        format: Format,
        name: &str,
        print: &mut impl FnMut(Map<String, Value>),
    ) -> bool {
        let position = self.positions.entry(name.to_owned()).or_default();
        let Ok(mut file) = File::open(self.directory.join(name)) else { return false };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        if length < *position {
            // Truncated: written anew.
            *position = 0;
        }
        if length == *position {
            return true;
        }
        let mut bytes = Vec::new();
        let read = file
            .seek(SeekFrom::Start(*position))
            .and_then(|_| file.by_ref().take(CHUNK).read_to_end(&mut bytes));
        if read.is_err() {
            return false;
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut taken = match format {
            Format::Csv => {
                let (records, taken) = record::from_csv(&text);
                records.into_iter().for_each(|it| print(record::line(it)));
                // Where bytes were replaced, lengths differ: then everything read counts.
                if text.len() == bytes.len() { taken } else { bytes.len() }
            }
            Format::Json | Format::Plain => {
                let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let lines = String::from_utf8_lossy(&bytes[..whole]);
                for line in lines.lines().filter(|line| !line.trim().is_empty()) {
                    let parsed = (format == Format::Json).then(|| record::from_json(line));
                    print(parsed.flatten().map_or_else(|| record::plain(line), record::line));
                }
                whole
            }
        };
        if taken == 0 && bytes.len() as u64 == CHUNK {
            print(record::plain(&text));
            taken = bytes.len();
        }
        *position += taken as u64;
        false
    }
}

/// The last words since PostgreSQL was started last: why it did not start or ended.
#[must_use]
pub fn last_words(root: &Root) -> String {
    let directory = root.log();
    let modified = |path: &Path| std::fs::metadata(path).and_then(|it| it.modified()).ok();
    // What an earlier start said explains nothing of this one.
    let started = modified(&root.start_file());
    let mut newest: Vec<(std::time::SystemTime, PathBuf)> = std::fs::read_dir(&directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| format(&entry.file_name().to_string_lossy()).is_some())
        .filter_map(|entry| Some((modified(&entry.path())?, entry.path())))
        .filter(|(at, _)| started.is_none_or(|started| *at >= started))
        .collect();
    newest.sort();
    let mut words: Vec<String> = Vec::new();
    for (_, path) in newest.iter().rev().take(3) {
        let Some(text) = end_of(path) else { continue };
        let json = path.extension().is_some_and(|it| it == "json");
        let found = text.lines().filter_map(|line| {
            let line = if json { severe(&record::from_json(line)?)? } else { plain(line)? };
            let telling = ["FATAL", "PANIC", "ERROR", "LOG:", "HINT:"];
            let about_itself = line.contains("Future log output will appear");
            let tells = telling.iter().any(|it| line.contains(it)) && !about_itself;
            tells.then_some(line)
        });
        for line in found {
            // The attempts of one second share a file.
            if !words.contains(&line) {
                words.push(line);
            }
        }
    }
    let kept = words.len().saturating_sub(4);
    words.split_off(kept).join("; ")
}

/// A line of the server's standard error; of those at LOG only the ones that tell of a failure.
fn plain(line: &str) -> Option<String> {
    let at_log = line.split_once("LOG:  ").map(|(_, message)| message);
    let telling = at_log
        .is_none_or(|message| ["could not", "invalid"].iter().any(|it| message.starts_with(it)));
    telling.then(|| line.to_owned())
}

fn severe(record: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut line = format!("{}: {}", text("error_severity"), text("message"));
    for key in ["detail", "hint"] {
        if !text(key).is_empty() {
            line.push_str(&format!(" ({})", text(key)));
        }
    }
    // Why a port or a file cannot be had is said at LOG, before the FATAL that follows from it.
    let telling = match text("error_severity") {
        "FATAL" | "PANIC" => true,
        "LOG" => ["could not", "invalid"].iter().any(|it| text("message").starts_with(it)),
        _ => false,
    };
    telling.then_some(line)
}

fn end_of(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_new_agent_goes_on_where_the_last_one_stopped_and_done_files_are_removed() {
        let base = std::env::temp_dir().join(format!("matriarch-tail-{}", std::process::id()));
        let root = Root::new(&base);
        std::fs::create_dir_all(root.log()).unwrap();
        let first = root.log().join("postgres-1.json");
        let mut file = File::create(&first).unwrap();
        writeln!(file, "{{\"message\":\"one\"}}").unwrap();
        write!(file, "{{\"message\":").unwrap();
        let read = |tail: &mut Tail| {
            let mut seen = Vec::new();
            tail.read(|line| seen.push(line["record"]["message"].as_str().unwrap().to_owned()));
            seen
        };
        assert_eq!(read(&mut Tail::new(&root)), ["one"]);
        writeln!(file, "\"two\"}}").unwrap();
        let mut tail = Tail::new(&root);
        assert_eq!(read(&mut tail), ["two"]);
        std::fs::write(root.log().join("postgres-2.json"), "{\"message\":\"three\"}\n").unwrap();
        assert_eq!(read(&mut tail), ["three"]);
        assert!(!first.exists());
        std::fs::remove_dir_all(base).unwrap();
    }
}
