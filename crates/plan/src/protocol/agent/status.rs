//! What is told to peers and shown in status, and when the next tick is due.

use crate::protocol::directive::Config;
use crate::protocol::event::PostgresState;
use crate::protocol::ledger::Ledger;
use crate::protocol::message::{MemberStatus, Standing};
use crate::protocol::moment::{Moment, Span};
use crate::protocol::view::{Role, View, Waiting};

use super::api::{Purpose, Sight};
use super::candidate::SURRENDERED;
use super::holder::Step;
use super::{Duty, Protocol, clause};

impl Protocol {
    /// What it is to its peers.
    pub(super) fn standing(&self) -> Standing {
        if self.state() == PostgresState::Primary {
            return Standing::Primary;
        }
        let swap = |purpose| matches!(purpose, Purpose::Take | Purpose::Restore);
        let pending = self.api.unresolved.iter().chain(&self.api.write).any(|w| swap(w.purpose));
        match &self.duty {
            Duty::Holder(holding) => match holding.step {
                Step::Serve => Standing::Primary,
                Step::Confirm { .. }
                | Step::Restart
                | Step::Promote { .. }
                | Step::Crashed { .. }
                | Step::HandOver(_) => Standing::Down,
            },
            Duty::Retiring => Standing::Down,
            Duty::Candidate(_) | Duty::Restoring(_) => Standing::Candidate,
            Duty::Standby if pending => Standing::Candidate,
            Duty::Standby => Standing::Standby,
        }
    }

    /// No copy that counts: none yet, in the middle of a rewind or clone (rule 22), or on a timeline
    /// that it cannot give a term.
    pub(super) fn has_no_copy(&self) -> bool {
        self.ledger.rejoining
            || self.on_unknown_timeline()
            || self.ledger.incarnation.is_none()
            || matches!(self.state(), PostgresState::Empty | PostgresState::Unknown)
    }

    /// L counts on WAL of this very incarnation that it has no more: its volume went back to an
    /// earlier state, a snapshot for one. Others may have gone beyond, and it is no copy of what was
    /// acknowledged since.
    pub(super) fn went_back(&self) -> bool {
        let me = self.me();
        self.api.lease.as_ref().is_some_and(|lease| {
            clause!(self, SnapshotIsNoCopy)
                && lease.last_holder() == Some(&me)
                && !self.ledger.history.contains(lease.position, self.flushed())
        })
    }

    pub(super) fn status(&self) -> MemberStatus {
        let bound = clause!(self, RunAfterVouch);
        MemberStatus {
            member: self.member(),
            system_id: self.own_system(),
            term: self.known_term(),
            promised: self.ledger.promised,
            standing: self.standing(),
            position: self.position(),
            history: self.history(),
            streaming: self.pg.as_ref().is_some_and(|pg| {
                matches!(pg.receiver, crate::protocol::event::Receiver::Streaming { .. })
            }),
            reads_api: self.reads_api(),
            no_run_for: if bound { self.no_run_before.since(self.now) } else { Span::ZERO },
            no_copy: self.has_no_copy() || self.went_back(),
            unfit: self.unfit(),
            fenced: self.fenced(),
            priority: self.directive.as_ref().map_or(0, |d| d.limits.priority),
            version: self.api.version,
            damaged: self.sight() == Sight::Damaged,
        }
    }

    /// The pod is to end, PostgreSQL is down, and there is nothing left to give away.
    #[must_use]
    pub fn may_leave(&self) -> bool {
        if self.termination.is_none() || !self.is_down() || self.api.write.is_some() {
            return false;
        }
        match self.role() {
            Role::None | Role::Standby | Role::Fenced | Role::Rejoining => true,
            Role::Candidate
            | Role::Promoting
            | Role::Primary
            | Role::HandingOver
            | Role::Stopping => false,
        }
    }

    /// Another process may take this one's place now: nothing is under way that it would not take up
    /// again from the Lease, the ledger and PostgreSQL, nobody waits for an answer, and the right
    /// was prolonged a moment ago, so that the next process has most of it.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let quiet = self.operations.is_empty()
            && self.api.write.is_none()
            && self.api.unresolved.is_empty()
            && self.replies.is_empty()
            && self.word.is_none()
            && self.termination.is_none()
            && self.restarting.is_none()
            && !self.ledger.rejoining;
        let duty = match &self.duty {
            Duty::Holder(holding) => {
                let left = self.right.map_or(Span::ZERO, |it| it.valid_until().since(self.now));
                matches!(holding.step, Step::Serve)
                    && self.state() == PostgresState::Primary
                    && holding.failsafe.since.is_none()
                    && holding.shift.is_none()
                    && left.times(10) >= self.timing().duration.times(9)
            }
            // While nobody holds the Lease, who would be asked is not there.
            Duty::Standby => matches!(self.sight(), Sight::Held { .. }),
            Duty::Candidate(_) | Duty::Retiring | Duty::Restoring(_) => false,
        };
        quiet && duty
    }

    fn role(&self) -> Role {
        if self.fenced() && matches!(self.state(), PostgresState::Stopped { .. }) {
            return Role::Fenced;
        }
        match &self.duty {
            Duty::Standby if self.ledger.rejoining => Role::Rejoining,
            Duty::Standby => match self.state() {
                PostgresState::Standby | PostgresState::Starting => Role::Standby,
                PostgresState::Primary | PostgresState::Stopping | PostgresState::Dying => {
                    Role::Stopping
                }
                PostgresState::Unknown | PostgresState::Empty | PostgresState::Stopped { .. } => {
                    Role::None
                }
            },
            Duty::Candidate(_) | Duty::Restoring(_) => Role::Candidate,
            Duty::Retiring => Role::Stopping,
            Duty::Holder(holding) => match holding.step {
                Step::Serve => Role::Primary,
                Step::HandOver(_) => Role::HandingOver,
                Step::Confirm { .. }
                | Step::Restart
                | Step::Promote { .. }
                | Step::Crashed { .. } => Role::Promoting,
            },
        }
    }

    /// What status shows.
    pub fn view(&self) -> View {
        let lease = self.api.lease.as_ref();
        let holding = match &self.duty {
            Duty::Holder(holding) => Some(holding),
            Duty::Standby | Duty::Candidate(_) | Duty::Retiring | Duty::Restoring(_) => None,
        };
        View {
            role: self.role(),
            incarnation: self.ledger.incarnation.clone(),
            term: self.ledger.term,
            holder: lease.and_then(|l| l.holder.as_ref()).map(|h| h.name.clone()),
            lease_term: lease.map(|l| l.term),
            right_until: self.right.map(|r| r.valid_until()),
            failsafe_since: holding.and_then(|h| h.failsafe.since),
            failsafe_left: holding.and_then(|h| self.failsafe_left(h)),
            following: self.followed(),
            promised: self.ledger.promised,
            position: self.position(),
            history: self.history(),
            quorum: lease.and_then(|l| l.quorum.clone()),
            unprotected: self.unprotected(),
            names: holding.and_then(|h| h.names.clone()),
            shift: holding.and_then(|h| h.shift.as_ref()).map(|s| s.step()),
            cohort: lease.map(|l| l.cohort.clone()).unwrap_or_default(),
            stragglers: lease.map(|l| l.stragglers.clone()).unwrap_or_default(),
            waiting: self.waiting.clone(),
            human: self.human.clone(),
            switchover: self.switchover.clone(),
            restart: self.restarted.clone(),
            unique: self.unique,
            counts: self.counts,
        }
    }

    /// The durable memory as last said to be written.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Who this is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// When [`crate::protocol::Event::Tick`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Moment, &'static str)> {
        let mut due: Vec<(Moment, &'static str)> = Vec::new();
        let mut at = |moment: Option<Moment>, why| due.extend(moment.map(|m| (m, why)));
        at(self.api.due(), "read the Lease");
        at(self.next_poll(), "ask the peers");
        at(self.next_reply(), "answer a peer");
        let later = |moment: Moment| (moment > self.now).then_some(moment);
        at(later(self.retry_at), "try again");
        at(later(self.receiver_paused_until), "follow again");
        at(self.surrendered.and_then(|(_, since)| later(since + SURRENDERED)), "may run again");
        for (_, again) in self.failed.values() {
            at(later(*again), "begin again");
        }
        at(later(self.no_run_before), "may run again");
        at(later(self.heard + self.patience()), "the primary is silent");
        if let Some(Waiting::Straggler { until } | Waiting::OtherPod { until }) = &self.waiting {
            at(later(*until), "may run");
        }
        if let Sight::Held { until } = self.sight() {
            at(later(until), "the Lease expires");
        }
        if let Sight::Handed(_) = self.sight() {
            at(later(self.api.changed_at + super::api::SUCCESSOR_ALONE), "successor late");
        }
        match &self.duty {
            Duty::Holder(holding) => due.extend(self.holder_due(holding)),
            Duty::Candidate(_) | Duty::Restoring(_) | Duty::Retiring => {
                due.push((self.now + Span::millis(100), "look again"));
            }
            Duty::Standby => {}
        }
        due.into_iter().min_by_key(|(moment, _)| *moment)
    }
}
