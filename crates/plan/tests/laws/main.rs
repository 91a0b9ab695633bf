//! The laws of the planner, on worlds that chance makes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod agents;
mod events;
mod model;
mod replacement;
mod services;
mod tablespaces;

use std::collections::BTreeSet;

use events::{event, happen};
use matriarch_plan::action::VolumeRole;
use matriarch_plan::protocol;
use matriarch_plan::report::{Activity, Wait};
use matriarch_plan::spec::Fenced;
use matriarch_plan::world::{
    EndedContainer, Kind, Node, NodeFacts, Object, Role, SecretRole, State,
};
use matriarch_plan::{Action, InstanceName, Plan, Seen, World, lint, plan};
use model::{GIGABYTE, Model, spec, stamp};
use proptest::prelude::*;

/// More passes than any change here needs.
const ROUNDS: usize = 120;

fn name(serial: u32) -> InstanceName {
    InstanceName::new("c", serial)
}

fn actions(plan: &Plan) -> Vec<&Action> {
    plan.stages.iter().flatten().collect()
}

/// Plans, asks the second opinion, and checks that the same world gives the same plan.
fn checked(world: &World) -> Plan {
    let planned = plan(world);
    let findings = lint(world, &planned);
    assert!(findings.is_empty(), "{findings:#?}\n{planned:#?}\n{world:#?}");
    let again = serde_json::to_string(&plan(world)).unwrap();
    assert_eq!(serde_json::to_string(&planned).unwrap(), again, "not deterministic");
    planned
}

/// Runs until nothing is to be done any more.
fn settle(model: &mut Model) -> Plan {
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        let idle = actions(&planned).is_empty() && planned.memory == model.world.memory;
        let before = model.world.clone();
        model.execute(&planned, usize::MAX);
        model.live();
        let same = World { now_ms: before.now_ms, ..model.world.clone() } == before;
        if idle && planned.report.activity == Activity::Healthy {
            return planned;
        }
        assert!(!(idle && same && planned.wake.is_none()), "stuck: {:#?}", planned.report);
    }
    panic!("does not settle: {:#?}", plan(&model.world).report);
}

fn healthy(instances: u32) -> Model {
    let mut model = Model::new(spec(instances));
    settle(&mut model);
    model
}

#[test]
fn a_new_cluster_is_made_in_one_pass() {
    let mut model = Model::new(spec(3));
    let first = checked(&model.world);
    let made = actions(&first);
    let count = |wanted: fn(&Action) -> bool| made.iter().filter(|a| wanted(a)).count();
    assert_eq!(count(|a| matches!(a, Action::CreatePod { .. })), 3);
    assert_eq!(count(|a| matches!(a, Action::CreateVolume { .. })), 3);
    assert_eq!(count(|a| matches!(a, Action::Direct { .. })), 3);
    assert_eq!(count(|a| matches!(a, Action::CreateSecret { .. })), 4);
    assert_eq!(count(|a| matches!(a, Action::CreateLease)), 1);
    let firsts = made
        .iter()
        .filter(|a| matches!(a, Action::Direct { directive, .. } if directive.bootstrap_primary));
    assert_eq!(firsts.count(), 1);
    assert_eq!(first.report.activity, Activity::SettingUpPrimary);
    settle(&mut model);
    assert_eq!(model.world.holder(), Some(&name(1)));
}

#[test]
fn surplus_instances_leave_one_by_one_and_never_the_primary() {
    let mut model = healthy(5);
    // The primary has the highest serial.
    model.world.requested_primary = Some(name(5));
    settle(&mut model);
    assert_eq!(model.world.holder(), Some(&name(5)));
    model.spec().instances = 2;
    settle(&mut model);
    let left: Vec<_> = model.world.memory.members.keys().cloned().collect();
    assert_eq!(left, [name(1), name(5)]);
    assert_eq!(model.world.instances.len(), 2);
}

#[test]
fn a_cluster_that_hibernates_stops_its_primary_first_and_keeps_its_volumes() {
    let mut model = healthy(3);
    model.spec().hibernated = true;
    let mut removed = Vec::new();
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        let serving = model.world.holder().cloned();
        for action in actions(&planned) {
            match action {
                Action::Direct { instance, directive } if directive.fenced => {
                    let told = |name: &InstanceName| {
                        let facts = model.world.instances[name].directive.known();
                        facts.is_some_and(|facts| facts.directive.excluded)
                    };
                    let others = [name(2), name(3)];
                    let first = serving.is_none() || serving.as_ref() == Some(instance);
                    assert!(first && others.iter().all(told), "{instance} stops too early");
                }
                Action::DeletePod { instance, .. } => {
                    assert_eq!(serving, None, "the primary has stopped before");
                    removed.push(instance.clone());
                }
                _ => {}
            }
        }
        model.execute(&planned, usize::MAX);
        model.live();
    }
    removed.sort();
    assert_eq!(removed, [name(1), name(2), name(3)]);
    assert!(model.world.instances.values().all(|i| i.pod.is_absent() && i.data.known().is_some()));
    // It wakes up with the same instances, and only then is the number of them changed.
    model.spec().instances = 2;
    let asleep = checked(&model.world);
    assert!(asleep.memory.hibernating && actions(&asleep).is_empty(), "{asleep:#?}");
    model.spec().hibernated = false;
    let awake = settle(&mut model);
    assert_eq!(awake.report.ready.len(), 2);
}

#[test]
fn a_cluster_that_is_not_well_does_not_hibernate() {
    let mut model = healthy(3);
    model.lose_pod(&name(3));
    model.spec().hibernated = true;
    let planned = checked(&model.world);
    assert!(!planned.memory.hibernating);
    let made = actions(&planned).iter().any(|a| matches!(a, Action::CreatePod { .. }));
    assert!(made, "what is missing is made first: {planned:#?}");
}

#[test]
fn volumes_grow_whether_or_not_their_instances_run() {
    let mut model = healthy(3);
    model.lose_pod(&name(2));
    model.spec().grown_to = [(VolumeRole::Data, 2 * GIGABYTE)].into();
    let planned = checked(&model.world);
    let grown: Vec<_> = actions(&planned)
        .into_iter()
        .filter(|a| matches!(a, Action::GrowVolume { to, .. } if *to == 2 * GIGABYTE))
        .collect();
    assert_eq!(grown.len(), 3, "{planned:#?}");
    model.execute(&planned, usize::MAX);
    model.live();
    let waits = checked(&model.world);
    assert!(!actions(&waits).iter().any(|a| matches!(a, Action::GrowVolume { .. })));
    let text = format!("{:?}", waits.report);
    assert!(text.contains("Growth"), "{text}");
    // Larger than asked for, because somebody grew it by hand, is no reason to shrink it.
    model.spec().grown_to = [(VolumeRole::Data, GIGABYTE)].into();
    let planned = checked(&model.world);
    assert!(!actions(&planned).iter().any(|a| matches!(a, Action::GrowVolume { .. })));
}

#[test]
fn the_lease_is_made_once_and_never_again() {
    let mut model = healthy(3);
    model.world.lease = Seen::Absent;
    let planned = checked(&model.world);
    assert!(!actions(&planned).contains(&&Action::CreateLease));
}

#[test]
fn a_rollout_goes_one_by_one_and_ends_with_a_switchover() {
    let mut model = healthy(3);
    model.spec().pod_stamp = stamp("new");
    let mut order = Vec::new();
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        for action in actions(&planned) {
            if let Action::DeletePod { instance, .. } = action {
                order.push(instance.clone());
                assert_ne!(model.world.holder(), Some(instance), "a pod of the primary");
            }
        }
        model.execute(&planned, usize::MAX);
        model.live();
    }
    assert_eq!(order, [name(2), name(3), name(1)]);
    assert_ne!(model.world.holder(), Some(&name(1)));
}

#[test]
fn a_pod_is_replaced_only_after_the_api_has_taken_the_new_one_on_trial() {
    let mut model = healthy(3);
    model.spec().pod_stamp = stamp("refused by the API");
    let tries = |action: &Action| matches!(action, Action::TryPod { .. });
    for _ in 0..ROUNDS {
        let mut planned = checked(&model.world);
        let trial = planned.stages.iter().position(|stage| stage.iter().any(tries));
        let later = trial.map_or(0, |trial| trial + 1);
        let deleted = |stage: &Vec<Action>| stage.iter().any(Action::disrupts);
        assert!(planned.stages.iter().position(deleted).is_none_or(|at| at >= later));
        // The executor stops at what is refused.
        planned.stages.truncate(trial.unwrap_or(planned.stages.len()));
        model.execute(&planned, usize::MAX);
        model.live();
    }
    let stays = |serial| model.world.instances[&name(serial)].is_ready();
    assert!((1..=3).all(stays), "an instance was given up for a pod that cannot be made");
}

#[test]
fn a_decrease_that_standbys_depend_on_begins_with_the_primary() {
    let mut model = healthy(3);
    for serial in 1..=3 {
        model.report_of(&name(serial), |said| {
            said.pending_restart = vec!["max_connections".to_owned()];
            said.pending_decrease = true;
        });
    }
    let mut order = Vec::new();
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        for action in actions(&planned) {
            if let Action::Direct { instance, directive } = action
                && directive.restart.is_some()
                && !order.contains(instance)
            {
                order.push(instance.clone());
            }
        }
        model.execute(&planned, usize::MAX);
        model.live();
    }
    assert_eq!(order, [name(1), name(2), name(3)]);
    assert_eq!(model.world.holder(), Some(&name(1)));
}

/// I14: only what the user has changed replaces a pod.
#[test]
fn another_form_of_pod_replaces_none_until_the_user_changes_something() {
    let mut model = healthy(3);
    model.spec().pod_stamp.pod = "as a newer operator renders it".to_owned();
    let planned = checked(&model.world);
    assert!(actions(&planned).is_empty(), "{planned:?}");
    assert_eq!(planned.report.activity, Activity::Healthy);
    let replaced = |model: &mut Model| {
        let mut replaced = Vec::new();
        for _ in 0..ROUNDS {
            let planned = checked(&model.world);
            replaced.extend(actions(&planned).into_iter().filter_map(|action| match action {
                Action::DeletePod { instance, .. } => Some(instance.clone()),
                _ => None,
            }));
            model.execute(&planned, usize::MAX);
            model.live();
        }
        replaced
    };
    // A wish for a restart brings the new form.
    let mut restarted = model.clone();
    restarted.spec().restarted_at = Some("now".to_owned());
    assert_eq!(replaced(&mut restarted), [name(2), name(3), name(1)]);
    // And so does a change.
    model.spec().pod_stamp = stamp("another image");
    assert_eq!(replaced(&mut model), [name(2), name(3), name(1)]);
    assert!(replaced(&mut model).is_empty());
}

#[test]
fn a_supervised_update_waits_for_the_user_before_the_primary() {
    let mut model = healthy(3);
    model.spec().update_strategy = matriarch_plan::spec::UpdateStrategy::Supervised;
    model.spec().pod_stamp = stamp("new");
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        model.execute(&planned, usize::MAX);
        model.live();
    }
    assert_eq!(plan(&model.world).report.activity, Activity::WaitingForUser);
    assert_eq!(model.world.holder(), Some(&name(1)));
    model.world.requested_primary = Some(name(2));
    settle(&mut model);
    assert_eq!(model.world.holder(), Some(&name(2)));
}

#[test]
fn a_deleted_authority_is_replaced_while_both_are_trusted() {
    let mut model = healthy(3);
    let old = model.world.secrets[&SecretRole::Authority].known().unwrap().trusted[0].clone();
    model.world.secrets.insert(SecretRole::Authority, Seen::Absent);
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        model.execute(&planned, usize::MAX);
        for role in [SecretRole::Server, SecretRole::Replication] {
            let leaf = model.world.secrets[&role].known().unwrap();
            let issuer = leaf.certificate.as_ref().unwrap().issuer.clone().unwrap();
            assert!(leaf.trusted.contains(&issuer), "a leaf does not trust its own issuer");
            // What other agents still use, by their last report, must be trusted by this one.
            let other = if issuer == old { &old } else { &issuer };
            assert!(leaf.trusted.contains(other));
        }
        model.live();
    }
    settle(&mut model);
    let now = model.world.secrets[&SecretRole::Server].known().unwrap();
    assert!(!now.trusted.contains(&old), "the old authority is trusted for ever");
}

#[test]
fn a_deleted_volume_of_the_primary_is_given_up_only_after_a_switchover() {
    let mut model = healthy(3);
    if let Seen::Known(volume) = &mut model.instance(&name(1)).data {
        volume.deleting = true;
    }
    settle(&mut model);
    assert_ne!(model.world.holder(), Some(&name(1)));
    let mut alone = healthy(1);
    if let Seen::Known(volume) = &mut alone.instance(&name(1)).data {
        volume.deleting = true;
    }
    for _ in 0..10 {
        let planned = checked(&alone.world);
        assert!(!actions(&planned).iter().any(|action| action.disrupts()), "{planned:?}");
        alone.execute(&planned, usize::MAX);
        alone.live();
    }
}

#[test]
fn an_ended_pod_serves_nobody_whatever_its_condition_says() {
    let mut model = healthy(3);
    // Kubernetes has not taken back that it was ready.
    model.pod(&name(2), |pod| pod.ended = true);
    if let Seen::Known(volume) = &mut model.instance(&name(3)).data {
        volume.deleting = true;
    }
    model.spec().pod_stamp = stamp("new");
    checked(&model.world);
    settle(&mut model);
}

#[test]
fn a_leaving_instance_stays_while_the_quorum_counts_on_it() {
    let mut model = healthy(3);
    for serial in 1..=3 {
        if let Seen::Known(report) = &mut model.instance(&name(serial)).report {
            report.incarnation = Some(format!("i{serial}"));
        }
    }
    model.spec().instances = 2;
    // The holder has taken it out of the cohort, but not out of the quorum yet.
    let holder_shifts = |model: &mut Model, of: &[u32]| {
        if let Seen::Known(lease) = &mut model.world.lease {
            lease.cohort = [name(1), name(2)].into();
            lease.quorum = of.iter().map(|serial| format!("i{serial}")).collect();
        }
    };
    for _ in 0..3 {
        let planned = checked(&model.world);
        model.execute(&planned, usize::MAX);
        holder_shifts(&mut model, &[1, 3]);
    }
    let removes = |planned: &Plan| {
        actions(planned).iter().any(|action| matches!(action, Action::DeletePod { .. }))
    };
    assert!(!removes(&checked(&model.world)), "the quorum counts on it");
    // Its machine is lost meanwhile: it is kept alive.
    model.lose_pod(&name(3));
    let planned = checked(&model.world);
    let anew =
        Action::CreatePod { instance: name(3), wal_volume: false, tablespaces: BTreeSet::new() };
    assert!(actions(&planned).contains(&&anew), "{planned:?}");
    model.execute(&planned, usize::MAX);
    holder_shifts(&mut model, &[1, 2]);
    assert!(removes(&checked(&model.world)), "nobody counts on it any more");
}

#[test]
fn a_world_and_its_plan_can_be_written_down_and_read_back() {
    let mut model = healthy(3);
    model.spec().fenced = Fenced::Named([name(2)].into());
    model.world.secrets.insert(SecretRole::Server, Seen::Unknown { why: "403".to_owned() });
    let text = serde_json::to_string(&model.world).unwrap();
    let again: World = serde_json::from_str(&text).unwrap();
    assert_eq!(again, model.world);
    let planned = plan(&again);
    let text = serde_json::to_string(&planned).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), planned);
}

#[test]
fn lost_memory_is_taken_up_from_what_is_there() {
    let mut model = healthy(3);
    let members = model.world.memory.members.len();
    model.world.memory = matriarch_plan::Memory::default();
    let planned = checked(&model.world);
    // The Role lists the members, and nobody knows yet whether it lists these.
    let role = Action::Apply { object: Object::Role };
    assert_eq!(actions(&planned), [&role]);
    assert_eq!(planned.memory.members.len(), members);
    assert!(planned.memory.initialized);
}

/// The Lease of c-1's container `abc` in term 3, and its pod on its way out after the container
/// `terminated` has ended.
fn holder_ended(terminated: &str) -> Model {
    let mut model = healthy(3);
    let mut uid = String::new();
    model.pod(&name(1), |pod| {
        uid.clone_from(&pod.identity.uid);
        pod.running = false;
        pod.deleting = true;
        pod.ready = false;
    });
    let (pod, container) = (uid.as_str().into(), terminated.into());
    model.world.ended = [EndedContainer { pod, container }].into();
    if let Seen::Known(lease) = &mut model.world.lease {
        lease.term = 3;
        lease.identity.resource_version = "7".to_owned();
        lease.state = Some(held_by("abc", &uid));
    }
    model
}

fn held_by(container: &str, pod: &str) -> protocol::Lease {
    protocol::Lease {
        holder: Some(protocol::Holder {
            name: "c-1".into(),
            incarnation: "i".into(),
            pod_uid: pod.into(),
            container_id: container.into(),
        }),
        term: protocol::Term(3),
        duration: protocol::Span::seconds(10),
        system_id: matriarch_pg::SystemId(1),
        history: protocol::History::root(protocol::Term(1), "i".into()),
        history_published: true,
        position: protocol::Position::default(),
        cohort: vec![],
        stragglers: vec![],
        quorum: None,
        release: None,
        quorum_until: None,
        reassertions: 0,
        edition: 4,
    }
}

/// kube-proxy waits a second after each change of endpoints (traps H1).
#[test]
fn labels_of_a_new_primary_wait_until_it_is_published() {
    let mut model = healthy(2);
    model.pod(&name(1), |pod| pod.role = None);
    let labels = |model: &Model| {
        let planned = checked(&model.world);
        actions(&planned).iter().filter(|it| matches!(it, Action::LabelPod { .. })).count()
    };
    let with = |model: &mut Model, history_published: bool| {
        let Seen::Known(lease) = &mut model.world.lease else { panic!("there is a Lease") };
        lease.state = Some(protocol::Lease { history_published, ..held_by("k", "p") });
    };
    with(&mut model, false);
    assert_eq!(labels(&model), 0);
    with(&mut model, true);
    assert_eq!(labels(&model), 1);
}

fn freed(planned: &Plan) -> Option<protocol::LeaseRecord> {
    actions(planned).into_iter().find_map(|action| {
        if let Action::FreeLease { record, .. } = action { Some(record.clone()) } else { None }
    })
}

#[test]
fn a_dead_holder_is_freed_only_with_proof_for_this_version() {
    assert_eq!(freed(&checked(&holder_ended("other").world)), None);
    let record = freed(&checked(&holder_ended("abc").world)).unwrap();
    assert_eq!(record.holder_identity, "");
    assert_eq!(record.annotations["edition"], "5");
    assert!(record.annotations["release"].contains("Operator"));
    let mut running = holder_ended("abc");
    running.pod(&name(1), |pod| pod.running = true);
    assert_eq!(freed(&checked(&running.world)), None);
    // kubelet starts the container of a pod that stays again: it resumes by rule 8.
    let mut staying = holder_ended("abc");
    staying.pod(&name(1), |pod| pod.deleting = false);
    assert_eq!(freed(&checked(&staying.world)), None);
    let mut gone = holder_ended("abc");
    gone.instance(&name(1)).pod = Seen::Absent;
    assert!(freed(&checked(&gone.world)).is_some(), "its end was reported before");
    gone.world.ended.clear();
    assert_eq!(freed(&checked(&gone.world)), None, "a pod that is gone proves nothing");
}

/// Rule 20 by the Node: it outlives the pod's object, and only what vouches for this very pod counts.
#[test]
fn a_node_proves_death_if_it_is_out_of_service_or_gone_with_an_expired_lease() {
    let mut model = holder_ended("other");
    model.pod(&name(1), |pod| {
        (pod.running, pod.deleting, pod.node) = (true, false, Some("n1".to_owned()));
    });
    let planned = checked(&model.world);
    assert_eq!(freed(&planned), None);
    assert!(planned.wake.is_some(), "nothing tells of a taint");
    model.world.memory = planned.memory;
    model.instance(&name(1)).pod = Seen::Absent;
    let node = |name: &str, facts| Some(Node { name: name.to_owned(), facts });
    let off = |out_of_service| Seen::Known(NodeFacts { out_of_service });
    let unknown = Seen::Unknown { why: "forbidden".to_owned() };
    for (found, unchanged_ms, frees) in [
        (None, 60_000, false),
        (node("n1", off(false)), 60_000, false),
        (node("n1", unknown), 60_000, false),
        (node("n2", off(true)), 60_000, false),
        (node("n2", Seen::Absent), 60_000, false),
        (node("n1", Seen::Absent), 9_999, false),
        (node("n1", Seen::Absent), 10_000, true),
        (node("n1", off(true)), 0, true),
    ] {
        let case = format!("{found:?} {unchanged_ms}");
        model.world.node = found;
        if let Seen::Known(lease) = &mut model.world.lease {
            lease.unchanged_ms = unchanged_ms;
        }
        assert_eq!(freed(&checked(&model.world)).is_some(), frees, "{case}");
    }
    if let Seen::Known(lease) = &mut model.world.lease {
        lease.state = Some(held_by("abc", "another pod"));
    }
    assert_eq!(freed(&checked(&model.world)), None, "a pod that runs elsewhere");
}

/// Whom a restored Lease names need not be who may write (seed 89).
#[test]
fn an_older_lease_that_was_restored_frees_nobody() {
    let planned = checked(&holder_ended("other").world);
    for (term, edition) in [(4, 1), (3, 5)] {
        let mut model = holder_ended("abc");
        model.world.memory = planned.memory.clone();
        let mark = model.world.memory.lease.as_mut().unwrap();
        (mark.term, mark.edition) = (protocol::Term(term), edition);
        let planned = checked(&model.world);
        assert_eq!(freed(&planned), None, "term {term}, edition {edition}");
        assert_eq!(planned.memory.lease, model.world.memory.lease, "what was true is kept");
    }
    let mut model = holder_ended("abc");
    if let Seen::Known(report) = &mut model.instance(&name(2)).report {
        report.term = 4;
    }
    assert_eq!(freed(&checked(&model.world)), None, "an instance has obeyed a higher term");
}

fn gets_a_pod(planned: &Plan, instance: &InstanceName) -> bool {
    let made = |action: &&Action| matches!(action, Action::CreatePod { instance: it, .. } if it == instance);
    actions(planned).iter().any(made)
}

#[test]
fn a_failover_goes_before_the_pod_of_the_former_primary() {
    let mut model = healthy(3);
    model.lose_pod(&name(1));
    let lease_of = |model: &mut Model, holder: Option<u32>, unchanged_ms: u64| {
        let Seen::Known(lease) = &mut model.world.lease else { panic!("no Lease") };
        (lease.holder, lease.unchanged_ms) = (holder.map(name), unchanged_ms);
    };
    for (holder, unchanged_ms, held) in
        [(Some(1), 100, true), (Some(1), 1_500, false), (None, 900, true), (Some(2), 0, true)]
    {
        lease_of(&mut model, holder, unchanged_ms);
        let planned = checked(&model.world);
        assert_eq!(gets_a_pod(&planned, &name(1)), !held, "{holder:?} {unchanged_ms}");
        let wakes = planned.wake.is_some_and(|wake| wake.after_ms == 1_500 - unchanged_ms);
        assert_eq!(wakes, held, "{holder:?} {unchanged_ms}");
    }
    model.report_of(&name(2), |said| said.role = Role::Primary);
    assert!(gets_a_pod(&checked(&model.world), &name(1)), "the failover is over");
    // Nobody else runs that could be promoted.
    lease_of(&mut model, Some(1), 0);
    for standby in [2, 3] {
        model.report_of(&name(standby), |said| said.state = State::Stopped);
    }
    assert!(gets_a_pod(&checked(&model.world), &name(1)), "it is the only way to a primary");
}

#[test]
fn nothing_is_done_for_a_cluster_that_is_deleted_or_paused() {
    let mut model = healthy(3);
    model.lose_pod(&name(2));
    model.world.deleting = true;
    assert!(actions(&checked(&model.world)).is_empty());
    model.world.deleting = false;
    model.spec().paused = true;
    assert!(actions(&checked(&model.world)).is_empty());
}

/// Hides facts, chosen by the bits of `mask`.
fn hide(world: &World, mask: u64) -> World {
    let mut hidden = world.clone();
    let unknown = || "hidden".to_owned();
    let mut bit = 0;
    let mut chosen = || {
        bit += 1;
        mask >> (bit % 64) & 1 == 1
    };
    if chosen() {
        hidden.lease = Seen::Unknown { why: unknown() };
    }
    for (kind, hide) in
        [(Kind::Instance, chosen()), (Kind::Pod, chosen()), (Kind::PersistentVolumeClaim, chosen())]
    {
        if !hide {
            continue;
        }
        hidden.blind.insert(kind, unknown());
        for instance in hidden.instances.values_mut() {
            match kind {
                Kind::Instance => {
                    instance.directive = Seen::Unknown { why: unknown() };
                    instance.report = Seen::Unknown { why: unknown() };
                }
                Kind::Pod => instance.pod = Seen::Unknown { why: unknown() },
                Kind::PersistentVolumeClaim => {
                    instance.data = Seen::Unknown { why: unknown() };
                    instance.wal = Seen::Unknown { why: unknown() };
                    for volume in instance.tablespaces.values_mut() {
                        *volume = Seen::Unknown { why: unknown() };
                    }
                }
            }
        }
    }
    for seen in hidden.secrets.values_mut() {
        if chosen() {
            *seen = Seen::Unknown { why: unknown() };
        }
    }
    for seen in hidden.objects.values_mut() {
        if chosen() {
            *seen = Seen::Unknown { why: unknown() };
        }
    }
    hidden
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Deterministic, bounded, harmless after any prefix, and settles once chance has had its way.
    #[test]
    fn any_history_is_safe_and_settles(
        instances in 1_u32..5,
        history in proptest::collection::vec((event(), 0_usize..12, 0_usize..4), 1..12),
    ) {
        let mut model = healthy(instances);
        for (event, limit, lives) in history {
            happen(&mut model, event);
            // The operator dies after any number of actions.
            let planned = checked(&model.world);
            model.execute(&planned, limit);
            for _ in 0..lives {
                model.live();
                let planned = checked(&model.world);
                model.execute(&planned, usize::MAX);
            }
        }
        // Whoever is fenced for ever, or has lost its only volume, cannot settle.
        model.spec().fenced = Fenced::None;
        let names: Vec<InstanceName> = model.world.instances.keys().cloned().collect();
        for name in &names {
            let holder = model.world.holder() == Some(name) || model.world.holder().is_none();
            let instance = model.instance(name);
            for volume in std::iter::once(&mut instance.data).chain(instance.tablespaces.values_mut()) {
                if let Seen::Known(volume) = volume && holder {
                    volume.deleting = false;
                }
            }
        }
        model.live();
        settle(&mut model);
        prop_assert!(model.world.holder().is_some());
        let wanted = model.spec().tablespaces.clone();
        for instance in model.world.instances.values() {
            let directive = &instance.directive.known().unwrap().directive;
            prop_assert_eq!(&directive.tablespaces, &wanted);
            prop_assert!(instance.pod.known().unwrap().tablespaces.is_superset(&wanted));
        }
        let primaries = model.world.instances.values().filter_map(|instance| instance.report.known());
        prop_assert_eq!(primaries.filter(|said| said.role == Role::Primary).count(), 1);
    }

    /// What is not seen is never a reason to stop, delete or free anything.
    #[test]
    fn unknown_facts_disrupt_nothing_that_known_ones_would_not(
        instances in 1_u32..5,
        history in proptest::collection::vec(event(), 1..8),
        mask in any::<u64>(),
    ) {
        let mut model = healthy(instances);
        for event in history {
            happen(&mut model, event);
            let full = checked(&model.world);
            let hidden = hide(&model.world, mask);
            let blind = checked(&hidden);
            for action in actions(&blind) {
                if action.disrupts() || matches!(action, Action::DeleteInstance { .. }) {
                    prop_assert!(actions(&full).contains(&action), "{action}");
                }
                // Who cannot read the Lease retires nobody, and keeps whom full sight would retire.
                let retires = |instance: &InstanceName| {
                    full.memory.members.get(instance).is_some_and(|member| member.leaving)
                        && model.world.memory.members.get(instance).is_some_and(|it| !it.leaving)
                };
                // And holds no pod back until a failover is over.
                let waits = |instance: &InstanceName| {
                    let waits = full.report.steps.iter().flat_map(|step| &step.waits);
                    waits.into_iter().any(|it| *it == Wait::Failover(instance.clone()))
                };
                let same = match action {
                    Action::CreatePod { instance, .. } => retires(instance) || waits(instance),
                    Action::CreateLease => false,
                    _ => true,
                };
                prop_assert!(same || actions(&full).contains(&action), "{action}");
            }
            model.execute(&full, usize::MAX);
            model.live();
        }
    }
}
