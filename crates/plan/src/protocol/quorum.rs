//! The published promise of synchronous replication and its arithmetic.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::identity::Incarnation;

/// `quorum` of the Lease: every acknowledged commit is flushed on at least `need` of `of`.
/// The primary is itself in `of` and counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// w.
    pub need: u32,
    /// M.
    pub of: BTreeSet<Incarnation>,
}

impl Quorum {
    /// {1, {itself}}: all that an instance alone can promise.
    pub fn alone(incarnation: Incarnation) -> Self {
        Self { need: 1, of: BTreeSet::from([incarnation]) }
    }

    /// |M| − w + 1: so many of M together hold everything acknowledged.
    pub fn intersecting(&self) -> usize {
        (self.of.len() + 1).saturating_sub(self.need as usize).max(1)
    }

    /// True if `present` members of M are enough to find everything acknowledged (rule 9).
    pub fn intersected_by(&self, present: usize) -> bool {
        present >= self.intersecting()
    }

    /// How many standbys of M a commit of `primary` must wait for: w − [P ∈ M].
    pub fn standbys(&self, primary: &Incarnation) -> usize {
        (self.need as usize).saturating_sub(usize::from(self.of.contains(primary)))
    }
}

/// A value of `synchronous_standby_names`: `ANY need (members, outside)`, or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StandbyNames {
    /// m; 0 means that commits wait for nobody.
    pub need: u32,
    /// Members of the cluster; the driver writes each as its `application_name`.
    pub members: BTreeSet<Incarnation>,
    /// Names outside the cluster, as they are (traps H15).
    pub outside: BTreeSet<String>,
}

impl StandbyNames {
    /// Commits wait for nobody.
    pub fn none() -> Self {
        Self::default()
    }

    /// A setting under which every commit satisfies all of these quorums (rule 14a): N is all of
    /// their members without P, m is the greatest of w − [P ∈ M] + |N∖M|. None of them: no names.
    pub fn satisfying<'a>(
        quorums: impl IntoIterator<Item = &'a Quorum>,
        primary: &Incarnation,
    ) -> Self {
        let quorums: Vec<&Quorum> = quorums.into_iter().collect();
        let mut members: BTreeSet<Incarnation> =
            quorums.iter().flat_map(|q| q.of.iter().cloned()).collect();
        members.remove(primary);
        let strangers = |q: &Quorum| members.iter().filter(|i| !q.of.contains(*i)).count();
        let needs = quorums
            .iter()
            .filter(|q| q.standbys(primary) > 0)
            .map(|q| q.standbys(primary) + strangers(q));
        match needs.max() {
            None => Self::none(),
            Some(need) => Self {
                need: u32::try_from(need).unwrap_or(u32::MAX),
                members,
                outside: BTreeSet::new(),
            },
        }
    }

    /// Names for the time between two quorums, under which every commit satisfies both (rule 14a):
    /// those that are to be or those in force, where either does, because then commits wait for no
    /// more, and no fewer, than before or after; else all of both.
    pub fn bridging(
        target: &Self,
        in_force: Option<&Self>,
        old: Option<&Quorum>,
        new: Option<&Quorum>,
        primary: &Incarnation,
    ) -> Self {
        let both = |names: &&Self| names.guarantees(old, primary) && names.guarantees(new, primary);
        let found = [Some(target), in_force].into_iter().flatten().find(both);
        found.cloned().unwrap_or_else(|| Self::satisfying(old.into_iter().chain(new), primary))
    }

    /// The next setting on the way from this one to `target`, each to be seen in force before the
    /// one after it; none when it is reached.
    ///
    /// Walsenders read the configuration one by one, and one that releases commits takes the number
    /// from its own reading but counts every standby that is named by *that standby's* walsender's
    /// reading. So two settings that are both safe can release together what neither would: the
    /// number is raised before the set changes and lowered after it.
    pub fn next_towards(&self, target: &Self) -> Option<Self> {
        if self == target {
            return None;
        }
        let same_set = self.members == target.members && self.outside == target.outside;
        if self.need == 0 || target.need == 0 || same_set {
            return Some(target.clone());
        }
        if self.need < target.need {
            return Some(Self { need: target.need, ..self.clone() });
        }
        Some(Self { need: self.need, ..target.clone() })
    }

    /// True if every commit acknowledged under these names is on at least w of M.
    pub fn guarantees(&self, quorum: Option<&Quorum>, primary: &Incarnation) -> bool {
        let Some(quorum) = quorum else { return true };
        let needed = quorum.standbys(primary);
        let strangers =
            self.members.iter().filter(|i| !quorum.of.contains(*i)).count() + self.outside.len();
        needed == 0 || self.need as usize >= needed + strangers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(need: u32, of: &[&str]) -> Quorum {
        Quorum { need, of: of.iter().map(|i| Incarnation::from(*i)).collect() }
    }

    #[test]
    fn any_intersecting_set_meets_any_acknowledging_set() {
        for size in 1..=7_usize {
            for need in 1..=size {
                let names: Vec<String> = (0..size).map(|i| format!("i{i}")).collect();
                let q = quorum(
                    need.try_into().unwrap(),
                    &names.iter().map(String::as_str).collect::<Vec<_>>(),
                );
                assert!(need + q.intersecting() > size, "R + W > N fails for {need} of {size}");
                assert!(need + q.intersecting() - 1 <= size, "more asked than needed");
            }
        }
    }

    #[test]
    fn the_number_is_raised_before_the_set_changes_and_lowered_after() {
        let names = |need, of: &[&str]| StandbyNames {
            need,
            members: of.iter().map(|i| Incarnation::from(*i)).collect(),
            outside: BTreeSet::new(),
        };
        let way = |from: StandbyNames, to: StandbyNames| {
            let mut steps = vec![from];
            while let Some(next) = steps[steps.len() - 1].next_towards(&to) {
                steps.push(next);
            }
            steps.split_off(1)
        };
        assert_eq!(
            way(names(1, &["b"]), names(2, &["a", "b"])),
            [names(2, &["b"]), names(2, &["a", "b"])]
        );
        assert_eq!(
            way(names(2, &["a", "b"]), names(1, &["a"])),
            [names(2, &["a"]), names(1, &["a"])]
        );
        assert_eq!(way(StandbyNames::none(), names(2, &["a"])), [names(2, &["a"])]);
        assert_eq!(way(names(2, &["a"]), StandbyNames::none()), [StandbyNames::none()]);
    }

    #[test]
    fn the_way_between_two_quorums_satisfies_both() {
        let p = Incarnation::from("p");
        let cases = [
            (quorum(2, &["p", "a", "b"]), quorum(2, &["p", "b", "c"])),
            (quorum(2, &["a", "b"]), quorum(2, &["p", "c"])),
            (quorum(1, &["p"]), quorum(3, &["p", "a", "b"])),
            (quorum(3, &["p", "a", "b"]), quorum(1, &["p"])),
            (quorum(2, &["x", "p"]), quorum(2, &["p", "y"])),
        ];
        for (old, new) in cases {
            let names = StandbyNames::satisfying([&old, &new], &p);
            assert!(names.guarantees(Some(&old), &p), "{names:?} breaks {old:?}");
            assert!(names.guarantees(Some(&new), &p), "{names:?} breaks {new:?}");
            assert!(names.need as usize <= names.members.len(), "{names:?} can never be met");
        }
    }

    #[test]
    fn one_who_leaves_or_comes_makes_no_commit_wait_for_more() {
        let p = Incarnation::from("p");
        let any_of = |of: &[&str]| StandbyNames::satisfying([&quorum(1, of)], &p);
        let (few, many) = (quorum(2, &["p", "a"]), quorum(2, &["p", "a", "b"]));
        let bridge = |in_force: Option<&StandbyNames>, old, new| {
            let target = StandbyNames::satisfying([new], &p);
            let names = StandbyNames::bridging(&target, in_force, Some(old), Some(new), &p);
            assert!(names.guarantees(Some(old), &p), "{names:?} breaks {old:?}");
            assert!(names.guarantees(Some(new), &p), "{names:?} breaks {new:?}");
            names
        };
        assert_eq!(bridge(None, &many, &few), any_of(&["a"]));
        assert_eq!(bridge(Some(&any_of(&["a"])), &few, &many), any_of(&["a"]));
        // Two are asked for, and one of them may be outside the cluster: two it is meanwhile, too.
        let two = StandbyNames { need: 2, outside: ["archive".into()].into(), ..any_of(&["a"]) };
        assert_eq!(StandbyNames::bridging(&two, None, Some(&many), Some(&few), &p), two);
        // Somebody else instead: b alone would break the old promise, a alone the new one.
        let other = quorum(2, &["p", "b"]);
        assert_eq!(bridge(Some(&any_of(&["a"])), &few, &other).need, 2);
        assert_eq!(bridge(None, &few, &many).need, 2, "what is in force is not known");
    }

    #[test]
    fn names_outside_may_be_the_ones_that_acknowledged() {
        let p = Incarnation::from("p");
        let q = quorum(2, &["p", "a"]);
        let mut names = StandbyNames::satisfying([&q], &p);
        assert!(names.guarantees(Some(&q), &p));
        names.outside.insert("archive".into());
        assert!(!names.guarantees(Some(&q), &p));
    }
}
