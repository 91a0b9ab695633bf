//! What must hold, judged by the true time and the true content of every copy.
//!
//! Names of the invariants are those of the project's reliability notes (I1–I20).

use std::collections::{BTreeMap, BTreeSet};

use matriarch_plan::protocol::Lease;

use crate::{
    Micros, SECOND,
    driver::number_of,
    postgres::{Files, Phase, Role},
    settings::Mode,
    story,
    wal::{Branch, Place},
    world::{Requester, World},
};

/// How long after a thaw rule 6 admits acknowledgements: the keeper's reaction where the clock went
/// on, what is left of the right where it stood still, and in failsafe what is left of F.
const THAW_WITH_CLOCK: Micros = SECOND;
const THAW_WITHOUT_CLOCK: Micros = 11 * SECOND;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
    pub(crate) at: Micros,
}

/// The newest acknowledged commit of a branch.
#[derive(Clone, Copy, Debug)]
struct Mark {
    lsn: u64,
    at: Micros,
    promised: usize,
}

/// What the judge remembers.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) finding: Option<Finding>,
    /// The run that last began to accept writes.
    pub(crate) writer: Option<(usize, u64)>,
    /// Newest commit of each branch that was acknowledged under a promise.
    protected: BTreeMap<Branch, Mark>,
    /// Newest commit of each branch that was acknowledged at all.
    acknowledged: BTreeMap<Branch, Mark>,
    /// Volumes that are gone for good: when, and up to where they held WAL.
    pub(crate) destroyed: Vec<(Micros, Place)>,
    /// Copies that went with an instance that the user took away, likewise.
    pub(crate) removed: Vec<(Micros, Place)>,
    /// Directories that left their history: also copies that once held it.
    pub(crate) left: Vec<Place>,
    /// Least `required` number that was asked for in this run; none if it ever was not required.
    pub(crate) floor: Option<u32>,
    pub(crate) highest_term: u64,
    /// Acknowledgements in the window of rule 6.
    pub(crate) after_thaw: u64,
    last_quorum: Option<(usize, Vec<u64>)>,
    /// What each holder last promised, by its directory.
    promises: BTreeMap<u64, usize>,
    /// Whose the Lease is by the last write of an agent, whatever somebody restored (seed 867).
    pub(crate) holder: Option<u64>,
    /// When an agent last wrote the Lease for this holder.
    renewed: BTreeMap<u64, Micros>,
    /// The Lease as it stands was put there by hand.
    pub(crate) restored: bool,
    /// When somebody was deceived by such a Lease, and what it had then.
    pub(crate) deceived: Vec<(Micros, Place)>,
    /// Whose the Lease was until then.
    pub(crate) outwitted: BTreeSet<u64>,
}

impl World {
    fn place(&self, pod: usize) -> Option<Place> {
        self.directory(pod).map(crate::postgres::Directory::flushed_place)
    }

    pub(crate) fn incarnation(&self, pod: usize) -> u64 {
        self.directory(pod).map_or(0, |directory| directory.incarnation)
    }

    /// I7.
    pub(crate) fn check_single_postmaster(&mut self, pod: usize) {
        let volume = self.pods[pod].volume;
        let other = (0..self.pods.len()).find(|&other| {
            other != pod && self.pods[other].volume == volume && self.pods[other].server.is_some()
        });
        if let Some(other) = other {
            let what = format!(
                "{} starts a postmaster on a directory on which one of {} runs",
                self.pod_name(pod),
                self.pod_name(other)
            );
            self.find("I7", what);
        }
    }

    /// I2: a walreceiver writes another history over what it has.
    pub(crate) fn found_corruption(&mut self, standby: usize, primary: usize) {
        let what = format!(
            "{} streams from {} although their histories differ",
            self.pod_name(standby),
            self.pod_name(primary)
        );
        self.find("I2", what);
    }

    /// I1 and I2 when a run begins to accept writes.
    pub(crate) fn check_new_writer(&mut self, pod: usize) {
        let Some(run) = self.server(pod).map(|server| server.run) else { return };
        if self.is_former(pod) {
            return;
        }
        for other in 0..self.pods.len() {
            let excused = self.thawed_lately(other) || self.is_outwitted(other);
            if other != pod && self.may_acknowledge_alone(other) && !excused {
                let what = format!(
                    "{} accepts writes while {} does",
                    self.pod_name(pod),
                    self.pod_name(other)
                );
                self.find("I1", what);
            }
        }
        self.judge.writer = Some((pod, run));
        if let Some(place) = self.directory(pod).map(crate::postgres::Directory::written_place) {
            self.check_nothing_lost(pod, place);
        }
    }

    /// A former primary that started within the window of rule 6, and got the Lease back while it
    /// ran (seed 8236).
    fn check_holder_again(&mut self, pod: usize) {
        let holds = self.judge.holder == Some(self.incarnation(pod));
        let run = self.server(pod).filter(|server| server.takes_writes()).map(|server| server.run);
        if let (true, Some(run)) = (holds, run)
            && self.judge.writer != Some((pod, run))
        {
            self.check_new_writer(pod);
        }
    }

    /// A former primary that starts again although another holds the Lease: within its right and
    /// under names with which it acknowledges nothing alone (seed 917), or in the window of rule 6
    /// (seed 945). What it acknowledges is judged all the same.
    fn is_former(&self, pod: usize) -> bool {
        let own = self.incarnation(pod);
        let another = self.judge.holder.is_some_and(|holder| holder != own);
        let thawed = self.thawed_lately(pod) && self.promised_by(pod) < 2;
        another && (thawed || !self.may_acknowledge_alone(pod))
    }

    /// Can this pod's PostgreSQL acknowledge commits without any other instance, now?
    fn may_acknowledge_alone(&self, pod: usize) -> bool {
        if self.pod_frozen(pod) {
            return false;
        }
        self.server(pod).is_some_and(|server| {
            server.role == Role::Primary
                && match server.phase {
                    Phase::Running => !server.waits,
                    Phase::Orphaned => !server.names.defined() && !server.pending.is_empty(),
                    Phase::Starting | Phase::Promoting | Phase::Stopping | Phase::Quitting => false,
                }
        })
    }

    /// Rule 6: a machine that has just thawed.
    fn thawed_lately(&self, pod: usize) -> bool {
        let machine = &self.machines[self.pods[pod].machine];
        let own = self.incarnation(pod);
        machine.thawed.is_some_and(|(at, clock_ran)| {
            // What it has of F when it cannot renew (seed 1212).
            let renewed = self.judge.renewed.get(&own).is_some_and(|renewed| *renewed > at);
            let failsafe = if renewed { 0 } else { self.settings.failsafe_max.0 * 1000 };
            let window = if clock_ran { THAW_WITH_CLOCK } else { THAW_WITHOUT_CLOCK + failsafe };
            self.now.saturating_sub(at) <= window
        })
    }

    /// I2: a primary whose WAL lacks a commit that was acknowledged under a promise.
    fn check_nothing_lost(&mut self, pod: usize, place: Place) {
        let lost = self
            .judge
            .protected
            .iter()
            .filter(|&(&branch, mark)| {
                let commit = Place { branch, lsn: mark.lsn };
                !self.wal.holds(place, commit) && !self.is_excused(mark.at, mark.promised, commit)
            })
            .map(|(&branch, mark)| (branch, *mark))
            .next();
        if let Some((branch, mark)) = lost {
            let what = format!(
                "{} accepts writes without the commit at {} of timeline {}, acknowledged at {:.3} s on {} copies",
                self.pod_name(pod),
                mark.lsn,
                self.wal.timeline(branch),
                mark.at as f64 / 1e6,
                mark.promised
            );
            self.find("I2", what);
        }
    }

    /// As many copies are destroyed as held the commit, or somebody was deceived.
    fn is_excused(&self, at: Micros, promised: usize, commit: Place) -> bool {
        // What the user took away is no copy any more (seed 7); by itself it excuses nothing.
        let gone = match self.destroyed_since(at) {
            0 => 0,
            destroyed => destroyed + self.removed_since(at, commit),
        };
        gone >= promised.max(1) || self.is_waived(at, commit)
    }

    /// Copies destroyed since a commit was acknowledged (or while its answers were on their way).
    fn destroyed_since(&self, at: Micros) -> usize {
        self.judge.destroyed.iter().filter(|(when, _)| *when + SECOND >= at).count()
    }

    fn removed_since(&self, at: Micros, commit: Place) -> usize {
        let held = |&&(when, place): &&(Micros, Place)| when >= at && self.wal.holds(place, commit);
        self.judge.removed.iter().filter(held).count()
    }

    /// w of the promise under which this pod's PostgreSQL serves; a former primary's is the one
    /// that its last Lease made, not that of the Lease as it stands (seed 941).
    pub(crate) fn promised_by(&self, pod: usize) -> usize {
        let run = self.server(pod).map_or(0, |server| server.run);
        if self.judge.writer == Some((pod, run)) {
            return self.promised_copies();
        }
        let own = self.incarnation(pod);
        self.judge.promises.get(&own).copied().unwrap_or(0)
    }

    /// w of the promise that the Lease shows.
    fn promised_copies(&self) -> usize {
        self.judge.last_quorum.as_ref().map_or(0, |(need, _)| *need)
    }

    /// I1, I2 and the Lease's promise at the instant in which a client is answered.
    pub(crate) fn check_acknowledgement(&mut self, pod: usize, place: Place) {
        self.counts.acknowledged += 1;
        let run = self.server(pod).map_or(0, |server| server.run);
        let promised = self.promised_copies();
        let mut current = true;
        if self.judge.writer != Some((pod, run)) {
            current = false;
            let thawed = self.promised_by(pod) < 2 && self.thawed_lately(pod);
            if thawed || self.is_outwitted(pod) {
                self.judge.after_thaw += 1;
            } else {
                let what =
                    format!("{} acknowledges after another became primary", self.pod_name(pod));
                self.find("I1", what);
            }
        }
        self.check_copies(pod, place);
        if !current {
            return;
        }
        let mark = Mark { lsn: place.lsn, at: self.now, promised };
        self.judge.acknowledged.insert(place.branch, mark);
        if promised >= 2 || self.judge.floor.is_some() {
            self.judge.protected.insert(place.branch, mark);
        }
        if let Some((need, of)) = self.judge.last_quorum.clone() {
            self.check_promise(need, &of, place, "an acknowledged commit");
        }
    }

    /// I2: under `required` so many copies hold the commit when it is acknowledged.
    fn check_copies(&mut self, pod: usize, place: Place) {
        let Some(floor) = self.judge.floor else { return };
        let wanted = usize::try_from(floor).unwrap_or(0) + 1;
        let standing = self
            .volumes
            .iter()
            .filter_map(|volume| volume.directory.as_ref())
            .map(crate::postgres::Directory::flushed_place);
        let gone = self.judge.destroyed.iter().map(|&(_, place)| place);
        let copies = standing
            .chain(gone)
            .chain(self.judge.left.iter().copied())
            .filter(|&copy| self.wal.holds(copy, place))
            .count();
        if copies < wanted {
            let what = format!(
                "{} acknowledges with {copies} copies where {wanted} are required",
                self.pod_name(pod)
            );
            self.find("I2", what);
        }
    }

    /// The promise {w, M}: among those of M that can vote, too few lack the commit to elect alone.
    fn check_promise(&mut self, need: usize, of: &[u64], place: Place, when: &str) {
        let lacking = self
            .volumes
            .iter()
            .filter_map(|volume| volume.directory.as_ref())
            .filter(|directory| {
                directory.files == Files::Whole
                    && of.contains(&directory.incarnation)
                    && !self.wal.holds(directory.flushed_place(), place)
            })
            .count();
        if lacking + need > of.len() {
            let what = format!(
                "the Lease promises {need} of {} and {lacking} of them lack {when} at {}",
                of.len(),
                place.lsn
            );
            self.find("I2", what);
        }
    }

    /// Every write of the Lease.
    pub(crate) fn judge_lease(
        &mut self,
        before: Option<&Lease>,
        after: Option<&Lease>,
        by: Option<Requester>,
    ) {
        let Some(after) = after else { return };
        if let Some(by) = by {
            self.judge_step(before, after, by);
        }
        self.judge_deception(before, after, by);
        self.judge.highest_term = self.judge.highest_term.max(after.term.0);
        let quorum = after.quorum.as_ref().map(|quorum| {
            (
                usize::try_from(quorum.need).unwrap_or(usize::MAX),
                quorum.of.iter().map(number_of).collect::<Vec<u64>>(),
            )
        });
        let changed = quorum != self.judge.last_quorum;
        match by {
            // What somebody restored is nobody's promise; the next write of an agent is.
            None => self.judge.last_quorum = None,
            // It takes the holder out of what it finds (rule 20) and promises nothing by that:
            // what was in force stays so, and what was restored gains no truth.
            Some(Requester::Operator) => {}
            Some(Requester::Agent(pod, _)) => {
                self.judge.last_quorum.clone_from(&quorum);
                self.judge.holder = after.holder.as_ref().map(|it| number_of(&it.incarnation));
                self.check_holder_again(pod);
                if let Some(holder) = &after.holder {
                    self.judge.renewed.insert(number_of(&holder.incarnation), self.now);
                    let need = quorum.as_ref().map_or(0, |(need, _)| *need);
                    self.judge.promises.insert(number_of(&holder.incarnation), need);
                }
                if let Some((need, of)) = quorum
                    && changed
                {
                    self.check_published(need, &of);
                }
            }
        }
    }

    fn judge_step(&mut self, before: Option<&Lease>, after: &Lease, by: Requester) {
        let holder = |lease: &Lease| lease.holder.as_ref().map(|holder| holder.incarnation.clone());
        let who = match by {
            Requester::Agent(pod, _) => self.pod_name(pod),
            Requester::Operator => "operator".to_owned(),
        };
        let same_as_before = before.is_some_and(|before| {
            (holder(before), before.term) == (holder(after), after.term)
                && before.quorum == after.quorum
                && before.cohort == after.cohort
        });
        if !same_as_before {
            story!(self, "{who} writes the Lease: {}", lease_text(after));
        }
        let Some(before) = before else { return };
        if after.term < before.term {
            self.find("I3", format!("{who} takes the term back to {}", after.term));
        }
        let changed = holder(after).is_some() && holder(after) != holder(before);
        if changed && before.term == after.term {
            self.find("I3", format!("{who} takes the Lease without raising its term"));
        }
        let by_same = before
            .release
            .as_ref()
            .is_some_and(|release| Some(&release.by) == holder(after).as_ref());
        // What somebody restored names another; whose the Lease was writes it again (seed 11545), or
        // it is made anew above what was known before.
        let own = after.holder.as_ref().map(|it| number_of(&it.incarnation));
        let anew = after.term > before.term.next();
        // Who took it from this one meanwhile was deceived (seed 8236).
        let outwitted = matches!(by, Requester::Agent(pod, _) if self.is_outwitted(pod));
        let by_same = by_same || anew || outwitted || (own.is_some() && own == self.judge.holder);
        if changed && before.quorum.is_none() && after.quorum.is_none() && !by_same {
            self.check_lag_bound(before, by);
        }
    }

    /// I2 in asynchronous mode: what is lost beyond the last published position is bounded.
    fn check_lag_bound(&mut self, before: &Lease, by: Requester) {
        let (Requester::Agent(pod, _), Some(bound)) = (by, self.settings.maximum_lag) else {
            return;
        };
        let Some(place) = self.place(pod) else { return };
        let behind = before.position.lsn.0.saturating_sub(place.lsn);
        if behind > bound {
            let what = format!("{} takes the Lease {behind} bytes behind", self.pod_name(pod));
            self.find("I2", what);
        }
    }

    /// A promise that is published must hold for what was acknowledged before (rule 14c).
    fn check_published(&mut self, need: usize, of: &[u64]) {
        let Some((writer, run)) = self.judge.writer else { return };
        if self.server(writer).is_none_or(|server| server.run != run) {
            return;
        }
        let Some(now) = self.directory(writer).map(crate::postgres::Directory::written_place)
        else {
            return;
        };
        let marks: Vec<Place> = self
            .judge
            .acknowledged
            .iter()
            .map(|(&branch, mark)| Place { branch, lsn: mark.lsn })
            .filter(|&place| self.wal.holds(now, place))
            .collect();
        for place in marks {
            self.check_promise(need, of, place, "a commit acknowledged before");
        }
    }

    /// I6: a rewind must not take away the last copy of a commit that was promised.
    pub(crate) fn check_rewind(&mut self, pod: usize, source: usize) {
        let (Some(own), Some(theirs)) = (self.place(pod), self.place(source)) else { return };
        self.judge.left.push(own);
        let lost = self.judge.protected.iter().any(|(&branch, mark)| {
            let commit = Place { branch, lsn: mark.lsn };
            self.wal.holds(own, commit)
                && !self.wal.holds(theirs, commit)
                && !self.is_excused(mark.at, mark.promised, commit)
        });
        if lost {
            let what = format!("the rewind of {} removes a promised commit", self.pod_name(pod));
            self.find("I6", what);
        }
    }

    /// A clone moves the old directory aside; what it held stays known.
    pub(crate) fn check_clone(&mut self, pod: usize) {
        if let Some(own) = self.place(pod) {
            self.judge.left.push(own);
        }
    }

    /// I6: the operator removes a volume. Only promised commits count, as with a rewind: what was
    /// acknowledged without a promise and left behind by an election is lost already (the row
    /// "asynchronous" of the document's promises), and the document does not make the removal of
    /// an instance wait until it has rejoined, which one on a dead machine never does.
    pub(crate) fn check_removal(&mut self, pod: usize) {
        let Some(own) = self.place(pod) else { return };
        let writer = self.judge.writer.and_then(|(writer, _)| self.directory(writer));
        let Some(writer) = writer.map(crate::postgres::Directory::written_place) else { return };
        let lost = self.judge.protected.iter().any(|(&branch, mark)| {
            let commit = Place { branch, lsn: mark.lsn };
            self.wal.holds(own, commit)
                && !self.wal.holds(writer, commit)
                && !self.is_excused(mark.at, mark.promised, commit)
        });
        if lost {
            let what =
                format!("the volume of {} is removed with commits nobody has", self.pod_name(pod));
            self.find("I6", what);
        }
    }

    /// The final account: every answer that a client has got, against the primary's WAL.
    pub(crate) fn account(&mut self) {
        let Some((writer, _)) = self.judge.writer else { return };
        let Some(place) = self.directory(writer).map(crate::postgres::Directory::written_place)
        else {
            return;
        };
        let lost: Vec<(u64, Micros, usize, Place)> = self
            .clients
            .acknowledged
            .iter()
            .filter(|done| !self.wal.holds(place, done.place))
            .map(|done| (done.commit, done.at, done.promised, done.place))
            .collect();
        let broken = lost.iter().find(|&&(_, at, promised, place)| {
            (promised >= 2 || self.judge.floor.is_some()) && !self.is_excused(at, promised, place)
        });
        if let Some(&(commit, at, ..)) = broken {
            let what =
                format!("commit {commit}, acknowledged at {:.3} s, is not there", at as f64 / 1e6);
            self.find("I2", what);
        }
        self.counts.lost_asynchronous = lost.len() as u64;
        story!(
            self,
            "account: {} commits acknowledged, {} of them not there",
            self.clients.acknowledged.len(),
            lost.len()
        );
    }

    /// What the user asks for now decides how few copies may hold an acknowledged commit.
    pub(crate) fn note_mode(&mut self, mode: Mode, first: bool) {
        let asked = match mode {
            Mode::Required(number) => Some(number),
            Mode::Asynchronous | Mode::Preferred(_) => None,
        };
        self.judge.floor = match (first, self.judge.floor, asked) {
            (true, _, asked) => asked,
            (false, Some(old), Some(new)) => Some(old.min(new)),
            (false, _, _) => None,
        };
    }
}

/// The Lease in one line.
pub(crate) fn lease_text(lease: &Lease) -> String {
    let holder = lease.holder.as_ref().map_or("nobody".to_owned(), |holder| holder.name.0.clone());
    let names = |members: &[matriarch_plan::protocol::Member]| {
        members.iter().map(|member| member.name.0.as_str()).collect::<Vec<_>>().join(",")
    };
    let quorum = lease.quorum.as_ref().map_or("none".to_owned(), |quorum| {
        let of: Vec<String> =
            quorum.of.iter().map(|incarnation| format!("i{incarnation}")).collect();
        format!("{} of {{{}}}", quorum.need, of.join(","))
    });
    format!(
        "{holder} term {} cohort [{}] stragglers [{}] quorum {quorum}{}",
        lease.term,
        names(&lease.cohort),
        names(&lease.stragglers),
        lease.handover().map_or(String::new(), |handover| format!(
            " handed to i{} at {}",
            handover.to, handover.lsn
        ))
    )
}
