//! The planner, on one page: the steps in their order and nothing else.

use crate::action::Plan;
use crate::report::{Activity, Block, Step, StepReport};
use crate::spec::Wanted;
use crate::steps::{
    Draft, View, access, agents, bootstrap, directives, failover, hibernation, labels,
    managed_services, members, pods, rollout, services, storage, switchover,
};
use crate::world::World;

/// Decides what to do next. Pure: the same world gives the same plan, byte for byte.
pub fn plan(world: &World) -> Plan {
    let mut draft = Draft::new(world);
    let mut admission = StepReport::new(Step::Admission);
    if world.deleting {
        draft.activity(Activity::Deleting);
        return draft.finish(world);
    }
    let spec = match &world.wanted {
        Wanted::Valid(spec) => spec.as_ref(),
        Wanted::Invalid { findings } => {
            admission.blocked.extend(findings.iter().cloned().map(Block::Spec));
            draft.report(admission);
            draft.activity(Activity::InvalidSpec);
            labels::step(world, &mut draft);
            return draft.finish(world);
        }
    };
    if spec.paused {
        admission.blocked.push(Block::Paused);
        draft.report(admission);
        draft.activity(Activity::Paused);
        return draft.finish(world);
    }
    if let Some(problem) = &spec.image_problem {
        admission.blocked.push(Block::Image(problem.clone()));
        draft.report(admission);
    }
    let view = View { world, spec };
    let admitted = access::step(&view, &mut draft);
    if admitted.is_break() {
        labels::step(world, &mut draft);
        return draft.finish(world);
    }
    if hibernation::step(&view, &mut draft).is_break() {
        services::step(&view, &mut draft);
        directives::step(&view, &mut draft);
        labels::step(world, &mut draft);
        return draft.finish(world);
    }
    bootstrap::step(&view, &mut draft);
    members::step(&view, &mut draft);
    services::step(&view, &mut draft);
    managed_services::step(&view, &mut draft);
    storage::step(&view, &mut draft);
    pods::step(&view, &mut draft);
    failover::step(&view, &mut draft);
    switchover::step(&view, &mut draft);
    rollout::step(&view, &mut draft);
    agents::step(&view, &mut draft);
    directives::step(&view, &mut draft);
    labels::step(world, &mut draft);
    draft.finish(world)
}
