//! The plan's report in words: events, what is waited for, what a person may do.

use std::collections::BTreeSet;

use matriarch_api::cluster::{BlockedBy, HumanOption};
use matriarch_api::reasons::{blocked, event, warning};
use matriarch_plan::memory::SwitchoverReason;
use matriarch_plan::report::{Block, Did, ReplacementBlock, Report, Wait};
use matriarch_plan::spec::ImageProblem;
use matriarch_plan::world::SecretRole;
use matriarch_plan::{BinaryFailure, InstanceName};

/// An event to be written about the Cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Trouble, or normal life.
    pub warning: bool,
    /// PascalCase, from `api::reasons`.
    pub reason: &'static str,
    /// What was done.
    pub action: &'static str,
    /// For a person.
    pub note: String,
    /// Kind and name, `Instance/NAME`, of what it is about beside the Cluster. Events of one reason
    /// are counted as one where this is the same, and only the first one's note is kept.
    pub related: Option<String>,
}

fn normal(reason: &'static str, action: &'static str, note: String) -> Event {
    Event { warning: false, reason, action, note, related: None }
}

fn about(name: &InstanceName, reason: &'static str, action: &'static str, note: String) -> Event {
    Event { related: instance(name), ..normal(reason, action, note) }
}

/// Kind and name, as `related` and `object` give them.
#[expect(clippy::unnecessary_wraps, reason = "both fields are optional, and no object is None")]
fn instance(name: &InstanceName) -> Option<String> {
    Some(format!("Instance/{name}"))
}

/// Events about what was started in this pass.
pub fn events(report: &Report) -> Vec<Event> {
    report.steps.iter().flat_map(|step| &step.did).filter_map(did).collect()
}

fn did(did: &Did) -> Option<Event> {
    Some(match did {
        Did::AddInstance(name) => {
            about(name, event::CREATING_INSTANCE, "Create", format!("Creating instance {name}"))
        }
        Did::RetireInstance(name) => {
            about(name, event::SCALE_DOWN, "Scale", format!("Removing instance {name}"))
        }
        Did::ReplaceInstance(name, why) => {
            let note = format!("Replacing instance {name} by a new one: {why}");
            about(name, event::DELETE_UNRECOVERABLE_INSTANCE, "Replace", note)
        }
        Did::ForgetInstance(name) => {
            about(name, event::SCALE_DOWN, "Remove", format!("Instance {name} is removed"))
        }
        Did::CreatePod(_) | Did::CreateVolume(_) | Did::CreateSecret(_) => return None,
        Did::ReplacePod(name, why) => {
            let note = format!("Replacing pod {name}: {why}");
            about(name, event::UPGRADING_INSTANCE, "Replace", note)
        }
        Did::RemovePod(name) => {
            let note = format!("Removing pod {name}: the cluster hibernates");
            about(name, event::HIBERNATING, "Hibernate", note)
        }
        Did::GrowVolume(name) => {
            about(name, event::GROWING_VOLUME, "Grow", format!("Growing a volume of {name}"))
        }
        Did::DeleteVolumes(name) => {
            about(name, event::DELETE_PVCS, "Delete", format!("Deleting the volumes of {name}"))
        }
        Did::Restart(name, why) => {
            let note = format!("Restarting PostgreSQL of {name}: {why}");
            about(name, event::RESTARTING, "Restart", note)
        }
        Did::UpgradeAgent(name, version) => {
            let note =
                format!("Replacing the agent of {name} by version {version}; PostgreSQL runs on");
            about(name, event::UPGRADING_AGENT, "UpgradeAgent", note)
        }
        Did::StartSwitchover { from, to, reason } => switching_over(from, to.as_ref(), *reason),
        Did::EndSwitchover { primary } => {
            let note = format!("{primary} is the primary now");
            about(primary, event::SWITCHOVER, "Switchover", note)
        }
        Did::AbandonSwitchover { to, why } => given_up(to.as_ref(), why),
        Did::SeePrimary { before, now } => about(
            now,
            event::FAILOVER_TARGET,
            "Failover",
            format!("{now} took over from {before} and is the primary now"),
        ),
        Did::FreeLease(holder) => about(
            holder,
            event::FAILING_OVER,
            "Failover",
            format!("The container of {holder} is proved terminated; its Lease is freed"),
        ),
        Did::RenewSecret(role) => {
            let note = format!("Renewing the {} Secret", secret_word(*role));
            normal(event::RECREATED, renewal(*role), note)
        }
    })
}

fn switching_over(
    from: &InstanceName,
    to: Option<&InstanceName>,
    reason: SwitchoverReason,
) -> Event {
    let to = to.map_or("the best standby", InstanceName::as_str);
    let why = match reason {
        SwitchoverReason::User => "as asked for",
        SwitchoverReason::Rollout => "to update the primary",
        SwitchoverReason::Volume => "because the primary's volume was deleted",
    };
    let note = format!("Switching over from {from} to {to}, {why}");
    about(from, event::SWITCHING_OVER, "Switchover", note)
}

fn given_up(to: Option<&InstanceName>, why: &str) -> Event {
    let named = to.map_or("a standby", InstanceName::as_str);
    Event {
        warning: true,
        reason: warning::ACTION_HELD_BACK,
        action: "Switchover",
        note: format!("The switchover to {named} was given up: {why}"),
        related: to.and_then(instance),
    }
}

/// One word for each, so that none is counted as a repetition of another.
fn renewal(role: SecretRole) -> &'static str {
    match role {
        SecretRole::Authority => "RenewAuthority",
        SecretRole::ServerAuthority => "RenewServerAuthority",
        SecretRole::ClientAuthority => "RenewClientAuthority",
        SecretRole::Server => "RenewServer",
        SecretRole::Replication => "RenewReplication",
        SecretRole::Application => "RenewApplication",
        SecretRole::Superuser => "RenewSuperuser",
    }
}

fn secret_word(role: SecretRole) -> &'static str {
    match role {
        SecretRole::Authority => "certificate authority's",
        SecretRole::ServerAuthority => "server certificate authority's",
        SecretRole::ClientAuthority => "client certificate authority's",
        SecretRole::Server => "server certificate's",
        SecretRole::Replication => "replication certificate's",
        SecretRole::Application => "application user's",
        SecretRole::Superuser => "superuser's",
    }
}

/// Trouble that a person should hear of at once, when it is new.
pub fn warnings(report: &Report) -> Vec<Event> {
    let blocks = report.steps.iter().flat_map(|step| &step.blocked);
    blocks
        .filter_map(|block| {
            let entry = block_entry(block);
            let reason = match block {
                Block::Spec(_) => warning::INVALID_DEFINITION,
                Block::Image(_) => warning::IMAGE_CATALOG_ERROR,
                Block::Secret { role, .. } => match role {
                    SecretRole::Server => warning::INVALID_SERVER_CERTIFICATE,
                    SecretRole::Replication => warning::INVALID_CLIENT_CERTIFICATE,
                    SecretRole::Authority
                    | SecretRole::ServerAuthority
                    | SecretRole::ClientAuthority => warning::INVALID_CA_SECRET,
                    SecretRole::Application | SecretRole::Superuser => warning::SECRET_NOT_FOUND,
                },
                Block::Configuration { .. } => warning::CONFIGURATION_REJECTED,
                Block::Failed { .. } => warning::INSTANCE_FAILED,
                Block::Agent { .. } => warning::AGENT_NOT_UPGRADED,
                Block::LastCopy(_)
                | Block::StillPending { .. }
                | Block::Replacement { .. }
                | Block::NothingLeft => warning::ACTION_HELD_BACK,
                Block::Supervised { .. }
                | Block::Stalled { .. }
                | Block::Pod { .. }
                | Block::Growth { .. }
                | Block::Service { .. }
                | Block::NoSuccessor { .. }
                | Block::Fenced(_)
                | Block::Paused
                | Block::Blind { .. } => return None,
            };
            let note = entry.message.unwrap_or_default();
            Some(Event { warning: true, reason, action: "Plan", note, related: entry.object })
        })
        .collect()
}

fn entry(reason: &str, object: Option<String>, message: String) -> BlockedBy {
    BlockedBy { reason: Some(reason.to_owned()), message: Some(message), object, since: None }
}

/// Everything that is waited for, without the time since when.
pub fn blocked_by(report: &Report) -> Vec<BlockedBy> {
    // What goes on only once somebody has done something is told before what goes on by itself.
    let blocks = report.steps.iter().flat_map(|step| &step.blocked).map(block_entry);
    let waits = report.steps.iter().flat_map(|step| &step.waits).map(wait_entry);
    let mut unique: Vec<BlockedBy> = Vec::new();
    for entry in blocks.chain(waits) {
        if !unique.contains(&entry) {
            unique.push(entry);
        }
    }
    unique
}

fn image_entry(problem: &ImageProblem) -> BlockedBy {
    entry(blocked::MISSING_IMAGE, Some(problem.object.clone()), problem.message.clone())
}

fn service_entry(name: &str, why: &str) -> BlockedBy {
    let object = Some(format!("Service/{name}"));
    entry(blocked::UNKNOWN_STATE, object, format!("Service {name}: {why}"))
}

fn block_entry(block: &Block) -> BlockedBy {
    match block {
        Block::Spec(finding) => {
            entry(blocked::INVALID_SPEC, None, format!("{}: {}", finding.path, finding.message))
        }
        Block::Image(problem) => image_entry(problem),
        Block::Service { name, why } => service_entry(name, why),
        Block::Secret { name, why, .. } => entry(
            blocked::MISSING_SECRET,
            Some(format!("Secret/{name}")),
            format!("Secret {name}: {why}"),
        ),
        Block::Supervised { primary, .. } => entry(
            blocked::SUPERVISED,
            instance(primary),
            format!(
                "The standbys are updated; the update of the primary {primary} waits for a switchover by the user"
            ),
        ),
        Block::Configuration { instance: name, message } => entry(
            matriarch_api::conditions::CONFIGURATION_REJECTED,
            instance(name),
            format!("PostgreSQL of {name} rejects the configuration: {message}"),
        ),
        Block::Failed { instance: name, reason, message } => {
            entry(reason, instance(name), format!("{name}: {message}"))
        }
        Block::Agent { instance: name, failure } => not_replaced(name, failure),
        Block::Stalled { instance: name, stall } => {
            entry(&stall.reason, instance(name), format!("{name}: {}", stall.message))
        }
        Block::Pod { instance: name, why } => {
            entry(blocked::UNSCHEDULABLE, Some(format!("Pod/{name}")), format!("Pod {name}: {why}"))
        }
        Block::Growth { instance: name, why } => not_grown(name, why),
        Block::LastCopy(name) => entry(
            blocked::ALL_VOLUMES_LOST,
            Some(format!("PersistentVolumeClaim/{name}")),
            format!(
                "The volume of {name} was deleted, and it may be the best copy of the data; it is kept in use"
            ),
        ),
        Block::NoSuccessor { to, why } => no_successor(to.as_ref(), why),
        Block::StillPending { instance: name, parameters } => entry(
            matriarch_api::conditions::CONFIGURATION_PENDING,
            instance(name),
            format!(
                "{name} was restarted, and {} still waits for a restart",
                parameters.join(", ")
            ),
        ),
        Block::Replacement { instance: name, why } => not_made_anew(name, *why),
        Block::NothingLeft => entry(
            blocked::ALL_VOLUMES_LOST,
            None,
            "The cluster had data, and none of its volumes is left".to_owned(),
        ),
        Block::Fenced(names) => {
            entry(blocked::FENCED, None, format!("Fenced by the user: {}", list(names)))
        }
        Block::Paused => entry(
            blocked::RECONCILIATION_DISABLED,
            None,
            "The annotation reconciliationLoop says disabled".to_owned(),
        ),
        Block::Blind { kind, why } => {
            entry(blocked::UNKNOWN_STATE, None, format!("{kind:?}: {why}"))
        }
    }
}

fn no_successor(to: Option<&InstanceName>, why: &str) -> BlockedBy {
    let named = to.map_or("a standby", InstanceName::as_str);
    let message = format!("No switchover to {named}: {why}");
    entry(blocked::OPERATION_IN_PROGRESS, to.and_then(instance), message)
}

fn not_grown(name: &InstanceName, why: &str) -> BlockedBy {
    let object = Some(format!("PersistentVolumeClaim/{name}"));
    let message = format!("A volume of {name} does not become larger: {why}");
    entry(blocked::VOLUME_NOT_GROWN, object, message)
}

fn not_made_anew(name: &InstanceName, why: ReplacementBlock) -> BlockedBy {
    let why = match why {
        ReplacementBlock::Primary => "it is the primary, and the others clone from it",
        ReplacementBlock::RetainedVolumes => {
            "its volumes outlive it (spec.storage.retainPolicy) and would be used again"
        }
    };
    let message = format!("Instance {name} is to be made anew, and is not: {why}");
    entry(blocked::NOT_MADE_ANEW, instance(name), message)
}

fn not_replaced(name: &InstanceName, failure: &BinaryFailure) -> BlockedBy {
    let why = &failure.message;
    let message =
        format!("The agent of {name} is not replaced, and no other is until it is: {why}");
    entry(&failure.reason, instance(name), message)
}

fn list<'a>(names: impl IntoIterator<Item = &'a InstanceName>) -> String {
    names.into_iter().map(InstanceName::as_str).collect::<Vec<_>>().join(", ")
}

/// An operation on one instance that goes on by itself.
fn goes_on(name: &InstanceName, message: String) -> BlockedBy {
    entry(blocked::OPERATION_IN_PROGRESS, instance(name), message)
}

/// The same on several.
fn go_on(names: &BTreeSet<InstanceName>, message: String) -> BlockedBy {
    entry(blocked::OPERATION_IN_PROGRESS, names.first().and_then(instance), message)
}

/// The same on a volume.
fn of_volume(name: &InstanceName, message: String) -> BlockedBy {
    let object = Some(format!("PersistentVolumeClaim/{name}"));
    entry(blocked::OPERATION_IN_PROGRESS, object, message)
}

fn wait_entry(wait: &Wait) -> BlockedBy {
    match wait {
        Wait::Sight { what } => {
            entry(blocked::UNKNOWN_STATE, None, format!("Cannot be read: {what}"))
        }
        Wait::FirstPrimary(name) => entry(
            blocked::NO_PRIMARY,
            instance(name),
            format!("{name} makes the data and takes the Lease for the first time"),
        ),
        Wait::Ready(names) => go_on(names, format!("Not ready yet: {}", list(names))),
        Wait::Growth(name) => of_volume(name, format!("A volume of {name} is becoming larger")),
        Wait::Volumes(name) => {
            of_volume(name, format!("Volumes of tablespaces of {name} are being made"))
        }
        Wait::Tablespace { name, missing } => go_on(
            missing,
            format!(
                "Tablespace {name} is made once every instance has a place for it; not yet: {}",
                list(missing)
            ),
        ),
        Wait::HealthyToHibernate(names) => {
            let which = if names.is_empty() { "its primary".to_owned() } else { list(names) };
            go_on(
                names,
                format!("The cluster hibernates once it is healthy; not ready yet: {which}"),
            )
        }
        Wait::Hibernation => entry(
            blocked::OPERATION_IN_PROGRESS,
            None,
            "The primary stops, and the standbys receive its last records, before pods are removed"
                .to_owned(),
        ),
        Wait::Cohort(name) => goes_on(
            name,
            format!("{name} leaves: the primary has yet to take it out of the cohort"),
        ),
        Wait::Gone(name) => goes_on(name, format!("{name} is being removed")),
        Wait::Configuration(names) => {
            go_on(names, format!("The configuration is not loaded yet by {}", list(names)))
        }
        Wait::Restart(name) => goes_on(name, format!("PostgreSQL of {name} restarts")),
        Wait::Agent(name) => {
            goes_on(name, format!("The agent of {name} has yet to run from the operator's binary"))
        }
        Wait::Turn => entry(
            blocked::OPERATION_IN_PROGRESS,
            None,
            "The agents are replaced once those of other clusters have been".to_owned(),
        ),
        Wait::Handover { from, to, message } => {
            let to = to.as_ref().map_or("the best standby", InstanceName::as_str);
            let tail = if message.is_empty() { String::new() } else { format!(": {message}") };
            goes_on(from, format!("{from} hands over to {to}{tail}"))
        }
        Wait::Election => entry(
            blocked::NO_PRIMARY,
            None,
            "Nobody holds the Lease; the instances elect a primary among themselves".to_owned(),
        ),
        Wait::Failover(name) => {
            goes_on(name, format!("{name} gets a pod as soon as there is a primary again"))
        }
        Wait::Secret(role) => entry(
            blocked::OPERATION_IN_PROGRESS,
            None,
            format!("The agents have yet to take note of the {} Secret", secret_word(*role)),
        ),
    }
}

/// What a person may do, with what it costs.
pub fn human_options(cluster: &str, report: &Report) -> Vec<HumanOption> {
    let blocks = report.steps.iter().flat_map(|step| &step.blocked);
    let mut options: Vec<HumanOption> = blocks.flat_map(|block| offers(cluster, block)).collect();
    options.dedup();
    options
}

fn option(action: String, consequence: &str) -> HumanOption {
    HumanOption { action: Some(action), consequence: Some(consequence.to_owned()) }
}

fn offers(cluster: &str, block: &Block) -> Vec<HumanOption> {
    let offer = |action: String, consequence: &str| vec![option(action, consequence)];
    match block {
        Block::Supervised { candidates, .. } => candidates
            .iter()
            .map(|to| {
                option(
                    format!("kubectl matriarch promote {cluster} {to}"),
                    "The primary hands over, connections end once, then it is updated as a standby",
                )
            })
            .collect(),
        Block::Secret { name, .. } => {
            offer(format!("create or mend Secret {name}"), "The cluster goes on by itself")
        }
        Block::Image(problem) => offer(
            format!("put the image into {}, or name another catalog", problem.object),
            "Instances are replaced one after the other, the primary last",
        ),
        Block::Service { name, .. } => offer(
            format!("delete Service {name}, or choose another name in spec.managed.services"),
            "The operator makes it as the spec says",
        ),
        Block::LastCopy(name) => offer(
            format!("add an instance and wait until it is ready, or take a copy of {name}'s data"),
            "The volume is given up once another instance has the data",
        ),
        Block::NothingLeft => offer(
            "bring a volume back under its old name, or delete the Cluster and make it anew"
                .to_owned(),
            "A new Cluster begins without data",
        ),
        Block::Fenced(_) => offer(
            format!("kubectl matriarch fencing off {cluster} \"*\""),
            "PostgreSQL of the fenced instances starts",
        ),
        Block::Paused => {
            offer("remove the annotation reconciliationLoop".to_owned(), "The operator goes on")
        }
        Block::Growth { instance, .. } => offer(
            format!(
                "let the StorageClass expand volumes, or, if {instance} is no primary, delete its \
                 claim"
            ),
            "The instance is made anew on a volume of the new size, and clones the data",
        ),
        Block::Stalled { stall, .. } => {
            let offered = stall.options.iter();
            offered.map(|(action, brings)| option(action.clone(), brings)).collect()
        }
        Block::Replacement { why: ReplacementBlock::Primary, .. } => offer(
            format!("kubectl matriarch promote {cluster} ANOTHER-INSTANCE"),
            "Another instance is primary, and this one is then made anew",
        ),
        Block::Replacement { why: ReplacementBlock::RetainedVolumes, .. } => offer(
            "delete the claims of the instance, then its pod".to_owned(),
            "The instance is made anew on new volumes, and clones the data",
        ),
        Block::StillPending { .. } => offer(
            format!("kubectl matriarch restart {cluster}"),
            "All instances restart one after the other, the primary last",
        ),
        Block::Spec(_)
        | Block::Configuration { .. }
        | Block::Failed { .. }
        | Block::Agent { .. }
        | Block::Pod { .. }
        | Block::NoSuccessor { .. }
        | Block::Blind { .. } => Vec::new(),
    }
}
