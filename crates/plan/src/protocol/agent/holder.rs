//! Holding the Lease: renewal, the cohort, starting, serving (rules 1, 2, 4, 8, 12, 15, 16).

use std::collections::{BTreeMap, BTreeSet};

use matriarch_pg::Lsn;

use crate::protocol::command::{Action, Base, RequestId, StopMode};
use crate::protocol::event::{ApiRefusal, Outcome, PostgresState};
use crate::protocol::identity::{Incarnation, Member};
use crate::protocol::lease::{Holder, Lease};
use crate::protocol::message::{Answer, MemberStatus, Question};
use crate::protocol::moment::{Moment, Span};
use crate::protocol::position::Position;
use crate::protocol::quorum::StandbyNames;
use crate::protocol::view::Waiting;

use super::api::{Purpose, Reading, Sight, Write};
use super::failsafe::Failsafe;
use super::handover::{HandOver, Reason};
use super::peers::{POLL_LIMIT, Round};
use super::synchronous::Shift;
use super::{Duty, Lane, Protocol, clause};

/// A member that has not streamed for so long becomes a straggler (rule 4).
const STRAGGLER_AFTER: Span = Span::seconds(10);
/// A former holder asks members that are silent for so long before it takes L again.
const ASKS: Span = Span::seconds(2);
/// A renewal without an answer is tried again after so long.
const RENEW_AGAIN: Span = Span::millis(300);

/// What a holder is at.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Rule 8: found itself holder; asks, writes L, and only then acts.
    Confirm { round: Option<Round> },
    /// Starts PostgreSQL where it was primary before.
    Restart,
    /// Promotes; since.
    Promote { since: Moment },
    /// Accepts writes.
    Serve,
    /// PostgreSQL is gone (rule 19); since, and the round that looks for a successor.
    Crashed { since: Moment, round: Option<Round> },
    /// Gives the Lease away (rule 18).
    HandOver(Box<HandOver>),
}

/// The state of a holder.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub step: Step,
    pub since: Moment,
    /// Start of the last successful renewal.
    pub renewed: Moment,
    next_renewal: Moment,
    pub failsafe: Failsafe,
    pub shift: Option<Shift>,
    /// Where its WAL ended when it gave the last quorum up.
    pub relaxed: Option<Position>,
    /// Names in force, as far as known.
    pub names: Option<StandbyNames>,
    /// When each standby was last seen streaming.
    streamed: BTreeMap<Incarnation, Moment>,
    /// Who has caught up since the last renewal: each brings one forward.
    announced: BTreeSet<Incarnation>,
    next_service: Moment,
    /// Asks the members before it makes L anew (rule 7).
    pub restoring: Option<Round>,
    /// The API has refused: the right ends (rule 3).
    pub refused: Option<ApiRefusal>,
    /// A restart in place failed; since.
    pub restart_failed: bool,
    /// PostgreSQL is being stopped for a restart in place.
    pub restarting: bool,
    /// This duty is over: L was given away.
    pub ended: bool,
}

impl Holding {
    pub(super) fn new(step: Step, now: Moment) -> Self {
        Self {
            step,
            since: now,
            renewed: now,
            next_renewal: now,
            failsafe: Failsafe::default(),
            shift: None,
            relaxed: None,
            names: None,
            streamed: BTreeMap::new(),
            announced: BTreeSet::new(),
            next_service: now,
            restoring: None,
            refused: None,
            restart_failed: false,
            restarting: false,
            ended: false,
        }
    }

    pub(super) fn renew_soon(&mut self, now: Moment) {
        self.next_renewal = self.next_renewal.min(now);
    }

    pub(super) fn answered(&mut self, request: RequestId, answer: Option<&Answer>) {
        let own = match &mut self.step {
            Step::Confirm { round } | Step::Crashed { round, .. } => round.as_mut(),
            Step::HandOver(handover) => handover.round.as_mut(),
            Step::Restart | Step::Promote { .. } | Step::Serve => None,
        };
        let others = self.failsafe.round.iter_mut().chain(&mut self.restoring);
        for round in own.into_iter().chain(others) {
            round.take(request, answer);
        }
    }

    pub(super) fn finished(&mut self, action: &Action, outcome: &Outcome, now: Moment) {
        let done = matches!(outcome, Outcome::Done);
        match action {
            Action::StartPrimary { names } | Action::Promote { names, .. } if done => {
                self.names = Some(names.clone());
                self.restart_failed = false;
                self.next_service = now;
                self.next_renewal = now;
            }
            Action::SetNames { names } => self.names_set(names, done),
            Action::StartPrimary { .. } => self.restart_failed |= !done,
            Action::Stop { .. } => self.restarting &= done,
            // Clients find nobody until it is done.
            Action::PointService { .. } if !done => self.next_service = now,
            Action::Promote { .. }
            | Action::Initialize
            | Action::StartStandby { .. }
            | Action::Follow { .. }
            | Action::Checkpoint
            | Action::Rewind { .. }
            | Action::Clone { .. }
            | Action::PointService { .. }
            | Action::UnpointService { .. } => {}
        }
    }
}

impl Protocol {
    pub(super) fn decide_holder(&mut self, mut holding: Box<Holding>) {
        self.note_streams(&mut holding);
        if let Some(duty) = self.end_of_right(&holding) {
            self.duty = duty;
            return;
        }
        if self.outrun() && clause!(self, HigherTermIsHeard) {
            return self.lose();
        }
        self.restore_as_holder(&mut holding);
        self.renew(&mut holding);
        self.keep_failsafe(&mut holding);
        if !matches!(self.duty, Duty::Standby) {
            return;
        }
        if self.ends_while_down(&mut holding) {
            return;
        }
        match holding.step {
            Step::Confirm { .. } => self.confirm(&mut holding),
            Step::Restart => self.restart(&mut holding),
            Step::Promote { since } => self.promote(&mut holding, since),
            Step::Serve => self.serve(&mut holding),
            Step::Crashed { .. } => self.crashed(&mut holding),
            Step::HandOver(_) => self.hand_over(&mut holding),
        }
        // A step may have ended this duty.
        if matches!(self.duty, Duty::Standby) && !holding.ended {
            self.duty = Duty::Holder(holding);
        }
    }

    /// A pod that is to end starts no PostgreSQL any more: one that cannot start, with a data
    /// directory of another major version for one, would otherwise stay until its grace ends.
    /// True if nothing is held any more.
    fn ends_while_down(&mut self, holding: &mut Holding) -> bool {
        if self.termination.is_none() || !self.is_down() || self.busy(Lane::Server) {
            return false;
        }
        match holding.step {
            // L was not taken again, and expires as it is.
            Step::Confirm { .. } => {
                self.duty = Duty::Retiring;
                true
            }
            Step::Restart | Step::Crashed { .. } => {
                if let Some(reason) = self.reason_to_hand_over(holding) {
                    self.begin_hand_over(holding, reason);
                }
                holding.ended
            }
            Step::Promote { .. } | Step::Serve | Step::HandOver(_) => false,
        }
    }

    /// Rule 1: the right has ended by time.
    fn end_of_right(&mut self, holding: &Holding) -> Option<Duty> {
        let over = self.right.is_some_and(|right| self.now >= right.quit_at());
        if !over || !clause!(self, RightEnds) {
            return None;
        }
        if matches!(holding.step, Step::Confirm { .. }) && self.is_down() {
            return None;
        }
        if let Step::HandOver(handover) = &holding.step
            && self.is_down()
            && handover.outlives_right()
        {
            return None;
        }
        self.stop_now();
        Some(Duty::Retiring)
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.state(), PostgresState::Stopped { .. } | PostgresState::Empty)
    }

    pub(super) fn stop_now(&mut self) {
        if !self.is_down() {
            self.run(Action::Stop { mode: StopMode::Immediate, limit: Span::seconds(1) });
        }
    }

    /// Rule 2: somebody else holds L, or may: stop at once.
    pub(super) fn lose(&mut self) {
        self.stop_now();
        self.duty = Duty::Retiring;
    }

    /// A peer knows a term above every one that this holder wrote or tried to write, or a later state
    /// of the very L that it goes by: others went on while its machine stood still, and somebody took
    /// L back (seeds 6568, 8169).
    fn outrun(&self) -> bool {
        let tried = self.api.unresolved.iter().chain(&self.api.write).map(|w| w.lease.term);
        let highest = tried.fold(self.ledger.term, std::cmp::Ord::max);
        let later = |s: &MemberStatus| s.damaged && s.version == self.api.version;
        let found = self.api.reading == Reading::Found;
        self.fresh().any(|(_, s)| s.term > highest || (found && later(s)))
    }

    pub(super) fn decide_retiring(&mut self) {
        if self.stopping() {
            self.duty = Duty::Retiring;
            return;
        }
        let up = match self.state() {
            PostgresState::Stopped { .. } | PostgresState::Empty => false,
            // A standby that lost its Lease before it promoted has written nothing.
            PostgresState::Standby => self.promoting_now(),
            PostgresState::Unknown
            | PostgresState::Dying
            | PostgresState::Starting
            | PostgresState::Primary
            | PostgresState::Stopping => true,
        };
        if up {
            self.stop_now();
            self.duty = Duty::Retiring;
            return;
        }
        if self.is_down() {
            self.disarm();
        }
        self.duty = Duty::Standby;
    }

    fn promoting_now(&self) -> bool {
        self.operations.values().any(|o| matches!(o.action, Action::Promote { .. }))
    }

    // ---- renewal ----

    fn renew(&mut self, holding: &mut Holding) {
        let released = matches!(&holding.step, Step::HandOver(h) if h.sent());
        let confirming = matches!(holding.step, Step::Confirm { .. });
        if self.api.write.is_some() || self.now < holding.next_renewal || released || confirming {
            return;
        }
        if !matches!(self.api.reading, Reading::Found | Reading::Silent | Reading::Refused(_)) {
            return;
        }
        let Some(current) = self.api.lease.clone().filter(|l| l.held_by(&self.me())) else {
            return;
        };
        let lease = self.renewal(holding, &current);
        if self.write_lease(Base::Version(self.api.version), lease, Purpose::Renew) {
            holding.next_renewal = self.now + self.timing().renew;
        }
    }

    /// L as it is to stand after the next renewal.
    fn renewal(&mut self, holding: &mut Holding, current: &Lease) -> Lease {
        let mut lease = current.clone();
        lease.holder = Some(self.as_holder());
        lease.release = None;
        lease.term = self.ledger.term.max(current.term);
        if let Some(directive) = &self.directive {
            lease.duration = directive.timing.duration;
        }
        if self.state() == PostgresState::Primary && self.ledger.promoting.is_none() {
            lease.history = self.ledger.history.clone();
            lease.history_published = true;
            lease.position = self.position();
        }
        self.keep_cohort(holding, &mut lease);
        if let Some(quorum) = holding.shift.as_ref().and_then(Shift::publishes) {
            lease.quorum = quorum;
        }
        // So long ago that its branch is forgotten, it binds nobody.
        let known = |until: &Position| self.ledger.history.contains(*until, Lsn(u64::MAX));
        let until = holding.relaxed.or(lease.quorum_until).filter(known);
        lease.quorum_until = until.filter(|_| lease.quorum.is_none());
        if self.promised_against(lease.term) && clause!(self, Reassert) {
            lease.term = lease.term.next();
            lease.reassertions = lease.reassertions.saturating_add(1);
            self.counts.reasserted += 1;
        }
        lease
    }

    /// Rule 16: some member no longer follows this term.
    fn promised_against(&self, term: crate::protocol::Term) -> bool {
        self.fresh().any(|(_, s)| s.promised.is_some_and(|promised| promised >= term))
            || self.ledger.promised.is_some_and(|promised| promised >= term)
    }

    pub(super) fn as_holder(&self) -> Holder {
        Holder {
            name: self.config.name.clone(),
            incarnation: self.me(),
            pod_uid: self.config.pod_uid.clone(),
            container_id: self.config.container_id.clone(),
        }
    }

    pub(super) fn renewed(&mut self, write: &Write) {
        let Duty::Holder(holding) = &mut self.duty else { return };
        holding.renewed = write.started;
        holding.refused = None;
        holding.failsafe.end();
        holding.quorum_written(&write.lease);
    }

    pub(super) fn holder_write_failed(&mut self, purpose: Purpose, refusal: Option<ApiRefusal>) {
        let Duty::Holder(holding) = &mut self.duty else { return };
        holding.next_renewal = self.now + RENEW_AGAIN;
        match refusal {
            None | Some(ApiRefusal::Invalid | ApiRefusal::NotFound) => {}
            Some(refusal @ (ApiRefusal::Unauthorized | ApiRefusal::Forbidden)) => {
                holding.refused = Some(refusal);
            }
        }
        if purpose == Purpose::Release
            && let Step::HandOver(handover) = &mut holding.step
        {
            handover.release_refused(refusal.is_some(), self.now);
        }
    }

    // ---- the cohort (rule 4) ----

    fn note_streams(&self, holding: &mut Holding) {
        let Some(pg) = &self.pg else { return };
        for sender in pg.walsenders.iter().filter(|w| w.streaming) {
            holding.streamed.insert(sender.incarnation.clone(), self.now);
        }
        let joins: BTreeSet<Incarnation> = self.joining().cloned().collect();
        if !joins.is_subset(&holding.announced) {
            holding.renew_soon(self.now);
        }
        holding.announced = joins;
    }

    /// Who is to be in the cohort and is not yet: L says so with the next renewal.
    fn joining(&self) -> impl Iterator<Item = &Incarnation> {
        let senders = self.pg.iter().flat_map(|pg| &pg.walsenders).map(|w| &w.incarnation);
        let lease = self.api.lease.as_ref().filter(|_| clause!(self, JoinersAreWrittenAtOnce));
        let outside = move |i: &&Incarnation| lease.is_some_and(|l| !l.in_cohort(i));
        let wanted = |i: &&Incarnation| self.member_of(i).is_some_and(|m| !self.gone(&m));
        senders.filter(outside).filter(|i| self.caught_up(i)).filter(wanted)
    }

    /// Somebody enters the cohort with the next renewal, and may take L only then.
    pub(super) fn cohort_grows(&self) -> bool {
        self.joining().next().is_some()
    }

    /// Cohort and stragglers as they are to be; in force only once the write has succeeded.
    fn keep_cohort(&self, holding: &Holding, lease: &mut Lease) {
        if !clause!(self, CohortDropsSilent) || self.state() != PostgresState::Primary {
            return;
        }
        let mut entries: BTreeMap<Incarnation, (Member, bool)> = BTreeMap::new();
        for (members, inside) in [(&lease.stragglers, false), (&lease.cohort, true)] {
            for member in members {
                entries.insert(member.incarnation.clone(), (member.clone(), inside));
            }
        }
        for known in self.peers.0.values() {
            if let Some(member) = known.incarnation.as_ref().and_then(|i| self.member_of(i)) {
                entries.entry(member.incarnation.clone()).or_insert((member, false));
            }
        }
        let me = self.me();
        entries.remove(&me);
        lease.cohort = vec![self.member()];
        lease.stragglers.clear();
        for (incarnation, (member, inside)) in entries {
            if self.gone(&member) {
                continue;
            }
            let member = self.member_of(&incarnation).unwrap_or(member);
            let last = holding.streamed.get(&incarnation).copied().unwrap_or(holding.since);
            let silent = self.now.since(last) >= STRAGGLER_AFTER;
            let may_enter = self.caught_up(&incarnation);
            if (inside && !silent) || may_enter {
                lease.cohort.push(member);
            } else {
                lease.stragglers.push(member);
            }
        }
    }

    /// Leaving, no longer wanted, or replaced by a new data directory under the same name.
    fn gone(&self, member: &Member) -> bool {
        let Some(known) = self.peers.0.get(&member.name) else {
            return self.directive.is_some();
        };
        let replaced = known.incarnation.as_ref().is_some_and(|i| *i != member.incarnation);
        (known.leaving && self.directive.is_some()) || replaced
    }

    /// Streams, and lies within the bound on lag.
    fn caught_up(&self, incarnation: &Incarnation) -> bool {
        let bound = self.directive.as_ref().and_then(|d| d.limits.maximum_lag);
        let flushed = self.flushed();
        self.pg.iter().flat_map(|pg| &pg.walsenders).any(|w| {
            w.incarnation == *incarnation
                && w.streaming
                && bound.is_none_or(|bound| flushed.saturating_distance(w.flushed) <= bound)
        })
    }

    // ---- rule 8 ----

    /// Asks whoever can be reached, then writes L, and only then acts.
    fn confirm(&mut self, holding: &mut Holding) {
        let Step::Confirm { round } = &mut holding.step else { return };
        if self.api.write.is_some() {
            return;
        }
        // There is no Lease to confirm: rule 7 makes one, and needs an answer that nobody runs. A
        // standby has written nothing under it (seed 5801: it waited for ever to confirm).
        let wrote = !self.is_down() && self.state() != PostgresState::Standby;
        if matches!(self.sight(), Sight::Absent | Sight::Damaged) && !wrote {
            self.duty = Duty::Retiring;
            return;
        }
        if round.is_none() {
            let names = self.names();
            *round = Some(self.round(names, &Question::Status, POLL_LIMIT));
        }
        self.confirm_when_complete(holding);
    }

    fn confirm_when_complete(&mut self, holding: &mut Holding) {
        let Step::Confirm { round: Some(round) } = &mut holding.step else { return };
        if !round.complete() {
            return;
        }
        let named = self.api.lease.as_ref().and_then(|l| l.holder.as_ref());
        let other_pod = named.is_some_and(|holder| holder.pod_uid != self.config.pod_uid);
        let vouched = round.answers.values().find(|a| a.status.no_run_for > Span::ZERO);
        // The pod that L names goes on by failsafe, with a volume that was taken from it.
        if let Some(answer) = vouched.filter(|_| other_pod) {
            self.waiting = Some(Waiting::PeerVouched(answer.status.member.name.clone()));
            self.duty = Duty::Retiring;
            return;
        }
        let higher = round.answers.values().find(|a| a.status.term > self.ledger.term);
        if let Some(answer) = higher {
            self.waiting = Some(Waiting::HigherTerm(answer.status.member.name.clone()));
            self.duty = Duty::Retiring;
            return;
        }
        let Some(current) = self.api.lease.clone().filter(|l| l.held_by(&self.me())) else {
            self.duty = Duty::Retiring;
            return;
        };
        // A question may be lost, and who did not hear it may know that somebody took L back (seed
        // 12848).
        let silent = current.cohort.iter().any(|m| round.silent.contains(&m.name));
        if silent && self.is_down() && self.now.since(holding.since) < ASKS {
            holding.step = Step::Confirm { round: None };
            return;
        }
        let promised = round
            .answers
            .values()
            .filter_map(|a| a.status.promised)
            .chain(self.ledger.promised)
            .any(|promised| promised >= current.term);
        let mut lease = current;
        lease.holder = Some(self.as_holder());
        if promised && clause!(self, RetakeAgainstPromises) {
            lease.term = lease.term.next();
            lease.reassertions = lease.reassertions.saturating_add(1);
        }
        self.write_lease(Base::Version(self.api.version), lease, Purpose::Confirm);
        // The next try, if this one fails, asks anew.
        holding.step = Step::Confirm { round: None };
    }

    /// A write that makes it holder has succeeded: goes on with what its data directory needs.
    pub(super) fn holds_now(&mut self, write: &Write) {
        self.count_taken(write);
        let step = match self.state() {
            PostgresState::Primary => Step::Serve,
            PostgresState::Unknown
            | PostgresState::Empty
            | PostgresState::Stopped { .. }
            | PostgresState::Dying
            | PostgresState::Starting
            | PostgresState::Standby
            | PostgresState::Stopping => match self.ledger.promoting {
                None => Step::Restart,
                Some(_) => Step::Promote { since: self.now },
            },
        };
        if write.purpose == Purpose::Confirm {
            self.counts.retaken += 1;
        }
        let mut holding = Holding::new(step, self.now);
        holding.renewed = write.started;
        holding.next_renewal = self.now + self.timing().renew;
        self.word = None;
        self.duty = Duty::Holder(Box::new(holding));
    }

    /// True if its data directory is that of a primary whose WAL nobody has gone beyond: it is
    /// started where it is, without a new timeline.
    pub(super) fn can_restart_as_primary(&self) -> bool {
        self.ledger.role == crate::protocol::ledger::LastRole::Primary
            && self.ledger.promoting.is_none()
            && !self.ledger.rejoining
            && !self.went_back()
            && matches!(
                self.state(),
                PostgresState::Stopped { .. } | PostgresState::Primary | PostgresState::Dying
            )
    }

    // ---- starting ----

    fn restart(&mut self, holding: &mut Holding) {
        // Asked before the next start: once it runs again, nothing of this stops it.
        if holding.restart_failed && self.state() != PostgresState::Primary {
            holding.step = Step::Crashed { since: holding.since, round: None };
            return self.crashed(holding);
        }
        match self.state() {
            PostgresState::Primary => {
                holding.restart_failed = false;
                holding.since = self.now;
                holding.step = Step::Serve;
            }
            PostgresState::Stopped { .. } => {
                if self.busy(Lane::Server) || self.now < self.retry_at || !self.right_lasts() {
                    return;
                }
                let names = self.starting_names();
                let early = clause!(self, NamesBeforeWrites);
                self.run(Action::StartPrimary {
                    names: if early { names } else { StandbyNames::none() },
                });
            }
            PostgresState::Dying => self.stop_now(),
            PostgresState::Standby => holding.step = Step::Promote { since: self.now },
            PostgresState::Unknown
            | PostgresState::Empty
            | PostgresState::Starting
            | PostgresState::Stopping => {}
        }
    }

    /// Rules 12 and 15.
    fn promote(&mut self, holding: &mut Holding, since: Moment) {
        self.unpoint_suspected();
        let limit = self.directive.as_ref().map_or(Span::seconds(3600), |d| d.delays.promotion);
        match self.state() {
            PostgresState::Primary => {
                holding.since = self.now;
                holding.step = Step::Serve;
                // Nobody follows before the new history is published.
                holding.renew_soon(self.now);
                return self.serve(holding);
            }
            PostgresState::Standby => {
                if !self.busy(Lane::Server) && self.right_lasts() && self.now >= self.retry_at {
                    let early = clause!(self, NamesBeforeWrites);
                    let names = if early { self.starting_names() } else { StandbyNames::none() };
                    let above = self.greatest_timeline();
                    self.run(Action::Promote { above, names });
                }
            }
            PostgresState::Stopped { .. } => {
                if self.now >= self.retry_at {
                    self.run(Action::StartStandby { follow: None });
                }
            }
            PostgresState::Unknown
            | PostgresState::Empty
            | PostgresState::Dying
            | PostgresState::Starting
            | PostgresState::Stopping => {}
        }
        if self.now.since(since) >= limit && clause!(self, PromotionTimeout) {
            self.surrendered = Some((self.ledger.term, self.now));
            self.begin_hand_over(holding, Reason::CouldNotPromote);
        }
    }

    /// The greatest timeline that L, its members or this instance know.
    fn greatest_timeline(&self) -> matriarch_pg::TimelineId {
        let own = self.ledger.history.greatest_timeline();
        if !clause!(self, TimelineAboveAll) {
            return own;
        }
        let lease = self.api.lease.as_ref().map(|l| l.history.greatest_timeline());
        let peers = self.peers.0.values().filter_map(|k| k.status.as_ref());
        peers.map(|(_, s)| s.history.greatest_timeline()).chain(lease).fold(own, std::cmp::Ord::max)
    }

    // ---- serving ----

    fn serve(&mut self, holding: &mut Holding) {
        match self.state() {
            PostgresState::Primary => {}
            PostgresState::Stopped { .. } | PostgresState::Dying => {
                // It starts with other names than those of the shift, which would go on to publish
                // what nobody keeps (seed 3218).
                holding.shift = None;
                if std::mem::take(&mut holding.restarting) {
                    holding.step = Step::Restart;
                    return;
                }
                holding.step = Step::Crashed { since: self.now, round: None };
                return self.crashed(holding);
            }
            PostgresState::Unknown
            | PostgresState::Empty
            | PostgresState::Starting
            | PostgresState::Standby
            | PostgresState::Stopping => return,
        }
        if self.now >= holding.next_service {
            let to = self.config.address.clone();
            if self.run(Action::PointService { to, term: self.ledger.term }) {
                holding.next_service = self.now + self.timing().renew;
            }
        }
        if let Some(reason) = self.reason_to_hand_over(holding) {
            return self.begin_hand_over(holding, reason);
        }
        self.restart_wished(holding);
        self.shift_names(holding);
    }

    /// A restart in place that the operator asks for.
    fn restart_wished(&mut self, holding: &mut Holding) {
        let Some(id) = self.wished_restart().filter(|_| self.now >= self.retry_at) else { return };
        let limit = self.directive.as_ref().map_or(Span::seconds(60), |d| d.delays.stop);
        if self.run(Action::Stop { mode: StopMode::Fast, limit }) {
            holding.restarting = true;
            self.restarting = Some(id);
        }
    }

    pub(super) fn holder_due(&self, holding: &Holding) -> Vec<(Moment, &'static str)> {
        let mut due = Vec::new();
        if self.api.write.is_none() && !matches!(holding.step, Step::Confirm { .. }) {
            due.push((holding.next_renewal.max(self.now + Span(20)), "renew the Lease"));
        }
        if let Some(right) = self.right {
            due.extend([right.ask_at(), right.quit_at()].map(|m| (m, "the right ends")));
        }
        due.extend(holding.failsafe.due().map(|m| (m, "ask for failsafe")));
        if !matches!(holding.step, Step::Serve) || holding.shift.is_some() {
            due.push((self.now + Span::millis(100), "look again"));
        }
        due.retain(|(moment, _)| *moment > self.now);
        due
    }
}
