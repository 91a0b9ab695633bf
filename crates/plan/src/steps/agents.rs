//! The upgrade of agents in place: PostgreSQL runs on. One instance of the cluster after the other,
//! standbys first, the primary last; what fails in one goes no further (traps P3).

use std::collections::BTreeSet;

use crate::action::Action;
use crate::binary::AgentBinary;
use crate::report::{Activity, Block, Did, Step, StepReport, Wait};
use crate::seen::Seen;
use crate::steps::{Draft, StageOrder, View};
use crate::world::{Instance, InstanceName, Report};

/// How soon to ask again whether it is this cluster's turn, in milliseconds.
const TURN_MS: u64 = 5_000;

/// How an instance stands to the binary that this operator offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its agent runs from it.
    Current,
    /// It was told of it, and has not said yet what became of that.
    Told,
    /// It was told of it, and goes on with another.
    Failed,
    /// It runs from another one.
    Other,
    /// Nothing is known of it now.
    Unknown,
}

/// Says which agents are to run from the operator's own binary.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let Some(wanted) = &view.spec.agent else { return };
    let mut report = StepReport::new(Step::Agents);
    let members: Vec<InstanceName> = draft
        .memory
        .members
        .iter()
        .filter(|(_, member)| !member.leaving)
        .map(|(name, _)| name.clone())
        .collect();
    let mut others = Vec::new();
    let mut free = true;
    for name in &members {
        let Some(instance) = view.instance(name) else { continue };
        let standing = standing(instance, wanted);
        match standing {
            Standing::Current | Standing::Told | Standing::Failed => {
                draft.agents.insert(name.clone(), wanted.clone());
            }
            Standing::Other => others.push(name.clone()),
            Standing::Unknown => {}
        }
        match standing {
            Standing::Current => bring_on_reboot(draft, name, instance),
            Standing::Told => {
                free = false;
                draft.activity(Activity::UpgradingAgents);
                report.waits.push(Wait::Agent(name.clone()));
            }
            Standing::Failed => {
                free = false;
                let failure = said(instance).and_then(|it| it.agent.failure_of(wanted).cloned());
                let failure = failure.unwrap_or_default();
                report.blocked.push(Block::Agent { instance: name.clone(), failure });
            }
            Standing::Other | Standing::Unknown => {}
        }
    }
    if free && !others.is_empty() {
        go_on(view, draft, wanted, &members, &others, &mut report);
    }
    draft.report(report);
}

fn said(instance: &Instance) -> Option<&Report> {
    instance.report.known()
}

fn standing(instance: &Instance, wanted: &AgentBinary) -> Standing {
    let agent = said(instance).map(|report| &report.agent);
    let told = instance
        .directive
        .known()
        .and_then(|facts| facts.directive.agent.as_ref())
        .is_some_and(|told| told.sha256 == wanted.sha256);
    match agent {
        Some(agent) if agent.runs(wanted) => Standing::Current,
        Some(agent) if agent.failure_of(wanted).is_some() => Standing::Failed,
        Some(_) | None if told => Standing::Told,
        // On trial by itself: it was told of it before, and the directive was lost since.
        Some(agent) if agent.trial && agent.sha256.as_ref() == Some(&wanted.sha256) => {
            Standing::Told
        }
        Some(agent) if agent.sha256.is_some() => Standing::Other,
        Some(_) | None => Standing::Unknown,
    }
}

/// All that were told have done it: the next one, if those serve that have it.
fn go_on(
    view: &View<'_>,
    draft: &mut Draft,
    wanted: &AgentBinary,
    members: &[InstanceName],
    others: &[InstanceName],
    report: &mut StepReport,
) {
    let calm = draft.memory.initialized
        && draft.memory.switchover.is_none()
        && !draft.disrupted
        && view.world.sees_members();
    if view.spec.agents_wait {
        report.waits.push(Wait::Turn);
        draft.wake(TURN_MS, "agents of other clusters are being replaced");
        return;
    }
    if !calm {
        return;
    }
    // An agent that is broken may be mended by it, and nothing that serves is touched.
    let broken = others.iter().find(|name| is_idle(view, name));
    let next = match broken {
        Some(name) => Some(name.clone()),
        None => next_serving(view, draft, members, others, report),
    };
    draft.activity(Activity::UpgradingAgents);
    let Some(name) = next else { return };
    report.did.push(Did::UpgradeAgent(name.clone(), wanted.version.clone()));
    draft.agents.insert(name, wanted.clone());
}

/// Its pod runs, and PostgreSQL of it serves nobody.
fn is_idle(view: &View<'_>, name: &InstanceName) -> bool {
    let running = view
        .instance(name)
        .and_then(|it| it.pod.known())
        .is_some_and(|it| it.running && !it.deleting);
    running && !view.is_ready(name) && view.holder().is_some_and(|holder| holder != name)
}

fn next_serving(
    view: &View<'_>,
    draft: &Draft,
    members: &[InstanceName],
    others: &[InstanceName],
    report: &mut StepReport,
) -> Option<InstanceName> {
    let waiting: BTreeSet<InstanceName> = members
        .iter()
        .filter(|name| !view.is_ready(name) && !view.spec.fenced.contains(name))
        .cloned()
        .collect();
    if !waiting.is_empty() {
        report.waits.push(Wait::Ready(waiting));
        return None;
    }
    let Some(holder) = view.holder() else {
        report.waits.push(Wait::Election);
        return None;
    };
    let standby = others.iter().find(|name| *name != holder);
    let unknown =
        || members.iter().find(|name| !others.contains(name) && !draft.agents.contains_key(*name));
    match (standby, unknown()) {
        (Some(standby), _) => Some(standby.clone()),
        (None, Some(unknown)) => {
            report.waits.push(Wait::Agent(unknown.clone()));
            None
        }
        (None, None) => others.first().cloned(),
    }
}

/// The init container of a pod that lives on is to bring the same binary when its node reboots.
fn bring_on_reboot(draft: &mut Draft, name: &InstanceName, instance: &Instance) {
    if let Seen::Known(pod) = &instance.pod
        && !pod.deleting
        && !pod.ended
        && !pod.brings_own_binary
    {
        let action =
            Action::SetBootstrapImage { instance: name.clone(), guard: pod.identity.clone() };
        draft.act(StageOrder::Labels, action);
    }
}
