//! Tablespaces: their volumes, and who is told of them when.

use std::collections::BTreeSet;

use matriarch_plan::action::VolumeRole;
use matriarch_plan::{Action, InstanceName, Plan, Seen};

use crate::model::{GIGABYTE, Model, spec, volume_of};
use crate::{ROUNDS, actions, checked, healthy, name, settle};

fn fast() -> VolumeRole {
    VolumeRole::Tablespace("fast".to_owned())
}

fn with_tablespace(instances: u32) -> Model {
    let mut model = Model::new(spec(instances));
    model.wish_for_tablespace("fast");
    settle(&mut model);
    model
}

/// Instances whose pods the plan stops.
fn stopped(planned: &Plan) -> Vec<InstanceName> {
    let stopped = |action: &Action| match action {
        Action::DeletePod { instance, .. } => Some(instance.clone()),
        _ => None,
    };
    actions(planned).into_iter().filter_map(stopped).collect()
}

fn tells(planned: &Plan) -> bool {
    actions(planned).iter().any(
        |action| matches!(action, Action::Direct { directive, .. } if !directive.tablespaces.is_empty()),
    )
}

#[test]
fn a_new_cluster_has_volumes_at_once_and_tablespaces_when_all_agents_have_their_places() {
    let mut model = Model::new(spec(3));
    model.wish_for_tablespace("fast");
    let first = checked(&model.world);
    let volumes = actions(&first);
    let of_tablespace =
        |a: &&&Action| matches!(a, Action::CreateVolume { volume, .. } if *volume == fast());
    assert_eq!(volumes.iter().filter(of_tablespace).count(), 3);
    let with =
        |a: &&&Action| matches!(a, Action::CreatePod { tablespaces, .. } if tablespaces.len() == 1);
    assert_eq!(volumes.iter().filter(with).count(), 3);
    assert!(!tells(&first));
    model.execute(&first, usize::MAX);
    model.live();
    // One agent has not said yet that it has the place.
    model.report_of(&name(2), |said| said.tablespaces.clear());
    let second = checked(&model.world);
    assert!(!tells(&second), "{second:#?}");
    let text = format!("{:?}", second.report);
    assert!(
        text.contains("Tablespace { name: \"fast\", missing: {InstanceName(\"c-2\")} }"),
        "{text}"
    );
    model.execute(&second, usize::MAX);
    model.live();
    assert!(tells(&checked(&model.world)));
    settle(&mut model);
}

#[test]
fn a_later_tablespace_is_a_rollout_with_volumes_first_and_the_primary_last() {
    let mut model = healthy(3);
    model.wish_for_tablespace("fast");
    let mut order = Vec::new();
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        for instance in stopped(&planned) {
            let volumes = |serial| model.world.instances[&name(serial)].volume(&fast()).known();
            assert!((1..=3).all(|serial| volumes(serial).is_some()), "volumes come first");
            assert_ne!(model.world.holder(), Some(&instance));
            order.push(instance);
        }
        let mounted = |serial| {
            let pod = model.world.instances[&name(serial)].pod.known();
            pod.is_some_and(|pod| pod.tablespaces.contains("fast"))
        };
        assert!(!tells(&planned) || (1..=3).all(mounted), "told before all can replay it");
        model.execute(&planned, usize::MAX);
        model.live();
    }
    assert_eq!(order, [name(2), name(3), name(1)]);
    let told = model.world.instances.values().all(|instance| {
        let facts = instance.directive.known().unwrap();
        facts.directive.tablespaces == BTreeSet::from(["fast".to_owned()])
    });
    assert!(told);
    // What was told stays so, also while an instance is away, and for one that comes later.
    model.lose_pod(&name(2));
    model.spec().instances = 4;
    settle(&mut model);
    assert_eq!(
        model.world.instances[&name(4)].directive.known().unwrap().directive.tablespaces.len(),
        1
    );
}

#[test]
fn volumes_of_tablespaces_grow_and_leave_with_their_instance() {
    let mut model = with_tablespace(3);
    model.spec().grown_to = [(fast(), 2 * GIGABYTE)].into();
    let planned = checked(&model.world);
    let grown = |a: &&&Action| matches!(a, Action::GrowVolume { volume, .. } if *volume == fast());
    assert_eq!(actions(&planned).iter().filter(grown).count(), 3);
    model.execute(&planned, usize::MAX);
    model.spec().instances = 2;
    let mut deleted = BTreeSet::new();
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        for action in actions(&planned) {
            if let Action::DeleteVolume { instance, volume, .. } = action {
                deleted.insert((instance.clone(), volume.clone()));
            }
        }
        model.execute(&planned, usize::MAX);
        model.live();
    }
    assert_eq!(deleted, [(name(3), VolumeRole::Data), (name(3), fast())].into());
    assert!(!model.world.instances.contains_key(&name(3)), "nothing is left of it");
}

#[test]
fn a_volume_of_a_tablespace_that_is_taken_away_is_replaced_like_that_of_data() {
    let mut model = with_tablespace(3);
    let dies = |model: &mut Model, serial: u32| {
        if let Seen::Known(volume) = volume_of(model.instance(&name(serial)), &fast()) {
            volume.deleting = true;
        }
    };
    dies(&mut model, 2);
    assert_eq!(stopped(&checked(&model.world)), [name(2)]);
    settle(&mut model);
    assert!(model.world.instances[&name(2)].volume(&fast()).known().is_some_and(|it| !it.deleting));
    // The primary hands over first.
    dies(&mut model, 1);
    assert_eq!(stopped(&checked(&model.world)), []);
    settle(&mut model);
    assert_ne!(model.world.holder(), Some(&name(1)));
    assert!(model.world.instances[&name(1)].volume(&fast()).known().is_some_and(|it| !it.deleting));
}

#[test]
fn a_volume_that_is_there_is_mounted_also_where_the_spec_does_not_ask_for_it() {
    let mut model = with_tablespace(3);
    // A Cluster that was made anew over volumes of before.
    model.spec().tablespaces.clear();
    model.wish_for_pods("anew");
    settle(&mut model);
    let mounted = |instance: &matriarch_plan::world::Instance| {
        instance.pod.known().is_some_and(|pod| pod.tablespaces.contains("fast"))
    };
    assert!(model.world.instances.values().all(mounted));
}

#[test]
fn many_tablespaces_are_not_too_many_actions_for_a_pass() {
    let mut model = Model::new(spec(5));
    for number in 0..30 {
        model.wish_for_tablespace(&format!("t{number}"));
    }
    settle(&mut model);
    model.spec().grown_to = (0..30)
        .map(|number| (VolumeRole::Tablespace(format!("t{number}")), 2 * GIGABYTE))
        .collect();
    assert_eq!(actions(&checked(&model.world)).len(), 150);
}
