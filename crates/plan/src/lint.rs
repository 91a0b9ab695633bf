//! A second opinion on a plan, written from the invariants and not from the planner. A plan with
//! a finding is not executed; condition `PlannerBug` says why.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::action::{Action, Plan, VolumeRole};
use crate::memory::Memory;
use crate::protocol::Span;
use crate::protocol::proof::NodeEvidence;
use crate::seen::Seen;
use crate::spec::{SecretSource, Wanted};
use crate::world::{
    EndedContainer, Identity, Instance, InstanceName, Pod, PodRole, SecretRole, ServicePart, World,
};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The invariant or trap that is broken.
    pub rule: String,
    /// How, for a person.
    pub message: String,
}

/// A pass of a cluster never needs more actions than this, plus eight for each instance and two for
/// each of its tablespaces.
const ACTIONS_MAX: usize = 40;

/// Looks for broken rules.
pub fn lint(world: &World, plan: &Plan) -> Vec<Finding> {
    let mut findings = Findings::default();
    let actions: Vec<&Action> = plan.stages.iter().flatten().collect();
    for action in &actions {
        check_action(world, plan, action, &mut findings);
    }
    check_scope(world, &actions, &mut findings);
    check_bounds(world, plan, &actions, &mut findings);
    check_memory(world, plan, &mut findings);
    check_directives(plan, &actions, &mut findings);
    check_tablespaces(world, plan, &actions, &mut findings);
    check_agents(world, plan, &actions, &mut findings);
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn require(&mut self, holds: bool, rule: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Finding { rule: rule.to_owned(), message: message() });
        }
    }
}

/// The same object as was seen, and seen in this pass.
fn matches<T>(seen: &Seen<T>, guard: &Identity, identity: impl Fn(&T) -> &Identity) -> bool {
    match seen {
        Seen::Known(found) => identity(found) == guard && !guard.uid.is_empty(),
        Seen::Stale(_) | Seen::Absent | Seen::Unknown { .. } => false,
    }
}

fn check_action(world: &World, plan: &Plan, action: &Action, findings: &mut Findings) {
    let says = || format!("the plan would {action}");
    match action {
        Action::DeletePod { instance, guard } | Action::SetBootstrapImage { instance, guard } => {
            let found = world.instances.get(instance);
            let same = found.is_some_and(|i| matches(&i.pod, guard, |pod| &pod.identity));
            findings.require(same, "I20", says);
        }
        Action::DeleteVolume { instance, volume, guard } => {
            check_delete_volume(world, plan, instance, volume, guard, findings);
        }
        Action::DeleteInstance { instance, guard } => {
            let found = world.instances.get(instance);
            let same = found.is_some_and(|i| matches(&i.directive, guard, |facts| &facts.identity));
            findings.require(same, "I20", says);
            findings.require(is_leaving(plan, instance), "I6", says);
        }
        Action::CreatePod { instance, wal_volume, tablespaces } => {
            let found = world.instances.get(instance);
            let free = found.is_none_or(|i| is_free(i, *wal_volume, tablespaces));
            findings.require(free && world.blind.is_empty(), "I7", says);
        }
        Action::CreateVolume { instance, volume } => {
            let found = world.instances.get(instance);
            let absent = found.is_none_or(|i| i.volume(volume).is_absent());
            findings.require(absent && world.blind.is_empty(), "I20", says);
        }
        Action::GrowVolume { instance, volume, to, guard } => {
            findings.require(grows(world, instance, volume, *to, guard), "never shrink", says);
        }
        Action::FreeLease { guard, holder, .. } => {
            check_free(world, &plan.memory, guard, holder, findings);
        }
        Action::CreateLease => {
            let first =
                world.lease.is_absent() && !world.memory.lease_made && !world.memory.initialized;
            findings.require(first, "H6", says);
        }
        Action::CreateSecret { role } => {
            let free = world.secrets.get(role).is_none_or(Seen::is_absent);
            findings.require(free && is_managed(world, *role), "K11", says);
        }
        Action::RepairSecret { role, guard, .. } | Action::RenewSecret { role, guard, .. } => {
            let found = world.secrets.get(role);
            let same = found.is_some_and(|seen| matches(seen, guard, |facts| &facts.identity));
            findings.require(same && is_managed(world, *role), "K11", says);
        }
        Action::LabelPod { instance, role, .. } => {
            let primary = *role == PodRole::Primary;
            findings.require((world.holder() == Some(instance)) == primary, "I5", says);
        }
        Action::Direct { instance, .. } => {
            let member = plan.memory.members.contains_key(instance);
            findings.require(member, "recorded before acted upon", says);
        }
        Action::TryPod { instance, .. } => {
            // It would be made, were the trial none.
            let there = world.instances.get(instance).is_some_and(|i| i.pod.known().is_some());
            findings.require(there, "I7", says);
        }
        Action::RemoveService { name, part, guard } => {
            findings.require(is_service(world, name, *part, guard), "I20", says);
        }
        Action::Apply { .. }
        | Action::ApplyService { .. }
        | Action::Remove { .. }
        | Action::AdoptVolume { .. }
        | Action::AdoptPod { .. } => {}
    }
}

/// No pod is there, and what one would be made of is not on its way out.
fn is_free(instance: &Instance, wal_volume: bool, tablespaces: &BTreeSet<String>) -> bool {
    let of_tablespace =
        |name: &String| is_usable(instance.volume(&VolumeRole::Tablespace(name.clone())));
    instance.pod.is_absent()
        && is_usable(&instance.data)
        && (!wal_volume || is_usable(&instance.wal))
        && tablespaces.iter().all(of_tablespace)
}

/// The volume that was seen asks for less.
fn grows(
    world: &World,
    instance: &InstanceName,
    volume: &VolumeRole,
    to: u64,
    guard: &Identity,
) -> bool {
    let found = world.instances.get(instance).map(|i| i.volume(volume));
    found.is_some_and(|seen| {
        let less = seen.known().is_some_and(|volume| volume.requested.is_some_and(|now| now < to));
        less && matches(seen, guard, |volume| &volume.identity)
    })
}

fn is_service(world: &World, name: &str, part: ServicePart, guard: &Identity) -> bool {
    world.services.get(name).is_some_and(|seen| {
        let seen = match part {
            ServicePart::Service => &seen.service,
            ServicePart::Endpoints => &seen.endpoints,
        };
        matches(seen, guard, |facts| &facts.identity)
    })
}

fn is_managed(world: &World, role: SecretRole) -> bool {
    match &world.wanted {
        Wanted::Valid(spec) => spec.secrets.get(&role) == Some(&SecretSource::Managed),
        Wanted::Invalid { .. } => false,
    }
}

fn is_leaving(plan: &Plan, instance: &InstanceName) -> bool {
    plan.memory.members.get(instance).is_some_and(|member| member.leaving)
}

fn is_usable(volume: &Seen<crate::world::Volume>) -> bool {
    volume.is_absent() || volume.known().is_some_and(|found| !found.deleting)
}

fn check_delete_volume(
    world: &World,
    plan: &Plan,
    instance: &InstanceName,
    volume: &VolumeRole,
    guard: &Identity,
    findings: &mut Findings,
) {
    let says = || format!("the plan would delete the {volume} volume of {instance}");
    let found = world.instances.get(instance);
    let same = found.is_some_and(|i| matches(i.volume(volume), guard, |volume| &volume.identity));
    findings.require(same, "I20", says);
    // Told and recorded in an earlier pass, so that nobody counts on it any more.
    let recorded = world.memory.members.get(instance).is_some_and(|member| member.leaving);
    findings.require(recorded && is_leaving(plan, instance), "I6", says);
    let other = world.holder().is_some_and(|holder| holder != instance);
    findings.require(other, "I6", says);
    findings.require(!world.counts_on(instance), "I6", says);
    findings.require(found.is_some_and(|i| i.pod.is_absent()), "I7", says);
    let keeps = match &world.wanted {
        Wanted::Valid(spec) => spec.retain_volumes,
        Wanted::Invalid { .. } => true,
    };
    findings.require(!keeps, "N24", says);
}

fn check_free(
    world: &World,
    memory: &Memory,
    guard: &Identity,
    holder: &InstanceName,
    findings: &mut Findings,
) {
    let proved = world.lease.known().is_some_and(|lease| {
        let pod = world.instances.get(holder).and_then(|i| i.pod.known());
        lease.identity == *guard
            && lease.holder.as_ref() == Some(holder)
            && lease.state.as_ref().and_then(|state| state.holder.as_ref()).is_some_and(|named| {
                let runs = |pod: &Pod| pod.identity.uid == named.pod_uid.0 && pod.running;
                let ended = |end: &EndedContainer| {
                    end.container == named.container_id && end.pod == named.pod_uid
                };
                let expired = lease
                    .state
                    .as_ref()
                    .is_some_and(|state| Span::millis(lease.unchanged_ms) >= state.duration);
                let by_node = match world.node_evidence(memory, &named.pod_uid) {
                    NodeEvidence::OutOfService => true,
                    NodeEvidence::Gone => expired,
                    NodeEvidence::NotProved => false,
                };
                by_node || world.ended.iter().any(ended) && !pod.is_some_and(runs)
            })
    });
    findings.require(proved, "rule 20", || {
        format!("the plan would free the Lease of {holder} without proof of its death")
    });
}

/// A cluster that is being deleted, paused, or whose spec is invalid, is left alone.
fn check_scope(world: &World, actions: &[&Action], findings: &mut Findings) {
    let labels_only = actions.iter().all(|action| matches!(action, Action::LabelPod { .. }));
    let may_act = match &world.wanted {
        Wanted::Valid(spec) => !world.deleting && (!spec.paused || actions.is_empty()),
        Wanted::Invalid { .. } => !world.deleting && labels_only,
    };
    findings.require(may_act || actions.is_empty(), "I14", || {
        "the plan acts on a cluster that is to be left alone".to_owned()
    });
}

fn check_bounds(world: &World, plan: &Plan, actions: &[&Action], findings: &mut Findings) {
    let wanted = match &world.wanted {
        Wanted::Valid(spec) => spec.tablespaces.len(),
        Wanted::Invalid { .. } => 0,
    };
    let there = world.instances.values().map(|instance| instance.tablespaces.len()).max();
    let tablespaces = wanted.max(there.unwrap_or_default());
    let instances = world.instances.len().max(plan.memory.members.len());
    let most = ACTIONS_MAX + (8 + 2 * tablespaces) * instances;
    findings.require(actions.len() <= most, "bounded", || {
        format!("the plan has {} actions", actions.len())
    });
    let stopped: Vec<&InstanceName> = actions
        .iter()
        .filter_map(|action| {
            if let Action::DeletePod { instance, .. } = action { Some(instance) } else { None }
        })
        .filter(|name| world.instances.get(*name).is_some_and(Instance::is_ready))
        .collect();
    findings.require(stopped.len() <= 1, "one at a time", || {
        format!("the plan would stop {} instances that serve", stopped.len())
    });
    let mut seen = BTreeSet::new();
    let unique = actions.iter().all(|action| seen.insert(format!("{action:?}")));
    findings.require(unique, "bounded", || "the plan says the same thing twice".to_owned());
}

fn check_memory(world: &World, plan: &Plan, findings: &mut Findings) {
    let before = &world.memory;
    let after = &plan.memory;
    findings.require(!before.initialized || after.initialized, "I6", || {
        "the plan forgets that there is data".to_owned()
    });
    findings.require(!before.lease_made || after.lease_made, "H6", || {
        "the plan forgets that the Lease was made".to_owned()
    });
    let same =
        before.bootstrap_primary.is_none() || before.bootstrap_primary == after.bootstrap_primary;
    findings.require(same, "bootstrap is chosen once", || {
        "the plan chooses the first primary again".to_owned()
    });
    let lost = before.members.iter().find(|(name, member)| {
        !after.members.contains_key(*name) && (!member.leaving || world.holder() == Some(*name))
    });
    findings.require(lost.is_none(), "I6", || {
        format!("the plan forgets instances that were not leaving: {lost:?}")
    });
    let staying = after.members.values().filter(|member| !member.leaving).count();
    findings.require(before.members.is_empty() || staying > 0, "I6", || {
        "the plan would remove every instance".to_owned()
    });
    let primary_leaves = world.holder().is_some_and(|holder| {
        after.members.get(holder).is_some_and(|member| member.leaving)
            && before.members.get(holder).is_none_or(|member| !member.leaving)
    });
    findings.require(!primary_leaves, "never the primary", || {
        "the plan would remove the primary".to_owned()
    });
}

fn check_directives(plan: &Plan, actions: &[&Action], findings: &mut Findings) {
    let mut firsts = 0;
    let mut switchovers = 0;
    for action in actions {
        if let Action::Direct { directive, .. } = action {
            firsts += usize::from(directive.bootstrap_primary || directive.initdb);
            switchovers += usize::from(directive.switchover.is_some());
        }
    }
    let allowed = usize::from(!plan.memory.initialized);
    findings.require(firsts <= allowed, "bootstrap is chosen once", || {
        format!("{firsts} instances are told to make the data")
    });
    findings.require(switchovers <= 1, "one at a time", || {
        format!("{switchovers} instances are asked to hand over")
    });
}

/// A primary makes a tablespace only where nobody's replay stops at it: every instance has said that
/// it has the place, now or before the first one was told.
fn check_tablespaces(world: &World, plan: &Plan, actions: &[&Action], findings: &mut Findings) {
    let told = |name: &String| {
        let mut facts = world.instances.values().filter_map(|i| i.directive.known());
        facts.any(|facts| facts.directive.tablespaces.contains(name))
    };
    let prepared = |instance: &InstanceName, name: &String| {
        let said = world.instances.get(instance).and_then(|i| i.report.known());
        said.is_some_and(|said| said.tablespaces.get(name).is_some_and(|it| it.ready))
    };
    for action in actions {
        let Action::Direct { instance, directive } = action else { continue };
        for name in directive.tablespaces.iter().filter(|name| !told(name)) {
            let everywhere = plan.memory.members.keys().all(|member| prepared(member, name));
            findings.require(everywhere && world.sees_members(), "replay goes on", || {
                format!("{instance} would make tablespace {name} that others have no place for")
            });
        }
    }
}

/// One agent at a time is told of another binary than the one it runs from, and the holder's only
/// when nobody else is left.
fn check_agents(world: &World, plan: &Plan, actions: &[&Action], findings: &mut Findings) {
    let runs = |name: &InstanceName, sha256: &str| {
        let said = world.instances.get(name).and_then(|it| it.report.known());
        said.is_some_and(|said| said.agent.sha256.as_deref() == Some(sha256))
    };
    let before = |name: &InstanceName| {
        let facts = world.instances.get(name)?.directive.known()?;
        facts.directive.agent.as_ref().map(|agent| agent.sha256.as_str())
    };
    let mut told = 0;
    for action in actions {
        if let Action::Direct { instance, directive } = action
            && let Some(agent) = &directive.agent
            && before(instance) != Some(agent.sha256.as_str())
            && !runs(instance, &agent.sha256)
        {
            told += 1;
            let last = world.holder() != Some(instance)
                || plan.memory.members.iter().all(|(name, member)| {
                    name == instance || member.leaving || runs(name, &agent.sha256)
                });
            findings.require(last, "the primary last", || {
                format!("the plan would replace the agent of the primary {instance} before others")
            });
        }
    }
    findings.require(told <= 1, "one at a time", || {
        format!("the plan would replace {told} agents at once")
    });
}
