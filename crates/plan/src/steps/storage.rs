//! Volumes: made when missing; one that is being taken away under an instance is replaced, but
//! never the one with the best copy (traps K11, invariant I6).

use crate::action::{Action, VolumeRole};
use crate::memory::{Switchover, SwitchoverReason};
use crate::report::{Block, Did, Step, StepReport, Wait};
use crate::seen::Seen;
use crate::steps::{Draft, StageOrder, View};
use crate::world::{Instance, InstanceName, Pod, Volume};

/// Makes, adopts and replaces volumes of the members that stay.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Storage);
    // Nothing is made while a kind cannot be listed: what is missed may be there.
    if !view.world.blind.is_empty() {
        return;
    }
    let members: Vec<_> = draft
        .memory
        .members
        .iter()
        .filter(|(_, member)| !member.leaving)
        .map(|(name, member)| (name.clone(), member.serial, member.wal_volume))
        .collect();
    for (name, serial, wal_volume) in members {
        let nothing = Instance::nothing(serial);
        let instance = match view.instance(&name) {
            Some(instance) => instance,
            None => &nothing,
        };
        let mut volumes = vec![VolumeRole::Data];
        if wal_volume {
            volumes.push(VolumeRole::Wal);
        }
        volumes.extend(view.spec.tablespaces.iter().cloned().map(VolumeRole::Tablespace));
        let in_use = instance.pod.known().filter(|pod| pod.running && !pod.deleting);
        let lost = |role: &VolumeRole| {
            in_use.is_some_and(|pod| uses(pod, role)) && is_lost(instance.volume(role))
        };
        if volumes.iter().any(lost) {
            replace(view, draft, &name, instance, &mut report);
            continue;
        }
        for role in &volumes {
            make(draft, &name, role, instance.volume(role), &mut report);
            grow(view, draft, &name, role, instance.volume(role), &mut report);
        }
    }
    draft.report(report);
}

/// A pod that was made before a tablespace was asked for has no volume of it yet.
fn uses(pod: &Pod, role: &VolumeRole) -> bool {
    match role {
        VolumeRole::Data | VolumeRole::Wal => true,
        VolumeRole::Tablespace(name) => pod.tablespaces.contains(name),
    }
}

fn is_lost(volume: &Seen<Volume>) -> bool {
    volume.is_absent() || volume.known().is_some_and(|volume| volume.deleting)
}

fn make(
    draft: &mut Draft,
    name: &InstanceName,
    role: &VolumeRole,
    seen: &Seen<Volume>,
    report: &mut StepReport,
) {
    let volume = role.clone();
    match seen {
        Seen::Absent => {
            if volume == VolumeRole::Data {
                report.did.push(Did::CreateVolume(name.clone()));
            }
            let action = Action::CreateVolume { instance: name.clone(), volume };
            draft.act(StageOrder::Directives, action);
        }
        Seen::Known(found) if !found.conforms && !found.deleting => {
            let guard = found.identity.clone();
            let action = Action::AdoptVolume { instance: name.clone(), volume, guard };
            draft.act(StageOrder::Directives, action);
        }
        Seen::Known(_) | Seen::Stale(_) | Seen::Unknown { .. } => {}
    }
}

/// A volume that is smaller than the spec says, whether its instance runs or not: one that is full
/// keeps PostgreSQL from running.
fn grow(
    view: &View<'_>,
    draft: &mut Draft,
    name: &InstanceName,
    role: &VolumeRole,
    seen: &Seen<Volume>,
    report: &mut StepReport,
) {
    let Seen::Known(volume) = seen else { return };
    let Some(requested) = volume.requested.filter(|_| !volume.deleting) else { return };
    match view.spec.grown_to.get(role) {
        Some(&to) if to > requested => {
            report.did.push(Did::GrowVolume(name.clone()));
            let (instance, guard) = (name.clone(), volume.identity.clone());
            let action = Action::GrowVolume { instance, volume: role.clone(), to, guard };
            draft.act(StageOrder::Growth, action);
        }
        Some(_) | None => {
            if volume.is_growing() {
                match &volume.trouble {
                    Some(why) => report
                        .blocked
                        .push(Block::Growth { instance: name.clone(), why: why.clone() }),
                    None => report.waits.push(Wait::Growth(name.clone())),
                }
            }
        }
    }
}

/// The claim of a running instance was deleted. A standby gives its pod up, so that claim and pod
/// are made anew and the data is cloned; the primary hands over first.
fn replace(
    view: &View<'_>,
    draft: &mut Draft,
    name: &InstanceName,
    instance: &Instance,
    report: &mut StepReport,
) {
    let Some(holder) = view.holder() else {
        report.blocked.push(Block::LastCopy(name.clone()));
        return;
    };
    if holder != name {
        // Only while the primary serves: else this may be the best copy there is.
        match instance.pod.known() {
            Some(pod) if view.is_ready(holder) && !draft.disrupted => {
                draft.disrupted = true;
                let guard = pod.identity.clone();
                let why = "its volume was deleted".to_owned();
                report.did.push(Did::ReplacePod(name.clone(), why));
                let action = Action::DeletePod { instance: name.clone(), guard };
                draft.act(StageOrder::Disruption, action);
            }
            _ => report.blocked.push(Block::LastCopy(name.clone())),
        }
        return;
    }
    let successor = draft
        .memory
        .members
        .iter()
        .any(|(other, member)| other != name && !member.leaving && view.is_ready(other));
    if !successor {
        report.blocked.push(Block::LastCopy(name.clone()));
    } else if draft.memory.switchover.is_none() {
        draft.memory.switchover = Some(Switchover {
            id: format!("volume-{}", view.world.now_ms),
            from: name.clone(),
            to: None,
            since_ms: view.world.now_ms,
            reason: SwitchoverReason::Volume,
        });
        report.did.push(Did::StartSwitchover {
            from: name.clone(),
            to: None,
            reason: SwitchoverReason::Volume,
        });
    }
}
