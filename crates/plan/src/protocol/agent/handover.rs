//! Giving the Lease away (rules 18, 21).

use matriarch_pg::Lsn;

use crate::protocol::command::{Action, Base, StopMode};
use crate::protocol::event::{PostgresState, Termination};
use crate::protocol::identity::{Incarnation, InstanceName};
use crate::protocol::lease::{Handover, Lease, Release, ReleaseProof};
use crate::protocol::ledger::LastRole;
use crate::protocol::message::{MemberStatus, Question, Verdict};
use crate::protocol::moment::{Moment, Span};
use crate::protocol::position::Kinship;
use crate::protocol::view::{Waiting, WishOutcome};

use super::api::Purpose;
use super::candidate::better;
use super::holder::{Holding, Step};
use super::peers::{POLL_LIMIT, Round};
use super::{Duty, Lane, Protocol, clause};

/// All of the short path (traps H3).
const SHORT: Span = Span::millis(1500);
/// A grace under this takes the short path.
const SHORT_GRACE: Span = Span::seconds(30);
/// How often the successor is asked how far it is.
const ASK_AGAIN: Span = Span::millis(100);
/// A successor that has not answered, or received anything, for so long is given up: while it is
/// waited for, nobody accepts writes, and PostgreSQL, which is down, sends it nothing more.
const SILENCE: Span = Span::seconds(3);
/// A pod that is to end goes on for so long where its only fit successors do not stream yet.
const CONNECTS: Span = Span::seconds(10);
/// A handover that can neither be told nor written is given up after so long. A stop for good
/// then simply ends: PostgreSQL is down, and L expires by itself.
const TELL: Span = Span::seconds(10);
/// A release that was refused is tried again after so long.
const WRITE_AGAIN: Span = Span::millis(300);

/// Why the Lease is given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Wish {
        id: String,
        to: Option<InstanceName>,
    },
    Termination {
        short: bool,
    },
    Leaving,
    Fenced,
    /// 401 or 403 (rule 3).
    ApiRefuses,
    /// A member reads the API and this instance does not (rule 3).
    OthersRead,
    /// Rule 12.
    CouldNotPromote,
    /// Rule 19: PostgreSQL is already down.
    Crash,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Checkpoint,
    Stopping,
    /// The successor has to have this.
    Awaiting(Lsn),
    /// L is being written free, or the successor told.
    Giving(Lsn),
    /// The write was sent and not answered: PostgreSQL stays stopped until L is read or written.
    Unresolved(Lsn),
}

/// A handover under way.
#[derive(Clone, Debug)]
pub(super) struct HandOver {
    reason: Reason,
    to: Option<InstanceName>,
    stage: Stage,
    started: Moment,
    /// Successors that were silent or received nothing: each is waited for once.
    given_up: Vec<InstanceName>,
    /// How far the successor was and since when, while it is waited for.
    progress: Option<(Lsn, Moment)>,
    /// When it was first ready to be given away.
    ready: Option<Moment>,
    /// The next try of a release that was refused.
    write_after: Option<Moment>,
    pub round: Option<Round>,
    sent: bool,
}

impl HandOver {
    /// The release was sent: no renewal any more.
    pub(super) fn sent(&self) -> bool {
        self.sent
    }

    /// PostgreSQL is down, and giving away needs no right.
    pub(super) fn outlives_right(&self) -> bool {
        matches!(self.stage, Stage::Giving(_) | Stage::Unresolved(_) | Stage::Awaiting(_))
    }

    pub(super) fn release_refused(&mut self, by_api: bool, now: Moment) {
        if let Stage::Giving(lsn) | Stage::Unresolved(lsn) = self.stage {
            self.stage = Stage::Awaiting(lsn);
            self.sent = false;
            self.write_after = Some(now + WRITE_AGAIN);
            if by_api {
                let leaves = matches!(self.reason, Reason::Termination { .. });
                self.reason =
                    if leaves { Reason::Termination { short: true } } else { Reason::ApiRefuses };
            }
        }
    }

    fn by_word(&self) -> bool {
        by_word(&self.reason)
    }

    fn short(&self) -> bool {
        matches!(self.reason, Reason::Termination { short: true } | Reason::Crash)
    }

    /// True if PostgreSQL is not to be started here again by itself.
    fn final_stop(&self) -> bool {
        matches!(self.reason, Reason::Termination { .. } | Reason::Fenced | Reason::Leaving)
    }
}

/// Given away by telling the successor: L cannot be written here.
fn by_word(reason: &Reason) -> bool {
    matches!(reason, Reason::ApiRefuses | Reason::OthersRead)
}

impl Protocol {
    pub(super) fn reason_to_hand_over(&mut self, holding: &Holding) -> Option<Reason> {
        if let Some((how, since)) = self.termination {
            let short = match how {
                Termination::Gone | Termination::Unknown => true,
                Termination::Graceful { grace } => grace < SHORT_GRACE,
            };
            if !short && self.successor_connects(since) {
                return None;
            }
            return Some(Reason::Termination { short });
        }
        if holding.refused.is_some() {
            return Some(Reason::ApiRefuses);
        }
        if holding.failsafe.gives_way(self.now) && clause!(self, FailsafeGivesWay) {
            return self.successor(|s| s.reads_api).is_some().then_some(Reason::OthersRead);
        }
        let directive = self.directive.as_ref()?;
        if directive.fenced && clause!(self, FencedStaysDown) {
            return Some(Reason::Fenced);
        }
        let down = self.state() != PostgresState::Primary;
        let gets_all = |s: &MemberStatus| down || self.streams(&s.member.incarnation);
        if directive.leaving && self.successor(gets_all).is_some() {
            return Some(Reason::Leaving);
        }
        let wish = directive.switchover.clone()?;
        if self.switchover.as_ref().is_some_and(|done| done.id == wish.id) {
            return None;
        }
        if wish.to.as_ref() == Some(&self.config.name) {
            self.switchover = Some(WishOutcome { id: wish.id, refused: None });
            return None;
        }
        let named = |s: &MemberStatus| wish.to.as_ref().is_none_or(|to| s.member.name == *to);
        if self.successor(|s| named(s) && gets_all(s)).is_none() {
            // The wish stays: it is done as soon as somebody is fit.
            self.waiting = Some(Waiting::NoSuccessor);
            return None;
        }
        Some(Reason::Wish { id: wish.id, to: wish.to })
    }

    /// The best fit successor among the peers heard of lately: a member of the cohort on the same
    /// history that is no candidate and not fenced.
    pub(super) fn successor(&self, accept: impl Fn(&MemberStatus) -> bool) -> Option<MemberStatus> {
        let lease = self.api.lease.as_ref()?;
        let own = &self.ledger.history;
        self.fresh()
            .map(|(_, s)| s)
            .filter(|s| s.is_whole_standby(lease, own) && s.term <= self.ledger.term && accept(s))
            .fold(None::<&MemberStatus>, |best, s| match best {
                Some(b) if !better(s, b) => Some(b),
                Some(_) | None => Some(s),
            })
            .cloned()
    }

    /// Somebody is fit but does not stream yet, and may in a moment: PostgreSQL, once it is down,
    /// has nobody to send its last records to. Or somebody streams and is not in the cohort yet: he
    /// has everything, and while L does not name him another one is elected without it.
    fn successor_connects(&self, since: Moment) -> bool {
        self.state() == PostgresState::Primary
            && self.now.since(since) < CONNECTS
            && (self.successor(|_| true).is_some()
                || self.cohort_grows()
                || self.stranger_streams())
            && self.successor(|s| self.streams(&s.member.incarnation)).is_none()
            && clause!(self, StopWaitsForStream)
    }

    /// Somebody streams under an incarnation that P has not heard of: an instance that was made a
    /// moment ago, of which the API tells later than PostgreSQL does.
    fn stranger_streams(&self) -> bool {
        let mut senders = self.pg.iter().flat_map(|pg| &pg.walsenders).filter(|w| w.streaming);
        !self.peers.0.is_empty()
            && senders.any(|w| self.member_of(&w.incarnation).is_none())
            && clause!(self, StrangersAreWaitedFor)
    }

    fn streams(&self, incarnation: &Incarnation) -> bool {
        self.streaming().contains(incarnation)
    }

    /// Who may follow for this reason.
    fn suits(reason: &Reason, status: &MemberStatus) -> bool {
        match reason {
            Reason::Wish { to: Some(to), .. } => status.member.name == *to,
            Reason::OthersRead | Reason::ApiRefuses => status.reads_api,
            Reason::Wish { to: None, .. }
            | Reason::Termination { .. }
            | Reason::Leaving
            | Reason::Fenced
            | Reason::CouldNotPromote
            | Reason::Crash => true,
        }
    }

    /// The best that has the rest of its WAL when PostgreSQL stops: later it receives nothing more.
    fn streaming_successor(&self, reason: &Reason) -> Option<MemberStatus> {
        self.successor(|s| Self::suits(reason, s) && self.streams(&s.member.incarnation))
    }

    pub(super) fn begin_hand_over(&mut self, holding: &mut Holding, reason: Reason) {
        let streaming = self.streaming_successor(&reason);
        let to = streaming.or_else(|| self.successor(|s| Self::suits(&reason, s)));
        let serves = self.state() == PostgresState::Primary;
        let stage = match &reason {
            Reason::Crash => Stage::Awaiting(self.flushed()),
            Reason::Wish { .. } | Reason::Leaving if serves && to.is_some() => Stage::Checkpoint,
            // Also where nobody is fit by the last look: that may be half a second old.
            Reason::Termination { short: false } if serves => Stage::Checkpoint,
            Reason::Wish { .. }
            | Reason::Leaving
            | Reason::Termination { .. }
            | Reason::Fenced
            | Reason::ApiRefuses
            | Reason::OthersRead
            | Reason::CouldNotPromote => Stage::Stopping,
        };
        if stage == Stage::Checkpoint {
            self.run(Action::Checkpoint);
        }
        holding.shift = None;
        holding.step = Step::HandOver(Box::new(HandOver {
            reason,
            to: to.map(|s| s.member.name),
            stage,
            started: self.now,
            given_up: Vec::new(),
            progress: None,
            ready: None,
            write_after: None,
            round: None,
            sent: false,
        }));
        self.hand_over(holding);
    }

    pub(super) fn hand_over(&mut self, holding: &mut Holding) {
        let placeholder = Step::Confirm { round: None };
        let Step::HandOver(mut handover) = std::mem::replace(&mut holding.step, placeholder) else {
            return;
        };
        let next = if self.in_vain(&handover) {
            Next::Over
        } else {
            match handover.stage.clone() {
                Stage::Checkpoint => self.after_checkpoint(&mut handover),
                Stage::Stopping => self.while_stopping(&mut handover),
                Stage::Awaiting(lsn) => self.while_awaiting(&mut handover, lsn),
                Stage::Giving(lsn) => self.while_giving(&mut handover, lsn),
                Stage::Unresolved(_) => self.while_unresolved(&handover),
            }
        };
        match next {
            Next::Stay => holding.step = Step::HandOver(handover),
            Next::Back => holding.step = Step::Serve,
            Next::Resume => {
                self.refuse_wish(&handover);
                holding.step = Step::Confirm { round: None };
                let unresolved = matches!(handover.stage, Stage::Unresolved(_));
                if unresolved && !clause!(self, ReleaseStaysStopped) {
                    holding.step = Step::Restart;
                }
            }
            Next::Over => {
                self.counts.handovers += 1;
                self.end_holding(&handover.reason);
                holding.ended = true;
            }
        }
    }

    /// The pod is to end, and whoever could take L does not hear: a deleted Cluster takes the
    /// service account with it, and the API refuses all that its agents ask from then on.
    fn in_vain(&self, handover: &HandOver) -> bool {
        matches!(handover.reason, Reason::Termination { .. })
            && self.is_down()
            && self.api.write.is_none()
            && handover.ready.is_some_and(|ready| self.now.since(ready) >= TELL)
    }

    /// The look that follows the checkpoint shows who streams now; the one by which the successor was
    /// chosen may have been half a second old, and its PostgreSQL gone since.
    fn after_checkpoint(&mut self, handover: &mut HandOver) -> Next {
        let since = self.termination.map(|(_, since)| since);
        let ends = matches!(handover.reason, Reason::Termination { .. });
        let late = ends && self.now.since(handover.started) >= CONNECTS;
        if self.busy(Lane::Checkpoint) && !late {
            return Next::Stay;
        }
        let serves = self.state() == PostgresState::Primary;
        if serves && clause!(self, StopWaitsForStream) {
            match self.streaming_successor(&handover.reason) {
                Some(better) => handover.to = Some(better.member.name),
                None if !ends || since.is_some_and(|since| self.successor_connects(since)) => {
                    return Next::Back;
                }
                None => {}
            }
        }
        handover.stage = Stage::Stopping;
        self.while_stopping(handover)
    }

    fn while_stopping(&mut self, handover: &mut HandOver) -> Next {
        match self.state() {
            PostgresState::Stopped { .. } | PostgresState::Empty if !self.stopping() => {
                let lsn = self.flushed();
                handover.stage = Stage::Awaiting(lsn);
                return self.while_awaiting(handover, lsn);
            }
            PostgresState::Standby if handover.reason == Reason::CouldNotPromote => {
                self.run(Action::Stop { mode: StopMode::Immediate, limit: Span::seconds(1) });
            }
            _ if !self.stopping() => {
                let delays = self.directive.as_ref().map(|d| d.delays).unwrap_or_default();
                let (mode, limit) = match (handover.short(), delays.smart, &handover.to) {
                    (true, _, _) => (StopMode::Short, SHORT),
                    (false, Some(limit), None) => (StopMode::Smart, limit),
                    (false, _, _) => (StopMode::Fast, delays.stop),
                };
                self.run(Action::Stop { mode, limit });
            }
            _ => {}
        }
        Next::Stay
    }

    fn while_awaiting(&mut self, handover: &mut HandOver, lsn: Lsn) -> Next {
        let Some(to) = handover.to.clone() else {
            return self.without_successor(handover, lsn);
        };
        let status = handover.round.as_ref().and_then(|r| r.answers.get(&to)).map(|a| &a.status);
        let (before, mut since) = *handover.progress.get_or_insert((Lsn::INVALID, self.now));
        let has = status.map_or(before, |s| s.position.lsn.max(before));
        if has > before {
            since = self.now;
            handover.progress = Some((has, since));
        }
        let there = status.is_some_and(|s| {
            s.position.lsn >= lsn
                && s.history.kinship(s.position.lsn, &self.ledger.history) == Kinship::OnIt
        });
        let skip = !clause!(self, HandoverWaitsForSuccessor)
            || matches!(handover.reason, Reason::CouldNotPromote | Reason::Crash);
        if there || skip {
            return self.give(handover, lsn);
        }
        if self.now.since(since) >= SILENCE {
            handover.given_up.push(to);
            handover.to = self.other_successor(handover);
            handover.progress = None;
            handover.round = None;
            return self.while_awaiting(handover, lsn);
        }
        self.waiting = Some(Waiting::Successor(to.clone()));
        let switchover =
            self.directive.as_ref().map_or(Span::seconds(3600), |d| d.delays.switchover);
        let limit = if handover.short() { SHORT } else { switchover };
        if self.now.since(handover.started) >= limit {
            return self.without_successor(handover, lsn);
        }
        let due = handover.round.as_ref().is_none_or(|r| {
            r.complete() && self.now.since(r.started) >= ASK_AGAIN
                || self.now.since(r.started) >= POLL_LIMIT.times(2)
        });
        if due {
            handover.round = Some(self.round([to], &Question::Position, POLL_LIMIT));
        }
        Next::Stay
    }

    /// Nobody has all of its WAL. A holder that may start again does: what only it has would be lost,
    /// and with one that is to be removed its volume too.
    fn without_successor(&mut self, handover: &mut HandOver, lsn: Lsn) -> Next {
        let resumes = !handover.final_stop() || handover.reason == Reason::Leaving;
        if resumes && handover.reason != Reason::CouldNotPromote {
            return Next::Resume;
        }
        handover.to = None;
        self.give(handover, lsn)
    }

    /// Who takes the place of those that were silent, if anybody may.
    fn other_successor(&self, handover: &HandOver) -> Option<InstanceName> {
        let (reason, silent) = (&handover.reason, &handover.given_up);
        match reason {
            Reason::Wish { to: Some(_), .. } => None,
            Reason::Wish { to: None, .. }
            | Reason::Termination { .. }
            | Reason::Leaving
            | Reason::Fenced
            | Reason::ApiRefuses
            | Reason::OthersRead
            | Reason::CouldNotPromote
            | Reason::Crash => self
                .successor(|s| {
                    !silent.contains(&s.member.name) && (s.reads_api || !by_word(reason))
                })
                .map(|s| s.member.name),
        }
    }

    /// Writes L free, or tells the successor.
    fn give(&mut self, handover: &mut HandOver, lsn: Lsn) -> Next {
        handover.stage = Stage::Giving(lsn);
        handover.round = None;
        handover.started = self.now;
        handover.ready.get_or_insert(self.now);
        self.while_giving(handover, lsn)
    }

    fn while_giving(&mut self, handover: &mut HandOver, lsn: Lsn) -> Next {
        let wordy = handover.by_word() || self.termination.is_some();
        if wordy && let Some(to) = handover.to.clone() {
            match self.tell(handover, &to, lsn) {
                // It takes L by itself; this instance is stopped and stays so.
                Some(true) if handover.by_word() => return Next::Over,
                Some(_) | None => {}
            }
        }
        if handover.by_word() {
            let late = self.now.since(handover.started) >= TELL;
            return if late { Next::Resume } else { Next::Stay };
        }
        let early = handover.write_after.is_some_and(|after| self.now < after);
        if handover.sent || self.api.write.is_some() || early {
            return Next::Stay;
        }
        let Some(current) = self.api.lease.clone().filter(|l| l.held_by(&self.me())) else {
            return Next::Over;
        };
        let lease = self.released(&current, handover, lsn);
        handover.sent = self.write_lease(Base::Version(self.api.version), lease, Purpose::Release);
        Next::Stay
    }

    fn released(&self, current: &Lease, handover: &HandOver, lsn: Lsn) -> Lease {
        let to = handover.to.as_ref().and_then(|to| {
            current.everyone().find(|m| m.name == *to).map(|m| m.incarnation.clone())
        });
        let mut lease = current.clone();
        lease.holder = None;
        lease.release = Some(Release {
            by: self.me(),
            proof: ReleaseProof::Holder,
            handover: to.map(|to| Handover { to, lsn }),
        });
        if handover.reason != Reason::CouldNotPromote {
            lease.position = self.ledger.history.position(lsn);
        }
        // Given away before a renewal could publish it: a position on a timeline that L does not show
        // would keep everybody away, itself too (seed 5947).
        let last = self.ledger.history.last();
        if last.is_some_and(|branch| branch.term == lease.term && branch.by == self.me()) {
            lease.history.clone_from(&self.ledger.history);
            lease.history_published = true;
        }
        lease
    }

    /// The handover by word; what the successor said, once it has answered.
    fn tell(&mut self, handover: &mut HandOver, to: &InstanceName, lsn: Lsn) -> Option<bool> {
        if let Some(answer) = handover.round.as_ref().and_then(|r| r.answers.get(to))
            && answer.verdict == Verdict::Yes
        {
            return Some(true);
        }
        let again = handover
            .round
            .as_ref()
            .is_none_or(|r| r.complete() && self.now.since(r.started) >= ASK_AGAIN.times(2));
        if again {
            let question = Question::Handover { term: self.ledger.term, from: self.me(), lsn };
            handover.round = Some(self.round([to.clone()], &question, Span::millis(500)));
        }
        None
    }

    /// Rule 18: after a release without an answer nothing starts until L is read or written.
    fn while_unresolved(&mut self, handover: &HandOver) -> Next {
        let resolved = self.api.unresolved.iter().all(|w| w.purpose != Purpose::Release);
        if !resolved && clause!(self, ReleaseStaysStopped) {
            self.waiting = Some(Waiting::UnresolvedWrite);
        }
        let held = self.api.lease.as_ref().is_some_and(|l| l.held_by(&self.me()));
        match (resolved, held) {
            (true, false) => Next::Over,
            // A successful write of L that keeps itself holder ends the release's chance.
            _ if !handover.final_stop() => Next::Resume,
            _ => Next::Stay,
        }
    }

    pub(super) fn release_unknown(&mut self) {
        let Duty::Holder(holding) = &mut self.duty else { return };
        if let Step::HandOver(handover) = &mut holding.step
            && let Stage::Giving(lsn) = handover.stage
        {
            // A stop for good sends it again on the same version; only one of them can apply.
            if handover.final_stop() || handover.reason == Reason::CouldNotPromote {
                handover.sent = false;
            } else {
                handover.stage = Stage::Unresolved(lsn);
            }
        }
    }

    /// L stands free by a release of ours, or another one holds it since.
    pub(super) fn handed_over(&mut self) {
        let duty = std::mem::replace(&mut self.duty, Duty::Standby);
        let Duty::Holder(holding) = duty else { return };
        let Step::HandOver(handover) = holding.step else { return self.lose() };
        let reason = handover.reason;
        self.counts.handovers += 1;
        self.end_holding(&reason);
    }

    fn end_holding(&mut self, reason: &Reason) {
        if let Reason::Wish { id, .. } = reason {
            self.switchover = Some(WishOutcome { id: id.clone(), refused: None });
        }
        if *reason == Reason::CouldNotPromote {
            self.ledger.role = LastRole::Standby;
            self.save();
        }
        self.duty = Duty::Retiring;
    }

    fn refuse_wish(&mut self, handover: &HandOver) {
        if let Reason::Wish { id, .. } = &handover.reason {
            let refused = handover.to.clone().map_or(Waiting::NoSuccessor, Waiting::Successor);
            self.switchover = Some(WishOutcome { id: id.clone(), refused: Some(refused) });
        }
    }
}

/// How a stage ends.
enum Next {
    Stay,
    /// PostgreSQL was not stopped, and serves on.
    Back,
    /// Not given away: it takes L again and starts.
    Resume,
    /// Given away.
    Over,
}
