//! Pods: made when missing, made anew when they have ended.

use crate::action::{Action, VolumeRole};
use crate::report::{Block, Did, Step, StepReport, Wait};
use crate::seen::Seen;
use crate::steps::members::is_needed;
use crate::steps::{Draft, StageOrder, View};
use crate::world::{Instance, InstanceName, Pod, Volume};

/// Makes and repairs the pods of the members that stay, and of leaving ones while they are needed.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Pods);
    // Nothing is made while a kind cannot be listed: what is missed may be there.
    if !view.world.blind.is_empty() {
        return;
    }
    let members: Vec<_> = draft
        .memory
        .members
        .iter()
        .filter(|(name, member)| !member.leaving || stays_for_now(view, name))
        .map(|(name, member)| (name.clone(), member.serial, member.wal_volume))
        .collect();
    for (name, serial, wal_volume) in members {
        let nothing = Instance::nothing(serial);
        let instance = match view.instance(&name) {
            Some(instance) => instance,
            None => &nothing,
        };
        match &instance.pod {
            Seen::Absent => {
                // A pod on a claim that is being deleted would bind to a dying volume (CN#11017).
                let dying = |volume: &Seen<Volume>| {
                    volume.is_unknown() || volume.known().is_some_and(|volume| volume.deleting)
                };
                let tablespaces = instance.with_tablespaces(&view.spec.tablespaces);
                let of_tablespace =
                    |name: &String| dying(instance.volume(&VolumeRole::Tablespace(name.clone())));
                if dying(&instance.data)
                    || (wal_volume && dying(&instance.wal))
                    || tablespaces.iter().any(of_tablespace)
                {
                    report.waits.push(Wait::Gone(name));
                    continue;
                }
                report.did.push(Did::CreatePod(name.clone()));
                let action = Action::CreatePod { instance: name, wal_volume, tablespaces };
                draft.act(StageOrder::Pods, action);
            }
            Seen::Known(pod) => repair(draft, &name, pod, &mut report),
            Seen::Stale(_) | Seen::Unknown { .. } => {}
        }
    }
    draft.report(report);
}

/// Leaving, but needed for certain, and what its pod is made of is still there.
fn stays_for_now(view: &View<'_>, name: &InstanceName) -> bool {
    let seen = |other: &Instance| !other.pod.is_unknown() && !other.report.is_unknown();
    if view.world.lease.is_unknown() || !view.world.instances.values().all(seen) {
        return false;
    }
    view.instance(name).is_some_and(|instance| {
        let there = instance.data.known().is_some_and(|volume| !volume.deleting)
            && instance.directive.known().is_some_and(|facts| !facts.deleting);
        there && is_needed(view, name, instance)
    })
}

fn repair(draft: &mut Draft, name: &InstanceName, pod: &Pod, report: &mut StepReport) {
    if pod.deleting {
        report.waits.push(Wait::Gone(name.clone()));
        return;
    }
    let guard = pod.identity.clone();
    if pod.ended {
        report.did.push(Did::ReplacePod(name.clone(), "it has ended".to_owned()));
        let action = Action::DeletePod { instance: name.clone(), guard };
        draft.act(StageOrder::Disruption, action);
        return;
    }
    if !pod.conforms {
        let action = Action::AdoptPod { instance: name.clone(), guard };
        draft.act(StageOrder::Labels, action);
    }
    if let Some(why) = &pod.trouble {
        report.blocked.push(Block::Pod { instance: name.clone(), why: why.clone() });
    }
}
