//! An absent or a damaged Lease (rule 7).

use std::collections::BTreeSet;

use crate::protocol::command::Base;
use crate::protocol::event::PostgresState;
use crate::protocol::identity::{InstanceName, Member, Term};
use crate::protocol::lease::Lease;
use crate::protocol::message::{MemberStatus, Question, Standing};
use crate::protocol::moment::Span;
use crate::protocol::position::Position;
use crate::protocol::quorum::Quorum;
use crate::protocol::view::Waiting;

use super::api::{Purpose, Reading, Sight};
use super::candidate::goes_before;
use super::holder::{Holding, Step};
use super::peers::{POLL, POLL_LIMIT, Round};
use super::{Duty, Protocol, clause};

const LIMIT: Span = Span::seconds(1);

/// L is being made anew by an instance that does not hold it.
#[derive(Clone, Debug)]
pub(super) struct Restoration {
    base: Base,
    damaged: bool,
    pub round: Option<Round>,
    writing: bool,
}

impl Protocol {
    /// True if it has begun to make L anew; an error says why it does not although L needs it.
    pub(super) fn restore_lease(&mut self) -> Result<bool, Waiting> {
        let base = match (self.sight(), &self.api.reading) {
            (Sight::Absent, Reading::Absent(base)) => *base,
            (Sight::Damaged, _) => Base::Version(self.api.version),
            _ => return Ok(false),
        };
        let damaged = self.sight() == Sight::Damaged;
        let directive = self.directive.as_ref().ok_or(Waiting::Directive)?;
        if directive.cluster_gone || directive.fenced {
            return Err(Waiting::Unfit);
        }
        if self.has_no_copy() {
            return Err(Waiting::NoCopy);
        }
        if self.api.write.is_some() {
            return Err(Waiting::UnresolvedWrite);
        }
        if self.now < self.retry_at {
            return Err(self.pausing());
        }
        if damaged && self.holds_by_ledger() {
            // It need not wait for others to come back: nobody is asked to give way to it.
        } else if !damaged && directive.bootstrap_primary && self.nobody_ran() {
            return Ok(self.create_first(base));
        } else {
            let until = self.api.changed_at + self.lease_duration();
            if self.api.confirmed_at < until || self.now < self.no_run_before {
                return Err(if damaged { Waiting::LeaseDamaged } else { Waiting::LeaseAbsent });
            }
        }
        let names: Vec<InstanceName> = self.names();
        let round = self.round(names, &Question::Status, LIMIT);
        let restoration = Restoration { base, damaged, round: Some(round), writing: false };
        self.decide_restoring(Box::new(restoration));
        Ok(true)
    }

    /// The last L that it knows names this instance, and no peer knows a higher term.
    fn holds_by_ledger(&self) -> bool {
        let last = self.ledger.lease.as_ref().map(|(_, last)| last);
        last.is_some_and(|l| l.held_by(&self.me()) && l.term == self.ledger.term)
            && self.fresh().all(|(_, s)| s.term <= self.ledger.term)
    }

    /// Those without whose answer L is not made anew. One that the directive no longer names is no
    /// instance any more, although the last L counted on it: nobody will ever answer for it.
    fn unanswered(&self, round: &Round) -> Vec<InstanceName> {
        let wanted =
            |name: &&InstanceName| self.peers.0.get(*name).is_some_and(|known| known.wanted);
        round.silent.iter().filter(wanted).cloned().collect()
    }

    fn nobody_ran(&self) -> bool {
        self.ledger.term == Term::ZERO
            && matches!(self.state(), PostgresState::Stopped { .. })
            && self
                .peers
                .0
                .values()
                .all(|known| known.status.as_ref().is_none_or(|(_, s)| s.term == Term::ZERO))
    }

    /// The very first Lease, by the instance that the cluster's memory names.
    fn create_first(&mut self, base: Base) -> bool {
        let Some(lease) = self.anew(Term(1), Vec::new()) else { return false };
        self.duty = Duty::Restoring(Box::new(Restoration {
            base,
            damaged: false,
            round: None,
            writing: true,
        }));
        self.write_lease(base, lease, Purpose::Restore)
    }

    /// A Lease that promises what this instance alone can promise.
    fn anew(&self, term: Term, stragglers: Vec<Member>) -> Option<Lease> {
        let synchronous = self
            .directive
            .as_ref()
            .and_then(|d| d.synchronous.as_ref())
            .is_some_and(|s| s.number > 0);
        let quorum = synchronous && clause!(self, AbsentKeepsQuorum);
        let last = self.ledger.lease.as_ref().map(|(_, last)| last);
        Some(Lease {
            holder: Some(self.as_holder()),
            term,
            duration: self.timing().duration,
            system_id: self.own_system()?,
            history: self.history(),
            history_published: self.can_restart_as_primary(),
            position: if term == Term(1) { Position::default() } else { self.position() },
            cohort: vec![self.member()],
            stragglers,
            quorum: quorum.then(|| Quorum::alone(self.me())),
            quorum_until: last.and_then(|last| last.quorum_until).filter(|_| !quorum),
            release: None,
            reassertions: 0,
            edition: 0,
        })
    }

    pub(super) fn decide_restoring(&mut self, mut restoration: Box<Restoration>) {
        let expected = match self.sight() {
            Sight::Absent => !restoration.damaged,
            Sight::Damaged => restoration.damaged,
            Sight::Unknown
            | Sight::Held { .. }
            | Sight::Expired
            | Sight::Free
            | Sight::Handed(_) => false,
        };
        if restoration.writing {
            if self.api.write.is_some() {
                self.duty = Duty::Restoring(restoration);
            }
            return;
        }
        let complete = restoration.round.as_ref().is_none_or(Round::complete);
        if !expected {
            return;
        }
        if !complete {
            self.duty = Duty::Restoring(restoration);
            return;
        }
        let Some(round) = restoration.round.take() else { return };
        match self.may_restore(&restoration, &round) {
            Ok(lease) => {
                restoration.writing = true;
                let base = restoration.base;
                self.duty = Duty::Restoring(restoration);
                self.write_lease(base, lease, Purpose::Restore);
            }
            Err(waiting) => {
                self.human_options(&waiting);
                self.stood_down = Some(waiting.clone());
                self.waiting = Some(waiting);
                self.retry_at = self.now + Span::seconds(1);
            }
        }
    }

    fn may_restore(&self, restoration: &Restoration, round: &Round) -> Result<Lease, Waiting> {
        let statuses: Vec<_> = round.answers.values().map(|a| &a.status).collect();
        let unanswered = self.unanswered(round);
        if !unanswered.is_empty() && clause!(self, AbsentNeedsEverybody) {
            return Err(Waiting::Unanswered(unanswered));
        }
        if let Some(s) =
            statuses.iter().find(|s| matches!(s.standing, Standing::Primary | Standing::Down))
        {
            return Err(Waiting::PeerRuns(s.member.name.clone()));
        }
        if restoration.damaged && self.holds_by_ledger() {
            if let Some(s) = statuses.iter().find(|s| s.term > self.ledger.term) {
                return Err(Waiting::HigherTerm(s.member.name.clone()));
            }
            // Two may hold one term where somebody restored an old Lease: the one that was followed
            // has what the other lacks.
            let own = self.position();
            if let Some(s) = statuses.iter().find(|s| !s.no_copy && s.position > own) {
                return Err(Waiting::BetterPeer(s.member.name.clone()));
            }
            let promised = statuses.iter().filter_map(|s| s.promised).max();
            return self.last_lease(promised).ok_or(Waiting::LeaseDamaged);
        }
        let own = self.status();
        if let Some(s) = statuses.iter().find(|s| !s.no_copy && goes_before(s, &own)) {
            return Err(Waiting::BetterPeer(s.member.name.clone()));
        }
        self.no_copy_is_needed(&statuses)?;
        if let Some((_, last)) = self.ledger.lease.as_ref().filter(|(_, it)| it.quorum.is_none()) {
            self.within_lag(last)?;
            self.has_what_a_quorum_held(last)?;
        }
        let highest = statuses
            .iter()
            .flat_map(|s| [Some(s.term), s.promised])
            .flatten()
            .chain(self.ledger.promised)
            .fold(self.ledger.term, std::cmp::Ord::max);
        let stragglers: BTreeSet<Member> =
            statuses.iter().filter(|s| !s.no_copy).map(|s| s.member.clone()).collect();
        self.anew(highest.next(), stragglers.into_iter().collect()).ok_or(Waiting::NoCopy)
    }

    /// Who gave its copy up for a new one that it cannot get may have the only one of what was
    /// acknowledged: where too few others of the last quorum have a whole copy, a human decides
    /// (seed 8359).
    fn no_copy_is_needed(&self, statuses: &[&MemberStatus]) -> Result<(), Waiting> {
        let last = self.ledger.lease.as_ref().map(|(_, last)| last);
        let Some(quorum) = last.and_then(|last| last.quorum.as_ref()) else { return Ok(()) };
        let in_quorum = |s: &&&MemberStatus| quorum.of.contains(&s.member.incarnation);
        let whole = statuses.iter().filter(|s| !s.no_copy).filter(in_quorum).count();
        let own = usize::from(quorum.of.contains(&self.me()));
        let given_up = statuses.iter().filter(|s| s.no_copy).filter(in_quorum);
        let names: Vec<InstanceName> = given_up.map(|s| s.member.name.clone()).collect();
        if names.is_empty() || quorum.intersected_by(whole + own) {
            return Ok(());
        }
        Err(Waiting::CopyGivenUp(names))
    }

    /// The last L by the ledger, with a term above all that anybody promised against.
    fn last_lease(&self, promised: Option<Term>) -> Option<Lease> {
        let (_, last) = self.ledger.lease.as_ref()?;
        let promised = self.ledger.promised.max(promised).unwrap_or_default();
        let term = promised.max(self.ledger.term).next();
        Some(Lease { holder: Some(self.as_holder()), release: None, term, ..last.clone() })
    }

    /// P itself, while its right lasts: the Lease is gone, or lost its past. Its clock may have
    /// stood still while others went on (rule 6), so its members say first that they did not.
    pub(super) fn restore_as_holder(&mut self, holding: &mut Holding) {
        let base = match (self.sight(), &self.api.reading) {
            (Sight::Absent, Reading::Absent(base)) => *base,
            (Sight::Damaged, _) => Base::Version(self.api.version),
            _ => return holding.restoring = None,
        };
        let gone = self.directive.as_ref().is_some_and(|d| d.cluster_gone || d.leaving);
        let serving = matches!(holding.step, Step::Serve | Step::Restart | Step::Promote { .. });
        if gone || !serving || !self.right_lasts() || self.api.write.is_some() {
            return;
        }
        let since = self.api.changed_at;
        if holding.restoring.as_ref().is_none_or(|round| round.started < since) {
            let (cohort, stragglers) = self.failsafe_members();
            let names: Vec<InstanceName> =
                cohort.into_values().chain(stragglers.into_values()).map(|m| m.name).collect();
            holding.restoring = Some(self.round(names, &Question::Status, POLL_LIMIT));
        }
        self.restore_if_nobody_went_on(holding, base);
    }

    fn restore_if_nobody_went_on(&mut self, holding: &mut Holding, base: Base) {
        let Some(round) = holding.restoring.as_ref().filter(|round| round.complete()) else {
            return;
        };
        let statuses = || round.answers.values().map(|a| &a.status);
        let (cohort, _) = self.failsafe_members();
        let answered =
            cohort.keys().all(|member| statuses().any(|s| s.member.incarnation == *member));
        let went_on = statuses().any(|s| {
            s.term > self.ledger.term || matches!(s.standing, Standing::Primary | Standing::Down)
        });
        let heard = answered && !went_on;
        if !heard && clause!(self, RestoreAsksMembers) {
            if self.now.since(round.started) >= POLL {
                holding.restoring = None;
            }
            return;
        }
        let promised = statuses().filter_map(|s| s.promised).max();
        if let Some(lease) = self.last_lease(promised)
            && self.write_lease(base, lease, Purpose::Restore)
        {
            holding.restoring = None;
        }
    }

    pub(super) fn restore_failed(&mut self) {
        if matches!(self.duty, Duty::Restoring(_)) {
            self.duty = Duty::Standby;
        }
        self.retry_at = self.now + Span::millis(500);
    }

    /// For the closing line: which kind of Lease was made anew.
    pub(super) fn count_restored(&mut self, base: Base) {
        match base {
            Base::Version(_) if self.api.lease.is_some() => self.counts.damaged += 1,
            Base::Version(_) | Base::Absent => self.counts.created += 1,
        }
    }
}
