//! Who belongs to the cluster: missing instances are added all at once, surplus ones leave one
//! after the other.

use std::collections::BTreeSet;

use crate::action::{Action, VolumeRole};
use crate::memory::Member;
use crate::report::{Activity, Did, Step, StepReport, Wait};
use crate::steps::{Draft, StageOrder, View, replacement};
use crate::world::{Identity, Instance, InstanceName};

/// Adds and retires instances.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Members);
    if !view.world.sees_members() {
        report.waits.push(Wait::Sight { what: sight(view) });
        draft.wake(5_000, "something could not be read");
        draft.activity(Activity::WaitingForInstances);
        draft.report(report);
        return;
    }
    forget(view, draft, &mut report);
    replacement::choose(view, draft, &mut report);
    let staying = draft.memory.members.values().filter(|member| !member.leaving).count();
    let wanted = usize::try_from(view.spec.instances).unwrap_or(usize::MAX);
    if staying < wanted {
        grow(view, draft, wanted - staying, &mut report);
    } else if staying > wanted {
        retire(view, draft, &mut report);
    }
    remove_leaving(view, draft, &mut report);
    draft.report(report);
}

fn sight(view: &View<'_>) -> String {
    let mut what: Vec<String> =
        view.world.blind.iter().map(|(kind, why)| format!("{kind:?}: {why}")).collect();
    if let crate::seen::Seen::Unknown { why } = &view.world.lease {
        what.push(format!("Lease: {why}"));
    }
    what.join("; ")
}

/// A member that was leaving and of which nothing is left is forgotten.
fn forget(view: &View<'_>, draft: &mut Draft, report: &mut StepReport) {
    let keep = view.spec.retain_volumes;
    let gone: Vec<InstanceName> = draft
        .memory
        .members
        .iter()
        .filter(|(name, member)| {
            member.leaving
                && view.instance(name).is_none_or(|instance| {
                    instance.is_gone()
                        || (keep && instance.pod.is_absent() && instance.directive.is_absent())
                })
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in gone {
        draft.memory.members.remove(&name);
        report.did.push(Did::ForgetInstance(name));
    }
}

/// Adds instances under the lowest free serials, as CloudNativePG 1.30 does. A serial is free if
/// no member has it and no pod or Instance of that name is left; a volume that is left is whole
/// and is used again, unless it is being deleted.
fn grow(view: &View<'_>, draft: &mut Draft, count: usize, report: &mut StepReport) {
    // What is left of an earlier cluster of this name goes by itself; nothing is adopted from it.
    let leftovers: Vec<InstanceName> = view
        .world
        .instances
        .iter()
        .filter(|(name, instance)| {
            !draft.memory.members.contains_key(*name) && !instance.is_gone() && !is_free(instance)
        })
        .map(|(name, _)| name.clone())
        .collect();
    if !leftovers.is_empty() {
        report.waits.extend(leftovers.into_iter().map(Wait::Gone));
        draft.activity(Activity::CreatingReplica);
        return;
    }
    let mut serial = 1;
    let mut added = 0;
    while added < count {
        let name = InstanceName::new(&view.spec.cluster, serial);
        let free =
            !draft.memory.members.contains_key(&name) && view.instance(&name).is_none_or(is_free);
        if free {
            let used = view.instance(&name);
            let wal_volume = match used {
                Some(instance) if instance.data.known().is_some() => instance.wal.known().is_some(),
                _ => view.spec.wal_volume,
            };
            let member = Member { serial, wal_volume, ..Member::default() };
            draft.memory.members.insert(name.clone(), member);
            report.did.push(Did::AddInstance(name));
            added += 1;
        }
        serial += 1;
    }
    draft.activity(Activity::CreatingReplica);
}

fn is_free(instance: &Instance) -> bool {
    let whole = |volume: &crate::seen::Seen<crate::world::Volume>| {
        volume.is_absent() || volume.known().is_some_and(|volume| !volume.deleting)
    };
    instance.directive.is_absent()
        && instance.pod.is_absent()
        && instance.volumes().all(|(_, volume)| whole(volume))
}

/// Tells the surplus instance with the highest serial that is not the primary to leave. One at a
/// time: the next one when this one is gone.
fn retire(view: &View<'_>, draft: &mut Draft, report: &mut StepReport) {
    let Some(holder) = view.holder() else {
        report.waits.push(Wait::Election);
        return;
    };
    if draft.memory.members.values().any(|member| member.leaving) {
        return;
    }
    let target = draft.memory.switchover.as_ref().and_then(|wish| wish.to.clone());
    let name = draft
        .memory
        .members
        .iter()
        .filter(|(name, _)| *name != holder && Some(*name) != target.as_ref())
        .max_by_key(|(_, member)| member.serial)
        .map(|(name, _)| name.clone());
    if let Some(name) = name
        && let Some(member) = draft.memory.members.get_mut(&name)
    {
        member.leaving = true;
        report.did.push(Did::RetireInstance(name));
    }
}

/// Removes what is left of leaving instances, once the Lease no longer counts on them.
fn remove_leaving(view: &View<'_>, draft: &mut Draft, report: &mut StepReport) {
    let leaving: BTreeSet<InstanceName> = draft
        .memory
        .members
        .iter()
        .filter(|(_, member)| member.leaving)
        .map(|(name, _)| name.clone())
        .collect();
    for name in leaving {
        let Some(instance) = view.instance(&name) else { continue };
        draft.activity(Activity::WaitingForInstances);
        if view.world.lease.known().is_none() {
            report.waits.push(Wait::Election);
            continue;
        }
        // Recorded and told before, so that no agent counts on it: the directive says `leaving`
        // and the holder has taken it out of the Lease (rule 4).
        let told = instance.directive.is_absent()
            || instance.directive.known().is_some_and(|facts| facts.directive.leaving);
        if !told || is_needed(view, &name, instance) {
            report.waits.push(Wait::Cohort(name));
            continue;
        }
        if draft.disrupted && instance.pod.known().is_some() {
            continue;
        }
        draft.disrupted = true;
        remove(view, draft, &name, instance, report);
    }
}

/// A leaving instance may have what nobody else has, or is asked for what it knows: until the Lease
/// has a holder that serves and counts on it no more, its pod is kept as if it stayed (simulator,
/// seed 678).
pub(super) fn is_needed(view: &View<'_>, name: &InstanceName, instance: &Instance) -> bool {
    let serves = view.world.holder().is_some_and(|holder| {
        holder != name && (view.is_ready(holder) || instance.data.is_absent())
    });
    !serves || view.world.counts_on(name)
}

fn remove(
    view: &View<'_>,
    draft: &mut Draft,
    name: &InstanceName,
    instance: &Instance,
    report: &mut StepReport,
) {
    report.waits.push(Wait::Gone(name.clone()));
    if !instance.pod.is_absent() {
        if let Some(pod) = instance.pod.known().filter(|pod| !pod.deleting) {
            let guard = pod.identity.clone();
            let action = Action::DeletePod { instance: name.clone(), guard };
            draft.act(StageOrder::Disruption, action);
        }
        return;
    }
    if let Some(facts) = instance.directive.known().filter(|facts| !facts.deleting) {
        let guard = facts.identity.clone();
        let action = Action::DeleteInstance { instance: name.clone(), guard };
        draft.act(StageOrder::Disruption, action);
    }
    // A memory that this very pass has derived anew is not recorded yet: data goes a pass later (I6).
    let recorded = view.world.memory.members.get(name).is_some_and(|member| member.leaving);
    if view.spec.retain_volumes || !recorded {
        return;
    }
    for (volume, seen) in instance.volumes() {
        if let Some(found) = seen.known().filter(|found| !found.deleting) {
            if volume == VolumeRole::Data {
                report.did.push(Did::DeleteVolumes(name.clone()));
            }
            let guard: Identity = found.identity.clone();
            let action = Action::DeleteVolume { instance: name.clone(), volume, guard };
            draft.act(StageOrder::Disruption, action);
        }
    }
}
