//! What agents are told, and what they say that a person should know.

use std::collections::BTreeSet;

use crate::action::{Action, Directive};
use crate::report::{Activity, Block, Step, StepReport, Wait};
use crate::seen::Seen;
use crate::steps::{Draft, StageOrder, View};
use crate::world::{Instance, InstanceName};

/// Makes every member's Instance say what was decided.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Directives);
    // What a cluster that hibernates is to be told depends on what cannot be seen.
    if draft.memory.hibernating && draft.hibernation.is_none() {
        return;
    }
    let members: BTreeSet<InstanceName> = draft.memory.members.keys().cloned().collect();
    let mut unready = BTreeSet::new();
    let tablespaces = tablespaces(view, &members, &mut report);
    for name in &members {
        let Some(mut directive) = directive(view, draft, name, &members) else { continue };
        directive.tablespaces.clone_from(&tablespaces);
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

/// Tablespaces that a primary may make. The replay of that stops for good where the place is
/// missing, so every instance has said before that it has it; a pod that is made later has it from
/// the beginning, because the spec keeps what it once asked for.
fn tablespaces(
    view: &View<'_>,
    members: &BTreeSet<InstanceName>,
    report: &mut StepReport,
) -> BTreeSet<String> {
    let instances = || view.world.instances.iter();
    let told = |name: &&String| {
        let mut facts = instances().filter_map(|(_, instance)| instance.directive.last());
        facts.any(|facts| facts.directive.tablespaces.contains(*name))
    };
    let has_place = |instance: Option<&Instance>, name: &String| {
        let said = instance.and_then(|instance| instance.report.known());
        said.is_some_and(|said| said.tablespaces.get(name).is_some_and(|it| it.ready))
    };
    let mut wanted = BTreeSet::new();
    for name in &view.spec.tablespaces {
        let missing: BTreeSet<InstanceName> = instances()
            .filter(|(_, instance)| !instance.is_gone())
            .map(|(instance, _)| instance)
            .chain(members)
            .filter(|instance| !has_place(view.instance(instance), name))
            .cloned()
            .collect();
        if told(&name) || missing.is_empty() && view.world.sees_members() {
            wanted.insert(name.clone());
        } else {
            report.waits.push(Wait::Tablespace { name: name.clone(), missing });
        }
    }
    wanted
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
        tablespaces: BTreeSet::new(),
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
