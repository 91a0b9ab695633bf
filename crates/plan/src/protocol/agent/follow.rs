//! Not holding the Lease: following, waiting, rejoining, and rule 8's return (rules 8, 13, 16, 22).

use matriarch_pg::Lsn;

use crate::protocol::command::{Action, StopMode};
use crate::protocol::directive::Bootstrap;
use crate::protocol::event::{Outcome, PostgresState};
use crate::protocol::identity::Member;
use crate::protocol::lease::Lease;
use crate::protocol::ledger::LastRole;
use crate::protocol::message::{MemberStatus, Standing};
use crate::protocol::moment::Span;
use crate::protocol::position::{History, Kinship};
use crate::protocol::view::{Unique, Waiting};

use super::api::Sight;
use super::holder::{Holding, Step};
use super::{Duty, Lane, Protocol, clause};

/// How long a standby may take to stop.
const STOP: Span = Span::seconds(30);

impl Protocol {
    pub(super) fn decide_standby(&mut self) {
        if self.fenced() && clause!(self, FencedStaysDown) {
            return self.stay_down(Waiting::Fenced);
        }
        if self.termination.is_some() {
            return self.stay_down(Waiting::Unfit);
        }
        match self.state() {
            PostgresState::Unknown => return self.waiting = Some(Waiting::Observation),
            PostgresState::Dying => return self.stop_now(),
            PostgresState::Primary if self.foreign_primary() => return self.lose(),
            PostgresState::Empty => return self.fill(),
            PostgresState::Primary
            | PostgresState::Stopped { .. }
            | PostgresState::Starting
            | PostgresState::Standby
            | PostgresState::Stopping => {}
        }
        // Not before PostgreSQL is down: a start or promotion that a process before this one asked
        // for may still end in a primary.
        if self.is_down() {
            self.disarm();
        }
        if self.ledger.rejoining {
            return self.rejoin();
        }
        let waiting = match self.return_as_holder() {
            Some(Ok(())) => return,
            Some(Err(waiting)) => Some(waiting),
            None => None,
        };
        if matches!(self.duty, Duty::Standby) {
            let why = match self.restore_lease() {
                Ok(true) => return,
                Ok(false) => self.consider_running().err(),
                Err(waiting) => Some(waiting),
            };
            let returning = waiting.is_some();
            self.waiting = self.waiting.take().or(waiting).or(why);
            if let Some(waiting) = self.waiting.clone() {
                self.human_options(&waiting);
            }
            if matches!(self.duty, Duty::Standby) && !returning {
                self.follow();
            }
        }
    }

    /// True if a stop begins now, false if one is under way.
    pub(super) fn stop_standby(&mut self) -> bool {
        self.run(Action::Stop { mode: StopMode::Fast, limit: STOP })
    }

    fn stay_down(&mut self, waiting: Waiting) {
        self.waiting = Some(waiting);
        match self.state() {
            PostgresState::Stopped { .. } | PostgresState::Empty => self.disarm(),
            PostgresState::Unknown | PostgresState::Stopping => {}
            PostgresState::Dying
            | PostgresState::Starting
            | PostgresState::Standby
            | PostgresState::Primary => {
                if !self.stopping() {
                    self.stop_standby();
                }
            }
        }
    }

    /// PostgreSQL accepts writes although L, which was read, is not this instance's.
    fn foreign_primary(&self) -> bool {
        let known = matches!(
            self.sight(),
            Sight::Held { .. } | Sight::Expired | Sight::Free | Sight::Handed(_)
        );
        known && !self.api.lease.as_ref().is_some_and(|l| l.held_by(&self.me()))
    }

    // ---- rule 8 ----

    /// L names this incarnation: takes it again, or says why not. None if L names somebody else.
    fn return_as_holder(&mut self) -> Option<Result<(), Waiting>> {
        let sight = self.sight();
        if matches!(sight, Sight::Unknown | Sight::Absent | Sight::Damaged) {
            return None;
        }
        let lease = self.api.lease.clone().filter(|l| l.held_by(&self.me()))?;
        if self.unfit() && self.state() != PostgresState::Primary {
            return None;
        }
        // Under `required` a Lease that was made anew promises less than is asked for (seed 4901).
        let runs = self.state() == PostgresState::Primary;
        if self.directive.is_none() && !runs && clause!(self, StartKnowsDirective) {
            return Some(Err(Waiting::Directive));
        }
        let same_pod = lease.holder.as_ref().is_some_and(|h| h.pod_uid == self.config.pod_uid);
        if !same_pod && sight != Sight::Expired && clause!(self, RetakeSamePod) {
            let until = self.api.changed_at + lease.duration;
            return Some(Err(Waiting::OtherPod { until }));
        }
        if self.other_system(&lease) {
            return Some(Err(Waiting::OtherSystem));
        }
        let reaches = self.ledger.history.contains(lease.position, self.flushed());
        if !reaches && clause!(self, RetakeReachesPosition) {
            // Not what it was: rule 9 decides once L has expired.
            return (sight != Sight::Expired).then(|| {
                Err(Waiting::Lag {
                    bytes: lease.position.lsn.saturating_distance(self.flushed()),
                    bound: 0,
                })
            });
        }
        if self.busy(Lane::Server) || self.now < self.retry_at {
            return Some(Err(Waiting::UnresolvedWrite));
        }
        self.become_holder_again(&lease);
        Some(Ok(()))
    }

    fn become_holder_again(&mut self, lease: &Lease) {
        if self.ledger.term < lease.term || self.ledger.role != LastRole::Primary {
            // Its own swap, whose answer it never saw: its data is a standby's.
            if !self.can_restart_as_primary() && self.state() != PostgresState::Primary {
                self.ledger.promoting = Some(lease.term);
            }
            self.ledger.term = lease.term;
            self.ledger.role = LastRole::Primary;
            self.save();
        }
        let step = if clause!(self, RetakeWritesFirst) {
            Step::Confirm { round: None }
        } else if self.ledger.promoting.is_some() {
            Step::Promote { since: self.now }
        } else {
            Step::Restart
        };
        let mut holding = Holding::new(step, self.now);
        holding.renew_soon(self.now);
        if !clause!(self, RetakeWritesFirst) {
            let right =
                crate::protocol::command::Right { from: self.now, duration: lease.duration };
            self.arm(right);
        }
        self.decide_holder(Box::new(holding));
    }

    // ---- rule 13 ----

    /// Whom to follow; the outer none: leave it as it is.
    fn to_follow(&self, lease: &Lease) -> Option<Option<Member>> {
        let holder = lease.holder.as_ref().filter(|h| h.incarnation != self.me());
        let against = self.ledger.promised.is_some_and(|promised| promised >= lease.term);
        if against {
            return Some(None);
        }
        if lease.term < self.ledger.term {
            return None;
        }
        let paused =
            self.now < self.receiver_paused_until && lease.term <= self.receiver_paused_term;
        if !lease.history_published || paused {
            return None;
        }
        self.member_of(&holder?.incarnation).map(Some)
    }

    /// It is to take over another history, and what still arrives may carry it beyond the fork
    /// after the comparison, under a history that does not hold it (seed 861).
    fn receives_elsewhere(&self, lease: &Lease) -> bool {
        self.ledger.history != lease.history && !self.receiver_stopped()
    }

    fn follow(&mut self) {
        if self.busy(Lane::Server) || self.now < self.retry_at || self.restart_standby() {
            return;
        }
        let lease = self.api.lease.clone().or(self.ledger.lease.clone().map(|l| l.1));
        let target = lease.as_ref().and_then(|l| self.to_follow(l));
        let down = matches!(self.state(), PostgresState::Stopped { .. });
        let Some(lease) = lease else {
            if self.ledger.term > crate::protocol::Term::ZERO {
                self.start_alone(down);
            }
            return;
        };
        // Somebody's data: nothing is started on it, not even alone, and nothing replaces it.
        if self.other_system(&lease) {
            self.waiting = Some(Waiting::OtherSystem);
            return;
        }
        if self.start_anew_for(&lease, target.as_ref()) {
            return;
        }
        let Some(Some(member)) = target else {
            if target.is_some() && !down && !self.receiver_stopped() {
                self.stop_receiver();
            }
            return self.start_alone(down);
        };
        if self.receives_elsewhere(&lease) && clause!(self, FollowStopsFirst) {
            if self.state() == PostgresState::Standby {
                self.run(Action::Follow { member: None });
            }
            return;
        }
        let checks = clause!(self, FollowChecksHistory) && clause!(self, RejoinRewinds);
        let flushed = self.flushed();
        match self.ledger.history.kinship(flushed, &lease.history) {
            Kinship::OnIt => {}
            Kinship::Left(_) | Kinship::Unrelated if !checks => {}
            Kinship::Left(from) => {
                self.unique = (flushed > from).then_some(Unique { from, to: flushed });
                return self.begin_rejoin();
            }
            Kinship::Unrelated => {
                self.unique = Some(Unique { from: Lsn::INVALID, to: flushed });
                return self.begin_rejoin();
            }
        }
        if !down && self.follows.as_ref() == Some(&Some(member.clone())) {
            return;
        }
        if self.ledger.history != lease.history || self.ledger.role != LastRole::Standby {
            self.ledger.history.clone_from(&lease.history);
            self.ledger.role = LastRole::Standby;
            self.save();
        }
        if down {
            self.run(Action::StartStandby { follow: Some(member) });
        } else if self.state() == PostgresState::Standby {
            self.run(Action::Follow { member: Some(member) });
        }
    }

    /// A server that lets no session in cannot be told, and seen to know, whom to follow now; what it
    /// needs in order to let somebody in may be what only that one sends. Stopped it can be compared
    /// with L, and is started with the right one.
    fn start_anew_for(&mut self, lease: &Lease, target: Option<&Option<Member>>) -> bool {
        let Some(target) = target.filter(|_| self.state() == PostgresState::Starting) else {
            return false;
        };
        let knows = self.follows.as_ref() == Some(target)
            && (target.is_none() || !self.receives_elsewhere(lease));
        if knows || !clause!(self, StartingIsStartedAnew) {
            return false;
        }
        self.stop_standby()
    }

    /// A restart in place that the operator asks for: true if PostgreSQL is stopped for it. One
    /// that is down already starts anew by itself.
    fn restart_standby(&mut self) -> bool {
        let Some(id) = self.wished_restart() else { return false };
        match self.state() {
            PostgresState::Stopped { .. } => {
                self.restarting = Some(id);
                false
            }
            PostgresState::Standby => {
                let stops = self.stop_standby();
                if stops {
                    self.restarting = Some(id);
                }
                stops
            }
            PostgresState::Unknown
            | PostgresState::Empty
            | PostgresState::Dying
            | PostgresState::Starting
            | PostgresState::Stopping
            | PostgresState::Primary => false,
        }
    }

    /// Nobody to follow: runs in recovery all the same, so that it can be read and elected.
    fn start_alone(&mut self, down: bool) {
        if !down {
            return;
        }
        let found = self.pg.as_ref().and_then(|pg| pg.system_id);
        if found.is_some() && self.ledger.system_id.is_some() && found != self.ledger.system_id {
            self.waiting = Some(Waiting::OtherSystem);
            return;
        }
        // Data that was a primary's keeps its timeline if it may come back as one.
        if self.can_restart_as_primary() && self.sight() == Sight::Unknown {
            return;
        }
        if self.ledger.role != LastRole::Standby {
            self.ledger.role = LastRole::Standby;
            self.save();
        }
        self.run(Action::StartStandby { follow: None });
    }

    pub(super) fn followed(&self) -> Option<Member> {
        self.follows.clone().flatten()
    }

    // ---- rule 22 ----

    fn begin_rejoin(&mut self) {
        let Some(_) = self.source() else { return self.no_source() };
        if !self.is_down() {
            self.stop_standby();
            return;
        }
        let Some(source) = self.source() else { return };
        self.ledger.rejoining = true;
        self.ledger.role = LastRole::Standby;
        self.ledger.promoting = None;
        self.save();
        self.counts.rewinds += 1;
        self.remember_source();
        self.run(Action::Rewind { from: source });
    }

    /// A rewind or clone was begun and is not done: only a clone is sure to give a whole copy.
    fn rejoin(&mut self) {
        self.waiting = Some(Waiting::NoCopy);
        if self.busy(Lane::Server) || self.now < self.retry_at {
            return;
        }
        if !self.is_down() {
            self.stop_standby();
            return;
        }
        self.clone_from_source();
    }

    fn clone_from_source(&mut self) {
        let Some(source) = self.clone_source() else { return self.no_source() };
        self.counts.clones += 1;
        self.remember_source();
        self.run(Action::Clone { from: source });
    }

    fn no_source(&mut self) {
        self.human_options(&Waiting::NoSource);
        self.waiting = Some(Waiting::NoSource);
    }

    fn remember_source(&mut self) {
        self.source_history = self.api.lease.as_ref().map(|l| l.history.clone());
    }

    /// The holder, heard of lately as primary, its history published.
    fn source(&self) -> Option<Member> {
        let lease = self.api.lease.as_ref().filter(|l| l.history_published)?;
        let holder = lease.holder.as_ref().filter(|h| h.incarnation != self.me())?;
        self.fresh()
            .find(|(_, s)| {
                s.member.incarnation == holder.incarnation && s.standing == Standing::Primary
            })
            .map(|(_, s)| s.member.clone())
    }

    /// A replica that streams, lies on the holder's history and within the bound on lag, so that the
    /// primary is spared; after a failure, and without one, the holder itself.
    fn clone_source(&self) -> Option<Member> {
        let holder = self.source()?;
        let lease = self.api.lease.as_ref()?;
        let bound = self.directive.as_ref().and_then(|d| d.limits.maximum_lag);
        let end = self.fresh().find(|(_, s)| s.member == holder).map(|(_, s)| s.position.lsn)?;
        let fit = |s: &MemberStatus| {
            let near = bound.is_none_or(|bound| end.saturating_distance(s.position.lsn) <= bound);
            s.is_whole_standby(lease, &lease.history) && s.streaming && near && s.term == lease.term
        };
        let replicas = self.fresh().map(|(_, s)| s).filter(|s| self.failures == 0 && fit(s));
        let best = replicas.max_by_key(|s| (s.position, std::cmp::Reverse(s.member.name.clone())));
        Some(best.map_or(holder, |s| s.member.clone()))
    }

    /// An empty volume.
    fn fill(&mut self) {
        if self.busy(Lane::Server) || self.now < self.retry_at {
            return;
        }
        let Some(directive) = &self.directive else {
            self.waiting = Some(Waiting::Directive);
            return;
        };
        let first = directive.bootstrap == Bootstrap::Initdb && directive.bootstrap_primary;
        if first && self.nobody_has_data() {
            if self.sight() == Sight::Absent {
                self.run(Action::Initialize);
                return;
            }
            if self.sight() == Sight::Unknown {
                self.waiting = Some(Waiting::LeaseUnreadable);
                return;
            }
        }
        self.waiting = Some(Waiting::NoCopy);
        if !self.ledger.rejoining && self.source().is_some() {
            self.ledger.rejoining = true;
            self.save();
        }
        self.clone_from_source();
    }

    /// No instance of the cluster is known to have ever had data.
    pub(super) fn nobody_has_data(&self) -> bool {
        self.ledger.term == crate::protocol::Term::ZERO
            && self.peers.0.values().all(|known| {
                known.incarnation.is_none()
                    && known.status.as_ref().is_none_or(|(_, s)| s.system_id.is_none())
            })
    }

    pub(super) fn rejoin_finished(&mut self, action: &Action, outcome: &Outcome) {
        match (action, outcome) {
            (Action::Initialize, Outcome::NewDirectory { incarnation, system_id }) => {
                self.ledger.incarnation = Some(incarnation.clone());
                self.ledger.system_id = Some(*system_id);
                self.ledger.history = History::root(crate::protocol::Term(1), incarnation.clone());
                self.ledger.role = LastRole::Primary;
                self.save();
            }
            (Action::Clone { .. }, Outcome::NewDirectory { incarnation, system_id }) => {
                self.ledger.incarnation = Some(incarnation.clone());
                self.ledger.system_id = Some(*system_id);
                self.rejoined();
            }
            (Action::Rewind { .. }, Outcome::Done) => self.rejoined(),
            (Action::Follow { member }, Outcome::Done) => self.follows = Some(member.clone()),
            (Action::StartStandby { follow }, Outcome::Done) => {
                self.follows = Some(follow.clone());
            }
            (Action::Stop { .. }, Outcome::Done) => self.follows = None,
            _ => {}
        }
    }

    fn rejoined(&mut self) {
        if let Some(history) = self.source_history.take() {
            self.ledger.history = history;
        }
        self.ledger.rejoining = false;
        self.ledger.role = LastRole::Standby;
        self.ledger.promoting = None;
        self.follows = None;
        self.save();
    }
}
