//! Parameters that a standby must not have lower than its primary.
//!
//! Follows the documentation, "Hot Standby", "Administrator's Overview", and
//! `CheckRequiredParameterValues` in `src/backend/access/transam/xlogrecovery.c`.

use std::collections::BTreeMap;

use super::units;
use crate::control::StandbyFloor;

/// One of the five.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StandbySensitive {
    /// `max_connections`.
    MaxConnections,
    /// `max_prepared_transactions`.
    MaxPreparedTransactions,
    /// `max_wal_senders`.
    MaxWalSenders,
    /// `max_worker_processes`.
    MaxWorkerProcesses,
    /// `max_locks_per_transaction`.
    MaxLocksPerTransaction,
}

impl StandbySensitive {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::MaxConnections,
        Self::MaxPreparedTransactions,
        Self::MaxWalSenders,
        Self::MaxWorkerProcesses,
        Self::MaxLocksPerTransaction,
    ];

    /// The parameter's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxConnections => "max_connections",
            Self::MaxPreparedTransactions => "max_prepared_transactions",
            Self::MaxWalSenders => "max_wal_senders",
            Self::MaxWorkerProcesses => "max_worker_processes",
            Self::MaxLocksPerTransaction => "max_locks_per_transaction",
        }
    }

    /// PostgreSQL's default, the same in 14 to 18.
    pub const fn default_value(self) -> u32 {
        match self {
            Self::MaxConnections => 100,
            Self::MaxPreparedTransactions => 0,
            Self::MaxWalSenders => 10,
            Self::MaxWorkerProcesses => 8,
            Self::MaxLocksPerTransaction => 64,
        }
    }

    /// Its value in `floor`.
    pub const fn of(self, floor: &StandbyFloor) -> u32 {
        match self {
            Self::MaxConnections => floor.max_connections,
            Self::MaxPreparedTransactions => floor.max_prepared_transactions,
            Self::MaxWalSenders => floor.max_wal_senders,
            Self::MaxWorkerProcesses => floor.max_worker_processes,
            Self::MaxLocksPerTransaction => floor.max_locks_per_transaction,
        }
    }
}

impl StandbyFloor {
    fn build(value: impl Fn(StandbySensitive) -> u32) -> Self {
        Self {
            max_connections: value(StandbySensitive::MaxConnections),
            max_worker_processes: value(StandbySensitive::MaxWorkerProcesses),
            max_wal_senders: value(StandbySensitive::MaxWalSenders),
            max_prepared_transactions: value(StandbySensitive::MaxPreparedTransactions),
            max_locks_per_transaction: value(StandbySensitive::MaxLocksPerTransaction),
        }
    }

    /// The five of merged parameters, with PostgreSQL's default for what they do not set; none if
    /// a value is no number.
    pub fn of_parameters(parameters: &BTreeMap<String, String>) -> Option<Self> {
        let value = |which: StandbySensitive| match parameters.get(which.name()) {
            Some(text) => units::parse_integer(text).and_then(|value| u32::try_from(value).ok()),
            None => Some(which.default_value()),
        };
        StandbySensitive::ALL.iter().all(|which| value(*which).is_some()).then(|| {
            // Every value is there: checked in the line above.
            Self::build(|which| value(which).unwrap_or_else(|| which.default_value()))
        })
    }

    /// The greater of each: what a standby with the wish `self` sets while its primary's WAL
    /// demands `floor` (of its own pg_control).
    #[must_use]
    pub fn at_least(&self, floor: &Self) -> Self {
        Self::build(|which| which.of(self).max(which.of(floor)))
    }

    /// As parameters.
    pub fn settings(&self) -> BTreeMap<String, String> {
        StandbySensitive::ALL
            .iter()
            .map(|which| (which.name().to_owned(), which.of(self).to_string()))
            .collect()
    }
}

/// In which order instances take new values of the five. Each needs a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOrder {
    /// None of them changes.
    Unchanged,
    /// Some grow: standbys first, else they stop replay (or, until 13, themselves) when the
    /// primary's WAL demands more.
    StandbysFirst,
    /// Some shrink: the primary first; a standby keeps the old values until it has replayed the
    /// primary's record of the new ones.
    PrimaryFirst,
    /// Some grow and others shrink: two rounds. First `intermediate`, standbys first; then the
    /// wish, primary first.
    GrowThenShrink {
        /// The greater of each.
        intermediate: StandbyFloor,
    },
}

/// The order for a change from what the primary runs with to what is wished.
pub fn change_order(running: &StandbyFloor, wished: &StandbyFloor) -> ChangeOrder {
    let any = |test: fn(&u32, &u32) -> bool| {
        StandbySensitive::ALL.iter().any(|which| test(&which.of(wished), &which.of(running)))
    };
    match (any(u32::gt), any(u32::lt)) {
        (false, false) => ChangeOrder::Unchanged,
        (true, false) => ChangeOrder::StandbysFirst,
        (false, true) => ChangeOrder::PrimaryFirst,
        (true, true) => ChangeOrder::GrowThenShrink { intermediate: wished.at_least(running) },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn floor(values: [u32; 5]) -> StandbyFloor {
        StandbyFloor::build(|which| values[which as usize])
    }

    #[test]
    fn increases_begin_at_standbys_and_decreases_at_the_primary() {
        let running = floor([100, 0, 10, 8, 64]);
        let order = |wished| change_order(&running, &floor(wished));
        assert_eq!(order([100, 0, 10, 8, 64]), ChangeOrder::Unchanged);
        assert_eq!(order([200, 0, 10, 8, 64]), ChangeOrder::StandbysFirst);
        assert_eq!(order([50, 0, 10, 8, 64]), ChangeOrder::PrimaryFirst);
        let intermediate = floor([200, 0, 10, 8, 64]);
        assert_eq!(order([200, 0, 10, 8, 32]), ChangeOrder::GrowThenShrink { intermediate });
    }

    #[test]
    fn parameters_not_set_have_postgresql_s_defaults() {
        let none = BTreeMap::new();
        assert_eq!(StandbyFloor::of_parameters(&none), Some(floor([100, 0, 10, 8, 64])));
        let set = BTreeMap::from([("max_connections".to_owned(), " 300 ".to_owned())]);
        assert_eq!(StandbyFloor::of_parameters(&set).unwrap().max_connections, 300);
        let wrong = BTreeMap::from([("max_connections".to_owned(), "many".to_owned())]);
        assert_eq!(StandbyFloor::of_parameters(&wrong), None);
    }

    proptest! {
        #[test]
        fn no_round_leaves_a_standby_below_its_primary(
            running: [u8; 5],
            wished: [u8; 5],
        ) {
            let (running, wished) = (floor(running.map(u32::from)), floor(wished.map(u32::from)));
            let below = |a: &StandbyFloor, b: &StandbyFloor| {
                StandbySensitive::ALL.iter().any(|which| which.of(a) < which.of(b))
            };
            // Of a round each member is old or new: a standby is old while the primary is new only
            // if the primary went first, and then it must not be below.
            match change_order(&running, &wished) {
                ChangeOrder::Unchanged => prop_assert_eq!(running, wished),
                ChangeOrder::StandbysFirst => prop_assert!(!below(&wished, &running)),
                ChangeOrder::PrimaryFirst => prop_assert!(!below(&running, &wished)),
                ChangeOrder::GrowThenShrink { intermediate } => {
                    prop_assert!(!below(&intermediate, &running));
                    prop_assert!(!below(&intermediate, &wished));
                }
            }
            prop_assert_eq!(StandbyFloor::of_parameters(&wished.settings()), Some(wished));
        }
    }
}
