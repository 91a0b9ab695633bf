//! The plan's report to `Cluster.status`: nobody writes a phase or a condition by hand.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use matriarch_api::annotations::Annotation;
use matriarch_api::cluster::{
    CertificatesStatus, ClusterStatus, Effective, EffectiveSynchronous, ImageInfo,
    InstanceReportedState, Memory as StoredMemory, RetainPolicy, TablespaceState,
};
use matriarch_api::conditions::{self, ConditionType};
use matriarch_api::instance::Tablespace;
use matriarch_api::labels::Label;
use matriarch_api::names;
use matriarch_api::phases::{
    INSTANCES_FAILED, INSTANCES_HEALTHY, INSTANCES_REPLICATING, Phase, TABLESPACE_PENDING,
    TABLESPACE_RECONCILED, TARGET_PRIMARY_PENDING,
};
use matriarch_plan::report::{Activity, Block, Report};
use matriarch_plan::world::{Instance, Role, SecretRole, State, Volume};
use matriarch_plan::{Finding, InstanceName, Plan, Seen, Wanted, World};

use crate::objects::claim;
use crate::observe::MEMORY_FACT;
use crate::resolve::Resolved;
use crate::setup::Owner;
use crate::story;

/// What happened outside of planning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Actions of the last pass that failed: what, and why.
    pub failed: Vec<String>,
    /// The second opinion held the plan back.
    pub findings: Vec<Finding>,
}

/// The status as it is to be.
pub fn render(
    owner: &Owner<'_>,
    resolved: &Resolved,
    world: &World,
    plan: &Plan,
    outcome: &Outcome,
) -> ClusterStatus {
    let before = owner.cluster.status.clone().unwrap_or_default();
    let now = time(world.now_ms);
    let report = &plan.report;
    let (phase, reason) = phase(resolved, report, outcome);
    let mut status = ClusterStatus {
        observed_generation: owner.cluster.metadata.generation,
        phase: Some(phase.text().to_owned()),
        phase_reason: reason,
        effective: Some(effective(resolved)),
        next_action: next_action(plan),
        human_options: story::human_options(owner.name(), report),
        write_service: Some(names::service_rw(owner.name())),
        read_service: Some(names::service_r(owner.name())),
        image: named(&resolved.image),
        selector: Some(selector(owner)),
        certificates: Some(certificates(resolved, world)),
        memory: Some(stored(plan, &before)),
        pod_selector_refs: resolved.pod_addresses.clone(),
        pg_data_image_info: data_image(resolved, plan, &before),
        ..before.clone()
    };
    primaries(&mut status, &before, report, &now);
    members(&mut status, world, report);
    tablespaces(&mut status, resolved, world, report);
    status.blocked_by = blocked_since(report, &before, &now);
    let wanted = wanted_conditions(owner, resolved, world, plan, outcome);
    status.conditions = merge_conditions(&before.conditions, wanted, owner, &now);
    status
}

fn time(now_ms: i64) -> Timestamp {
    Timestamp::from_second(now_ms.div_euclid(1_000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn selector(owner: &Owner<'_>) -> String {
    let pairs = [
        (owner.label(Label::Cluster), owner.name()),
        (owner.label(Label::PodRole), matriarch_api::labels::POD_ROLE_INSTANCE),
    ];
    pairs.map(|(key, value)| format!("{key}={value}")).join(",")
}

fn stored(plan: &Plan, before: &ClusterStatus) -> StoredMemory {
    let mut memory = before.memory.clone().unwrap_or_default();
    memory.bootstrap_primary =
        plan.memory.bootstrap_primary.as_ref().map(|name| name.as_str().to_owned());
    memory.lease_made = Some(plan.memory.lease_made);
    memory.initialized = Some(plan.memory.initialized);
    if let Ok(fact) = serde_json::to_value(&plan.memory) {
        memory.facts.insert(MEMORY_FACT.to_owned(), fact);
    }
    memory
}

/// An image, if it is known.
fn named(image: &str) -> Option<String> {
    (!image.is_empty()).then(|| image.to_owned())
}

/// The image of the instances, from the first one that is made; a spec that cannot be carried out
/// changes nothing.
fn data_image(resolved: &Resolved, plan: &Plan, before: &ClusterStatus) -> Option<ImageInfo> {
    match &resolved.wanted {
        Wanted::Valid(_) if !plan.memory.members.is_empty() => Some(ImageInfo {
            image: Some(resolved.image.clone()),
            major_version: resolved.major.and_then(|major| i32::try_from(major).ok()),
            extensions: Vec::new(),
        }),
        Wanted::Valid(_) | Wanted::Invalid { .. } => before.pg_data_image_info.clone(),
    }
}

fn next_action(plan: &Plan) -> Option<String> {
    let mut actions: Vec<String> =
        plan.stages.iter().flatten().take(3).map(ToString::to_string).collect();
    let more = plan.stages.iter().map(Vec::len).sum::<usize>().saturating_sub(actions.len());
    if more > 0 {
        actions.push(format!("and {more} more"));
    }
    if actions.is_empty() {
        return plan.wake.as_ref().map(|wake| format!("look again: {}", wake.why));
    }
    Some(actions.join("; "))
}

fn phase(resolved: &Resolved, report: &Report, outcome: &Outcome) -> (Phase, Option<String>) {
    if let Some(finding) = outcome.findings.first() {
        let why = format!("PlannerBug: {} ({})", finding.message, finding.rule);
        return (Phase::CannotCreateClusterObjects, Some(why));
    }
    if !outcome.failed.is_empty() {
        return (Phase::CannotCreateClusterObjects, Some(outcome.failed.join("; ")));
    }
    let blocks: Vec<String> =
        story::blocked_by(report).into_iter().filter_map(|blocked| blocked.message).collect();
    let reason = (!blocks.is_empty()).then(|| blocks.join("; "));
    let disk_full = report.steps.iter().flat_map(|step| &step.blocked).any(|block| {
        matches!(block, Block::Failed { reason, .. }
            if reason == matriarch_api::reasons::failure::DISK_FULL)
    });
    let no_image = resolved.image_problem.is_some();
    let other_processor = report.steps.iter().flat_map(|step| &step.blocked).any(|block| {
        matches!(block, Block::Agent { failure, .. }
            if failure.reason == matriarch_api::reasons::binary::OTHER_ARCHITECTURE)
    });
    let phase = match report.activity {
        Activity::Healthy | Activity::InvalidSpec if no_image => Phase::ImageCatalogError,
        Activity::Healthy if other_processor => Phase::ArchitectureBinaryMissing,
        Activity::Healthy | Activity::Paused | Activity::Deleting => Phase::Healthy,
        Activity::WaitingForInstances | Activity::CreatingReplica if disk_full => {
            Phase::NotEnoughDiskSpace
        }
        Activity::WaitingForInstances => Phase::WaitingForInstances,
        Activity::CreatingReplica => Phase::CreatingReplica,
        Activity::ApplyingConfiguration => Phase::ApplyingConfiguration,
        Activity::UpgradingAgents => Phase::OnlineUpgrading,
        Activity::Upgrading => Phase::Upgrading,
        Activity::RestartingPrimary => Phase::InplacePrimaryRestart,
        Activity::WaitingForUser => Phase::WaitingForUser,
        Activity::SwitchingOver => Phase::Switchover,
        Activity::FailingOver => Phase::FailingOver,
        Activity::SettingUpPrimary => Phase::SettingUpPrimary,
        Activity::UnableToCreate => Phase::CannotCreateClusterObjects,
        Activity::Unrecoverable => Phase::Unrecoverable,
        Activity::InvalidSpec => Phase::InvalidDefinition,
    };
    (phase, reason)
}

/// The primary is who holds the Lease. While it cannot be read, status keeps what it said.
fn primaries(status: &mut ClusterStatus, before: &ClusterStatus, report: &Report, now: &Timestamp) {
    if let Some(primary) = &report.primary {
        status.current_primary = Some(primary.as_str().to_owned());
    }
    status.target_primary = match (&report.target_primary, report.activity) {
        (Some(target), _) => Some(target.as_str().to_owned()),
        (None, Activity::FailingOver) => Some(TARGET_PRIMARY_PENDING.to_owned()),
        (None, _) => status.current_primary.clone(),
    };
    if status.current_primary != before.current_primary {
        status.current_primary_timestamp = Some(now.to_string());
    }
    if status.target_primary != before.target_primary {
        status.target_primary_timestamp = Some(now.to_string());
    }
}

fn members(status: &mut ClusterStatus, world: &World, report: &Report) {
    let of = |name| world.instances.get(name);
    status.instance_names = report.members.iter().map(|name| name.as_str().to_owned()).collect();
    let claims = |name| of(name).is_some_and(|instance| instance.data.known().is_some());
    let count = report.members.iter().filter(|name| claims(*name)).count();
    status.instances = i32::try_from(count).ok();
    status.ready_instances = i32::try_from(report.ready.len()).ok();
    let mut by_state: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut reported = BTreeMap::new();
    for name in &report.members {
        let said = of(name).and_then(|instance| instance.report.last());
        let failed = said.is_some_and(|said| said.state == State::Failed || said.failure.is_some());
        let key = if report.ready.contains(name) {
            INSTANCES_HEALTHY
        } else if failed {
            INSTANCES_FAILED
        } else {
            INSTANCES_REPLICATING
        };
        by_state.entry(key.to_owned()).or_default().push(name.as_str().to_owned());
        let Some(said) = said else { continue };
        let address =
            of(name).and_then(|instance| instance.pod.known()).and_then(|pod| pod.address.clone());
        let state = InstanceReportedState {
            is_primary: Some(said.role == Role::Primary),
            time_line_id: said.timeline.and_then(|line| i32::try_from(line).ok()),
            ip: address,
        };
        reported.insert(name.as_str().to_owned(), state);
    }
    status.instances_status = by_state;
    status.instances_reported_state = reported;
    if let Some(said) =
        report.primary.as_ref().and_then(of).and_then(|instance| instance.report.known())
    {
        status.timeline_id = said.timeline.and_then(|line| i32::try_from(line).ok());
        if said.system_id.is_some() {
            status.system_id.clone_from(&said.system_id);
        }
    }
    volumes(status, world);
}

/// As the primary says. While it says nothing, what was true stays so.
fn tablespaces(status: &mut ClusterStatus, resolved: &Resolved, world: &World, report: &Report) {
    let primary = report.primary.as_ref().and_then(|name| world.instances.get(name));
    let said = primary.and_then(|instance| instance.report.known());
    let said = said.filter(|said| said.role == Role::Primary).map(|said| &said.tablespaces);
    let before = std::mem::take(&mut status.tablespaces_status);
    let state = |wanted: &Tablespace| {
        let name = Some(wanted.name.clone());
        let known = said.and_then(|said| said.get(&wanted.name));
        if let Some(known) = known {
            let state = if known.reconciled { TABLESPACE_RECONCILED } else { TABLESPACE_PENDING };
            return TablespaceState {
                name,
                owner: known.owner.clone().or_else(|| Some(wanted.owner.clone())),
                state: Some(state.to_owned()),
                error: known.error.clone(),
            };
        }
        let kept = before.iter().find(|it| it.name == name).cloned();
        kept.unwrap_or_else(|| TablespaceState {
            name,
            owner: Some(wanted.owner.clone()),
            state: Some(TABLESPACE_PENDING.to_owned()),
            error: None,
        })
    };
    status.tablespaces_status = resolved.template.tablespaces.iter().map(state).collect();
}

fn volumes(status: &mut ClusterStatus, world: &World) {
    if world.blind.is_empty() {
        let claims: Vec<(String, bool)> = world
            .instances
            .iter()
            .filter(|(_, instance)| instance.data.known().is_some())
            .map(|(name, instance)| (name.as_str().to_owned(), instance.pod.known().is_some()))
            .collect();
        status.pvc_count = i32::try_from(claims.len()).ok();
        status.healthy_pvc =
            claims.iter().filter(|(_, used)| *used).map(|(name, _)| name.clone()).collect();
        let growing = |volume: &Seen<Volume>| volume.known().is_some_and(Volume::is_growing);
        let grow = |(name, instance): (&InstanceName, &Instance)| {
            let growing = instance.volumes().filter(|(_, volume)| growing(volume));
            growing.map(|(role, _)| claim::name(name.as_str(), &role)).collect::<Vec<_>>()
        };
        status.resizing_pvc = world.instances.iter().flat_map(grow).collect();
        status.dangling_pvc =
            claims.iter().filter(|(_, used)| !used).map(|(name, _)| name.clone()).collect();
    }
}

fn blocked_since(
    report: &Report,
    before: &ClusterStatus,
    now: &Timestamp,
) -> Vec<matriarch_api::cluster::BlockedBy> {
    story::blocked_by(report)
        .into_iter()
        .map(|mut entry| {
            let same = before.blocked_by.iter().find(|old| {
                old.reason == entry.reason
                    && old.object == entry.object
                    && old.message == entry.message
            });
            entry.since = same.and_then(|old| old.since.clone()).or_else(|| Some(now.to_string()));
            entry
        })
        .collect()
}

/// Trouble that was not there in the status before.
pub fn new_warnings(report: &Report, before: Option<&ClusterStatus>) -> Vec<story::Event> {
    let known = |event: &story::Event| {
        before.is_some_and(|status| {
            status.blocked_by.iter().any(|old| old.message.as_ref() == Some(&event.note))
        })
    };
    story::warnings(report).into_iter().filter(|event| !known(event)).collect()
}

struct Wish {
    kind: String,
    holds: Option<bool>,
    reason: &'static str,
    message: String,
}

fn wish(kind: ConditionType, holds: bool, reason: &'static str, message: String) -> Wish {
    Wish { kind: kind.name().to_owned(), holds: Some(holds), reason, message }
}

fn wanted_conditions(
    owner: &Owner<'_>,
    resolved: &Resolved,
    world: &World,
    plan: &Plan,
    outcome: &Outcome,
) -> Vec<Wish> {
    let report = &plan.report;
    let instances = usize::try_from(owner.cluster.spec.instances.unwrap_or(1)).unwrap_or(1);
    let ready = report.activity == Activity::Healthy
        && outcome.failed.is_empty()
        && outcome.findings.is_empty()
        && report.ready.len() >= instances;
    let mut wishes = vec![
        wish(
            ConditionType::Ready,
            ready,
            if ready { conditions::CLUSTER_IS_READY } else { conditions::CLUSTER_IS_NOT_READY },
            format!("{} of {instances} instances are ready", report.ready.len()),
        ),
        wish(
            ConditionType::Initialized,
            plan.memory.initialized,
            if plan.memory.initialized {
                conditions::BOOTSTRAP_COMPLETED
            } else {
                conditions::BOOTSTRAP_PENDING
            },
            String::new(),
        ),
    ];
    wishes.push(accepted(resolved));
    wishes.push(unsupported(resolved));
    wishes.push(configuration(resolved, world, report));
    wishes.push(system_id(world, report));
    wishes.push(protected(instances, report));
    wishes.extend(hibernation(owner, world, plan));
    wishes.extend(agents(resolved, world, report));
    if let Some(finding) = outcome.findings.first() {
        wishes.push(Wish {
            kind: PLANNER_BUG.to_owned(),
            holds: Some(true),
            reason: PLANNER_BUG,
            message: format!("{} ({}); nothing is executed", finding.message, finding.rule),
        });
    }
    wishes
}

/// There only while the user wants the cluster to sleep; type and reasons are CloudNativePG's.
fn hibernation(owner: &Owner<'_>, world: &World, plan: &Plan) -> Option<Wish> {
    let Wanted::Valid(spec) = &world.wanted else { return None };
    if !spec.hibernated {
        return None;
    }
    let asleep =
        plan.memory.hibernating
            && plan.memory.members.keys().all(|name| {
                world.instances.get(name).is_none_or(|instance| instance.pod.is_absent())
            });
    let (reason, message) = match (asleep, plan.memory.hibernating) {
        (true, _) => (conditions::HIBERNATED, "Cluster has been hibernated"),
        (false, true) => (conditions::DELETING_PODS, "Hibernation is in progress"),
        (false, false) => {
            (conditions::WAITING_TO_HIBERNATE, "The cluster hibernates once it is healthy")
        }
    };
    let kind = owner.annotation(Annotation::Hibernation);
    Some(Wish { kind, holds: Some(asleep), reason, message: message.to_owned() })
}

/// Condition that says that the second opinion held a plan back; there only while it does.
pub const PLANNER_BUG: &str = "PlannerBug";

fn accepted(resolved: &Resolved) -> Wish {
    match &resolved.wanted {
        Wanted::Valid(_) => {
            wish(ConditionType::SpecAccepted, true, conditions::SPEC_ACCEPTED, String::new())
        }
        Wanted::Invalid { findings } => {
            let message: Vec<String> = findings
                .iter()
                .map(|finding| format!("{}: {}", finding.path, finding.message))
                .collect();
            let reason =
                if resolved.blocked { conditions::SPEC_BLOCKED } else { conditions::SPEC_INVALID };
            wish(ConditionType::SpecAccepted, false, reason, message.join("; "))
        }
    }
}

fn unsupported(resolved: &Resolved) -> Wish {
    let kind = ConditionType::UnsupportedFields;
    if resolved.unsupported.is_empty() {
        return wish(kind, false, conditions::ALL_FIELDS_EFFECTIVE, String::new());
    }
    let listed: Vec<String> =
        resolved.unsupported.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    wish(kind, true, conditions::FIELDS_WITHOUT_EFFECT, listed.join("; "))
}

fn configuration(resolved: &Resolved, world: &World, report: &Report) -> Wish {
    let mut rejected = Vec::new();
    let mut pending = Vec::new();
    for name in &report.members {
        let said = world.instances.get(name).and_then(|instance| instance.report.known());
        match said {
            Some(said) if said.configuration_error.is_some() => rejected
                .push(format!("{name}: {}", said.configuration_error.clone().unwrap_or_default())),
            Some(said)
                if said.configuration_hash.as_ref()
                    == Some(&resolved.template.configuration_hash)
                    && said.pending_restart.is_empty() => {}
            Some(_) | None => pending.push(name.as_str().to_owned()),
        }
    }
    let kind = ConditionType::ConfigurationApplied;
    if !rejected.is_empty() {
        wish(kind, false, conditions::CONFIGURATION_REJECTED, rejected.join("; "))
    } else if pending.is_empty() {
        wish(kind, true, conditions::CONFIGURATION_LOADED, String::new())
    } else {
        let message = format!("not yet in effect in {}", pending.join(", "));
        wish(kind, false, conditions::CONFIGURATION_PENDING, message)
    }
}

fn system_id(world: &World, report: &Report) -> Wish {
    let mut ids: Vec<&String> = report
        .members
        .iter()
        .filter_map(|name| world.instances.get(name)?.report.last()?.system_id.as_ref())
        .collect();
    ids.sort();
    ids.dedup();
    let (holds, reason) = match ids.len() {
        0 => (None, conditions::NOT_FOUND),
        1 => (Some(true), conditions::UNIQUE),
        _ => (Some(false), conditions::MISMATCH),
    };
    let message = ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
    Wish { kind: ConditionType::ConsistentSystemId.name().to_owned(), holds, reason, message }
}

fn protected(instances: usize, report: &Report) -> Wish {
    let kind = ConditionType::FailoverProtected;
    let standbys =
        report.ready.iter().filter(|name| Some(*name) != report.primary.as_ref()).count();
    if instances < 2 {
        wish(kind, false, conditions::SINGLE_INSTANCE, "there is one instance".to_owned())
    } else if report.primary.is_some() && standbys > 0 {
        let message = format!("{standbys} standbys stream");
        wish(kind, true, conditions::PROTECTED, message)
    } else {
        wish(kind, false, conditions::NO_FIT_SUCCESSOR, "no standby streams".to_owned())
    }
}

/// None where the operator serves no binary.
fn agents(resolved: &Resolved, world: &World, report: &Report) -> Option<Wish> {
    let wanted = resolved.spec()?.agent.as_ref()?;
    let kind = ConditionType::AgentsUpToDate;
    let mut failed = Vec::new();
    let mut behind = Vec::new();
    for name in &report.members {
        let said = world.instances.get(name).and_then(|instance| instance.report.known());
        match said.map(|said| (said.agent.runs(wanted), said.agent.failure_of(wanted))) {
            Some((true, _)) => {}
            Some((false, Some(failure))) => {
                failed.push(format!("{name}: {}: {}", failure.reason, failure.message));
            }
            Some((false, None)) | None => behind.push(name.as_str().to_owned()),
        }
    }
    Some(if !failed.is_empty() {
        wish(kind, false, conditions::AGENT_FAILED, failed.join("; "))
    } else if behind.is_empty() {
        wish(kind, true, conditions::AGENTS_CURRENT, format!("version {}", wanted.version))
    } else {
        let message = format!("not yet version {}: {}", wanted.version, behind.join(", "));
        wish(kind, false, conditions::AGENTS_UPGRADING, message)
    })
}

fn merge_conditions(
    before: &[Condition],
    wishes: Vec<Wish>,
    owner: &Owner<'_>,
    now: &Timestamp,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = Vec::new();
    for wish in wishes {
        let status = match wish.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let old = before.iter().find(|old| old.type_ == wish.kind);
        let since = old
            .filter(|old| old.status == status)
            .map_or(Time(*now), |old| old.last_transition_time.clone());
        merged.push(Condition {
            type_: wish.kind,
            status: status.to_owned(),
            reason: wish.reason.to_owned(),
            message: wish.message,
            last_transition_time: since,
            observed_generation: owner.cluster.metadata.generation,
        });
    }
    merged
}

fn certificates(resolved: &Resolved, world: &World) -> CertificatesStatus {
    let name = |role: SecretRole| resolved.secret_names.get(&role).cloned();
    let authority = name(SecretRole::Authority);
    let mut expirations = BTreeMap::new();
    for seen in world.secrets.values() {
        let Seen::Known(facts) = seen else { continue };
        if let Some(certificate) = &facts.certificate {
            expirations.insert(facts.name.clone(), time(certificate.not_after_ms).to_string());
        }
    }
    CertificatesStatus {
        server_ca_secret: name(SecretRole::ServerAuthority).or_else(|| authority.clone()),
        server_tls_secret: name(SecretRole::Server),
        client_ca_secret: name(SecretRole::ClientAuthority).or(authority),
        replication_tls_secret: name(SecretRole::Replication),
        server_alt_dns_names: resolved.alternative_names.clone(),
        expirations,
    }
}

fn effective(resolved: &Resolved) -> Effective {
    let template = &resolved.template;
    let signed = |value: u64| i64::try_from(value).ok();
    let slots = &template.configuration.high_availability_slots;
    let spec = resolved.spec();
    Effective {
        image: named(&resolved.image),
        postgres_major: resolved.major.and_then(|major| i32::try_from(major).ok()),
        postgres_uid: Some(resolved.uid),
        postgres_gid: Some(resolved.gid),
        database: Some(resolved.initdb.database.clone()),
        owner: Some(resolved.initdb.owner.clone()),
        parameters: template.configuration.parameters.clone(),
        synchronous: template.configuration.synchronous.as_ref().map(effective_synchronous),
        slot_prefix: slots.enabled.then(|| slots.slot_prefix.clone()),
        primary_update_strategy: spec.map(|spec| match spec.update_strategy {
            matriarch_plan::spec::UpdateStrategy::Unsupervised => {
                matriarch_api::cluster::PrimaryUpdateStrategy::Unsupervised
            }
            matriarch_plan::spec::UpdateStrategy::Supervised => {
                matriarch_api::cluster::PrimaryUpdateStrategy::Supervised
            }
        }),
        primary_update_method: spec.map(|spec| match spec.update_method {
            matriarch_plan::spec::UpdateMethod::Switchover => {
                matriarch_api::cluster::PrimaryUpdateMethod::Switchover
            }
            matriarch_plan::spec::UpdateMethod::Restart => {
                matriarch_api::cluster::PrimaryUpdateMethod::Restart
            }
        }),
        lease_duration_milliseconds: signed(template.lease.duration_ms),
        lease_renew_milliseconds: signed(template.lease.renew_ms),
        maximum_lag_bytes: template.failover.maximum_lag_bytes.and_then(signed),
        failsafe_max_seconds: signed(template.failover.failsafe_max_seconds),
        start_delay_seconds: signed(template.delays.start_seconds),
        stop_delay_seconds: signed(template.delays.stop_seconds),
        smart_shutdown_seconds: template.delays.smart_shutdown_seconds.and_then(signed),
        switchover_delay_seconds: signed(template.delays.switchover_seconds),
        failover_delay_seconds: signed(template.failover.delay_seconds),
        promotion_timeout_seconds: signed(template.delays.promotion_seconds),
        retain_policy: Some(if resolved.retain_volumes {
            RetainPolicy::Keep
        } else {
            RetainPolicy::Delete
        }),
        log_level: Some(template.log_level.clone()),
    }
}

fn effective_synchronous(
    synchronous: &matriarch_api::instance::Synchronous,
) -> EffectiveSynchronous {
    EffectiveSynchronous {
        method: Some(match synchronous.method {
            matriarch_api::instance::SynchronousMethod::Any => {
                matriarch_api::cluster::SynchronousMethod::Any
            }
            matriarch_api::instance::SynchronousMethod::First => {
                matriarch_api::cluster::SynchronousMethod::First
            }
        }),
        number: i32::try_from(synchronous.number).ok(),
        data_durability: Some(match synchronous.durability {
            matriarch_api::instance::DataDurability::Required => {
                matriarch_api::cluster::DataDurability::Required
            }
            matriarch_api::instance::DataDurability::Preferred => {
                matriarch_api::cluster::DataDurability::Preferred
            }
        }),
    }
}
