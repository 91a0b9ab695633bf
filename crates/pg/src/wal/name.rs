//! Names of the files in `pg_wal` and in an archive.
//!
//! Follows PostgreSQL's `src/include/access/xlog_internal.h` (`XLogFileName`, `IsXLogFileName`
//! and their like).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lsn::{Lsn, SegmentSize};
use crate::timeline::TimelineId;

/// Name of a WAL segment: `000000010000000A000000FF`.
///
/// Its number depends on the segment size, the text does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SegmentName {
    timeline: TimelineId,
    log: u32,
    segment: u32,
}

impl SegmentName {
    /// The segment of `timeline` with the given number (`XLogFileName`); none if the number is
    /// beyond the greatest position.
    pub fn new(timeline: TimelineId, number: u64, size: SegmentSize) -> Option<Self> {
        let log = u32::try_from(number / size.segments_per_log()).ok()?;
        let segment = u32::try_from(number % size.segments_per_log()).ok()?;
        Some(Self { timeline, log, segment })
    }

    /// The segment of `timeline` that holds the byte at `lsn`.
    pub fn holding(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        let log = (lsn.0 >> 32) as u32;
        // Both fit: the upper and the lower half of 64 bits.
        let segment = ((lsn.0 & 0xFFFF_FFFF) / size.bytes()) as u32;
        Self { timeline, log, segment }
    }

    /// The timeline in the name.
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The segment's number, counted from 0 in steps of `size`; none if a segment of this name
    /// cannot be with that size.
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        let per_log = size.segments_per_log();
        let segment = u64::from(self.segment);
        (segment < per_log).then(|| u64::from(self.log) * per_log + segment)
    }

    /// Where the segment begins.
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        self.number(size).map(|number| Lsn(number * size.bytes()))
    }

    /// The following segment of the same timeline.
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        Self::new(self.timeline, self.number(size)?.checked_add(1)?, size)
    }

    /// The same stretch of WAL on another timeline.
    pub const fn on(self, timeline: TimelineId) -> Self {
        Self { timeline, ..self }
    }
}

/// A file in `pg_wal` or an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WalFileName {
    /// A segment.
    Segment(SegmentName),
    /// The unfinished last segment of a timeline that was left: `….partial`.
    Partial(SegmentName),
    /// A backup history file: `….00000028.backup`.
    BackupHistory {
        /// The segment where the backup began.
        segment: SegmentName,
        /// Where in it, in bytes.
        offset: u32,
    },
    /// A timeline's history: `00000002.history`.
    History(TimelineId),
}

/// A name that PostgreSQL gives to no file of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not the name of a WAL file")]
pub struct ParseWalNameError {
    /// What was given.
    pub name: String,
}

/// Exactly eight upper-case hexadecimal digits.
fn parse_eight(text: &str) -> Option<u32> {
    let hex = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    let eight = text.len() == 8 && text.bytes().all(hex);
    if eight { u32::from_str_radix(text, 16).ok() } else { None }
}

fn parse_segment(text: &str) -> Option<SegmentName> {
    if text.len() != 24 {
        return None;
    }
    Some(SegmentName {
        timeline: TimelineId::new(parse_eight(text.get(..8)?)?)?,
        log: parse_eight(text.get(8..16)?)?,
        segment: parse_eight(text.get(16..)?)?,
    })
}

fn parse_name(text: &str) -> Option<WalFileName> {
    if let Some(segment) = text.strip_suffix(".partial") {
        return parse_segment(segment).map(WalFileName::Partial);
    }
    if let Some(timeline) = text.strip_suffix(".history") {
        return TimelineId::new(parse_eight(timeline)?).map(WalFileName::History);
    }
    if let Some(rest) = text.strip_suffix(".backup") {
        let (segment, offset) = rest.split_once('.')?;
        let (segment, offset) = (parse_segment(segment)?, parse_eight(offset)?);
        return Some(WalFileName::BackupHistory { segment, offset });
    }
    parse_segment(text).map(WalFileName::Segment)
}

impl FromStr for SegmentName {
    type Err = ParseWalNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        parse_segment(name).ok_or_else(|| ParseWalNameError { name: name.to_owned() })
    }
}

impl FromStr for WalFileName {
    type Err = ParseWalNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        parse_name(name).ok_or_else(|| ParseWalNameError { name: name.to_owned() })
    }
}

impl TryFrom<String> for SegmentName {
    type Error = ParseWalNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl TryFrom<String> for WalFileName {
    type Error = ParseWalNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<SegmentName> for String {
    fn from(name: SegmentName) -> Self {
        name.to_string()
    }
}

impl From<WalFileName> for String {
    fn from(name: WalFileName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.log, self.segment)
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(f),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::BackupHistory { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
            Self::History(timeline) => write!(f, "{:08X}.history", timeline.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_postgresql_s() {
        let size = SegmentSize::DEFAULT;
        let name = SegmentName::holding(TimelineId::FIRST, Lsn(0x16_B374_D848), size);
        assert_eq!(name.to_string(), "0000000100000016000000B3");
        assert_eq!(name.start(size), Some(Lsn(0x16_B300_0000)));
        let last: SegmentName = "0000000100000016000000FF".parse().unwrap();
        assert_eq!(last.next(size).unwrap().to_string(), "000000010000001700000000");
        assert_eq!(last.number(SegmentSize::from_mebibytes(64).unwrap()), None);
    }

    #[test]
    fn every_kind_of_file_is_told_apart() {
        let segment: SegmentName = "00000002000000010000000A".parse().unwrap();
        let two = TimelineId::new(2).unwrap();
        for (text, expected) in [
            ("00000002000000010000000A", WalFileName::Segment(segment)),
            ("00000002000000010000000A.partial", WalFileName::Partial(segment)),
            (
                "00000002000000010000000A.00000028.backup",
                WalFileName::BackupHistory { segment, offset: 0x28 },
            ),
            ("00000002.history", WalFileName::History(two)),
        ] {
            assert_eq!(text.parse(), Ok(expected));
            assert_eq!(expected.to_string(), text);
        }
        for text in [
            "",
            "archive_status",
            "00000000000000010000000A",
            "00000002000000010000000a",
            "00000000.history",
            "00000002000000010000000A.28.backup",
            "xlogtemp.123",
        ] {
            assert!(text.parse::<WalFileName>().is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip(timeline in 1u32.., lsn: u64, power in 20u32..=30) {
            let size = SegmentSize::new(1 << power).unwrap();
            let timeline = TimelineId::new(timeline).unwrap();
            let name = SegmentName::holding(timeline, Lsn(lsn), size);
            let number = Lsn(lsn).segment_number(size);
            prop_assert_eq!(name.number(size), Some(number));
            prop_assert_eq!(SegmentName::new(timeline, number, size), Some(name));
            prop_assert_eq!(name.to_string().parse::<SegmentName>(), Ok(name));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,48}") {
            let _ = text.parse::<WalFileName>();
        }
    }
}
