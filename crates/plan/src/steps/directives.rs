//! What agents are told, and what they say that a person should know.

use std::collections::BTreeSet;

use crate::action::{Action, Directive};
use crate::report::{Activity, Block, Step, StepReport, Wait};
use crate::seen::Seen;
use crate::steps::{Draft, StageOrder, View};
use crate::world::InstanceName;

/// Makes every member's Instance say what was decided.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Directives);
    // What a cluster that hibernates is to be told depends on what cannot be seen.
    if draft.memory.hibernating && draft.hibernation.is_none() {
        return;
    }
    let members: BTreeSet<InstanceName> = draft.memory.members.keys().cloned().collect();
    let mut unready = BTreeSet::new();
    for name in &members {
        let Some(directive) = directive(view, draft, name, &members) else { continue };
        let due = match view.instance(name).map(|instance| &instance.directive) {
            None => view.world.sees_members(),
            Some(Seen::Absent) => !directive.leaving,
            Some(Seen::Known(facts)) => {
                !facts.deleting && (!facts.conforms || facts.directive != directive)
            }
            Some(Seen::Stale(_) | Seen::Unknown { .. }) => false,
        };
        let ready = view.is_ready(name);
        if !ready && !directive.fenced && !directive.leaving && draft.hibernation.is_none() {
            unready.insert(name.clone());
        }
        if due {
            let action = Action::Direct { instance: name.clone(), directive: directive.clone() };
            draft.act(StageOrder::Directives, action);
        }
        draft.directives.insert(name.clone(), directive);
        listen(view, name, &mut report);
    }
    let fenced: BTreeSet<InstanceName> =
        members.iter().filter(|name| view.spec.fenced.contains(name)).cloned().collect();
    if !fenced.is_empty() {
        if fenced.len() == members.len() {
            draft.activity(Activity::WaitingForUser);
        }
        report.blocked.push(Block::Fenced(fenced));
    }
    if !unready.is_empty() {
        let new = unready.iter().any(|name| {
            view.instance(name)
                .is_none_or(|found| found.report.last().is_none_or(|r| r.incarnation.is_none()))
        });
        let activity = if new { Activity::CreatingReplica } else { Activity::WaitingForInstances };
        draft.activity(activity);
        report.waits.push(Wait::Ready(unready));
    }
    draft.report(report);
}

fn directive(
    view: &View<'_>,
    draft: &Draft,
    name: &InstanceName,
    members: &BTreeSet<InstanceName>,
) -> Option<Directive> {
    let member = draft.memory.members.get(name)?;
    let first = !draft.memory.initialized && draft.memory.bootstrap_primary.as_ref() == Some(name);
    let switchover = draft
        .memory
        .switchover
        .as_ref()
        .filter(|wish| wish.from == *name)
        .map(|wish| (wish.id.clone(), wish.to.clone()));
    let mut directive = Directive {
        serial: member.serial,
        members: members.clone(),
        initdb: first,
        bootstrap_primary: first,
        fenced: view.spec.fenced.contains(name),
        leaving: member.leaving,
        switchover,
        restart: member.restart.clone(),
        excluded: false,
        agent: draft.agents.get(name).cloned(),
    };
    if let Some(hibernation) = &draft.hibernation {
        hibernation.apply(name, &mut directive);
    }
    Some(directive)
}

fn listen(view: &View<'_>, name: &InstanceName, report: &mut StepReport) {
    let Some(said) = view.instance(name).and_then(|instance| instance.report.known()) else {
        return;
    };
    if let Some((reason, message)) = &said.failure {
        report.blocked.push(Block::Failed {
            instance: name.clone(),
            reason: reason.clone(),
            message: message.clone(),
        });
    }
    if let Some(stall) = &said.waiting {
        report.blocked.push(Block::Stalled { instance: name.clone(), stall: stall.clone() });
    }
    if let Some(message) = &said.configuration_error {
        report
            .blocked
            .push(Block::Configuration { instance: name.clone(), message: message.clone() });
    }
}
