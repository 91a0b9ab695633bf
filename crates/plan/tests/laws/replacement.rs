//! Instances that a person wants made anew on new volumes.

use matriarch_plan::action::Action;
use matriarch_plan::report::{Block, ReplacementBlock};
use matriarch_plan::{InstanceName, Seen};

use crate::model::{Model, stamp};
use crate::{ROUNDS, actions, checked, healthy, name, settle};

fn called_unrecoverable(model: &mut Model, serial: u32) {
    model.pod(&name(serial), |pod| pod.unrecoverable = true);
}

/// Who is a member once nothing more happens, and whose volumes were deleted.
fn outcome(model: &mut Model) -> (Vec<InstanceName>, Vec<InstanceName>) {
    let mut deleted = Vec::new();
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        deleted.extend(actions(&planned).into_iter().filter_map(|action| match action {
            Action::DeleteVolume { instance, .. } => Some(instance.clone()),
            _ => None,
        }));
        model.execute(&planned, usize::MAX);
        model.live();
    }
    (model.world.memory.members.keys().cloned().collect(), deleted)
}

#[test]
fn an_unrecoverable_standby_gives_way_to_a_new_one() {
    let mut model = healthy(3);
    called_unrecoverable(&mut model, 2);
    let (members, deleted) = outcome(&mut model);
    assert_eq!(members, [name(1), name(3), name(4)]);
    assert_eq!(deleted, [name(2)]);
    assert_eq!(model.world.holder(), Some(&name(1)));
}

#[test]
fn one_at_a_time_is_made_anew() {
    let mut model = healthy(3);
    called_unrecoverable(&mut model, 2);
    called_unrecoverable(&mut model, 3);
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        let leaving = planned.memory.members.values().filter(|member| member.leaving).count();
        assert!(leaving <= 1, "{planned:#?}");
        model.execute(&planned, usize::MAX);
        model.live();
    }
    // The name of the first that went is free for the third.
    let members: Vec<_> = model.world.memory.members.keys().cloned().collect();
    assert_eq!(members, [name(1), name(2), name(4)]);
    let pods = model.world.instances.values().filter_map(|instance| instance.pod.known());
    assert!(pods.into_iter().all(|pod| !pod.unrecoverable));
}

#[test]
fn the_primary_is_not_made_anew_until_another_one_is() {
    let mut model = healthy(3);
    called_unrecoverable(&mut model, 1);
    let planned = settle(&mut model);
    let blocks: Vec<&Block> =
        planned.report.steps.iter().flat_map(|step| step.blocked.iter()).collect();
    let wanted = Block::Replacement { instance: name(1), why: ReplacementBlock::Primary };
    assert_eq!(blocks, [&wanted]);
    model.world.requested_primary = Some(name(2));
    let (members, deleted) = outcome(&mut model);
    assert_eq!(deleted, [name(1)]);
    assert_eq!(members, [name(2), name(3), name(4)]);
}

#[test]
fn retained_volumes_are_not_deleted_for_it() {
    let mut model = healthy(2);
    model.spec().retain_volumes = true;
    called_unrecoverable(&mut model, 2);
    let (members, deleted) = outcome(&mut model);
    assert!(deleted.is_empty());
    assert_eq!(members, [name(1), name(2)]);
}

#[test]
fn a_stranded_standby_is_made_anew_only_where_volumes_are_not_used_again() {
    let strand = |model: &mut Model| {
        model.pod(&name(3), |pod| {
            pod.node = None;
            pod.running = false;
            pod.ready = false;
            pod.trouble = Some("2 node(s) had volume node affinity conflict".to_owned());
        });
    };
    let mut model = healthy(3);
    strand(&mut model);
    let waits = checked(&model.world);
    assert!(waits.memory.members.values().all(|member| !member.leaving));
    model.spec().replaces_stranded = true;
    let (members, deleted) = outcome(&mut model);
    assert_eq!((members, deleted), (vec![name(1), name(2), name(4)], vec![name(3)]));
}

/// A ServiceAccount that is deleted takes the tokens of all pods with it.
#[test]
fn pods_without_a_token_are_replaced_and_the_primary_last() {
    let mut model = healthy(3);
    for serial in 1..=3 {
        model.pod(&name(serial), |pod| pod.locked_out = true);
    }
    assert_eq!(replaced(&mut model), [name(2), name(3), name(1)]);
}

/// Whose pods are replaced, one at a time, in the rounds to come.
fn replaced(model: &mut Model) -> Vec<InstanceName> {
    let mut replaced = Vec::new();
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        let disrupting = actions(&planned).into_iter().filter_map(|action| match action {
            Action::DeletePod { instance, .. } => Some(instance.clone()),
            _ => None,
        });
        let before = replaced.len();
        replaced.extend(disrupting);
        assert!(replaced.len() <= before + 1, "one at a time");
        model.execute(&planned, usize::MAX);
        model.live();
    }
    replaced
}

/// Both ServiceAccount and Lease were deleted on a real Kubernetes: the primary was replaced as a
/// standby that is not ready, and then its replacement was waited for, which only the last one of
/// the old pods kept from being elected.
#[test]
fn pods_without_a_token_are_all_replaced_where_the_lease_is_gone_too() {
    let mut model = healthy(3);
    for serial in 1..=3 {
        model.pod(&name(serial), |pod| pod.locked_out = true);
    }
    model.world.lease = Seen::Absent;
    // Nobody holds the Lease, but PostgreSQL runs on as it did.
    assert_eq!(replaced(&mut model), [name(2), name(3), name(1)]);
}

/// It is the primary that writes the Lease again (docs/ha-protocol.md, rule 7d).
#[test]
fn who_was_primary_is_no_standby_to_be_replaced_while_the_lease_is_gone() {
    let mut model = healthy(3);
    model.world.lease = Seen::Absent;
    model.spec().pod_stamp = stamp("another image");
    model.live();
    assert_eq!(replaced(&mut model), [name(2), name(3)]);
}

#[test]
fn pods_stay_as_they_are_where_the_user_says_so() {
    let mut model = healthy(3);
    model.spec().pod_stamp = stamp("another image");
    model.spec().keeps_pods = true;
    assert!(actions(&checked(&model.world)).is_empty());
    // A wish for a restart restarts PostgreSQL in the pods that are there.
    model.spec().restarted_at = Some("now".to_owned());
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        assert!(!actions(&planned).iter().any(|it| matches!(it, Action::DeletePod { .. })));
        model.execute(&planned, usize::MAX);
        model.live();
    }
    model.spec().keeps_pods = false;
    let planned = checked(&model.world);
    assert!(actions(&planned).iter().any(|it| matches!(it, Action::DeletePod { .. })));
}
