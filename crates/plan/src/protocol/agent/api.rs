//! The Lease as this agent sees it: reads, writes, and what is not resolved yet (rule 7).

use matriarch_pg::SystemId;

use crate::protocol::command::{Base, Command, RequestId, Right};
use crate::protocol::event::{ApiRefusal, LeaseReading, LeaseWriting, PostgresState};
use crate::protocol::identity::Version;
use crate::protocol::lease::{Handover, Holder, Lease, LeaseRecord};
use crate::protocol::ledger::LastRole;
use crate::protocol::moment::{Moment, Span};

use super::{Duty, Protocol, clause};

/// How often the Lease is read when nothing is due earlier.
const POLL: Span = Span::seconds(1);
/// After a read without an answer.
const POLL_AGAIN: Span = Span::millis(500);
/// A request that the driver never answered is given up.
const REQUEST_LOST: Span = Span::seconds(3);
/// How long the named successor has alone (rule 18).
pub(super) const SUCCESSOR_ALONE: Span = Span::seconds(2);

/// Why a write of the Lease is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Rule 2, 4, 12, 14: the holder renews, and publishes what changed.
    Renew,
    /// Rule 11: a candidate takes it.
    Take,
    /// Rule 8: the holder by L writes before it acts.
    Confirm,
    /// Rule 18, 19, 21: it is given away.
    Release,
    /// Rule 7: it is made anew.
    Restore,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub request: RequestId,
    pub base: Base,
    pub lease: Lease,
    pub purpose: Purpose,
    pub started: Moment,
}

/// What the last answer of the API was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Unread,
    Found,
    /// There is an object without content, or none.
    Absent(Base),
    Refused(ApiRefusal),
    Unreadable,
    /// An older state than one already obeyed.
    Damaged,
    Silent,
}

/// What this agent knows of the Lease.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub reading: Reading,
    pub version: Version,
    pub lease: Option<Lease>,
    /// When this version, or the absence, was first seen.
    pub changed_at: Moment,
    /// Start of the last read that found this version (or the absence) still there.
    pub confirmed_at: Moment,
    /// When the API last answered anything.
    pub answered_at: Option<Moment>,
    read: Option<(RequestId, Moment)>,
    next_read: Moment,
    pub write: Option<Write>,
    pub unresolved: Vec<Write>,
    /// The version that a peer says is damaged.
    pub told_damaged: Option<Version>,
}

/// Rule 7: what L is to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Unknown,
    Absent,
    Damaged,
    Held { until: Moment },
    Expired,
    Free,
    Handed(Handover),
}

impl Api {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            reading: Reading::Unread,
            version: Version::default(),
            lease: None,
            changed_at: now,
            confirmed_at: now,
            answered_at: None,
            read: None,
            next_read: now,
            write: None,
            unresolved: Vec::new(),
            told_damaged: None,
        }
    }

    /// Every Lease that may stand there now or soon: the last one confirmed, and what was tried
    /// since without an answer.
    pub(super) fn possible(&self) -> impl Iterator<Item = &Lease> {
        let pending = self.write.iter().filter(|w| w.purpose != Purpose::Release);
        self.lease.iter().chain(self.unresolved.iter().chain(pending).map(|w| &w.lease))
    }

    /// Writes that differ in nothing but the position are one: the list stays short however long
    /// the API is silent.
    fn keep_unresolved(&mut self, write: Write) {
        self.unresolved.retain(|w| {
            w.base != write.base || w.purpose != write.purpose || !w.lease.is_like(&write.lease)
        });
        self.unresolved.push(write);
    }

    pub(super) fn due(&self) -> Option<Moment> {
        self.read.is_none().then_some(self.next_read)
    }

    /// A read as soon as possible.
    pub(super) fn read_soon(&mut self, now: Moment) {
        self.next_read = self.next_read.min(now);
    }
}

impl Protocol {
    pub(super) fn poll_lease(&mut self) {
        if let Some((_, at)) = self.api.read
            && self.now.since(at) > REQUEST_LOST
        {
            self.api.read = None;
        }
        if let Some(write) = &self.api.write
            && self.now.since(write.started) > REQUEST_LOST
        {
            let request = write.request;
            self.lease_written(request, LeaseWriting::Unknown);
        }
        if let Sight::Held { until } = self.sight() {
            self.read_at(until);
        }
        if self.api.read.is_some() || self.now < self.api.next_read {
            return;
        }
        let request = self.request();
        self.api.read = Some((request, self.now));
        self.api.next_read = self.now + POLL;
        self.out.push(Command::ReadLease { request });
    }

    pub(super) fn lease_read(&mut self, request: Option<RequestId>, reading: LeaseReading) {
        let asked_at = match (request, self.api.read) {
            (Some(request), Some((expected, at))) if request == expected => {
                self.api.read = None;
                Some(at)
            }
            (Some(_), _) => return,
            (None, _) => None,
        };
        match reading {
            LeaseReading::Found { version, record } => self.lease_found(asked_at, version, &record),
            LeaseReading::Absent => self.lease_absent(asked_at, Base::Absent),
            LeaseReading::Refused(refusal) => {
                self.api.reading = Reading::Refused(refusal);
                self.api.answered_at = Some(self.now);
            }
            LeaseReading::NoAnswer => {
                self.api.reading = Reading::Silent;
                self.api.next_read = self.now + POLL_AGAIN;
            }
        }
    }

    fn lease_found(&mut self, asked_at: Option<Moment>, version: Version, record: &LeaseRecord) {
        // A watch may lag; only an answer to a read of ours may show an API that lost its past.
        let late = version < self.api.version;
        let written_since = self.api.changed_at > asked_at.unwrap_or_default();
        if late && (asked_at.is_none() || written_since) {
            return;
        }
        self.api.answered_at = Some(self.now);
        let lease = match record.decode() {
            Ok(Some(lease)) => lease,
            Ok(None) => {
                self.api.version = version;
                return self.lease_absent(asked_at, Base::Version(version));
            }
            Err(_) => {
                self.api.reading = Reading::Unreadable;
                return;
            }
        };
        let damaged = self.damaged(&lease) || self.told_damaged(version);
        if version != self.api.version || self.api.lease.is_none() {
            self.api.changed_at = self.now;
            if !damaged {
                self.heard_by_renewal(&lease);
            }
        }
        self.api.version = version;
        if damaged {
            // What was obeyed before stays what is acted upon.
            self.api.reading = Reading::Damaged;
            if self.api.lease.is_none() {
                self.api.lease = self.ledger.lease.clone().map(|(_, last)| last);
            }
        } else {
            self.api.reading = Reading::Found;
            self.api.lease = Some(lease);
        }
        if let Some(at) = asked_at {
            self.api.confirmed_at = self.api.confirmed_at.max(at);
        }
        // A write based on an older version can no longer be applied; one that was applied is
        // what has just been read.
        self.api.unresolved.retain(|w| match w.base {
            Base::Version(base) => base >= version,
            Base::Absent => false,
        });
        if !damaged {
            self.lease_seen();
        }
    }

    fn lease_absent(&mut self, asked_at: Option<Moment>, base: Base) {
        // Only an answer to a read of ours proves absence; a watch just asks for one.
        let Some(at) = asked_at else { return self.api.read_soon(self.now) };
        self.api.answered_at = Some(self.now);
        if !matches!(self.api.reading, Reading::Absent(_)) {
            self.api.changed_at = self.now;
        }
        self.api.reading = Reading::Absent(base);
        self.api.confirmed_at = at;
        self.api.unresolved.retain(|w| w.base == base);
    }

    fn heard_by_renewal(&mut self, lease: &Lease) {
        let by_holder = self.api.lease.as_ref().is_none_or(|old| {
            lease.holder.is_some()
                && old.holder.as_ref().map(|h| &h.incarnation)
                    == lease.holder.as_ref().map(|h| &h.incarnation)
        });
        if by_holder || lease.term > self.ledger.term {
            self.heard = self.now;
        }
    }

    /// A version of L is known that may be new: obeys a higher term, and remembers.
    fn lease_seen(&mut self) {
        let Some(lease) = self.api.lease.clone() else { return };
        let mine = lease.held_by(&self.me()) && self.ledger.incarnation.is_some();
        let mut changed = self.remember(&lease);
        if !mine && lease.term > self.ledger.term && lease.holder.is_some() {
            self.ledger.term = lease.term;
            self.ledger.role = LastRole::Standby;
            changed = true;
        }
        if self.ledger.vouched.is_some_and(|term| term < lease.term) {
            self.ledger.vouched = None;
            changed = true;
        }
        if changed {
            self.save();
        }
        self.heed(&lease, mine);
    }

    /// Rule 2: a holder that reads of another one, or of a higher term that it did not write.
    fn heed(&mut self, lease: &Lease, mine: bool) {
        if !matches!(self.duty, Duty::Holder(_)) {
            return;
        }
        let own_process = lease.holder.as_ref().is_some_and(|h| self.is_this_process(h));
        if mine && own_process && lease.term >= self.ledger.term {
            if lease.term > self.ledger.term {
                // Rule 2: a write of its own that was not answered.
                self.ledger.term = lease.term;
                self.save();
            }
            return;
        }
        if lease.holder.is_none() && self.released_by_me(lease) {
            return self.handed_over();
        }
        if clause!(self, StopOnHigherTerm) {
            self.lose();
        }
    }

    pub(super) fn released_by_me(&self, lease: &Lease) -> bool {
        lease.release.as_ref().is_some_and(|r| r.by == self.me())
    }

    pub(super) fn is_this_process(&self, holder: &Holder) -> bool {
        holder.incarnation == self.me()
            && holder.pod_uid == self.config.pod_uid
            && holder.container_id == self.config.container_id
    }

    /// Keeps L in the ledger when it changed in more than position: it is what remains if the
    /// object is lost. True if the ledger is to be written.
    fn remember(&mut self, lease: &Lease) -> bool {
        let same = self
            .ledger
            .lease
            .as_ref()
            .is_some_and(|(_, old)| old.is_like(lease) && old.edition == lease.edition);
        self.ledger.lease = Some((self.api.version, lease.clone()));
        !same
    }

    /// Rule 7: the API lost its past.
    fn damaged(&self, lease: &Lease) -> bool {
        let older = clause!(self, DamagedEdition)
            && self.ledger.lease.as_ref().is_some_and(|(_, last)| lease.contradicts(last));
        clause!(self, DamagedIsNotObeyed) && (lease.term < self.ledger.term || older)
    }

    /// Rule 7: a peer knows that the API lost its past, and this agent was away meanwhile. The two
    /// would wait for each other, each as the better one. A holder goes by its own ledger.
    fn told_damaged(&self, version: Version) -> bool {
        self.api.told_damaged == Some(version)
            && !matches!(self.duty, Duty::Holder(_))
            && self.state() != PostgresState::Primary
            && clause!(self, DamagedIsTold)
    }

    /// Rule 7: what L is, by this agent's own clock.
    pub(super) fn sight(&self) -> Sight {
        match self.api.reading {
            Reading::Found => {}
            Reading::Absent(_) => return Sight::Absent,
            Reading::Damaged => return Sight::Damaged,
            Reading::Unread | Reading::Refused(_) | Reading::Unreadable | Reading::Silent => {
                return Sight::Unknown;
            }
        }
        let Some(lease) = &self.api.lease else { return Sight::Unknown };
        let mut duration = lease.duration;
        if !clause!(self, ExpiryAfterDuration) {
            duration = duration.percent(50);
        }
        let until = self.api.changed_at + duration;
        match (&lease.holder, &lease.release) {
            (None, Some(release)) => match &release.handover {
                Some(handover) if self.now.since(self.api.changed_at) < SUCCESSOR_ALONE => {
                    Sight::Handed(handover.clone())
                }
                Some(_) | None => Sight::Free,
            },
            // Only a read that began after D proves that nothing changed within D.
            _ if self.api.confirmed_at >= until => Sight::Expired,
            _ => Sight::Held { until },
        }
    }

    /// Plans a read for the moment at which L may have expired.
    pub(super) fn read_at(&mut self, at: Moment) {
        self.api.next_read = self.api.next_read.min(at.max(self.now));
    }

    /// Writes L, if no write is on its way.
    pub(super) fn write_lease(&mut self, base: Base, mut lease: Lease, purpose: Purpose) -> bool {
        if self.api.write.is_some() {
            return false;
        }
        lease.edition = self.next_edition(&lease);
        let request = self.request();
        let record = LeaseRecord::encode(&lease);
        // A shorter D counts from the moment at which it is sent.
        if let Some(right) = self.right
            && lease.duration < right.duration
        {
            self.arm(Right { duration: lease.duration, ..right });
        }
        self.api.write = Some(Write { request, base, lease, purpose, started: self.now });
        self.out.push(Command::WriteLease { request, base, record });
        true
    }

    /// One more than any known one, unless nothing but the position changes.
    fn next_edition(&self, lease: &Lease) -> u64 {
        let last = self.ledger.lease.iter().map(|(_, last)| last);
        let known = self.api.lease.iter().chain(last).map(|l| l.edition).max().unwrap_or(0);
        let found = self.api.reading == Reading::Found;
        match &self.api.lease {
            Some(current) if found && current.is_like(lease) => current.edition,
            Some(_) | None => known.saturating_add(1),
        }
    }

    pub(super) fn lease_written(&mut self, request: RequestId, writing: LeaseWriting) {
        let Some(write) = self.api.write.take_if(|w| w.request == request) else { return };
        match writing {
            LeaseWriting::Written(version) => self.write_applied(&write, version),
            LeaseWriting::Conflict => {
                self.api.answered_at = Some(self.now);
                self.write_failed(write.purpose, None);
            }
            LeaseWriting::Refused(refusal) => {
                self.api.answered_at = Some(self.now);
                self.write_failed(write.purpose, Some(refusal));
            }
            LeaseWriting::Unknown => {
                let purpose = write.purpose;
                self.api.keep_unresolved(write);
                self.write_unknown(purpose);
            }
        }
        self.api.read_soon(self.now);
    }

    fn write_applied(&mut self, write: &Write, version: Version) {
        self.api.answered_at = Some(self.now);
        if write.purpose == Purpose::Restore {
            self.count_restored(write.base);
        }
        let restart = self.can_restart_as_primary();
        self.api.version = version;
        self.api.lease = Some(write.lease.clone());
        self.api.reading = Reading::Found;
        self.api.changed_at = self.now;
        self.api.confirmed_at = self.now;
        self.api.unresolved.clear();
        let changed = self.remember(&write.lease);
        if write.lease.held_by(&self.me()) {
            let mut changed = changed;
            if self.ledger.term != write.lease.term || self.ledger.role != LastRole::Primary {
                self.ledger.term = write.lease.term;
                self.ledger.role = LastRole::Primary;
                changed = true;
            }
            if matches!(write.purpose, Purpose::Take | Purpose::Restore) {
                self.ledger.promoting = (!restart).then_some(write.lease.term);
                changed = true;
            }
            if changed {
                self.save();
            }
            self.arm(Right { from: write.started, duration: write.lease.duration });
        } else if changed {
            self.save();
        }
        self.write_succeeded(write);
    }

    fn write_succeeded(&mut self, write: &Write) {
        match write.purpose {
            Purpose::Renew => self.renewed(write),
            Purpose::Take | Purpose::Confirm | Purpose::Restore => self.holds_now(write),
            Purpose::Release => self.handed_over(),
        }
    }

    fn write_failed(&mut self, purpose: Purpose, refusal: Option<ApiRefusal>) {
        match purpose {
            Purpose::Renew | Purpose::Release | Purpose::Confirm => {
                self.holder_write_failed(purpose, refusal);
            }
            Purpose::Take => self.take_failed(refusal.is_none()),
            Purpose::Restore => self.restore_failed(),
        }
    }

    fn write_unknown(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Renew | Purpose::Confirm => {}
            Purpose::Release => self.release_unknown(),
            Purpose::Take => self.take_unknown(),
            Purpose::Restore => self.restore_failed(),
        }
    }

    /// True if a Lease of another database system stands there.
    pub(super) fn other_system(&self, lease: &Lease) -> bool {
        self.own_system().is_some_and(|own| own != lease.system_id)
    }

    pub(super) fn own_system(&self) -> Option<SystemId> {
        self.pg.as_ref().and_then(|pg| pg.system_id).or(self.ledger.system_id)
    }

    /// It reached the API within two renewal periods.
    pub(super) fn reads_api(&self) -> bool {
        let limit = self.timing().renew.times(2);
        matches!(self.api.reading, Reading::Found | Reading::Damaged | Reading::Absent(_))
            && self.api.answered_at.is_some_and(|at| self.now.since(at) < limit)
    }
}
