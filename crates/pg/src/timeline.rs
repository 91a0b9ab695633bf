//! Timelines and their history files.
//!
//! Follows PostgreSQL's `src/backend/access/transam/timeline.c` and
//! `src/bin/pg_rewind/timeline.c`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// Number of a timeline; never 0 (`TimeLineID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline that initdb makes.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// None for 0, which PostgreSQL uses for "no timeline".
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The following number, if there is one.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text is not the number of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a timeline: a positive decimal number is expected")]
pub struct ParseTimelineError {
    /// What was given.
    pub text: String,
}

impl FromStr for TimelineId {
    type Err = ParseTimelineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| text.parse().ok().and_then(Self::new))
            .flatten()
            .ok_or_else(|| ParseTimelineError { text: text.to_owned() })
    }
}

/// One line of a history file: a timeline that was left, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// The first position that does not belong to it any more.
    pub end: Lsn,
    /// Why, in words (`no recovery target specified`); on one line.
    pub reason: String,
}

/// A timeline with all its ancestors: what a history file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineHistory {
    timeline: TimelineId,
    forks: Vec<Fork>,
}

/// Where two histories part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommonPoint {
    /// The last timeline that both have.
    pub timeline: TimelineId,
    /// The first position that is not in both; none if both are still on `timeline`, so that
    /// only their ends of WAL differ.
    pub end: Option<Lsn>,
}

/// A history file that PostgreSQL would not take, or a fork that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line has not the three fields.
    #[error(
        "line {line} of the history of timeline {timeline} has not the form TIMELINE<tab>POSITION<tab>REASON"
    )]
    Syntax {
        /// Whose history.
        timeline: TimelineId,
        /// Counted from 1.
        line: usize,
    },
    /// The timelines do not grow.
    #[error(
        "line {line} of the history of timeline {timeline}: timeline {found} is not greater than the one before"
    )]
    NotIncreasing {
        /// Whose history.
        timeline: TimelineId,
        /// Counted from 1.
        line: usize,
        /// The offending number.
        found: TimelineId,
    },
    /// The positions fall.
    #[error(
        "line {line} of the history of timeline {timeline}: position {found} lies before the one of the line before"
    )]
    Backwards {
        /// Whose history.
        timeline: TimelineId,
        /// Counted from 1.
        line: usize,
        /// The offending position.
        found: Lsn,
    },
    /// A timeline among its own ancestors, or a greater one there.
    #[error("the history of timeline {timeline} names timeline {found} as an ancestor")]
    AncestorNotSmaller {
        /// Whose history.
        timeline: TimelineId,
        /// The offending ancestor.
        found: TimelineId,
    },
}

impl TimelineHistory {
    /// A timeline without ancestors: timeline 1, which has no history file.
    pub const fn root(timeline: TimelineId) -> Self {
        Self { timeline, forks: Vec::new() }
    }

    /// Reads the content of `timeline`'s history file.
    ///
    /// Tolerant as `readTimeLineHistory` is: empty lines, leading blanks and comments (`#`) are
    /// skipped, the reason may be missing. Stricter in one point: positions may not fall.
    pub fn parse(timeline: TimelineId, content: &str) -> Result<Self, HistoryError> {
        let mut forks: Vec<Fork> = Vec::new();
        for (index, text) in content.lines().enumerate() {
            let line = index + 1;
            let text = text.trim_start();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let fork = parse_fork(text).ok_or(HistoryError::Syntax { timeline, line })?;
            if let Some(last) = forks.last() {
                if fork.timeline <= last.timeline {
                    let found = fork.timeline;
                    return Err(HistoryError::NotIncreasing { timeline, line, found });
                }
                if fork.end < last.end {
                    return Err(HistoryError::Backwards { timeline, line, found: fork.end });
                }
            }
            forks.push(fork);
        }
        match forks.last() {
            Some(last) if last.timeline >= timeline => {
                Err(HistoryError::AncestorNotSmaller { timeline, found: last.timeline })
            }
            _ => Ok(Self { timeline, forks }),
        }
    }

    /// The content of the history file, as `writeTimeLineHistory` lays it out.
    pub fn render(&self) -> String {
        self.forks
            .iter()
            .map(|fork| format!("{}\t{}\t{}\n", fork.timeline, fork.end, fork.reason))
            .collect()
    }

    /// The history of `timeline`, which leaves this one at `end`.
    pub fn append(
        &self,
        timeline: TimelineId,
        end: Lsn,
        reason: &str,
    ) -> Result<Self, HistoryError> {
        if timeline <= self.timeline {
            return Err(HistoryError::AncestorNotSmaller { timeline, found: self.timeline });
        }
        let line = self.forks.len() + 1;
        if self.forks.last().is_some_and(|last| end < last.end) {
            return Err(HistoryError::Backwards { timeline, line, found: end });
        }
        // One line per fork: a line break in the reason would make a line of its own.
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut forks = self.forks.clone();
        forks.push(Fork { timeline: self.timeline, end, reason });
        Ok(Self { timeline, forks })
    }

    /// The youngest timeline, whose history this is.
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The ancestors, oldest first.
    pub fn forks(&self) -> &[Fork] {
        &self.forks
    }

    /// Is `timeline` the youngest one or an ancestor?
    pub fn has(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.forks.iter().any(|fork| fork.timeline == timeline)
    }

    /// Where this history left `timeline`; none if it is still on it or never was.
    pub fn left(&self, timeline: TimelineId) -> Option<Lsn> {
        self.forks.iter().find(|fork| fork.timeline == timeline).map(|fork| fork.end)
    }

    /// All of its timelines, oldest first, each with where it begins (`0/0` for the oldest).
    pub fn timelines(&self) -> impl Iterator<Item = (TimelineId, Lsn)> {
        self.spans().map(|span| (span.timeline, span.begin))
    }

    /// Where this history came to `timeline` (`0/0` for the oldest); none if it never was there.
    pub fn began(&self, timeline: TimelineId) -> Option<Lsn> {
        self.spans().find(|span| span.timeline == timeline).map(|span| span.begin)
    }

    /// The timeline that the byte at `lsn` belongs to in this history (`tliOfPointInHistory`).
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.forks.iter().find(|fork| lsn < fork.end).map_or(self.timeline, |fork| fork.timeline)
    }

    /// Is everything up to the end of WAL `lsn`, reached on `timeline`, part of this history?
    ///
    /// True exactly at the fork: WAL that ends there is followed by the child's. A greater
    /// position on another timeline is no part of it (rule 22).
    pub fn contains(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.spans()
            .find(|span| span.timeline == timeline)
            .is_some_and(|span| span.begin <= lsn && span.end.is_none_or(|end| lsn <= end))
    }

    /// Does `other` continue this history: same oldest timelines, same forks?
    pub fn is_ancestor_of(&self, other: &Self) -> bool {
        self.common_point(other).is_some_and(|point| {
            point.timeline == self.timeline && self.forks.len() <= other.forks.len()
        })
    }

    /// Where the two histories part; none if they have nothing in common
    /// (`findCommonAncestorTimeline` of pg_rewind).
    ///
    /// Histories know timelines by number and position alone: two instances that promoted
    /// without having seen each other may share both; the protocol compares terms as well.
    pub fn common_point(&self, other: &Self) -> Option<CommonPoint> {
        self.spans()
            .zip(other.spans())
            .take_while(|(ours, theirs)| {
                ours.timeline == theirs.timeline && ours.begin == theirs.begin
            })
            .last()
            .map(|(ours, theirs)| CommonPoint {
                timeline: ours.timeline,
                end: match (ours.end, theirs.end) {
                    (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
                    (end, None) | (None, end) => end,
                },
            })
    }

    fn spans(&self) -> impl Iterator<Item = Span> {
        let begins = std::iter::once(Lsn::INVALID).chain(self.forks.iter().map(|fork| fork.end));
        let ends = self
            .forks
            .iter()
            .map(|fork| (fork.timeline, Some(fork.end)))
            .chain(std::iter::once((self.timeline, None)));
        begins.zip(ends).map(|(begin, (timeline, end))| Span { timeline, begin, end })
    }
}

/// One timeline's part of a history.
struct Span {
    timeline: TimelineId,
    begin: Lsn,
    end: Option<Lsn>,
}

/// `sscanf("%u\t%X/%X")` and the rest of the line as the reason.
fn parse_fork(text: &str) -> Option<Fork> {
    let (timeline, rest) = text.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (end, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some(Fork {
        timeline: timeline.parse().ok()?,
        end: end.parse().ok()?,
        reason: reason.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests;
