//! Restarts and replacements, one instance at a time: standbys first, the primary last. The one
//! exception is PostgreSQL's: a standby refuses to start with a smaller `max_connections` (and its
//! like) than its primary's, so a decrease begins with the primary.

use std::collections::BTreeSet;

use crate::action::{Action, VolumeRole};
use crate::memory::{Switchover, SwitchoverReason};
use crate::report::{Activity, Block, Did, Step, StepReport, Wait};
use crate::spec::{UpdateMethod, UpdateStrategy};
use crate::steps::{Draft, StageOrder, View};
use crate::world::{InstanceName, Report, Role, State};

/// What an instance needs to be as the spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Need {
    /// A new pod.
    Replace { why: String },
    /// A restart of PostgreSQL in place.
    Restart { id: String, why: String },
}

/// Takes the next instance in turn.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Rollout);
    if draft.memory.initialized && view.world.sees_members() && !draft.disrupted {
        advance(view, draft, &mut report);
    }
    draft.report(report);
}

fn advance(view: &View<'_>, draft: &mut Draft, report: &mut StepReport) {
    let members: Vec<InstanceName> = draft
        .memory
        .members
        .iter()
        .filter(|(name, member)| !member.leaving && !view.spec.fenced.contains(name))
        .map(|(name, _)| name.clone())
        .collect();
    let mut needs: Vec<(InstanceName, Need)> = Vec::new();
    let mut under_way = false;
    for name in &members {
        under_way |= is_under_way(view, draft, name, report);
        if let Some(need) = need(view, name, report) {
            needs.push((name.clone(), need));
        }
    }
    under_way |= report.waits.iter().any(|wait| matches!(wait, Wait::Volumes(_)));
    if needs.is_empty() && !under_way {
        return;
    }
    let replacing = needs.iter().any(|(_, need)| matches!(need, Need::Replace { .. }));
    draft.activity(if replacing { Activity::Upgrading } else { Activity::ApplyingConfiguration });
    if under_way || draft.memory.switchover.is_some() {
        return;
    }
    let holder = view.holder();
    // What does not serve and is not as the spec says comes first: a mended spec must reach the
    // instances that the bad one broke (I16).
    let broken = needs.iter().filter(|(name, _)| {
        Some(name) != holder && !serves(view, name) && !writes_the_lease_again(view, name)
    });
    if let Some((name, need)) = broken.min_by_key(|(name, _)| was_primary(view, name)).cloned() {
        carry_out(draft, view, &name, &need, report);
        return;
    }
    let waiting: BTreeSet<InstanceName> =
        members.iter().filter(|name| !view.is_ready(name)).cloned().collect();
    let holder_waits = holder.is_some_and(|holder| {
        waiting.len() == 1
            && waiting.contains(holder)
            && needs.iter().any(|(name, _)| name == holder)
    });
    if !waiting.is_empty() && !holder_waits {
        report.waits.push(Wait::Ready(waiting));
        return;
    }
    let unloaded = unloaded(view, &members);
    if !replacing && !unloaded.is_empty() {
        report.waits.push(Wait::Configuration(unloaded));
        return;
    }
    choose(view, draft, &needs, report);
}

/// It does what it is there for. Where nobody holds the Lease that takes a token that the API takes:
/// without one an instance neither writes the Lease nor elects.
fn serves(view: &View<'_>, name: &InstanceName) -> bool {
    view.is_ready(name) && (view.holder().is_some() || !is_locked_out(view, name))
}

fn is_locked_out(view: &View<'_>, name: &InstanceName) -> bool {
    let pod = view.instance(name).and_then(|instance| instance.pod.known());
    pod.is_some_and(|pod| pod.locked_out)
}

/// The last that was heard of it.
fn was_primary(view: &View<'_>, name: &InstanceName) -> bool {
    let said = view.instance(name).and_then(|instance| instance.report.last());
    said.is_some_and(|said| said.role == Role::Primary)
}

/// The Lease is gone, and this is the one that holds the right all the same: rule 7d. Whoever asks
/// the Lease alone takes it for a standby that may be replaced before the others.
fn writes_the_lease_again(view: &View<'_>, name: &InstanceName) -> bool {
    let runs = view.instance(name).and_then(|it| it.pod.known()).is_some_and(|pod| pod.running);
    let gone = view.world.lease.known().is_none_or(|lease| !lease.filled);
    gone && runs && was_primary(view, name) && !is_locked_out(view, name)
}

/// All serve: the primary first if standbys depend on its smaller values, else standbys first.
fn choose(
    view: &View<'_>,
    draft: &mut Draft,
    needs: &[(InstanceName, Need)],
    report: &mut StepReport,
) {
    let Some(holder) = view.holder() else {
        report.waits.push(Wait::Election);
        return;
    };
    let decrease = needs.iter().any(|(name, need)| {
        matches!(need, Need::Restart { .. })
            && view
                .instance(name)
                .and_then(|instance| instance.report.known())
                .is_some_and(|said| said.pending_decrease)
    });
    let primary = needs.iter().find(|(name, _)| name == holder);
    let standby = needs.iter().find(|(name, _)| name != holder);
    match (standby, primary) {
        (_, Some((name, need @ Need::Restart { .. }))) if decrease => {
            update_primary(view, draft, name, need, true, report);
        }
        (Some((name, need)), _) => carry_out(draft, view, name, need, report),
        (None, Some((name, need))) => update_primary(view, draft, name, need, false, report),
        (None, None) => {}
    }
}

fn update_primary(
    view: &View<'_>,
    draft: &mut Draft,
    name: &InstanceName,
    need: &Need,
    in_place: bool,
    report: &mut StepReport,
) {
    let candidates: BTreeSet<InstanceName> = draft
        .memory
        .members
        .iter()
        .filter(|(other, member)| {
            *other != name
                && !member.leaving
                && !view.spec.fenced.contains(other)
                && view.is_ready(other)
        })
        .map(|(other, _)| other.clone())
        .collect();
    match view.spec.update_strategy {
        UpdateStrategy::Supervised => {
            report.blocked.push(Block::Supervised { primary: name.clone(), candidates });
            draft.activity(Activity::WaitingForUser);
            return;
        }
        UpdateStrategy::Unsupervised => {}
    }
    let switch = match view.spec.update_method {
        UpdateMethod::Switchover => !in_place && !candidates.is_empty(),
        UpdateMethod::Restart => false,
    };
    if !switch {
        draft.activity(Activity::RestartingPrimary);
        carry_out(draft, view, name, need, report);
        return;
    }
    draft.memory.switchover = Some(Switchover {
        id: format!("rollout-{}", view.world.now_ms),
        from: name.clone(),
        to: None,
        since_ms: view.world.now_ms,
        reason: SwitchoverReason::Rollout,
    });
    draft.activity(Activity::SwitchingOver);
    draft.wake(5_000, "a switchover has begun");
    report.did.push(Did::StartSwitchover {
        from: name.clone(),
        to: None,
        reason: SwitchoverReason::Rollout,
    });
}

fn carry_out(
    draft: &mut Draft,
    view: &View<'_>,
    name: &InstanceName,
    need: &Need,
    report: &mut StepReport,
) {
    draft.disrupted = true;
    match need {
        Need::Replace { why } => {
            let pod = view.instance(name).and_then(|instance| instance.pod.known());
            let Some(pod) = pod.filter(|pod| !pod.deleting) else { return };
            report.did.push(Did::ReplacePod(name.clone(), why.clone()));
            let guard = pod.identity.clone();
            let wal_volume = draft.memory.members.get(name).is_some_and(|it| it.wal_volume);
            let tablespaces = view
                .instance(name)
                .map(|instance| instance.with_tablespaces(&view.spec.tablespaces))
                .unwrap_or_default();
            let trial = Action::TryPod { instance: name.clone(), wal_volume, tablespaces };
            draft.act(StageOrder::Trial, trial);
            let action = Action::DeletePod { instance: name.clone(), guard };
            draft.act(StageOrder::Replacement, action);
        }
        Need::Restart { id, why } => {
            let Some(member) = draft.memory.members.get_mut(name) else { return };
            member.restart = Some(id.clone());
            report.did.push(Did::Restart(name.clone(), why.clone()));
        }
    }
}

/// A restart that was asked for and is not done, or a pod on its way out.
fn is_under_way(
    view: &View<'_>,
    draft: &Draft,
    name: &InstanceName,
    report: &mut StepReport,
) -> bool {
    let Some(instance) = view.instance(name) else { return false };
    if instance.pod.known().is_none_or(|pod| pod.deleting) {
        report.waits.push(Wait::Gone(name.clone()));
        return true;
    }
    let asked = draft.memory.members.get(name).and_then(|member| member.restart.as_ref());
    let Some(asked) = asked else { return false };
    let Some(said) = instance.report.known() else { return false };
    let done = said.restart.as_ref().is_some_and(|done| done.id == *asked);
    // A request that the present wishes have overtaken is not waited for.
    let current = restart_ids(view, said).iter().any(|(id, _)| id == asked);
    if !done && current && wants_restart(view, instance, said) {
        report.waits.push(Wait::Restart(name.clone()));
        return true;
    }
    false
}

fn wants_restart(view: &View<'_>, instance: &crate::world::Instance, said: &Report) -> bool {
    let newer = instance.pod.known().is_some_and(|pod| pod.restarted_at == view.spec.restarted_at);
    !said.pending_restart.is_empty() || (view.spec.restarted_at.is_some() && !newer)
}

/// Restarts that may be asked for now: id and reason.
fn restart_ids(view: &View<'_>, said: &Report) -> Vec<(String, String)> {
    let mut ids = Vec::new();
    if let Some(at) = &view.spec.restarted_at {
        ids.push((format!("restartedAt:{at}"), "the user asked for a restart".to_owned()));
    }
    if !said.pending_restart.is_empty()
        && said.configuration_hash.as_ref() == Some(&view.spec.configuration_hash)
    {
        let why = format!("to change {}", said.pending_restart.join(", "));
        ids.push((format!("configuration:{}", view.spec.configuration_hash), why));
    }
    ids
}

fn need(view: &View<'_>, name: &InstanceName, report: &mut StepReport) -> Option<Need> {
    let instance = view.instance(name)?;
    let pod = instance.pod.known().filter(|pod| !pod.deleting && !pod.ended)?;
    if pod.locked_out {
        let why = "its ServiceAccount was deleted, and the API takes its token no more";
        return Some(Need::Replace { why: why.to_owned() });
    }
    let changed = view.spec.pod_stamp.changed_since(&pod.stamp);
    if !changed.is_empty() && !view.spec.keeps_pods {
        // A pod is not given up for one that would wait for a volume.
        let made = |tablespace: &String| {
            let volume = instance.volume(&VolumeRole::Tablespace(tablespace.clone()));
            volume.known().is_some_and(|volume| !volume.deleting)
        };
        if !view.spec.tablespaces.iter().all(made) {
            report.waits.push(Wait::Volumes(name.clone()));
            return None;
        }
        let why = format!("its pod is not as the spec says ({})", changed.join(", "));
        return Some(Need::Replace { why });
    }
    let said = instance.report.known()?;
    for (id, why) in restart_ids(view, said) {
        let by_user = id.starts_with("restartedAt:");
        if by_user && pod.restarted_at == view.spec.restarted_at {
            continue;
        }
        if by_user && pod.stamp.pod != view.spec.pod_stamp.pod && !view.spec.keeps_pods {
            // The wish for a restart brings the form of pod that this operator makes.
            return Some(Need::Replace { why });
        }
        match said.restart.as_ref().filter(|done| done.id == id) {
            None => return Some(Need::Restart { id, why }),
            Some(_) if by_user => {}
            Some(_) => report.blocked.push(Block::StillPending {
                instance: name.clone(),
                parameters: said.pending_restart.clone(),
            }),
        }
    }
    None
}

/// Running instances that have not loaded the configuration yet. One whose PostgreSQL rejects it
/// never will, and is reported elsewhere.
fn unloaded(view: &View<'_>, members: &[InstanceName]) -> BTreeSet<InstanceName> {
    members
        .iter()
        .filter(|name| {
            view.instance(name).and_then(|instance| instance.report.known()).is_some_and(|said| {
                said.state == State::Running
                    && said.configuration_error.is_none()
                    && said.configuration_hash.as_ref() != Some(&view.spec.configuration_hash)
            })
        })
        .cloned()
        .collect()
}
