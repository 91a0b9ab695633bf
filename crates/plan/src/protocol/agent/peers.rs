//! The other instances: where they are, how they are, and rounds of questions to them.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::command::RequestId;
use crate::protocol::directive::Peer;
use crate::protocol::identity::{Address, Incarnation, InstanceName, Member};
use crate::protocol::message::{Answer, MemberStatus, Question, Standing, Verdict};
use crate::protocol::moment::{Moment, Span};

use super::{Duty, Protocol};

/// How often members ask each other, and how long they wait (traps H7).
pub(super) const POLL: Span = Span::millis(500);
pub(super) const POLL_LIMIT: Span = Span::millis(300);
/// A status older than this says nothing.
pub(super) const FRESH: Span = Span::millis(1500);

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub incarnation: Option<Incarnation>,
    pub address: Option<Address>,
    pub leaving: bool,
    /// Wanted by the directive (or the directive is not known yet).
    pub wanted: bool,
    pub status: Option<(Moment, MemberStatus)>,
    asked: Option<RequestId>,
    asked_at: Option<Moment>,
}

/// All peers by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(pub BTreeMap<InstanceName, Known>);

/// One question asked of several.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    pub started: Moment,
    pub pending: BTreeMap<RequestId, InstanceName>,
    pub answers: BTreeMap<InstanceName, Answer>,
    pub silent: BTreeSet<InstanceName>,
}

impl Round {
    pub(super) fn complete(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes an answer that belongs to this round.
    pub(super) fn take(&mut self, request: RequestId, answer: Option<&Answer>) -> bool {
        let Some(name) = self.pending.remove(&request) else { return false };
        match answer {
            Some(answer) => {
                self.answers.insert(name, answer.clone());
            }
            None => {
                self.silent.insert(name);
            }
        }
        true
    }

    pub(super) fn yes(&self) -> impl Iterator<Item = (&InstanceName, &MemberStatus)> {
        self.answers
            .iter()
            .filter(|(_, a)| a.verdict == Verdict::Yes)
            .map(|(name, a)| (name, &a.status))
    }
}

impl Peers {
    /// The directive names them.
    pub(super) fn know(&mut self, own: &InstanceName, members: &[Peer]) {
        for known in self.0.values_mut() {
            known.wanted = false;
        }
        for peer in members.iter().filter(|p| p.name != *own) {
            let known = self.0.entry(peer.name.clone()).or_default();
            known.wanted = true;
            known.leaving = peer.leaving;
            if peer.incarnation.is_some() {
                known.incarnation.clone_from(&peer.incarnation);
            }
            if peer.address.is_some() {
                known.address.clone_from(&peer.address);
            }
        }
        self.0.retain(|_, known| known.wanted);
    }
}

impl Protocol {
    /// Asks every peer how it is, each at most twice a second.
    pub(super) fn poll_peers(&mut self) {
        for name in self.names() {
            let asked_at = self.peers.0.get(&name).and_then(|known| known.asked_at);
            let due = asked_at.is_none_or(|at| self.now.since(at) >= POLL);
            if due {
                self.poll_peer(&name);
            }
        }
    }

    pub(super) fn poll_peer(&mut self, name: &InstanceName) {
        let Some(request) = self.ask(name, Question::Status, POLL_LIMIT) else { return };
        let known = self.peers.0.entry(name.clone()).or_default();
        known.asked = Some(request);
        known.asked_at = Some(self.now);
    }

    /// When the next peer is to be asked.
    pub(super) fn next_poll(&self) -> Option<Moment> {
        self.peers
            .0
            .values()
            .filter(|known| known.address.is_some())
            .map(|known| known.asked_at.map_or(self.now, |at| at + POLL))
            .min()
    }

    /// Names of all peers: those of the directive and those of L.
    pub(super) fn names(&self) -> Vec<InstanceName> {
        let own = &self.config.name;
        let mut names: BTreeSet<InstanceName> = self.peers.0.keys().cloned().collect();
        let lease = self.api.lease.as_ref().or(self.ledger.lease.as_ref().map(|l| &l.1));
        names.extend(lease.iter().flat_map(|l| l.everyone()).map(|m| m.name.clone()));
        names.remove(own);
        names.into_iter().collect()
    }

    /// Rule 7's addresses (traps H13): what the peer itself last said in its Instance or answered,
    /// else its entry in L.
    pub(super) fn address_of(&self, name: &InstanceName) -> Option<Address> {
        let known = self.peers.0.get(name).and_then(|known| known.address.clone());
        known.or_else(|| {
            let lease = self.api.lease.as_ref().or(self.ledger.lease.as_ref().map(|l| &l.1))?;
            lease.everyone().find(|m| &m.name == name).map(|m| m.address.clone())
        })
    }

    /// The entry of an incarnation as it is best known.
    pub(super) fn member_of(&self, incarnation: &Incarnation) -> Option<Member> {
        let known = self
            .peers
            .0
            .iter()
            .find(|(_, known)| known.incarnation.as_ref() == Some(incarnation))
            .and_then(|(name, known)| {
                Some(Member {
                    name: name.clone(),
                    incarnation: incarnation.clone(),
                    address: known.address.clone()?,
                })
            });
        known.or_else(|| self.api.possible().find_map(|lease| lease.entry(incarnation).cloned()))
    }

    /// Statuses not older than [`FRESH`].
    pub(super) fn fresh(&self) -> impl Iterator<Item = (&InstanceName, &MemberStatus)> {
        self.peers.0.iter().filter_map(|(name, known)| {
            let (at, status) = known.status.as_ref()?;
            (self.now.since(*at) <= FRESH).then_some((name, status))
        })
    }

    /// Begins a round.
    pub(super) fn round(
        &mut self,
        names: impl IntoIterator<Item = InstanceName>,
        question: &Question,
        limit: Span,
    ) -> Round {
        let mut round = Round { started: self.now, ..Round::default() };
        for name in names {
            match self.ask(&name, question.clone(), limit) {
                Some(request) => {
                    round.pending.insert(request, name);
                }
                None => {
                    round.silent.insert(name);
                }
            }
        }
        round
    }

    /// An answer, or that there is none.
    pub(super) fn answered(&mut self, request: RequestId, answer: Option<&Answer>) {
        let polled = self
            .peers
            .0
            .values_mut()
            .find_map(|known| known.asked.take_if(|expected| *expected == request));
        if let Some(answer) = answer {
            self.learn(&answer.status);
        }
        if polled.is_some() {
            return;
        }
        match &mut self.duty {
            Duty::Candidate(candidacy) => {
                if let Some(round) = &mut candidacy.round {
                    round.take(request, answer);
                }
            }
            Duty::Holder(holding) => holding.answered(request, answer),
            Duty::Restoring(restoration) => {
                if let Some(round) = &mut restoration.round {
                    round.take(request, answer);
                }
            }
            Duty::Standby | Duty::Retiring => {}
        }
    }

    fn learn(&mut self, status: &MemberStatus) {
        let name = status.member.name.clone();
        if name == self.config.name {
            return;
        }
        let holder = self
            .api
            .lease
            .as_ref()
            .and_then(|l| l.holder.as_ref())
            .is_some_and(|h| h.incarnation == status.member.incarnation);
        if holder && status.standing == Standing::Primary {
            self.heard = self.now;
        }
        if status.damaged && status.version == self.api.version {
            self.api.told_damaged = Some(status.version);
        }
        let known = self.peers.0.entry(name).or_default();
        known.incarnation = Some(status.member.incarnation.clone()).filter(|i| !i.0.is_empty());
        known.address = Some(status.member.address.clone());
        known.status = Some((self.now, status.clone()));
    }
}
