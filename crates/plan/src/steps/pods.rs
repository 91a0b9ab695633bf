//! Pods: made when missing, made anew when they have ended.

use crate::action::{Action, VolumeRole};
use crate::report::{Block, Did, Step, StepReport, Wait};
use crate::seen::Seen;
use crate::steps::members::is_needed;
use crate::steps::{Draft, StageOrder, View};
use crate::world::{Instance, InstanceName, Pod, Role, State, Volume};

/// How long a Lease that nobody renews holds new pods back, in milliseconds: less than the two
/// seconds after which a holder that lives has renewed it.
const FAILOVER_FIRST: u64 = 1_500;

/// Makes and repairs the pods of the members that stay, and of leaving ones while they are needed.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Pods);
    // Nothing is made while a kind cannot be listed: what is missed may be there.
    if !view.world.blind.is_empty() {
        return;
    }
    let held_back = until_failed_over(view);
    if let Some(after_ms) = held_back {
        draft.wake(after_ms, "a failover goes before new pods");
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
            Seen::Absent if held_back.is_some() => report.waits.push(Wait::Failover(name)),
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

/// For how long no pod is made, because a failover is under way that another instance can end:
/// to start a pod takes processors from the one that is promoted, and its address keeps kube-proxy,
/// which takes changes once a second, from that of the new primary (docs/benchmarks.md, "pod
/// force-deleted"). It ends with the failover, and by the time that nobody has written the Lease.
fn until_failed_over(view: &View<'_>) -> Option<u64> {
    let lease = view.world.lease.known().filter(|lease| lease.filled)?;
    let serves = lease.holder.as_ref().is_some_and(|holder| {
        view.is_ready(holder) && view.instance(holder).is_some_and(|it| runs(it, Role::Primary))
    });
    let standby = view.world.instances.values().any(|instance| runs(instance, Role::Standby));
    let left = FAILOVER_FIRST.saturating_sub(lease.unchanged_ms);
    (!serves && standby && left > 0).then_some(left)
}

fn runs(instance: &Instance, role: Role) -> bool {
    let pod = instance.pod.known().is_some_and(|pod| !pod.deleting && !pod.ended);
    let report = instance.report.known();
    pod && report.is_some_and(|said| said.state == State::Running && said.role == role)
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
