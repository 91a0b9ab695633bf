//! Going on without the API (rule 3).

use std::collections::BTreeMap;

use crate::protocol::command::Right;
use crate::protocol::event::PostgresState;
use crate::protocol::identity::{Incarnation, Member};
use crate::protocol::message::{Question, Refusal, Verdict};
use crate::protocol::moment::{Moment, Span};

use super::api::Reading;
use super::holder::Holding;
use super::peers::Round;
use super::{Protocol, clause};

/// How long one round waits for its answers, and how soon the next begins after one that failed.
const ROUND: Span = Span::millis(450);
const ROUND_AGAIN: Span = Span::millis(500);
/// For how long P goes on when a member reads the API (traps H4).
const GIVES_WAY: Span = Span::seconds(30);

/// Failsafe of a holder.
#[derive(Clone, Debug, Default)]
pub(super) struct Failsafe {
    /// Since when it goes on without the API.
    pub since: Option<Moment>,
    pub round: Option<Round>,
    next: Moment,
    /// A member has said since then that it reads the API.
    others_read: Option<Moment>,
    /// In the last round that succeeded a straggler did not say yes.
    straggler_silent: bool,
}

impl Failsafe {
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    pub(super) fn due(&self) -> Option<Moment> {
        match (&self.since, &self.round) {
            (Some(_), None) => Some(self.next),
            (Some(_), Some(round)) => Some(round.started + ROUND),
            (None, _) => None,
        }
    }

    /// True if P has to give way to a member that reads the API.
    pub(super) fn gives_way(&self, now: Moment) -> bool {
        self.others_read.is_some_and(|since| now.since(since) >= GIVES_WAY)
    }
}

impl Protocol {
    pub(super) fn keep_failsafe(&mut self, holding: &mut Holding) {
        let Some(right) = self.right else { return };
        let due = self.now >= right.ask_at() || holding.failsafe.since.is_some();
        // A Lease that is not there is an answer, not silence: rule 7 makes it anew.
        let answered = matches!(self.api.reading, Reading::Absent(_)) && self.reads_api();
        if !due || answered || holding.refused.is_some() || self.state() != PostgresState::Primary {
            return;
        }
        if let Some(round) = holding.failsafe.round.take() {
            self.failsafe_answers(holding, round);
        }
        if holding.failsafe.round.is_none() && self.now >= holding.failsafe.next {
            self.begin_failsafe_round(holding);
        }
    }

    /// Members whose yes is needed, and stragglers, of the last confirmed L and of every one that
    /// it has tried to write since.
    pub(super) fn failsafe_members(
        &self,
    ) -> (BTreeMap<Incarnation, Member>, BTreeMap<Incarnation, Member>) {
        let me = self.me();
        let attempted = clause!(self, FailsafeAsksAttempted);
        let leases: Vec<_> =
            self.api.possible().take(if attempted { usize::MAX } else { 1 }).collect();
        let collect = |members: Vec<&Member>| {
            members
                .into_iter()
                .filter(|m| m.incarnation != me)
                .map(|m| (m.incarnation.clone(), m.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let cohort = collect(leases.iter().flat_map(|l| &l.cohort).collect());
        let mut stragglers = collect(leases.iter().flat_map(|l| &l.stragglers).collect());
        stragglers.retain(|incarnation, _| !cohort.contains_key(incarnation));
        (cohort, stragglers)
    }

    fn begin_failsafe_round(&mut self, holding: &mut Holding) {
        let Some(current) = self.api.lease.as_ref() else { return };
        let question = Question::Failsafe { term: self.ledger.term, duration: current.duration };
        let (cohort, stragglers) = self.failsafe_members();
        let names: Vec<_> =
            cohort.values().chain(stragglers.values()).map(|m| m.name.clone()).collect();
        holding.failsafe.since.get_or_insert(self.now);
        holding.failsafe.next = self.now + ROUND_AGAIN;
        let round = self.round(names, &question, ROUND);
        self.failsafe_answers(holding, round);
    }

    /// Judges a round when it is complete or its time is over.
    fn failsafe_answers(&mut self, holding: &mut Holding, round: Round) {
        if !round.complete() && self.now.since(round.started) < ROUND {
            holding.failsafe.round = Some(round);
            return;
        }
        let higher = round.answers.values().any(|a| {
            a.status.term > self.ledger.term || a.verdict == Verdict::No(Refusal::HigherTerm)
        });
        if higher {
            return self.lose();
        }
        let (cohort, stragglers) = self.failsafe_members();
        let said_yes = |member: &Member| {
            round
                .yes()
                .any(|(name, s)| *name == member.name && s.member.incarnation == member.incarnation)
        };
        let all = cohort.values().all(said_yes);
        let any = cohort.is_empty() || cohort.values().any(said_yes);
        let silent = !stragglers.values().all(said_yes);
        let yes = if clause!(self, FailsafeNeedsAll) { all } else { any };
        if !yes || self.beyond_failsafe_max(holding, silent) {
            return;
        }
        holding.failsafe.straggler_silent = silent;
        let reads = round.answers.values().any(|a| a.status.reads_api);
        holding.failsafe.others_read =
            if reads { holding.failsafe.others_read.or(Some(self.now)) } else { None };
        holding.failsafe.next = round.started + self.timing().renew;
        let duration =
            self.api.possible().map(|l| l.duration).min().unwrap_or(self.timing().duration);
        self.counts.failsafe_rounds += 1;
        self.arm(Right { from: round.started, duration });
    }

    /// F after the start of the last successful renewal, while a straggler does not answer.
    fn beyond_failsafe_max(&self, holding: &Holding, silent: bool) -> bool {
        let limit = self.failsafe_max();
        silent && clause!(self, FailsafeMax) && self.now > holding.renewed + limit
    }

    pub(super) fn failsafe_max(&self) -> Span {
        self.directive.as_ref().map_or(Span::seconds(600), |d| d.limits.failsafe_max)
    }

    pub(super) fn failsafe_left(&self, holding: &Holding) -> Option<Span> {
        holding.failsafe.since?;
        holding
            .failsafe
            .straggler_silent
            .then(|| (holding.renewed + self.failsafe_max()).since(self.now))
    }
}
