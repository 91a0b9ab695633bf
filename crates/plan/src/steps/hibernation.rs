//! Hibernation: the cluster's pods go, its volumes stay. The primary stops first, while standbys still
//! receive, and nobody takes over: then all volumes end at the same record, and whichever instance
//! wakes up first may be primary without losing what another one has.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::action::{Action, Directive};
use crate::report::{Did, Step, StepReport, Wait};
use crate::seen::Seen;
use crate::steps::{Draft, StageOrder, View};
use crate::world::{InstanceName, State};

/// How far the cluster is on its way into hibernation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hibernation {
    /// Nobody is to be a successor any more; some agents have yet to hear of it.
    Excluding,
    /// The holder of the Lease stops PostgreSQL, and standbys receive the rest.
    StoppingPrimary(InstanceName),
    /// PostgreSQL of the others stops, and pods go.
    RemovingPods,
}

impl Hibernation {
    /// What it makes of an instance's directive.
    pub fn apply(&self, name: &InstanceName, directive: &mut Directive) {
        directive.excluded = true;
        directive.switchover = None;
        directive.restart = None;
        directive.fenced |= match self {
            Self::Excluding => false,
            Self::StoppingPrimary(holder) => holder == name,
            Self::RemovingPods => true,
        };
    }
}

/// Breaks while the cluster sleeps or is about to: nothing but its objects is then kept.
pub fn step(view: &View<'_>, draft: &mut Draft) -> ControlFlow<()> {
    if !view.spec.hibernated || !draft.memory.initialized {
        draft.memory.hibernating = false;
        return ControlFlow::Continue(());
    }
    let mut report = StepReport::new(Step::Hibernation);
    let members: BTreeSet<InstanceName> = draft.memory.members.keys().cloned().collect();
    if !draft.memory.hibernating {
        // As CloudNativePG: only a cluster that is well goes to sleep. What is broken could not
        // receive the last records, and would be asked to serve when it wakes.
        let unready: BTreeSet<_> =
            members.iter().filter(|name| !view.is_ready(name)).cloned().collect();
        let busy = draft.memory.switchover.is_some() || view.holder().is_none();
        if !unready.is_empty() || busy || !view.world.sees_members() {
            report.waits.push(Wait::HealthyToHibernate(unready));
            draft.report(report);
            return ControlFlow::Continue(());
        }
        draft.memory.hibernating = true;
    }
    if view.world.lease.is_unknown() || !view.world.sees_members() {
        let what = "the Lease and the pods of a cluster that hibernates".to_owned();
        report.waits.push(Wait::Sight { what });
        draft.report(report);
        return ControlFlow::Break(());
    }
    let stage = stage(view, &members);
    if stage == Hibernation::RemovingPods {
        remove_pods(view, draft, &members, &mut report);
    } else {
        report.waits.push(Wait::Hibernation);
    }
    draft.hibernation = Some(stage);
    draft.report(report);
    ControlFlow::Break(())
}

fn stage(view: &View<'_>, members: &BTreeSet<InstanceName>) -> Hibernation {
    let Some(holder) = view.holder() else { return Hibernation::RemovingPods };
    let stopped = view.instance(holder).is_some_and(|instance| {
        let said = instance.report.known();
        let told = instance.directive.known().is_some_and(|facts| facts.directive.fenced);
        let fenced = said.is_some_and(|said| said.state == State::Fenced && said.heeds);
        told && (fenced || instance.pod.is_absent())
    });
    if stopped {
        return Hibernation::RemovingPods;
    }
    let told = |name: &InstanceName| {
        view.instance(name).is_some_and(|instance| {
            let excluded = instance.directive.known().is_some_and(|facts| facts.directive.excluded);
            let heeds = instance.report.known().is_some_and(|said| said.heeds);
            instance.pod.is_absent() || (excluded && heeds)
        })
    };
    if members.iter().filter(|name| *name != holder).all(told) {
        Hibernation::StoppingPrimary(holder.clone())
    } else {
        Hibernation::Excluding
    }
}

/// Those whose PostgreSQL has stopped: one that still answers is told so first.
fn remove_pods(
    view: &View<'_>,
    draft: &mut Draft,
    members: &BTreeSet<InstanceName>,
    report: &mut StepReport,
) {
    for name in members {
        match view.instance(name).map(|instance| &instance.pod) {
            None | Some(Seen::Absent) => {}
            Some(Seen::Known(pod)) if !pod.deleting && !pod.ready => {
                report.did.push(Did::RemovePod(name.clone()));
                let guard = pod.identity.clone();
                draft.act(
                    StageOrder::Disruption,
                    Action::DeletePod { instance: name.clone(), guard },
                );
            }
            Some(Seen::Known(_) | Seen::Stale(_) | Seen::Unknown { .. }) => {
                report.waits.push(Wait::Gone(name.clone()));
            }
        }
    }
}
