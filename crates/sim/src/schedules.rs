//! The named schedules of docs/ha-protocol.md as fixed cases.

use crate::run::{Outcome, Variation};

/// A named schedule.
pub(crate) struct Schedule {
    pub(crate) name: &'static str,
}

/// All of them.
pub(crate) const ALL: &[Schedule] = &[];

pub(crate) fn find(name: &str) -> Option<&'static Schedule> {
    ALL.iter().find(|schedule| schedule.name == name)
}

/// Plays one.
pub(crate) fn play(_schedule: &Schedule, variation: Variation) -> Outcome {
    crate::run::run(0, variation)
}
