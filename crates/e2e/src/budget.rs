//! Where the time of an outage goes, read from the agents' logs.
//!
//! The parts follow each other without a gap, so that their sum is the time from the event to the
//! first acknowledged write (docs/ha-protocol.md, "Budgets").

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value;

/// A part of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Until an agent knows of it.
    Detect,
    /// Until the Lease is first written, or PostgreSQL started where it was; includes the stop.
    Decide,
    /// Until the new holder has the Lease.
    Write,
    /// Until the new primary is out of recovery, or the old one has started.
    Promote,
    /// Until the EndpointSlice names it.
    Swap,
    /// Until a client's write is acknowledged.
    Reach,
}

impl Part {
    /// All, in their order.
    pub const ALL: [Self; 6] =
        [Self::Detect, Self::Decide, Self::Write, Self::Promote, Self::Swap, Self::Reach];

    /// The heading of its column.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Decide => "decide",
            Self::Write => "write",
            Self::Promote => "promote",
            Self::Swap => "swap",
            Self::Reach => "reach",
        }
    }
}

/// One line of an agent's log.
#[derive(Clone, Debug)]
struct Line {
    at: SystemTime,
    message: String,
    action: String,
}

/// The parts of one outage; those that did not occur on its path are missing, and their time is
/// that of the next one.
pub type Budget = BTreeMap<Part, Duration>;

/// Finds the milestones between `event` and `end` in these logs of agents.
#[must_use]
pub fn of(logs: &[String], event: SystemTime, end: SystemTime) -> Budget {
    let lines = logs.iter().flat_map(|log| log.lines());
    let within = |it: &Line| it.at > event && it.at < end;
    let mut lines: Vec<Line> = lines.filter_map(line).filter(within).collect();
    lines.sort_by_key(|line| line.at);
    parts(&lines, event, end)
}

fn parts(lines: &[Line], event: SystemTime, end: SystemTime) -> Budget {
    let says = |line: &Line, message: &str, action: &str| {
        line.message == message && line.action.starts_with(action)
    };
    let first = |message: &str, action: &str| {
        lines.iter().find(|line| says(line, message, action)).map(|line| line.at)
    };
    let last = |message: &str, action: &str| {
        lines.iter().rev().find(|line| says(line, message, action)).map(|line| line.at)
    };
    let promoted = last("end", "Promote");
    let started = promoted.or_else(|| last("end", "StartPrimary"));
    let decided = first("writes the Lease", "").or_else(|| first("begin", "StartPrimary"));
    let written = promoted.and_then(|_| last("begin", "Promote"));
    let milestones = [
        (Part::Detect, lines.first().map(|line| line.at)),
        (Part::Decide, decided),
        (Part::Write, written),
        (Part::Promote, started),
        (Part::Swap, last("end", "PointService")),
        (Part::Reach, Some(end)),
    ];
    let mut budget = Budget::new();
    let mut before = event;
    for (part, at) in milestones {
        let Some(at) = at else { continue };
        // A milestone that lies before the one in front of it took no time of its own.
        budget.insert(part, at.duration_since(before).unwrap_or_default());
        before = before.max(at);
    }
    budget
}

fn line(text: &str) -> Option<Line> {
    let value: Value = serde_json::from_str(text).ok()?;
    let word = |name: &str| value[name].as_str().map(str::to_owned);
    let at: SystemTime = word("ts")?.parse::<jiff::Timestamp>().ok()?.into();
    // What PostgreSQL and library code say is no milestone.
    let ours = matches!(word("logger").as_deref(), Some("keeper" | "instance-manager"));
    // Nor what failed: one that is cut off goes on trying what it did as primary.
    let ours = ours && word("outcome").is_none_or(|outcome| outcome == "Done");
    let message = word("msg")?;
    ours.then(|| Line { at, message, action: word("action").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn said(millis: u64, message: &str, action: &str) -> Line {
        Line { at: at(millis), message: message.to_owned(), action: action.to_owned() }
    }

    #[test]
    fn the_parts_add_up_to_the_outage() {
        let lines = [
            said(1_030, "PostgreSQL ended", ""),
            said(1_100, "writes the Lease", ""),
            said(1_200, "begin", "Promote { .. }"),
            said(1_450, "end", "Promote { .. }"),
            said(1_500, "end", "PointService { .. }"),
        ];
        let budget = parts(&lines, at(1_000), at(1_520));
        let millis: Vec<u128> = budget.values().map(Duration::as_millis).collect();
        assert_eq!(millis, [30, 70, 100, 250, 50, 20]);
    }

    #[test]
    fn a_restart_in_place_has_no_write() {
        let lines = [
            said(1_030, "PostgreSQL ended", ""),
            said(1_060, "begin", "StartPrimary { .. }"),
            said(1_400, "end", "StartPrimary { .. }"),
        ];
        let budget = parts(&lines, at(1_000), at(1_410));
        assert!(!budget.contains_key(&Part::Write) && !budget.contains_key(&Part::Swap));
        assert_eq!(budget.values().sum::<Duration>(), Duration::from_millis(410));
    }

    #[test]
    fn lines_of_others_are_no_milestones() {
        let ours = r#"{"ts":"2026-11-21T06:33:20Z","msg":"begin","action":"Promote",
            "logger":"instance-manager"}"#;
        assert!(line(ours).is_some_and(|line| line.action == "Promote"));
        let theirs = r#"{"ts":"2026-11-21T06:33:20Z","msg":"record","logger":"postgres"}"#;
        assert!(line(theirs).is_none() && line("no JSON").is_none());
        let done = r#"{"ts":"2026-11-21T06:33:20Z","msg":"end","action":"PointService",
            "outcome":"Done","logger":"instance-manager"}"#;
        let failed = done.replace("Done", "Failed { message: \"no answer\" }");
        assert!(line(done).is_some() && line(&failed.replace("\"no answer\"", "")).is_none());
    }
}
