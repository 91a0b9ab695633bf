//! When PostgreSQL must be stopped because its right to accept writes runs out (rule 5). Pure.

use std::time::Duration;

use super::message::{BootTime, nanoseconds};

/// SIGQUIT is due this share of D after the start that the right counts from.
const QUIT_PERCENT: u64 = 75;
/// The kill is due this share of D after the start that the right counts from.
const KILL_PERCENT: u64 = 85;

/// The bound under which PostgreSQL runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// None was given since PostgreSQL's start: it is a standby.
    #[default]
    None,
    /// SIGQUIT at the first time, kill at the second.
    Until {
        /// End of the right, as the agent gave it.
        valid_until: BootTime,
        /// Time of the SIGQUIT.
        quit: BootTime,
        /// Time of the kill.
        kill: BootTime,
    },
}

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// SIGQUIT to the postmaster.
    Quit,
    /// SIGSTOP the postmaster, kill every process of the data directory, then the postmaster.
    Kill,
}

impl Bound {
    /// The bound of a right that ends at `valid_until` and was given for `duration`.
    #[must_use]
    pub fn of_right(valid_until: BootTime, duration: Duration) -> Self {
        let whole = nanoseconds(duration);
        let before_end =
            |percent: u64| BootTime(valid_until.0.saturating_sub(whole / 100 * (100 - percent)));
        Self::Until { valid_until, quit: before_end(QUIT_PERCENT), kill: before_end(KILL_PERCENT) }
    }

    /// The bound of a right that was lost (rule 2).
    #[must_use]
    pub fn lost(now: BootTime, grace: Duration) -> Self {
        Self::Until { valid_until: now, quit: now, kill: now.after(grace) }
    }

    /// End of the right, if there is a bound.
    #[must_use]
    pub fn valid_until(self) -> Option<BootTime> {
        match self {
            Self::None => None,
            Self::Until { valid_until, .. } => Some(valid_until),
        }
    }

    /// What is due at `now`.
    #[must_use]
    pub fn due(self, now: BootTime) -> Due {
        match self {
            Self::None => Due::Nothing,
            Self::Until { kill, .. } if now >= kill => Due::Kill,
            Self::Until { quit, .. } if now >= quit => Due::Quit,
            Self::Until { .. } => Due::Nothing,
        }
    }

    /// A later kill never takes the place of an earlier one: a right once lost stays lost until
    /// PostgreSQL has stopped.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, bound) | (bound, Self::None) => bound,
            (Self::Until { kill: mine, .. }, Self::Until { kill: theirs, .. }) => {
                if theirs < mine {
                    other
                } else {
                    self
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn quit_is_due_at_three_quarters_of_the_duration_and_the_kill_at_85_hundredths() {
        let start = 100 * SECOND;
        let bound = Bound::of_right(BootTime(start + 10 * SECOND), Duration::from_secs(10));
        assert_eq!(bound.due(BootTime(start + 7_499_999_999)), Due::Nothing);
        assert_eq!(bound.due(BootTime(start + 7_500_000_000)), Due::Quit);
        assert_eq!(bound.due(BootTime(start + 8_499_999_999)), Due::Quit);
        assert_eq!(bound.due(BootTime(start + 8_500_000_000)), Due::Kill);
        assert_eq!(bound.due(BootTime(u64::MAX)), Due::Kill);
    }

    #[test]
    fn a_standby_has_no_bound() {
        assert_eq!(Bound::None.due(BootTime(u64::MAX)), Due::Nothing);
    }

    #[test]
    fn a_lost_right_is_not_given_back_by_a_later_one() {
        let lost = Bound::lost(BootTime(5), Duration::from_secs(1));
        let right = Bound::of_right(BootTime(100 * SECOND), Duration::from_secs(10));
        assert_eq!(lost.due(BootTime(5)), Due::Quit);
        assert_eq!(lost.sooner(right), lost);
        assert_eq!(right.sooner(lost), lost);
    }

    #[test]
    fn durations_beyond_all_measure_do_not_overflow() {
        let bound = Bound::of_right(BootTime(3), Duration::MAX);
        assert_eq!(bound.due(BootTime(3)), Due::Kill);
    }
}
