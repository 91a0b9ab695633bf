//! The arithmetic of quorums: rules 9, 14 and 15 of the protocol, and outside names (traps H15).
//!
//! Generic over what names a member: the protocol counts incarnations, PostgreSQL's parameter
//! holds `application_name`s.

use std::collections::BTreeSet;

/// A promise {w, M}: every acknowledged commit is flushed on at least `w` of the instances
/// `members`. The primary itself is one of them and counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum<I: Ord> {
    required: usize,
    members: BTreeSet<I>,
}

/// What PostgreSQL is told to wait for: `ANY number (names)`. With `number` 0, for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait<I: Ord> {
    /// So many of `names` must have flushed a commit before it is acknowledged.
    pub number: usize,
    /// Standbys; never the primary.
    pub names: BTreeSet<I>,
}

/// A promise that cannot be kept or says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a quorum of {required} among {members} members cannot be: at least 1 and at most all of them are required"
)]
pub struct QuorumError {
    /// w.
    pub required: usize,
    /// |M|.
    pub members: usize,
}

impl<I: Ord + Clone> Quorum<I> {
    /// {w, M} with 1 ≤ w ≤ |M|.
    pub fn new(required: usize, members: BTreeSet<I>) -> Result<Self, QuorumError> {
        if (1..=members.len()).contains(&required) {
            Ok(Self { required, members })
        } else {
            Err(QuorumError { required, members: members.len() })
        }
    }

    /// w.
    pub const fn required(&self) -> usize {
        self.required
    }

    /// M.
    pub const fn members(&self) -> &BTreeSet<I> {
        &self.members
    }

    /// |M| − w + 1: so many of M together always hold everything that was acknowledged (rule 9).
    pub fn promises_needed(&self) -> usize {
        self.members.len() - self.required + 1
    }

    /// Have enough of M promised? Others do not count (rule 9).
    pub fn is_promised_by(&self, promised: &BTreeSet<I>) -> bool {
        self.members.intersection(promised).count() >= self.promises_needed()
    }

    /// Have at least w of M flushed? `flushed` names the primary too (rule 14 c).
    pub fn is_flushed_by(&self, flushed: &BTreeSet<I>) -> bool {
        self.members.intersection(flushed).count() >= self.required
    }

    /// w − [P ∈ M]: so many of M∖P must flush a commit that `primary` has flushed itself.
    pub fn standbys_required(&self, primary: &I) -> usize {
        self.required - usize::from(self.members.contains(primary))
    }

    /// M∖P.
    pub fn standbys(&self, primary: &I) -> BTreeSet<I> {
        self.members.iter().filter(|member| *member != primary).cloned().collect()
    }

    /// The wait under which every commit of `primary` keeps this promise: rule 14 e, and what a
    /// starting primary sets before it accepts writes (rule 15).
    pub fn wait(&self, primary: &I) -> Wait<I> {
        Wait { number: self.standbys_required(primary), names: self.standbys(primary) }
    }

    /// Does every commit of `primary` under `wait` keep this promise, whichever of the names
    /// acknowledge? The condition of rule 14 a: m ≥ w − [P ∈ M] + |N∖M|.
    pub fn is_kept_under(&self, wait: &Wait<I>, primary: &I) -> bool {
        let outside = wait.names.difference(&self.members).count();
        let enough = self.standbys_required(primary) + outside;
        // With nothing to wait for, only P's own flush counts.
        self.standbys_required(primary) == 0 || wait.number >= enough
    }

    /// The wait under which every commit keeps this promise and `next`: step a of rule 14.
    ///
    /// All of M ∪ M' without P are listed, and the least number is taken that the rule allows;
    /// it is never more than are listed.
    pub fn wait_for_both(&self, next: &Self, primary: &I) -> Wait<I> {
        let names: BTreeSet<I> =
            self.standbys(primary).union(&next.standbys(primary)).cloned().collect();
        let least = |quorum: &Self| match quorum.standbys_required(primary) {
            0 => 0,
            standbys => standbys + names.difference(&quorum.members).count(),
        };
        let number = least(self).max(least(next));
        Wait { number, names }
    }
}

impl<I: Ord> Wait<I> {
    /// Can commits proceed at all: are there as many names as must acknowledge?
    pub fn can_be_met(&self) -> bool {
        self.number <= self.names.len()
    }
}

/// w that may be promised when `standbys` (k) standbys are waited for and so many names outside
/// the cluster are in the list: k + 1 − |Pre ∪ Post|. Outside names may be the ones that
/// acknowledged. Below 2 there is no promise, and failover is not protected (traps H15).
pub fn protected(standbys: usize, outside: usize) -> Option<usize> {
    (standbys + 1).checked_sub(outside).filter(|required| *required >= 2)
}

/// How many standbys are waited for under `dataDurability: preferred`: as many as asked, or as
/// stream, if fewer; 0 is no synchronous replication (rule 14).
pub fn preferred(asked: usize, streaming: usize) -> usize {
    asked.min(streaming)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(bits: u32) -> BTreeSet<u32> {
        (0..6).filter(|member| bits & 1 << member != 0).collect()
    }

    fn quorum(bits: u32, required: usize) -> Quorum<u32> {
        let members = set(bits);
        Quorum::new(required.min(members.len()), members).unwrap()
    }

    /// Every choice of acknowledging standbys that lets a commit return under `wait`.
    fn acknowledgements(wait: &Wait<u32>) -> impl Iterator<Item = BTreeSet<u32>> {
        let wait = wait.clone();
        (0u32..64)
            .map(set)
            .filter(move |acked| acked.is_subset(&wait.names) && acked.len() >= wait.number)
    }

    #[test]
    fn three_instances_with_one_standby_waited_for_need_two_promises() {
        let quorum = Quorum::new(2, BTreeSet::from(["a", "b", "c"])).unwrap();
        assert_eq!(quorum.promises_needed(), 2);
        assert_eq!(quorum.wait(&"a"), Wait { number: 1, names: BTreeSet::from(["b", "c"]) });
        assert!(!quorum.is_promised_by(&BTreeSet::from(["b", "x", "y"])));
        assert!(quorum.is_promised_by(&BTreeSet::from(["b", "c"])));
    }

    #[test]
    fn a_new_primary_outside_the_quorum_waits_for_all_that_was_promised() {
        let quorum = Quorum::new(2, BTreeSet::from(["a", "b", "c"])).unwrap();
        assert_eq!(quorum.wait(&"d").number, 2);
    }

    #[test]
    fn a_quorum_of_none_or_of_more_than_all_is_refused() {
        assert!(Quorum::new(0, BTreeSet::from([1])).is_err());
        assert!(Quorum::new(2, BTreeSet::from([1])).is_err());
        assert!(Quorum::<u32>::new(0, BTreeSet::new()).is_err());
    }

    #[test]
    fn outside_names_take_from_the_promise() {
        assert_eq!(protected(2, 0), Some(3));
        assert_eq!(protected(2, 1), Some(2));
        assert_eq!(protected(1, 1), None);
        assert_eq!(protected(1, 9), None);
        assert_eq!(protected(0, 0), None);
        assert_eq!(preferred(2, 1), 1);
    }

    proptest! {
        #[test]
        fn promises_meet_every_commit(bits in 1u32..64, w in 1usize..6, promised in 0u32..64) {
            let quorum = quorum(bits, w);
            let promised = set(promised);
            let meets_all = (0u32..64)
                .map(set)
                .filter(|flushed| quorum.is_flushed_by(flushed))
                .all(|flushed| {
                    let held = flushed.intersection(quorum.members()).copied().collect();
                    promised.intersection(&held).next().is_some()
                });
            prop_assert_eq!(quorum.is_promised_by(&promised), meets_all);
        }

        #[test]
        fn under_both_waits_every_commit_keeps_both_promises(
            old in 1u32..64,
            w in 1usize..6,
            new in 1u32..64,
            next_w in 1usize..6,
            primary in 0u32..6,
        ) {
            let (old, next) = (quorum(old, w), quorum(new | 1 << primary, next_w));
            let wait = old.wait_for_both(&next, &primary);
            prop_assert!(wait.can_be_met());
            prop_assert!(!wait.names.contains(&primary));
            prop_assert!(old.is_kept_under(&wait, &primary));
            prop_assert!(next.is_kept_under(&wait, &primary));
            for mut flushed in acknowledgements(&wait) {
                flushed.insert(primary);
                prop_assert!(old.is_flushed_by(&flushed) && next.is_flushed_by(&flushed));
            }
        }

        #[test]
        fn a_wait_is_judged_as_its_worst_acknowledgement(
            bits in 1u32..64,
            w in 1usize..6,
            names in 0u32..64,
            number in 0usize..6,
            primary in 0u32..6,
        ) {
            let quorum = quorum(bits, w);
            let names: BTreeSet<u32> = set(names & !(1 << primary));
            let wait = Wait { number: number.min(names.len()), names };
            let worst = acknowledgements(&wait).all(|mut flushed| {
                flushed.insert(primary);
                quorum.is_flushed_by(&flushed)
            });
            // The rule's condition is sufficient; where fewer outside names exist than could
            // acknowledge it is also necessary.
            if quorum.is_kept_under(&wait, &primary) {
                prop_assert!(worst);
            }
        }
    }
}
