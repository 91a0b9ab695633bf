//! Running for the Lease (rules 7, 9, 10, 11, 16, 18).

use std::collections::BTreeSet;

use crate::protocol::command::{Action, Base};
use crate::protocol::event::PostgresState;
use crate::protocol::identity::{Address, Incarnation, InstanceName, Member, Version};
use crate::protocol::lease::{Lease, ReleaseProof};
use crate::protocol::message::{MemberStatus, Question, Refusal, Standing, Verdict};
use crate::protocol::moment::{Moment, Span};
use crate::protocol::position::Kinship;
use crate::protocol::quorum::Quorum;
use crate::protocol::view::{HumanOption, Waiting};

use super::api::{Purpose, Sight, Write};
use super::peers::Round;
use super::{Duty, Protocol, clause};

/// How long an election waits for answers when the Lease has run out, and when its holder ended it
/// itself or only promises count (traps H7).
const LIMIT: Span = Span::seconds(1);
const SHORT_LIMIT: Span = Span::millis(500);
/// For how long one that could not be promoted leaves the Lease to others. If nobody takes it
/// meanwhile nobody can before F + D, and what was wrong may be over (seed 3643: PostgreSQL stood
/// still, and was started again since).
pub(super) const SURRENDERED: Span = Span::seconds(60);
/// How long a word of the holder's is good for.
const WORD: Span = Span::seconds(10);

/// How long a quick failover may take before the former holder is taken out of `-rw` for it:
/// kube-proxy takes changes once a second, so that the swap would wait behind this one.
const SWAP_SOON: Span = Span::seconds(1);

/// On what ground it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    /// Named by the holder and in possession of all its WAL: no questions.
    Successor,
    /// L is free or has expired.
    Open,
    /// Rule 16.
    Quick,
}

/// Whom a candidacy is against, as long as L says so.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    version: Version,
    /// When `-rw` is not to lead there any more.
    due: Moment,
    /// Where; none once it is done.
    away: Option<Address>,
}

/// A candidacy.
#[derive(Clone, Debug)]
pub(super) struct Candidacy {
    /// The version that was read before anything was asked: the swap is based on it.
    version: Version,
    lease: Lease,
    ground: Ground,
    pub round: Option<Round>,
    taking: bool,
}

/// Rule 10: greater position, then priority, then name.
pub(super) fn better(a: &MemberStatus, b: &MemberStatus) -> bool {
    (a.position, a.priority, std::cmp::Reverse(&a.member.name))
        > (b.position, b.priority, std::cmp::Reverse(&b.member.name))
}

/// True if `own` leaves the Lease to `other`: that one is better, or has all of it where one of the
/// two is to be no successor. One that leaves the cluster runs only where nobody who stays has what
/// it has, and then hands over: otherwise the others would wait for it for ever (seeds 5356, 9323).
pub(super) fn goes_before(other: &MemberStatus, own: &MemberStatus) -> bool {
    match (other.unfit, own.unfit) {
        (true, false) => other.position > own.position,
        (false, true) => other.position >= own.position,
        (false, false) | (true, true) => better(other, own),
    }
}

impl Protocol {
    /// Looks whether it may run, and begins.
    pub(super) fn consider_running(&mut self) -> Result<(), Waiting> {
        let sight = self.sight();
        let lease = match sight {
            Sight::Unknown => return Err(Waiting::LeaseUnreadable),
            Sight::Absent => return Err(Waiting::LeaseAbsent),
            Sight::Damaged => return Err(Waiting::LeaseDamaged),
            Sight::Held { .. } | Sight::Expired | Sight::Free | Sight::Handed(_) => {
                self.api.lease.clone().ok_or(Waiting::LeaseUnreadable)?
            }
        };
        self.is_fit(&lease)?;
        let ground = self.ground(&sight, &lease)?;
        self.word_or_vouch(ground)?;
        self.may_run_by_cohort(&sight, &lease, ground)?;
        if self.api.write.is_some() {
            return Err(Waiting::UnresolvedWrite);
        }
        if self.now < self.retry_at {
            return Err(self.pausing());
        }
        self.begin_candidacy(lease, ground);
        Ok(())
    }

    /// Why it pauses before it runs again: what failed, or what it stood down for.
    pub(super) fn pausing(&self) -> Waiting {
        let failed =
            self.failure.clone().map(|message| Waiting::Retry { message, at: self.retry_at });
        failed.or_else(|| self.stood_down.clone()).unwrap_or(Waiting::LeaseUnreadable)
    }

    fn is_fit(&self, lease: &Lease) -> Result<(), Waiting> {
        let stays_down = clause!(self, FencedStaysDown);
        if self.fenced() && stays_down {
            return Err(Waiting::Fenced);
        }
        if self.directive.is_none() {
            return Err(Waiting::Directive);
        }
        if self.barred() && (stays_down || !self.fenced()) {
            return Err(Waiting::Unfit);
        }
        if self.has_no_copy() {
            return Err(Waiting::NoCopy);
        }
        if self.other_system(lease) {
            return Err(Waiting::OtherSystem);
        }
        if self
            .surrendered
            .is_some_and(|(term, at)| term >= lease.term && self.now.since(at) < SURRENDERED)
        {
            return Err(Waiting::CouldNotPromote);
        }
        match self.state() {
            PostgresState::Standby | PostgresState::Stopped { .. } => Ok(()),
            PostgresState::Unknown
            | PostgresState::Empty
            | PostgresState::Dying
            | PostgresState::Starting
            | PostgresState::Primary
            | PostgresState::Stopping => Err(Waiting::NoCopy),
        }
    }

    /// The ground on which it could run now.
    fn ground(&self, sight: &Sight, lease: &Lease) -> Result<Ground, Waiting> {
        let me = self.me();
        if let Some(word) = &self.word
            && word.term == lease.term
            && lease.held_by(&word.from)
            && self.now.since(word.at) < WORD
            // Written anew since: the holder may have taken it back and started again.
            && self.api.changed_at <= word.at
            && self.has_all(Some(lease), word.lsn)
        {
            return Ok(Ground::Successor);
        }
        match sight {
            Sight::Handed(handover) if handover.to == me => {
                let all = self.has_all(Some(lease), handover.lsn);
                Ok(if all { Ground::Successor } else { Ground::Open })
            }
            Sight::Handed(handover) => Err(Waiting::HandedTo(handover.to.clone())),
            Sight::Free | Sight::Expired => Ok(Ground::Open),
            Sight::Held { until } => {
                let member = lease.quorum.as_ref().is_some_and(|q| q.of.contains(&me));
                // Rule 16 is for `required`, where a promise of more than one stands in L.
                let promises = member && !lease.held_by(&me) && self.quick_allowed();
                if promises && self.lost_primary() {
                    return Ok(Ground::Quick);
                }
                Err(Waiting::Held { until: *until })
            }
            Sight::Unknown | Sight::Absent | Sight::Damaged => Err(Waiting::LeaseUnreadable),
        }
    }

    fn quick_allowed(&self) -> bool {
        self.directive
            .as_ref()
            .and_then(|d| d.synchronous.as_ref())
            .is_some_and(|s| s.required && s.number > 0)
    }

    /// now ≥ noRunBefore; the holder's own end of its right also ends what it was vouched for.
    fn word_or_vouch(&self, ground: Ground) -> Result<(), Waiting> {
        let vouched = self.now < self.no_run_before && clause!(self, RunAfterVouch);
        if vouched && ground != Ground::Successor {
            return Err(Waiting::Vouched { until: self.no_run_before });
        }
        Ok(())
    }

    /// In the cohort, or a straggler of an L that is unchanged for F + D. Promises make up for it.
    fn may_run_by_cohort(
        &self,
        sight: &Sight,
        lease: &Lease,
        ground: Ground,
    ) -> Result<(), Waiting> {
        let me = self.me();
        let by_promises = lease.quorum.is_some() && ground == Ground::Quick;
        if ground == Ground::Successor || by_promises || lease.in_cohort(&me) {
            return Ok(());
        }
        let until = self.api.changed_at + self.failsafe_max() + lease.duration;
        let over = self.now >= until && *sight != Sight::Unknown;
        if over || !clause!(self, StragglerWaits) {
            return Ok(());
        }
        Err(Waiting::Straggler { until })
    }

    fn begin_candidacy(&mut self, lease: Lease, ground: Ground) {
        self.suspect(&lease, ground);
        let candidacy =
            Candidacy { version: self.api.version, lease, ground, round: None, taking: false };
        self.decide_candidate(Box::new(candidacy));
    }

    /// Rule 12: the old address is to go where the old holder is not proved stopped.
    fn suspect(&mut self, lease: &Lease, ground: Ground) {
        let version = self.api.version;
        let entry = lease.holder.as_ref().and_then(|holder| lease.entry(&holder.incarnation));
        let Some(former) = entry.filter(|_| ground != Ground::Successor) else { return };
        let soon = if ground == Ground::Quick { SWAP_SOON } else { Span::ZERO };
        let before = self.suspicion.take().filter(|it| it.version == version);
        let due = before.map_or(self.now + soon, |it| it.due.min(self.now + soon));
        self.suspicion = Some(Suspicion { version, due, away: Some(former.address.clone()) });
    }

    /// Takes the suspected one out of `-rw` where nobody could be there instead at once.
    pub(super) fn unpoint_suspected(&mut self) {
        let late = |it: &&Suspicion| self.now >= it.due;
        let away = self.suspicion.as_ref().filter(late).and_then(|it| it.away.clone());
        if let Some(away) = away {
            self.run(Action::UnpointService { away });
        }
    }

    /// The address was taken out, or leads to another already.
    pub(super) fn unpointed(&mut self, action: &Action) {
        if let (Action::UnpointService { away }, Some(suspicion)) = (action, &mut self.suspicion) {
            suspicion.away.take_if(|it| it == away);
        }
    }

    pub(super) fn decide_candidate(&mut self, mut candidacy: Box<Candidacy>) {
        self.unpoint_suspected();
        if candidacy.taking {
            self.duty = Duty::Candidate(candidacy);
            return;
        }
        if self.api.version != candidacy.version || self.barred() {
            return self.stand_down(Waiting::LeaseUnreadable);
        }
        if candidacy.ground == Ground::Successor {
            return self.take(candidacy, &BTreeSet::new());
        }
        if self.promises_count(&candidacy) {
            self.promise_against(candidacy.lease.term);
        }
        self.pause_receiver(candidacy.lease.term);
        if !self.receiver_stopped() {
            self.stop_receiver();
            if self.now.since(self.heard) > Span::seconds(3600) {
                return self.stand_down(Waiting::NoCopy);
            }
            self.duty = Duty::Candidate(candidacy);
            return;
        }
        let Some(round) = &candidacy.round else {
            let question = Question::Election {
                term: candidacy.lease.term,
                version: candidacy.version,
                promise: candidacy.lease.quorum.is_some(),
                quick: candidacy.ground == Ground::Quick,
            };
            let names = self.electors(&candidacy);
            let open = candidacy.lease.release.is_none() && candidacy.ground == Ground::Open;
            let limit = if open { LIMIT } else { SHORT_LIMIT };
            candidacy.round = Some(self.round(names, &question, limit));
            return self.judge(candidacy);
        };
        let limit = round.started + LIMIT;
        if self.now > limit + LIMIT {
            return self.stand_down(Waiting::NoSource);
        }
        self.judge(candidacy);
    }

    fn promises_count(&self, candidacy: &Candidacy) -> bool {
        candidacy.lease.quorum.as_ref().is_some_and(|q| q.of.contains(&self.me()))
    }

    /// All members. The holder that is proved dead is not waited for (traps H7): it is asked only if
    /// it is heard of again, or where its promise counts and nobody waits for more than are needed
    /// (seed 5519: it was back, and the others waited for ever for the promise that it would give).
    fn electors(&self, candidacy: &Candidacy) -> Vec<InstanceName> {
        let lease = &candidacy.lease;
        let dead = lease.release.as_ref().filter(|r| r.proof == ReleaseProof::Operator);
        let dead = dead.and_then(|r| lease.entry(&r.by)).map(|m| &m.name);
        let asked = |name: &InstanceName| {
            dead != Some(name)
                || lease.quorum.is_some()
                || self.fresh().any(|(heard, _)| heard == name)
        };
        self.names().into_iter().filter(asked).collect()
    }

    /// Looks at the answers so far: goes on as soon as those that are needed are in.
    fn judge(&mut self, candidacy: Box<Candidacy>) {
        let Some(round) = candidacy.round.clone() else { return };
        if let Err(waiting) = self.nobody_objects(&candidacy, &round) {
            return self.stand_down(waiting);
        }
        let verdict = match &candidacy.lease.quorum {
            Some(quorum) => self.promised(quorum, &candidacy, &round),
            None => self.best_without_quorum(&candidacy.lease, &round),
        };
        match verdict {
            Ok(members) => self.take(candidacy, &members),
            Err(waiting) if round.complete() => self.stand_down(waiting),
            Err(waiting) => {
                self.waiting = Some(waiting);
                self.duty = Duty::Candidate(candidacy);
            }
        }
    }

    /// No higher term, nobody runs, nobody vouched.
    fn nobody_objects(&self, candidacy: &Candidacy, round: &Round) -> Result<(), Waiting> {
        for (name, answer) in &round.answers {
            let status = &answer.status;
            let higher = status.term > candidacy.lease.term
                || answer.verdict == Verdict::No(Refusal::HigherTerm);
            if higher && clause!(self, CandidateHeedsTerm) {
                return Err(Waiting::HigherTerm(name.clone()));
            }
            if matches!(status.standing, Standing::Primary) {
                return Err(Waiting::PeerRuns(name.clone()));
            }
            let vouched =
                status.no_run_for > Span::ZERO || answer.verdict == Verdict::No(Refusal::Vouched);
            if vouched && clause!(self, RunAfterVouch) {
                return Err(Waiting::PeerVouched(name.clone()));
            }
            if answer.verdict == Verdict::No(Refusal::NotLost)
                && candidacy.ground == Ground::Quick
                && candidacy.lease.held_by(&status.member.incarnation)
            {
                return Err(Waiting::PeerRuns(name.clone()));
            }
        }
        Ok(())
    }

    /// Rule 9 with a quorum: |M| − w + 1 of M have promised, and it is as good as each of them.
    fn promised(
        &self,
        quorum: &Quorum,
        candidacy: &Candidacy,
        round: &Round,
    ) -> Result<BTreeSet<Incarnation>, Waiting> {
        let me = self.me();
        let own = self.status();
        let whole =
            |status: &MemberStatus| !status.no_copy || !clause!(self, RejoiningPromisesNothing);
        let counts =
            |status: &MemberStatus| whole(status) && quorum.of.contains(&status.member.incarnation);
        let mut promisers: BTreeSet<Incarnation> = BTreeSet::new();
        if quorum.of.contains(&me) && !self.went_back() {
            promisers.insert(me.clone());
        }
        for (_, status) in round.yes().filter(|(_, s)| counts(s)) {
            promisers.insert(status.member.incarnation.clone());
        }
        let slack = usize::from(!clause!(self, PromisesIntersect));
        if !quorum.intersected_by(promisers.len() + slack) {
            return Err(Waiting::Promises {
                have: u32::try_from(promisers.len()).unwrap_or(u32::MAX),
                need: u32::try_from(quorum.intersecting()).unwrap_or(u32::MAX),
                missing: quorum.of.difference(&promisers).cloned().collect(),
            });
        }
        for (name, status) in round.yes().filter(|(_, s)| counts(s)) {
            if self.behind(&own, status) && clause!(self, BestOfPromisers) {
                return Err(Waiting::BehindPromiser(name.clone()));
            }
            // Seed 1650: a straggler that promised, and may not run for F + D, kept everybody else
            // of its own position from running.
            let by_promises = candidacy.ground == Ground::Quick;
            let able = self.may_run_too(status, &candidacy.lease, by_promises);
            if able && goes_before(status, &own) {
                return Err(Waiting::BetterPeer(name.clone()));
            }
        }
        promisers.remove(&me);
        Ok(promisers)
    }

    /// Rule 10: whom to defer to. A straggler defers to stragglers too: they run on its ground.
    fn may_run_too(&self, status: &MemberStatus, lease: &Lease, by_promises: bool) -> bool {
        let straggles = !lease.in_cohort(&self.me());
        let runs = by_promises || straggles || lease.in_cohort(&status.member.incarnation);
        runs && !status.unfit && !status.no_copy
    }

    fn behind(&self, own: &MemberStatus, other: &MemberStatus) -> bool {
        if clause!(self, PositionByTerm) {
            own.position < other.position
        } else {
            own.position.lsn < other.position.lsn
        }
    }

    /// What this instance lacks of `lease`'s position is within `maximumLag` (9g, 7e).
    pub(super) fn within_lag(&self, lease: &Lease) -> Result<(), Waiting> {
        let bytes = lease.position.lsn.saturating_distance(self.flushed());
        let bound = self.directive.as_ref().and_then(|d| d.limits.maximum_lag);
        match bound.filter(|bound| bytes > *bound && clause!(self, LagBound)) {
            Some(bound) => Err(Waiting::Lag { bytes, bound }),
            None => Ok(()),
        }
    }

    /// What was acknowledged under the last quorum is no loss that `maximumLag` admits: the promise
    /// was made when it was acknowledged (9g, 7e; seed 1134).
    pub(super) fn has_what_a_quorum_held(&self, lease: &Lease) -> Result<(), Waiting> {
        let flushed = self.flushed();
        match lease.quorum_not_reached(&self.ledger.history, flushed) {
            Some(until) if clause!(self, QuorumUntil) => {
                Err(Waiting::BehindQuorum { bytes: until.lsn.saturating_distance(flushed) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Rule 9 without a quorum.
    fn best_without_quorum(
        &self,
        lease: &Lease,
        round: &Round,
    ) -> Result<BTreeSet<Incarnation>, Waiting> {
        let own = self.status();
        let flushed = self.flushed();
        let on_history = match self.ledger.history.kinship(flushed, &lease.history) {
            Kinship::OnIt => true,
            // A child: L's history lies in its own.
            Kinship::Left(_) => {
                lease.history.kinship(lease.position.lsn, &self.ledger.history) == Kinship::OnIt
            }
            Kinship::Unrelated => false,
        };
        if !on_history && clause!(self, CandidateOnHistory) {
            return Err(Waiting::LeftHistory);
        }
        self.within_lag(lease)?;
        self.has_what_a_quorum_held(lease)?;
        for (name, status) in round.yes() {
            let able = self.may_run_too(status, lease, false);
            let ahead = if clause!(self, PositionByTerm) {
                goes_before(status, &own)
            } else {
                status.position.lsn > own.position.lsn
            };
            if able && ahead {
                return Err(Waiting::BetterPeer(name.clone()));
            }
        }
        if !round.complete() {
            return Err(Waiting::NoSource);
        }
        Ok(round.yes().map(|(_, s)| s.member.incarnation.clone()).collect())
    }

    /// Rule 11: the swap.
    fn take(&mut self, mut candidacy: Box<Candidacy>, answered: &BTreeSet<Incarnation>) {
        let lease = self.taken(&candidacy, answered);
        let base = Base::Version(candidacy.version);
        if self.write_lease(base, lease, Purpose::Take) {
            candidacy.taking = true;
        }
        self.duty = Duty::Candidate(candidacy);
    }

    fn taken(&self, candidacy: &Candidacy, answered: &BTreeSet<Incarnation>) -> Lease {
        let old = &candidacy.lease;
        let me = self.me();
        let keep = candidacy.ground == Ground::Successor;
        let lost = old.holder.as_ref().map(|h| h.incarnation.clone());
        let mut everyone: Vec<Member> = old.everyone().cloned().collect();
        if !everyone.iter().any(|m| m.incarnation == me) {
            everyone.push(self.member());
        }
        let inside = |m: &Member| {
            m.incarnation == me
                || answered.contains(&m.incarnation)
                || (keep && old.in_cohort(&m.incarnation) && Some(&m.incarnation) != lost.as_ref())
        };
        let current = |m: &Member| self.member_of(&m.incarnation).unwrap_or_else(|| m.clone());
        let cohort = std::iter::once(self.member())
            .chain(everyone.iter().filter(|m| m.incarnation != me && inside(m)).map(current))
            .collect();
        let stragglers = everyone.iter().filter(|m| !inside(m)).map(current).collect();
        let raise = clause!(self, TakeRaisesTerm);
        let restart = self.can_restart_as_primary();
        Lease {
            holder: Some(self.as_holder()),
            term: if raise { old.term.next() } else { old.term },
            duration: self.timing().duration,
            system_id: old.system_id,
            history: self.history(),
            history_published: restart,
            position: self.position(),
            cohort,
            stragglers,
            quorum: old.quorum.clone().filter(|_| clause!(self, TakeKeepsQuorum)),
            quorum_until: old.quorum_until,
            release: None,
            reassertions: 0,
            edition: 0,
        }
    }

    pub(super) fn count_taken(&mut self, write: &Write) {
        if write.purpose != Purpose::Take {
            return;
        }
        self.counts.elections += 1;
        if let Duty::Candidate(candidacy) = &self.duty
            && candidacy.ground == Ground::Quick
        {
            self.counts.quick += 1;
        }
    }

    /// Somebody wrote before it, or the API refused. Who came by the holder's word is most likely
    /// named by what was written, the holder's release, and looks at once: a pause would be time in
    /// which nobody is primary. The word is used up: it was of the Lease before.
    pub(super) fn take_failed(&mut self, conflict: bool) {
        if self.word.take().is_some() && conflict {
            self.duty = Duty::Standby;
            return;
        }
        self.stand_down(Waiting::LeaseUnreadable);
    }

    /// The swap may have been applied: back to rule 7, and by rule 8 if it turns out holder.
    pub(super) fn take_unknown(&mut self) {
        self.duty = Duty::Standby;
    }

    fn stand_down(&mut self, waiting: Waiting) {
        self.counts.refused += 1;
        self.human_options(&waiting);
        self.stood_down = Some(waiting.clone());
        self.waiting = Some(waiting);
        let jitter = self.jitter(300);
        self.retry_at = self.now + Span::millis(200) + jitter;
        self.duty = Duty::Standby;
    }

    /// Rule 23: says who is missing and what a human may do.
    pub(super) fn human_options(&mut self, waiting: &Waiting) {
        match waiting {
            Waiting::Promises { missing, .. } => {
                let back = missing.iter().filter_map(|i| self.member_of(i));
                self.human = back.map(|m| HumanOption::BringBack(m.name)).collect();
                self.human.push(HumanOption::AcceptLoss);
            }
            Waiting::BehindPromiser(name) => {
                self.human = vec![HumanOption::BringBack(name.clone()), HumanOption::AcceptLoss];
            }
            Waiting::Lag { bytes, .. } => self.human = vec![HumanOption::RaiseMaximumLag(*bytes)],
            Waiting::BehindQuorum { .. } => {
                self.ask_for_the_others();
                self.human.retain(|option| matches!(option, HumanOption::BringBack(_)));
                self.human.push(HumanOption::AcceptLoss);
            }
            Waiting::LeftHistory => self.human = vec![HumanOption::AcceptLoss],
            Waiting::Fenced => self.human = vec![HumanOption::Unfence],
            Waiting::Unanswered(names) | Waiting::CopyGivenUp(names) => {
                self.human = names.iter().cloned().map(HumanOption::BringBack).collect();
                self.human.push(HumanOption::NameHolder);
            }
            Waiting::LeaseDamaged => self.ask_for_the_others(),
            Waiting::NoSource => {
                if self.has_no_copy() {
                    self.ask_for_the_others();
                }
            }
            Waiting::Directive
            | Waiting::Observation
            | Waiting::LeaseUnreadable
            | Waiting::LeaseAbsent
            | Waiting::Held { .. }
            | Waiting::HandedTo(_)
            | Waiting::Vouched { .. }
            | Waiting::Unfit
            | Waiting::OtherSystem
            | Waiting::Straggler { .. }
            | Waiting::HigherTerm(_)
            | Waiting::PeerRuns(_)
            | Waiting::PeerVouched(_)
            | Waiting::BetterPeer(_)
            | Waiting::NoCopy
            | Waiting::CouldNotPromote
            | Waiting::OtherPod { .. }
            | Waiting::Successor(_)
            | Waiting::NoSuccessor
            | Waiting::UnresolvedWrite
            | Waiting::Retry { .. } => {}
        }
    }

    /// Nobody has made L again, or serves, for longer than that takes.
    fn ask_for_the_others(&mut self) {
        if self.now.since(self.api.changed_at) < self.lease_duration().times(2) {
            return;
        }
        let own = self.config.name.clone();
        let lease = self.api.lease.as_ref().or(self.ledger.lease.as_ref().map(|l| &l.1));
        let others: BTreeSet<InstanceName> =
            lease.iter().flat_map(|l| l.everyone()).map(|m| m.name.clone()).collect();
        self.human = others.into_iter().filter(|n| *n != own).map(HumanOption::BringBack).collect();
        self.human.push(HumanOption::NameHolder);
    }
}
