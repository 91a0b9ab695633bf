//! PostgreSQL is gone and the agent is alive (rule 19).

use crate::protocol::event::PostgresState;
use crate::protocol::message::Question;
use crate::protocol::moment::{Moment, Span};

use super::handover::Reason;
use super::holder::{Holding, Step};
use super::peers::{POLL_LIMIT, Round};
use super::{Protocol, clause};

/// Replaying so much takes under a second or so (traps H10): restart rather than hand over.
const QUICK_REPLAY: u64 = 200 << 20;

impl Protocol {
    pub(super) fn crashed(&mut self, holding: &mut Holding) {
        let Step::Crashed { since, mut round } =
            std::mem::replace(&mut holding.step, Step::Restart)
        else {
            return;
        };
        match self.state() {
            PostgresState::Stopped { .. } => {}
            PostgresState::Primary => return,
            PostgresState::Unknown
            | PostgresState::Empty
            | PostgresState::Dying
            | PostgresState::Starting
            | PostgresState::Standby
            | PostgresState::Stopping => {
                if clause!(self, CrashAllGone) {
                    self.stop_now();
                    holding.step = Step::Crashed { since, round };
                    return;
                }
            }
        }
        if self.stopping() {
            holding.step = Step::Crashed { since, round };
            return;
        }
        if round.is_none() {
            let names = self.names();
            round = Some(self.round(names, &Question::Position, POLL_LIMIT));
        }
        let complete = round.as_ref().is_some_and(Round::complete);
        if self.successor_after_crash(holding, since, complete) {
            return self.begin_hand_over(holding, Reason::Crash);
        }
        if !complete {
            holding.step = Step::Crashed { since, round };
            return;
        }
        if holding.restart_failed {
            holding.restart_failed = false;
            holding.since = since;
        }
        holding.step = Step::Restart;
    }

    /// True if the Lease is to be handed on rather than PostgreSQL restarted in place.
    fn successor_after_crash(&mut self, holding: &Holding, since: Moment, complete: bool) -> bool {
        let end = self.flushed();
        let has_all = self.successor(|s| s.position.lsn >= end);
        if has_all.is_some() {
            return true;
        }
        let lease = self.api.lease.as_ref();
        if lease.is_some_and(|l| l.quorum.as_ref().is_some_and(|q| q.of.len() > 1)) {
            // The best takes it by rule 9, with promises.
            return complete && self.successor(|_| true).is_some();
        }
        if !clause!(self, CrashSuccessorHasAll) {
            return self.successor(|_| true).is_some();
        }
        let limits = self.directive.as_ref().map(|d| d.limits).unwrap_or_default();
        let slow = self
            .pg
            .as_ref()
            .and_then(|pg| pg.since_checkpoint)
            .is_some_and(|bytes| bytes > QUICK_REPLAY);
        let waited = self.now.since(since) >= limits.failover_delay.max(Span::ZERO);
        (holding.restart_failed || slow)
            && waited
            && complete
            && self
                .successor(|s| {
                    let (history, end_there) = (&s.history, s.position.lsn);
                    lease.is_none_or(|l| l.quorum_not_reached(history, end_there).is_none())
                        && limits
                            .maximum_lag
                            .is_none_or(|bound| end.saturating_distance(s.position.lsn) <= bound)
                })
                .is_some()
    }
}
