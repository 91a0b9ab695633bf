//! What a stopped data directory holds: the end of its valid WAL, and where its timeline begins.

use std::fs;
use std::path::{Path, PathBuf};

use matriarch_pg::control::ControlData;
use matriarch_pg::wal::{SegmentName, WalBytes, WalEnd};
use matriarch_pg::{Lsn, TimelineHistory, TimelineId};

use crate::postgres::data;
use crate::root::Root;

/// Why the directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The control file.
    #[error("cannot understand {path}")]
    Control {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: matriarch_pg::control::ControlError,
    },
}

/// Reads `global/pg_control`.
///
/// # Errors
/// If it cannot be read or understood.
pub fn control(root: &Root) -> Result<ControlData, Error> {
    let path = root.pgdata().join("global/pg_control");
    let bytes = read(&path)?;
    ControlData::parse(&bytes)
        .map_err(|source| Error::Control { path: path.display().to_string(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.display().to_string(), source })
}

fn pg_wal(root: &Root) -> PathBuf {
    root.pgdata().join("pg_wal")
}

/// Why a standby cannot write what it receives, if nothing more fits onto its volume.
pub fn lack_of_room(root: &Root) -> Option<String> {
    let size = control(root).ok()?.segment_size;
    lack_of_room_for(size.bytes(), &pg_wal(root))
}

/// PostgreSQL makes a segment whole before it writes into it.
fn lack_of_room_for(segment: u64, directory: &Path) -> Option<String> {
    let volume = rustix::fs::statvfs(directory).ok()?;
    let free = volume.f_bavail.saturating_mul(volume.f_frsize);
    (free < segment).then(|| {
        format!(
            "the volume of WAL is full: {free} bytes are free, and a segment takes {segment}. This \
             standby receives nothing until spec.storage.size (or walStorage.size) is larger"
        )
    })
}

/// What stands in a history file of ours; PostgreSQL's own have a line for each ancestor.
const TAKEN: &str = "# matriarch: this timeline number is taken by another instance\n";

/// Keeps the next promotion from choosing a number: PostgreSQL takes the first one above its own
/// for which there is no history file.
///
/// # Errors
/// As the system says.
pub fn take_timeline(root: &Root, number: u32) -> Result<(), data::Error> {
    let path = pg_wal(root).join(format!("{number:08X}.history"));
    if path.exists() { Ok(()) } else { data::write_atomically(&path, TAKEN.as_bytes()) }
}

/// Removes what [`take_timeline`] made, also of a promotion that was interrupted: a server that
/// starts over such a file takes it for a timeline that is not its own and refuses to start.
///
/// # Errors
/// As the system says.
pub fn free_timelines(root: &Root) -> Result<(), data::Error> {
    for entry in std::fs::read_dir(pg_wal(root)).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_history = path.extension().is_some_and(|it| it == "history");
        if is_history && std::fs::read(&path).is_ok_and(|text| text == TAKEN.as_bytes()) {
            data::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The timelines that lead to `timeline`, itself last, each with where it begins by its history file
/// (0/0 for the first); empty if it cannot be read.
#[must_use]
pub fn timelines(root: &Root, timeline: TimelineId) -> Vec<(TimelineId, Lsn)> {
    if timeline == TimelineId::FIRST {
        return vec![(timeline, Lsn::INVALID)];
    }
    let path = pg_wal(root).join(format!("{:08X}.history", timeline.get()));
    let history =
        fs::read_to_string(path).ok().and_then(|text| TimelineHistory::parse(timeline, &text).ok());
    history.iter().flat_map(TimelineHistory::timelines).collect()
}

/// The end of a stopped directory's valid WAL, and the timeline that it is on.
///
/// The records are followed from the last checkpoint on (traps H10). A standby's WAL may go on to
/// a later timeline than its last checkpoint's; each is followed to its end.
#[must_use]
pub fn end(root: &Root, control: &ControlData) -> (TimelineId, Lsn) {
    let mut timeline = control.checkpoint_timeline;
    let mut found = follow(root, control, timeline, control.redo).unwrap_or(control.checkpoint);
    for later in later_timelines(root, Some(timeline)) {
        let Some((_, begins)) = timelines(root, later).pop() else { continue };
        if begins > found {
            continue;
        }
        if let Some(end) = follow(root, control, later, begins)
            && end > begins
        {
            (timeline, found) = (later, end);
        }
    }
    (timeline, found.max(control.min_recovery_point))
}

/// Puts segments aside that would hide WAL from recovery; their new names.
///
/// A walreceiver that goes on to a later timeline asks for the segment in which that timeline begins
/// from its first byte on. Cut off soon after, the standby has a new file with less than the old
/// timeline's file of the same segment; PostgreSQL reads the newer one, finds its end, and without
/// anybody to follow either never lets a session in or would be promoted without what it had
/// acknowledged. What such a file holds the older one holds too.
///
/// # Errors
/// As the system says.
pub fn uncover(root: &Root) -> Result<Vec<PathBuf>, data::Error> {
    let Ok(control) = control(root) else { return Ok(Vec::new()) };
    let mut aside = Vec::new();
    for later in later_timelines(root, None) {
        let mut ancestors = timelines(root, later);
        let Some((_, begins)) = ancestors.pop() else { continue };
        let segment = |timeline| SegmentName::holding(timeline, begins, control.segment_size);
        let own = segment(later);
        if !pg_wal(root).join(own.to_string()).exists() {
            continue;
        }
        let end = end_within(root, &control, later, own);
        if end.is_some_and(|end| end >= begins) {
            continue;
        }
        let hidden = ancestors.iter().rev().any(|&(timeline, _)| {
            end_within(root, &control, timeline, segment(timeline))
                .is_some_and(|it| Some(it) > end && it <= begins)
        });
        if hidden {
            aside.push(put_aside(root, own)?);
        }
    }
    Ok(aside)
}

/// Under a name that recovery does not read, and that PostgreSQL removes with old segments.
fn put_aside(root: &Root, segment: SegmentName) -> Result<PathBuf, data::Error> {
    let directory = pg_wal(root);
    let endings = ["partial", "covering.partial"];
    let free = endings.map(|ending| directory.join(format!("{segment}.{ending}")));
    let to = if free[0].exists() { &free[1] } else { &free[0] };
    data::rename(&directory.join(segment.to_string()), to)?;
    Ok(to.clone())
}

/// Where the valid records of one segment end; none if it holds none.
fn end_within(
    root: &Root,
    control: &ControlData,
    timeline: TimelineId,
    segment: SegmentName,
) -> Option<Lsn> {
    let bytes = fs::read(pg_wal(root).join(segment.to_string())).ok()?;
    let start = segment.start(control.segment_size)?;
    match (WalBytes { start, bytes: &bytes, layout: control.wal_layout(timeline) }).end() {
        WalEnd::At { end, .. } | WalEnd::NeedsMore { end, .. } => Some(end),
        WalEnd::NoStart(_) => None,
    }
}

/// Timelines above `timeline` that have a segment, lowest first.
fn later_timelines(root: &Root, timeline: Option<TimelineId>) -> Vec<TimelineId> {
    let mut found: Vec<TimelineId> = fs::read_dir(pg_wal(root))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.len() == 24)
        .filter_map(|name| u32::from_str_radix(name.get(..8)?, 16).ok())
        .filter_map(TimelineId::new)
        .filter(|one| Some(*one) > timeline)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Follows the records of one timeline from the segment that holds `from`.
fn follow(root: &Root, control: &ControlData, timeline: TimelineId, from: Lsn) -> Option<Lsn> {
    let size = control.segment_size;
    let directory = pg_wal(root);
    let mut name = SegmentName::holding(timeline, from, size);
    let mut bytes = fs::read(directory.join(name.to_string())).ok()?;
    let mut start = from.segment_start(size);
    let mut last = None;
    loop {
        let stretch = WalBytes { start, bytes: &bytes, layout: control.wal_layout(timeline) };
        match stretch.end() {
            WalEnd::At { end, .. } => return Some(end),
            WalEnd::NoStart(_) => return last,
            WalEnd::NeedsMore { end, .. } => {
                last = Some(end);
                name = name.next(size)?;
                let Ok(more) = fs::read(directory.join(name.to_string())) else { return last };
                // A record may begin in one segment and end in the next: both are kept together.
                let keep = end.segment_start(size).max(start);
                let cut = usize::try_from(keep.saturating_distance(start)).ok()?;
                bytes.drain(..cut.min(bytes.len()));
                bytes.extend_from_slice(&more);
                start = keep;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_full_when_no_segment_fits() {
        let directory = std::env::temp_dir();
        assert_eq!(lack_of_room_for(1, &directory), None);
        let told = lack_of_room_for(u64::MAX, &directory).unwrap();
        assert!(told.contains("spec.storage.size"), "{told}");
        assert_eq!(lack_of_room_for(u64::MAX, &directory.join("no such directory")), None);
    }
}
