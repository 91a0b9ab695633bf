//! The upgrade of agents in place (traps P3).

use matriarch_plan::report::{Activity, Block};
use matriarch_plan::{Action, BinaryFailure, InstanceName, Plan};

use crate::model::Model;
use crate::{ROUNDS, actions, checked, healthy, name, settle};

/// Instances in the order in which they are told of a binary, until nothing is to be done.
fn told_of(model: &mut Model, sha256: &str) -> Vec<InstanceName> {
    let mut order = Vec::new();
    for _ in 0..ROUNDS {
        let planned = checked(&model.world);
        assert!(!actions(&planned).iter().any(|action| action.disrupts()), "{planned:?}");
        for action in actions(&planned) {
            if let Action::Direct { instance, directive } = action
                && directive.agent.as_ref().is_some_and(|agent| agent.sha256 == sha256)
                && !order.contains(instance)
            {
                order.push(instance.clone());
            }
        }
        model.execute(&planned, usize::MAX);
        model.live();
    }
    order
}

#[test]
fn agents_are_replaced_one_by_one_the_primary_last_and_back_again() {
    let mut model = healthy(3);
    for offered in ["second", "first"] {
        model.offer(offered);
        assert_eq!(told_of(&mut model, offered), [name(2), name(3), name(1)]);
        assert_eq!(model.world.holder(), Some(&name(1)), "nobody else takes over");
        let settled = settle(&mut model);
        assert_eq!(settled.report.activity, Activity::Healthy);
        for serial in 1..=3 {
            let instance = model.instance(&name(serial));
            assert!(instance.pod.known().unwrap().brings_own_binary, "a reboot brings the old one");
            assert_eq!(instance.report.known().unwrap().agent.sha256.as_deref(), Some(offered));
        }
    }
}

#[test]
fn an_agent_that_refuses_a_binary_keeps_it_from_the_others() {
    let mut model = healthy(3);
    model.offer("bad");
    let planned = checked(&model.world);
    model.execute(&planned, usize::MAX);
    model.report_of(&name(2), |said| {
        said.agent.failure = Some(BinaryFailure {
            sha256: "bad".to_owned(),
            reason: "AgentDied".to_owned(),
            message: "it died".to_owned(),
        });
    });
    let planned = checked(&model.world);
    assert!(actions(&planned).is_empty(), "{planned:?}");
    let blocks: Vec<_> = planned.report.steps.iter().flat_map(|step| &step.blocked).collect();
    assert!(matches!(blocks.as_slice(), [Block::Agent { .. }]), "{blocks:?}");
    assert_eq!(planned.report.activity, Activity::Healthy, "the databases are well");
    // Another one, or the former one, goes on.
    model.offer("good");
    assert_eq!(told_of(&mut model, "good"), [name(2), name(3), name(1)]);
}

#[test]
fn the_next_agent_waits_until_the_one_before_serves_again() {
    let mut model = healthy(3);
    model.offer("second");
    let planned = checked(&model.world);
    model.execute(&planned, usize::MAX);
    // It has the binary, and its pod is not ready.
    model.report_of(&name(2), |said| {
        said.agent.sha256 = Some("second".to_owned());
        said.streaming = false;
    });
    for _ in 0..3 {
        let planned = checked(&model.world);
        let directs: Vec<_> = actions(&planned)
            .into_iter()
            .filter(
                |action| matches!(action, Action::Direct { instance, .. } if *instance != name(2)),
            )
            .collect();
        assert!(directs.is_empty(), "{directs:?}");
        model.world.memory = planned.memory;
    }
    model.report_of(&name(2), |said| said.streaming = true);
    assert_eq!(told_of(&mut model, "second"), [name(3), name(1)]);
}

#[test]
fn a_cluster_whose_turn_has_not_come_waits_and_one_under_way_is_finished() {
    let mut model = healthy(3);
    model.offer("second");
    model.spec().agents_wait = true;
    // What was said of the former binary is taken back, or a new pod would go back to it.
    let planned = checked(&model.world);
    let directs = |planned: &Plan| {
        actions(planned).into_iter().all(
            |action| matches!(action, Action::Direct { directive, .. } if directive.agent.is_none()),
        )
    };
    assert!(directs(&planned), "{planned:?}");
    model.execute(&planned, usize::MAX);
    let planned = checked(&model.world);
    assert!(actions(&planned).is_empty(), "{planned:?}");
    assert!(!planned.replaces_agents());
    assert_eq!(planned.report.activity, Activity::Healthy);
    assert!(planned.wake.is_some(), "nothing else tells that its turn has come");
    model.spec().agents_wait = false;
    let planned = checked(&model.world);
    assert!(planned.replaces_agents());
    model.execute(&planned, usize::MAX);
    let waiting = checked(&model.world);
    assert!(waiting.replaces_agents(), "it counts until it is done: {waiting:?}");
    assert_eq!(told_of(&mut model, "second"), [name(3), name(1)]);
}

#[test]
fn an_operator_that_offers_no_binary_tells_of_none() {
    let mut model = healthy(3);
    model.spec().agent = None;
    settle(&mut model);
    for serial in 1..=3 {
        assert_eq!(model.instance(&name(serial)).directive.known().unwrap().directive.agent, None);
    }
}
