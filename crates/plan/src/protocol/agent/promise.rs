//! The answering side: what a peer is told, and what it costs (rules 3, 9, 16, 18).

use crate::protocol::command::{Action, Command, ReplyToken};
use crate::protocol::event::{PostgresState, Receiver};
use crate::protocol::identity::{InstanceName, Term, Version};
use crate::protocol::lease::Lease;
use crate::protocol::message::{Answer, Question, Refusal, Standing, Verdict};
use crate::protocol::moment::{Moment, Span};
use crate::protocol::position::Kinship;

use super::api::Sight;
use super::{Duty, Lane, PendingReply, Protocol, Word, clause};

/// How long an answer may wait until the walreceiver has stopped.
const REPLY_LIMIT: Span = Span::millis(900);
/// For how long a walreceiver that was stopped for a question stays stopped.
const RECEIVER_PAUSE: Span = Span::seconds(2);

impl Protocol {
    pub(super) fn asked(&mut self, token: ReplyToken, from: &InstanceName, question: Question) {
        match question {
            Question::Status | Question::Position => self.reply(token, Verdict::Yes),
            Question::Failsafe { term, duration } => {
                let verdict = self.vouch(term, duration);
                self.reply(token, verdict);
            }
            Question::Election { term, version, promise, quick } => {
                match self.promise(term, version, promise, quick) {
                    Ok(()) => {
                        let until = self.now + REPLY_LIMIT;
                        self.replies.push(PendingReply { token, until, term });
                    }
                    Err(refusal) => self.reply(token, Verdict::No(refusal)),
                }
            }
            Question::Handover { term, from: holder, lsn } => {
                let word = Word { term, from: holder, lsn, at: self.now };
                let verdict = self.take_word(word, from);
                self.reply(token, verdict);
            }
        }
    }

    fn reply(&mut self, token: ReplyToken, verdict: Verdict) {
        let answer = Box::new(Answer { status: self.status(), verdict });
        self.out.push(Command::Reply { token, answer });
    }

    /// The highest term that this agent knows.
    pub(super) fn known_term(&self) -> Term {
        let lease = self.api.lease.as_ref().map_or(Term::ZERO, |l| l.term);
        self.ledger.term.max(lease)
    }

    /// Rule 3: may the holder of this term go on without the API?
    fn vouch(&mut self, term: Term, duration: Span) -> Verdict {
        if self.known_term() > term {
            return Verdict::No(Refusal::HigherTerm);
        }
        if self.ledger.promised.is_some_and(|promised| promised >= term) {
            return Verdict::No(Refusal::Promised);
        }
        if self.standing() != Standing::Standby {
            return Verdict::No(Refusal::Running);
        }
        if !clause!(self, FailsafeBindsMember) {
            return Verdict::Yes;
        }
        let longest = duration.max(self.lease_duration());
        self.no_run_before = self.no_run_before.max(self.now + longest);
        if self.ledger.vouched != Some(term) {
            self.ledger.vouched = Some(term);
            self.save();
        }
        Verdict::Yes
    }

    /// Rules 9 and 16: may the asker rely on this position? Writes the promise, stops the
    /// walreceiver; the answer follows when it has stopped.
    fn promise(
        &mut self,
        term: Term,
        version: Version,
        promise: bool,
        quick: bool,
    ) -> Result<(), Refusal> {
        // Where this agent knows L by a later state, the asker runs on an older one.
        if self.known_term() > term || self.sight() == Sight::Damaged {
            return Err(Refusal::HigherTerm);
        }
        if self.has_no_copy() && clause!(self, RejoiningPromisesNothing) {
            return Err(Refusal::NoCopy);
        }
        if matches!(self.standing(), Standing::Primary | Standing::Down) {
            return Err(Refusal::Running);
        }
        if self.now < self.no_run_before && clause!(self, RunAfterVouch) {
            return Err(Refusal::Vouched);
        }
        if quick {
            if !self.lost_primary() && clause!(self, QuickNeedsLoss) {
                return Err(Refusal::NotLost);
            }
        } else if self.api.version > version && matches!(self.sight(), Sight::Held { .. }) {
            return Err(Refusal::Held);
        }
        if promise {
            self.promise_against(term);
        }
        self.pause_receiver(term);
        self.stop_receiver();
        Ok(())
    }

    /// Nobody of this term or a lower one is followed for a while: positions are being compared.
    pub(super) fn pause_receiver(&mut self, term: Term) {
        self.receiver_paused_until = self.now + RECEIVER_PAUSE;
        self.receiver_paused_term = self.receiver_paused_term.max(term);
    }

    /// "I no longer follow this term", durably.
    pub(super) fn promise_against(&mut self, term: Term) {
        if self.ledger.promised.is_some_and(|promised| promised >= term) {
            return;
        }
        self.ledger.promised = Some(term);
        if clause!(self, PromiseIsDurable) {
            self.save();
        }
    }

    /// Ends the walreceiver; a change of whom to follow that is under way ends first.
    pub(super) fn stop_receiver(&mut self) {
        if self.receiver_stopped() || !clause!(self, PromiserStopsReceiver) {
            return;
        }
        if self.state() == PostgresState::Starting && clause!(self, StartingIsStartedAnew) {
            // A start that is under way may let somebody in within moments.
            if !self.busy(Lane::Server) {
                self.stop_standby();
            }
            return;
        }
        self.run(Action::Follow { member: None });
    }

    /// True if nothing can be received any more, so that the position is final.
    pub(super) fn receiver_stopped(&self) -> bool {
        if self.operations.values().any(|o| {
            matches!(o.action, Action::Follow { .. } | Action::StartStandby { follow: Some(_) })
        }) {
            return false;
        }
        let Some(pg) = &self.pg else { return false };
        match pg.state {
            PostgresState::Stopped { .. } => true,
            // An observation may be older than the operation that has ended since.
            PostgresState::Standby | PostgresState::Starting => {
                pg.receiver == Receiver::None && pg.flushed.is_some() && self.followed().is_none()
            }
            PostgresState::Unknown
            | PostgresState::Empty
            | PostgresState::Dying
            | PostgresState::Primary
            | PostgresState::Stopping => false,
        }
    }

    /// Answers what was waiting for the walreceiver's end.
    pub(super) fn answer_pending(&mut self) {
        if self.replies.is_empty() {
            return;
        }
        let stopped = self.receiver_stopped() || !clause!(self, PromiserStopsReceiver);
        for pending in std::mem::take(&mut self.replies) {
            if self.known_term() > pending.term {
                self.reply(pending.token, Verdict::No(Refusal::HigherTerm));
            } else if stopped {
                self.reply(pending.token, Verdict::Yes);
            } else if self.now >= pending.until {
                self.reply(pending.token, Verdict::No(Refusal::NotReady));
            } else {
                self.stop_receiver();
                self.replies.push(pending);
            }
        }
    }

    pub(super) fn next_reply(&self) -> Option<Moment> {
        self.replies.iter().map(|r| r.until).min()
    }

    /// Rule 16: nothing heard from P for one and a half renewal periods by any way, doubled by each
    /// re-assertion, up to D.
    pub(super) fn lost_primary(&self) -> bool {
        self.now >= self.heard + self.patience()
    }

    pub(super) fn patience(&self) -> Span {
        let reassertions = self.api.lease.as_ref().map_or(0, |l| l.reassertions).min(16);
        let patience = self.timing().renew.percent(150).times(1 << reassertions);
        patience.min(self.lease_duration())
    }

    pub(super) fn lease_duration(&self) -> Span {
        self.api.lease.as_ref().map_or(self.timing().duration, |l: &Lease| l.duration)
    }

    /// Rule 18: the holder, stopped, says that the Lease is ours.
    fn take_word(&mut self, word: Word, from: &InstanceName) -> Verdict {
        let refused = |refusal| Verdict::No(refusal);
        if self.known_term() > word.term {
            return refused(Refusal::HigherTerm);
        }
        if self.unfit() {
            return refused(Refusal::Unfit);
        }
        if self.has_no_copy() {
            return refused(Refusal::NoCopy);
        }
        if self.standing() != Standing::Standby {
            return refused(Refusal::Running);
        }
        let lease = self.api.lease.as_ref();
        let holder = lease.and_then(|l| l.holder.as_ref());
        if holder.is_none_or(|h| h.incarnation != word.from || h.name != *from) {
            return refused(Refusal::NotHolder);
        }
        if !self.has_all(lease, word.lsn) {
            return refused(Refusal::Behind);
        }
        self.word = Some(word);
        self.duty = Duty::Standby;
        Verdict::Yes
    }

    /// Rule 18: it has the former holder's WAL up to there, on the same history.
    pub(super) fn has_all(&self, lease: Option<&Lease>, lsn: matriarch_pg::Lsn) -> bool {
        let Some(lease) = lease else { return false };
        if !clause!(self, SuccessorVerifies) {
            return true;
        }
        self.flushed() >= lsn
            && matches!(self.ledger.history.kinship(self.flushed(), &lease.history), Kinship::OnIt)
            && self.position().term == lease.history.position(lsn).term
    }
}
