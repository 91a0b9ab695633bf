//! The first primary, and taking up a cluster whose memory was lost.

use crate::action::Action;
use crate::memory::Member;
use crate::report::{Activity, Block, Did, Step, StepReport, Wait};
use crate::steps::{Draft, StageOrder, View};
use crate::world::{Instance, InstanceName};

/// Chooses the instance that makes the data, once.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Bootstrap);
    remember(view, draft);
    make_lease(view, draft);
    if !view.world.sees_members() {
        draft.report(report);
        return;
    }
    if draft.memory.bootstrap_primary.is_none()
        && draft.memory.members.is_empty()
        && !draft.memory.initialized
    {
        let name = InstanceName::new(&view.spec.cluster, 1);
        let member = Member { serial: 1, wal_volume: view.spec.wal_volume, ..Member::default() };
        draft.memory.members.insert(name.clone(), member);
        draft.memory.bootstrap_primary = Some(name.clone());
        report.did.push(Did::AddInstance(name));
    }
    if draft.memory.initialized {
        let nothing = !view.world.instances.is_empty()
            && view.world.instances.values().all(|instance| instance.data.is_absent())
            && view.world.lease.is_absent();
        if nothing {
            report.blocked.push(Block::NothingLeft);
            draft.activity(Activity::Unrecoverable);
        }
    } else if let Some(primary) = draft.memory.bootstrap_primary.clone() {
        report.waits.push(Wait::FirstPrimary(primary));
        draft.activity(Activity::SettingUpPrimary);
    }
    draft.report(report);
}

/// Takes note of what can be seen: the Lease, and, where memory was lost, whatever is there.
fn remember(view: &View<'_>, draft: &mut Draft) {
    if let Some(lease) = view.world.lease.known() {
        draft.memory.lease_made = true;
        draft.memory.initialized |= lease.filled;
    }
    if !draft.memory.members.is_empty() || !view.world.sees_members() {
        return;
    }
    for (name, instance) in &view.world.instances {
        // What is on its way out belongs to an earlier cluster of this name.
        let going = instance.directive.known().is_none_or(|facts| facts.deleting)
            && instance.pod.known().is_none_or(|pod| pod.deleting)
            && instance.data.known().is_none_or(|volume| volume.deleting);
        if instance.is_gone() || going {
            continue;
        }
        let leaving = instance.directive.last().is_some_and(|facts| facts.directive.leaving);
        let restart = instance.directive.last().and_then(|facts| facts.directive.restart.clone());
        let member = Member {
            serial: instance.serial,
            wal_volume: instance.wal.last().is_some(),
            leaving,
            restart,
        };
        draft.memory.members.insert(name.clone(), member);
        if is_bootstrapping(instance) {
            draft.memory.bootstrap_primary = Some(name.clone());
        }
    }
    // Volumes without a directive that says who may make the data hold data of before: initdb
    // must never run beside them.
    if !draft.memory.members.is_empty() && draft.memory.bootstrap_primary.is_none() {
        draft.memory.initialized = true;
    }
}

fn is_bootstrapping(instance: &Instance) -> bool {
    instance.directive.last().is_some_and(|facts| facts.directive.bootstrap_primary)
}

/// Makes the empty Lease before the first instance; never again once it was seen (traps H6).
fn make_lease(view: &View<'_>, draft: &mut Draft) {
    if view.world.lease.is_absent() && !draft.memory.lease_made && !draft.memory.initialized {
        draft.act(StageOrder::Foundation, Action::CreateLease);
    }
}
