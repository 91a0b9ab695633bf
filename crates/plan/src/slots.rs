//! Copies of users' physical replication slots on a standby: which are made, moved, dropped.
//!
//! A slot's position is not replicated by PostgreSQL, so a standby that becomes primary would have
//! none. What is decided here follows from one look at the primary and one at the standby; where
//! the primary has not answered there is no decision, because unknown is not absent.

use std::collections::BTreeSet;

use matriarch_pg::Lsn;
use serde::{Deserialize, Serialize};

/// A replication slot as `pg_replication_slots` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Physical and not temporary: what can have a copy, and can be one.
    pub lasting_physical: bool,
    /// Somebody streams from it.
    pub active: bool,
    /// Beginning of the WAL that it keeps; none before it was used, and once its WAL is gone.
    pub restart_lsn: Option<Lsn>,
    /// `wal_status` is lost: WAL that it needs was removed, and it can be used no more.
    pub lost: bool,
    /// It holds back the removal of rows (hot_standby_feedback).
    pub holds_rows: bool,
}

/// What is done to a copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Make it.
    Create {
        /// Its name.
        name: String,
        /// It keeps WAL from now on.
        reserve: bool,
    },
    /// Move it forward; never beyond what the standby has replayed.
    Advance {
        /// Its name.
        name: String,
        /// To where.
        to: Lsn,
    },
    /// Have it keep its WAL and hold no rows.
    Release {
        /// Its name.
        name: String,
    },
    /// Drop it.
    Drop {
        /// Its name.
        name: String,
    },
}

/// What a standby does about its copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Names of slots that are copies, or are about to be: to be remembered before anything is
    /// done, because only these may be dropped later.
    pub copies: BTreeSet<String>,
    /// In this order.
    pub steps: Vec<Step>,
}

/// Slots of this primary that become copies when it is a standby again: what it then keeps for
/// them must not be kept for ever.
pub fn own(here: &[Slot], left_alone: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let own = here.iter().filter(|slot| slot.lasting_physical && !left_alone(&slot.name));
    own.map(|slot| slot.name.clone()).collect()
}

/// Decides for a standby. `known` are the names that it remembers as copies; `left_alone` says of a
/// name that it is none of ours: excluded by the user, or a slot for high availability.
///
/// A slot that is here and on the primary under one name is a copy, whoever made it. One that is
/// only here is dropped if it is known as a copy, and nobody uses it.
pub fn follow(
    primary: &[Slot],
    here: &[Slot],
    known: &BTreeSet<String>,
    left_alone: impl Fn(&str) -> bool,
) -> Decision {
    let (mut copies, mut kept) = (BTreeSet::new(), Vec::new());
    // Of a slot whose WAL is gone there is nothing to keep.
    let wanted = |slot: &&Slot| slot.lasting_physical && !slot.lost && !left_alone(&slot.name);
    for theirs in primary.iter().filter(wanted) {
        match here.iter().find(|slot| slot.name == theirs.name) {
            Some(ours) if !ours.lasting_physical => {}
            ours => {
                copies.insert(theirs.name.clone());
                kept.extend(brings_along(theirs, ours));
            }
        }
    }
    // What goes makes room for what comes.
    let mut steps = Vec::new();
    for ours in here.iter().filter(|slot| slot.lasting_physical && known.contains(&slot.name)) {
        if copies.contains(&ours.name) {
            continue;
        }
        if ours.active {
            copies.insert(ours.name.clone());
        } else {
            steps.push(Step::Drop { name: ours.name.clone() });
        }
    }
    steps.extend(kept);
    Decision { copies, steps }
}

/// What makes ours like theirs.
fn brings_along(theirs: &Slot, ours: Option<&Slot>) -> Vec<Step> {
    let name = || theirs.name.clone();
    let create = Step::Create { name: name(), reserve: theirs.restart_lsn.is_some() };
    let Some(ours) = ours else { return vec![create] };
    if ours.active {
        return Vec::new();
    }
    match (theirs.restart_lsn, ours.restart_lsn) {
        (None, None) if !ours.lost => Vec::new(),
        (Some(wanted), Some(present)) if !ours.lost => {
            let mut steps = Vec::new();
            if ours.holds_rows {
                steps.push(Step::Release { name: name() });
            }
            if present < wanted {
                steps.push(Step::Advance { name: name(), to: wanted });
            }
            steps
        }
        // One keeps WAL and the other does not, or can no more: PostgreSQL has no way from one to
        // the other.
        (Some(_) | None, Some(_) | None) => vec![Step::Drop { name: name() }, create],
    }
}

/// Decides for a standby whose copies are not wanted any more.
pub fn undo(here: &[Slot], known: &BTreeSet<String>) -> Decision {
    follow(&[], here, known, |_| false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(name: &str, restart: u64) -> Slot {
        let restart_lsn = (restart > 0).then_some(Lsn(restart));
        Slot { name: name.to_owned(), lasting_physical: true, restart_lsn, ..Slot::default() }
    }

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|&name| name.to_owned()).collect()
    }

    fn create(name: &str, reserve: bool) -> Step {
        Step::Create { name: name.to_owned(), reserve }
    }

    fn drop(name: &str) -> Step {
        Step::Drop { name: name.to_owned() }
    }

    fn nobody(_: &str) -> bool {
        false
    }

    #[test]
    fn a_slot_is_copied_moved_and_dropped_with_the_primarys() {
        let made = follow(&[slot("a", 7)], &[], &names(&[]), nobody);
        assert_eq!(made.steps, [create("a", true)]);
        assert_eq!(made.copies, names(&["a"]));
        let moved = follow(&[slot("a", 9)], &[slot("a", 7)], &made.copies, nobody);
        assert_eq!(moved.steps, [Step::Advance { name: "a".to_owned(), to: Lsn(9) }]);
        let still = follow(&[slot("a", 9)], &[slot("a", 9)], &moved.copies, nobody);
        assert_eq!(still.steps, []);
        let gone = follow(&[], &[slot("a", 9)], &still.copies, nobody);
        assert_eq!(gone.steps, [drop("a")]);
        assert_eq!(gone.copies, names(&[]));
    }

    #[test]
    fn what_was_never_used_keeps_no_wal_here_either() {
        assert_eq!(follow(&[slot("a", 0)], &[], &names(&[]), nobody).steps, [create("a", false)]);
        let used = follow(&[slot("a", 5)], &[slot("a", 0)], &names(&["a"]), nobody);
        assert_eq!(used.steps, [drop("a"), create("a", true)]);
        let anew = follow(&[slot("a", 0)], &[slot("a", 5)], &names(&["a"]), nobody);
        assert_eq!(anew.steps, [drop("a"), create("a", false)]);
    }

    #[test]
    fn of_a_slot_whose_wal_is_gone_there_is_no_copy() {
        let lost = Slot { lost: true, ..slot("a", 0) };
        let theirs = std::slice::from_ref(&lost);
        assert_eq!(follow(theirs, &[], &names(&[]), nobody), Decision::default());
        let kept = follow(theirs, &[slot("a", 5)], &names(&["a"]), nobody);
        assert_eq!(kept.steps, [drop("a")]);
        let anew = follow(&[slot("a", 5)], &[lost], &names(&["a"]), nobody);
        assert_eq!(anew.steps, [drop("a"), create("a", true)]);
    }

    #[test]
    fn a_slot_in_use_is_neither_moved_nor_dropped() {
        let used = Slot { active: true, ..slot("a", 3) };
        let known = names(&["a"]);
        for primary in [vec![slot("a", 9)], vec![]] {
            let decision = follow(&primary, std::slice::from_ref(&used), &known, nobody);
            assert_eq!(decision.steps, []);
            assert_eq!(decision.copies, known, "it is still a copy, and dropped later");
        }
    }

    #[test]
    fn a_former_primarys_own_slot_follows_the_new_primarys() {
        let old = Slot { holds_rows: true, ..slot("a", 3) };
        let primary = own(&[old.clone(), slot("_ha_c_2", 3)], |name| name.starts_with("_ha_"));
        assert_eq!(primary, names(&["a"]));
        let followed = follow(&[slot("a", 4)], std::slice::from_ref(&old), &primary, nobody);
        let release = Step::Release { name: "a".to_owned() };
        let advance = Step::Advance { name: "a".to_owned(), to: Lsn(4) };
        assert_eq!(followed.steps, [release, advance]);
        assert_eq!(follow(&[], &[old], &primary, nobody).steps, [drop("a")]);
    }

    #[test]
    fn copies_that_are_not_wanted_any_more_go_and_others_stay() {
        let here = [slot("a", 3), slot("mine", 3)];
        assert_eq!(undo(&here, &names(&["a", "gone"])).steps, [drop("a")]);
        let excluded = follow(&here, &here, &names(&["a"]), |name| name == "a" || name == "mine");
        assert_eq!(excluded.steps, [drop("a")]);
    }

    fn any_slot() -> impl Strategy<Value = Slot> {
        let name = prop::sample::select(vec!["a", "b", "c", "x_1", "_ha_1"]);
        (name, any::<[bool; 4]>(), 0_u64..4).prop_map(
            |(name, [lasting_physical, active, lost, holds_rows], restart)| Slot {
                lasting_physical,
                active,
                holds_rows,
                lost,
                ..slot(name, if lost { 0 } else { restart })
            },
        )
    }

    fn any_slots() -> impl Strategy<Value = Vec<Slot>> {
        prop::collection::vec(any_slot(), 0..5).prop_map(|mut all| {
            all.sort_by(|one, other| one.name.cmp(&other.name));
            all.dedup_by(|one, other| one.name == other.name);
            all
        })
    }

    fn left_alone(name: &str) -> bool {
        name.starts_with("_ha_") || name.starts_with("x_")
    }

    /// The slots after the steps, as PostgreSQL has them.
    fn carry_out(here: &[Slot], primary: &[Slot], steps: &[Step]) -> Vec<Slot> {
        let mut after = here.to_vec();
        for step in steps {
            match step {
                Step::Create { name, reserve } => {
                    let theirs = primary.iter().find(|slot| slot.name == *name).unwrap();
                    let restart = theirs.restart_lsn.filter(|_| *reserve);
                    after.push(Slot { restart_lsn: restart, ..slot(name, 0) });
                }
                Step::Advance { name, to } => {
                    let ours = after.iter_mut().find(|slot| slot.name == *name).unwrap();
                    assert!(ours.restart_lsn < Some(*to), "PostgreSQL refuses to go back");
                    ours.restart_lsn = Some(*to);
                }
                Step::Release { name } => {
                    after.iter_mut().find(|slot| slot.name == *name).unwrap().holds_rows = false;
                }
                Step::Drop { name } => after.retain(|slot| slot.name != *name),
            }
        }
        after
    }

    proptest! {
        #[test]
        fn laws(primary in any_slots(), here in any_slots(), known in any::<[bool; 3]>()) {
            let known: BTreeSet<String> = ["a", "b", "c"].into_iter().zip(known)
                .filter(|(_, known)| *known).map(|(name, _)| name.to_owned()).collect();
            let decision = follow(&primary, &here, &known, left_alone);
            for step in &decision.steps {
                let (Step::Create { name, .. } | Step::Advance { name, .. }
                    | Step::Release { name } | Step::Drop { name }) = step;
                prop_assert!(!left_alone(name), "{step:?}");
                let ours = here.iter().find(|slot| slot.name == *name);
                prop_assert!(ours.is_none_or(|slot| slot.lasting_physical && !slot.active));
                let theirs = primary.iter().any(|slot| slot.name == *name);
                prop_assert!(known.contains(name) || theirs, "{step:?} to a slot of somebody else");
            }
            // What is made was remembered before, and what is remembered is or will be there.
            let after = carry_out(&here, &primary, &decision.steps);
            for name in &decision.copies {
                prop_assert!(after.iter().any(|slot| slot.name == *name && slot.lasting_physical));
            }
            // Once is enough.
            let again = follow(&primary, &after, &decision.copies, left_alone);
            prop_assert_eq!(&again.steps, &[]);
            prop_assert_eq!(&again.copies, &decision.copies);
            // No copy keeps WAL that the primary's does not, unless somebody uses it.
            for ours in after.iter().filter(|slot| decision.copies.contains(&slot.name)) {
                let theirs = primary.iter().find(|slot| slot.name == ours.name);
                let kept = theirs.and_then(|slot| slot.restart_lsn);
                prop_assert!(ours.active || kept.is_none() == ours.restart_lsn.is_none());
                prop_assert!(ours.active || ours.restart_lsn >= kept);
            }
        }
    }
}
