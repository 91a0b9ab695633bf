//! Synchronous replication: the published quorum and the names in force (rules 14, 15).

use std::collections::BTreeSet;

use matriarch_pg::Lsn;

use crate::protocol::command::Action;
use crate::protocol::directive::Synchronous;
use crate::protocol::identity::Incarnation;
use crate::protocol::lease::Lease;
use crate::protocol::quorum::{Quorum, StandbyNames};
use crate::protocol::view::ShiftStep;

use super::holder::Holding;
use super::{Lane, Protocol, clause};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// a and b.
    Names,
    /// c.
    CatchUp(Lsn),
    /// d.
    Publish,
    /// e.
    Finish,
}

/// From {w, M} to {w′, M′}, one step after the other.
#[derive(Clone, Debug)]
pub(super) struct Shift {
    quorum: Option<Quorum>,
    /// Satisfy old and new.
    both: StandbyNames,
    /// Satisfy the new one.
    names: StandbyNames,
    phase: Phase,
    /// L says none from now on where it promised before.
    relaxes: bool,
    /// The operation of phase a or e has been done.
    set: bool,
}

impl Shift {
    pub(super) fn step(&self) -> ShiftStep {
        match self.phase {
            Phase::Names => ShiftStep::Names,
            Phase::CatchUp(lsn) => ShiftStep::CatchUp(lsn),
            Phase::Publish => ShiftStep::Publish,
            Phase::Finish => ShiftStep::Finish,
        }
    }

    /// The quorum that renewals write in step d. Every write until one succeeds carries it.
    pub(super) fn publishes(&self) -> Option<Option<Quorum>> {
        (self.phase == Phase::Publish).then(|| self.quorum.clone())
    }
}

impl Holding {
    pub(super) fn names_set(&mut self, names: &StandbyNames, done: bool) {
        if !done {
            // A session that broke says nothing of what it had set before.
            self.names = None;
            return;
        }
        self.names = Some(names.clone());
        if let Some(shift) = &mut self.shift {
            let expected = if shift.phase == Phase::Finish { &shift.names } else { &shift.both };
            shift.set |= expected == names;
        }
    }

    pub(super) fn quorum_written(&mut self, lease: &Lease) {
        if let Some(shift) = &mut self.shift
            && shift.phase == Phase::Publish
            && shift.quorum == lease.quorum
        {
            shift.phase = Phase::Finish;
            shift.set = false;
        }
    }
}

impl Protocol {
    fn asked_for(&self) -> Option<&Synchronous> {
        self.directive.as_ref()?.synchronous.as_ref().filter(|s| s.number > 0)
    }

    /// w: k + 1 − |Pre ∪ Post|, because names outside may be the ones that acknowledged (H15).
    fn asked_need(synchronous: &Synchronous, standbys: u32) -> u32 {
        let outside: BTreeSet<&String> = synchronous.outside.iter().collect();
        (standbys + 1).saturating_sub(u32::try_from(outside.len()).unwrap_or(u32::MAX))
    }

    /// Synchronous replication is asked for, but failover is not protected by it.
    pub(super) fn unprotected(&self) -> bool {
        self.asked_for().is_some_and(|s| Self::asked_need(s, s.number) < 2)
    }

    pub(super) fn streaming(&self) -> BTreeSet<Incarnation> {
        self.pg
            .iter()
            .flat_map(|pg| &pg.walsenders)
            .filter(|w| w.streaming)
            .map(|w| w.incarnation.clone())
            .collect()
    }

    /// The quorum that is to be, and the names that go with it; none: as it is.
    fn target(&self, lease: &Lease) -> Option<(Option<Quorum>, StandbyNames)> {
        // What is asked for is not known yet: that is not "nothing".
        self.directive.as_ref()?;
        let Some(asked) = self.asked_for() else { return Some((None, StandbyNames::none())) };
        let me = self.me();
        let streaming = self.streaming();
        let mut standbys: Vec<Incarnation> = lease
            .cohort
            .iter()
            .map(|m| m.incarnation.clone())
            .filter(|i| *i != me && streaming.contains(i))
            .collect();
        // Those that are in M stay preferred, so that a bound does not make M wander.
        let in_m = |i: &Incarnation| lease.quorum.as_ref().is_some_and(|q| q.of.contains(i));
        standbys.sort_by_key(|i| (!in_m(i), i.clone()));
        if let Some(most) = asked.max_from_cluster {
            standbys.truncate(most.max(asked.number) as usize);
        }
        let present = u32::try_from(standbys.len()).unwrap_or(u32::MAX);
        let outside: BTreeSet<String> = asked.outside.iter().cloned().collect();
        let number = if asked.required { asked.number } else { asked.number.min(present) };
        let need = Self::asked_need(asked, number);
        let listed: BTreeSet<Incarnation> = standbys.into_iter().collect();
        if number == 0 {
            return Some((None, StandbyNames::none()));
        }
        let names = StandbyNames { need: number, members: listed.clone(), outside };
        if need < 2 {
            return Some((None, names));
        }
        if listed.len() + 1 < need as usize {
            // `required` with too few: M is never smaller than w, commits wait.
            return None;
        }
        let mut of = listed;
        of.insert(me);
        Some((Some(Quorum { need, of }), names))
    }

    /// Rule 15: names under which every commit satisfies L's quorum and, under `required`, k of
    /// its present standbys. L is also what a write that is not answered may make of it: rule 14d
    /// holds for a restart in place too (seed 2257).
    pub(super) fn starting_names(&self) -> StandbyNames {
        let lease = self.api.lease.as_ref();
        let me = self.me();
        let required = self.asked_for().filter(|s| s.required).map(|asked| {
            let mut of: BTreeSet<Incarnation> = lease
                .map(|l| l.everyone().map(|m| m.incarnation.clone()).collect())
                .unwrap_or_default();
            of.insert(me.clone());
            Quorum { need: asked.number + 1, of }
        });
        let attempted = if clause!(self, StartsForAttempted) { usize::MAX } else { 1 };
        let promised = self.api.possible().take(attempted).filter_map(|l| l.quorum.as_ref());
        StandbyNames::satisfying(promised.chain(&required), &me)
    }

    /// Rule 14: one step of the shift, or the beginning of one.
    pub(super) fn shift_names(&mut self, holding: &mut Holding) {
        let Some(lease) = self.api.lease.clone() else { return };
        let target = self.target(&lease);
        let fixed = holding
            .shift
            .as_ref()
            .is_some_and(|s| matches!(s.phase, Phase::Publish | Phase::Finish));
        if let (Some(shift), Some((quorum, _)), false) = (&holding.shift, &target, fixed)
            && shift.quorum != *quorum
        {
            holding.shift = None;
        }
        if holding.shift.is_none() {
            let Some((quorum, names)) = target else { return };
            let settled = lease.quorum == quorum && holding.names.as_ref() == Some(&names);
            let resolved = self.api.possible().all(|possible| possible.quorum == lease.quorum);
            if settled || self.busy(Lane::Names) || !resolved {
                return;
            }
            holding.shift = Some(self.new_shift(&lease, holding, quorum, names));
        }
        self.step_shift(holding, &lease);
    }

    fn new_shift(
        &self,
        lease: &Lease,
        holding: &Holding,
        quorum: Option<Quorum>,
        names: StandbyNames,
    ) -> Shift {
        let me = self.me();
        let old = lease.quorum.as_ref();
        let in_force = holding.names.as_ref();
        let mut both = StandbyNames::bridging(&names, in_force, old, quorum.as_ref(), &me);
        if !clause!(self, ShiftSatisfiesBoth) {
            both = names.clone();
        }
        // Without a promise to keep or to come there is nothing to bridge.
        if old.is_none() && quorum.is_none() {
            both = names.clone();
        }
        // `preferred`: what L promises is kept in force until L says that it is over.
        let relaxes = quorum.is_none() && old.is_some();
        let phase = match (relaxes, clause!(self, NoneBeforeRelax)) {
            (true, true) => Phase::Publish,
            (true, false) => Phase::Finish,
            (false, true | false) => Phase::Names,
        };
        let set = holding.names.as_ref() == Some(&both);
        Shift { quorum, both, names, phase, relaxes, set }
    }

    fn step_shift(&mut self, holding: &mut Holding, lease: &Lease) {
        let Some(mut shift) = holding.shift.take() else { return };
        match shift.phase.clone() {
            Phase::Names => {
                if shift.set || !clause!(self, ShiftSeesInForce) {
                    shift.phase = Phase::CatchUp(self.flushed());
                } else {
                    self.run(Action::SetNames { names: shift.both.clone() });
                }
            }
            Phase::CatchUp(lsn) => {
                if self.has_caught_up(&shift, lsn) {
                    shift.phase = Phase::Publish;
                    holding.renew_soon(self.now);
                }
            }
            Phase::Publish => {
                if shift.relaxes {
                    holding.relaxed = Some(self.position());
                }
                let unchanged = lease.quorum == shift.quorum;
                let resolved = self.api.unresolved.is_empty() && self.api.write.is_none();
                if (unchanged && resolved) || !clause!(self, ShiftPublishes) {
                    shift.phase = Phase::Finish;
                    shift.set = false;
                }
            }
            Phase::Finish => {
                if holding.names.as_ref() == Some(&shift.names) {
                    self.counts.shifts += 1;
                    // Until now a standby that came back let PostgreSQL acknowledge as before.
                    if shift.relaxes {
                        holding.relaxed = Some(self.position());
                        holding.renew_soon(self.now);
                    }
                    return;
                }
                self.run(Action::SetNames { names: shift.names.clone() });
            }
        }
        holding.shift = Some(shift);
    }

    /// Rule 14c: w′ of M′ (P counted) have flushed what was there when the names came in force.
    fn has_caught_up(&self, shift: &Shift, lsn: Lsn) -> bool {
        let Some(quorum) = &shift.quorum else { return true };
        if !clause!(self, ShiftCatchesUp) {
            return true;
        }
        let standbys = self
            .pg
            .iter()
            .flat_map(|pg| &pg.walsenders)
            .filter(|w| w.flushed >= lsn && quorum.of.contains(&w.incarnation))
            .map(|w| &w.incarnation)
            .collect::<BTreeSet<_>>();
        standbys.len() >= quorum.standbys(&self.me())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::agent::holder::Step;
    use crate::protocol::moment::Moment;

    #[test]
    fn names_that_may_be_in_force_are_not_taken_for_the_ones_before() {
        let mut holding = Holding::new(Step::Serve, Moment(0));
        let names = |name: &str| StandbyNames {
            need: 1,
            members: BTreeSet::from([Incarnation::from(name)]),
            outside: BTreeSet::new(),
        };
        holding.names_set(&names("a"), true);
        assert_eq!(holding.names, Some(names("a")));
        holding.names_set(&names("b"), false);
        assert_eq!(holding.names, None);
    }
}
