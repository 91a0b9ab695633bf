//! The user's spec to the planner's spec and to what the agents are told: every default filled in,
//! all findings at once. CEL refuses most bad specs before; what is found here became a condition
//! with the reason and the cure, and never a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use matriarch_api::annotations::{
    self, Annotation, RECONCILIATION_DISABLED, RESTARTED_AT, hibernation, parse_fenced,
};
use matriarch_api::cluster::{
    ClusterSpec, DataDurability, LogLevel, PodSelectorRefStatus, PrimaryUpdateMethod,
    PrimaryUpdateStrategy, RetainPolicy, SynchronousMethod, Tablespace,
};
use matriarch_api::instance::{
    self, Access, Configuration, Delays, FailoverLimits, HighAvailabilitySlots, Initdb,
    InstanceSpec, KeyReference, KeyReferenceKind, LeaseTiming, SecretNames, SlotCopies,
    Synchronous,
};
use matriarch_api::names;
use matriarch_api::validate::{self, MaximumLag};
use matriarch_pg::version::Major;
use matriarch_plan::action::VolumeRole;
use matriarch_plan::spec::{
    Fenced, ImageProblem, SecretSource, SpecFinding, UpdateMethod, UpdateStrategy,
};
use matriarch_plan::world::{Object, SecretFacts, SecretRole};
use matriarch_plan::{InstanceName, Seen, Spec, Wanted};

use crate::references::References;
use crate::setup::Owner;

mod bootstrap;
mod checks;
mod operand;
mod pod_selectors;
mod pods;
pub(crate) mod services;

/// A user's spec, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// For the planner; the findings if it cannot be carried out.
    pub wanted: Wanted,
    /// What every Instance's spec says beside what the planner decides.
    pub template: InstanceSpec,
    /// How the first primary makes the data.
    pub initdb: Initdb,
    /// PostgreSQL's image.
    pub image: String,
    /// Why it is not the one that the spec leads to.
    pub image_problem: Option<ImageProblem>,
    /// Addresses that `spec.podSelectorRefs` come to.
    pub pod_addresses: Vec<PodSelectorRefStatus>,
    /// PostgreSQL's major version, if the image's name tells it.
    pub major: Option<u32>,
    /// Fields without effect: path, and what is so without them.
    pub unsupported: Vec<(String, String)>,
    /// A field that decides about data has no effect yet.
    pub blocked: bool,
    /// User id of PostgreSQL.
    pub uid: i64,
    /// Group id of PostgreSQL.
    pub gid: i64,
    /// New instances get a volume of their own for WAL.
    pub wal_volume: bool,
    /// Tablespaces, each with a volume of each instance.
    pub tablespaces: BTreeSet<String>,
    /// Volumes outlive the Cluster.
    pub retain_volumes: bool,
    /// ServiceAccount of the pods.
    pub service_account: String,
    /// The user's last wish for a rolling restart.
    pub restarted_at: Option<String>,
    /// Names of Secrets by role.
    pub secret_names: BTreeMap<SecretRole, String>,
    /// Election priorities by instance.
    pub priorities: BTreeMap<String, i32>,
    /// Names that the server's certificate must have beside our own.
    pub alternative_names: Vec<String>,
}

impl Resolved {
    /// Secrets that agents may read: never the authority's, which holds its key.
    pub fn agent_secrets(&self) -> Vec<String> {
        let secrets = &self.template.secrets;
        let mut names: BTreeSet<String> = secrets.server_ca.iter().cloned().collect();
        names.extend(secrets.client_ca.iter().cloned());
        names.insert(secrets.server.clone());
        names.insert(secrets.replication.clone());
        names.extend(secrets.application.clone());
        names.extend(secrets.superuser.clone());
        names.extend(self.references(KeyReferenceKind::Secret));
        let ldap = self.template.configuration.ldap.as_ref();
        let search = ldap.and_then(|ldap| ldap.bind_search_auth.as_ref());
        names.extend(search.and_then(|it| it.bind_password.clone()).map(|it| it.name));
        names.into_iter().collect()
    }

    /// ConfigMaps that agents may read.
    pub fn agent_config_maps(&self) -> Vec<String> {
        self.references(KeyReferenceKind::ConfigMap).into_iter().collect()
    }

    fn references(&self, kind: KeyReferenceKind) -> BTreeSet<String> {
        self.initdb
            .post_init_sql_refs
            .iter()
            .chain(&self.initdb.post_init_template_sql_refs)
            .chain(&self.initdb.post_init_application_sql_refs)
            .filter(|reference: &&KeyReference| reference.kind == kind)
            .map(|reference| reference.name.clone())
            .collect()
    }

    /// The election priority of an instance.
    pub fn priority(&self, name: &str) -> i32 {
        self.priorities.get(name).copied().unwrap_or_default()
    }

    /// Takes note of the Secrets' versions: a change wakes the agents.
    pub fn note_versions(&mut self, secrets: &BTreeMap<SecretRole, Seen<SecretFacts>>) {
        let versions = secrets
            .iter()
            .filter(|(role, _)| **role != SecretRole::Authority)
            .filter_map(|(_, seen)| seen.known())
            .map(|facts| (facts.name.clone(), facts.version.clone()))
            .collect();
        self.template.access.secret_versions = versions;
    }

    /// The planner's spec, if there is one.
    pub fn spec(&self) -> Option<&Spec> {
        match &self.wanted {
            Wanted::Valid(spec) => Some(spec),
            Wanted::Invalid { .. } => None,
        }
    }
}

/// Collects what is wrong.
#[derive(Default)]
pub(crate) struct Findings {
    all: Vec<SpecFinding>,
    /// A field that decides about data has no effect yet.
    blocked: bool,
}

impl Findings {
    pub(crate) fn add(&mut self, path: &str, message: impl Into<String>) {
        self.all.push(SpecFinding { path: path.to_owned(), message: message.into() });
    }

    /// Of an annotation of ours.
    pub(crate) fn annotation(
        &mut self,
        owner: &Owner<'_>,
        annotation: Annotation,
        message: impl Into<String>,
    ) {
        let key = owner.annotation(annotation);
        self.add(&format!("metadata.annotations[{key}]"), message);
    }

    pub(crate) fn block(&mut self, path: &str, message: impl Into<String>) {
        self.blocked = true;
        self.add(path, message);
    }
}

/// Resolves a Cluster with what the objects that it names say.
pub fn resolve(owner: &Owner<'_>, references: &References) -> Resolved {
    let user = &owner.cluster.spec;
    let mut findings = Findings::default();
    let operand::Image { name: image, major, problem, unsupported: of_catalog } =
        operand::image(owner, references, &mut findings);
    let mut unsupported = checks::check(owner, major, &mut findings);
    unsupported.extend(of_catalog);
    let initdb = bootstrap::initdb(user, major);
    let secret_names = secret_names(owner);
    let addresses = pod_selectors::addresses(owner, references);
    let template = template(owner, &addresses, &initdb, &secret_names, &mut findings);
    let operand::User { uid, gid } = operand::user(owner, &image, &mut findings);
    let retain_volumes = user
        .storage
        .as_ref()
        .is_some_and(|storage| storage.retain_policy == Some(RetainPolicy::Keep));
    let mut resolved = Resolved {
        wanted: Wanted::Invalid { findings: Vec::new() },
        template,
        initdb,
        image,
        image_problem: problem,
        pod_addresses: pod_selectors::shown(&addresses),
        major: major.map(Major::number),
        unsupported,
        blocked: findings.blocked,
        uid,
        gid,
        wal_volume: user.wal_storage.is_some(),
        tablespaces: user.tablespaces.iter().filter_map(|it| it.name.clone()).collect(),
        retain_volumes,
        service_account: user
            .service_account_name
            .clone()
            .unwrap_or_else(|| names::service_account(owner.name())),
        restarted_at: restarted_at(owner),
        secret_names,
        priorities: user.failover.clone().unwrap_or_default().priority,
        alternative_names: user.certificates.clone().unwrap_or_default().server_alt_dns_names,
    };
    let fenced = fenced(owner, &mut findings);
    let hibernated = hibernated(owner, &mut findings);
    pods::check(owner, &resolved, &mut findings);
    resolved.wanted = if findings.all.is_empty() {
        Wanted::Valid(Box::new(planner_spec(owner, &resolved, fenced, hibernated)))
    } else {
        findings.all.sort();
        findings.all.dedup();
        Wanted::Invalid { findings: findings.all }
    };
    resolved
}

fn restarted_at(owner: &Owner<'_>) -> Option<String> {
    owner.cluster.metadata.annotations.as_ref()?.get(RESTARTED_AT).cloned()
}

fn fenced(owner: &Owner<'_>, findings: &mut Findings) -> Fenced {
    match parse_fenced(owner.given(Annotation::FencedInstances).unwrap_or_default()) {
        Ok(annotations::Fenced::None) => Fenced::None,
        Ok(annotations::Fenced::All) => Fenced::All,
        Ok(annotations::Fenced::Some(names)) => {
            Fenced::Named(names.into_iter().map(InstanceName).collect())
        }
        Err(error) => {
            findings.annotation(owner, Annotation::FencedInstances, error.to_string());
            Fenced::None
        }
    }
}

fn hibernated(owner: &Owner<'_>, findings: &mut Findings) -> bool {
    match owner.given(Annotation::Hibernation) {
        Some(hibernation::ON) => true,
        Some(hibernation::OFF) | None => false,
        Some(other) => {
            let text = format!("{other:?} is neither \"on\" nor \"off\"");
            findings.annotation(owner, Annotation::Hibernation, text);
            false
        }
    }
}

fn planner_spec(owner: &Owner<'_>, resolved: &Resolved, fenced: Fenced, hibernated: bool) -> Spec {
    let user = &owner.cluster.spec;
    let paused = owner.given(Annotation::ReconciliationLoop) == Some(RECONCILIATION_DISABLED);
    Spec {
        cluster: owner.name().to_owned(),
        instances: u32::try_from(user.instances.unwrap_or(1)).unwrap_or(1),
        wal_volume: resolved.wal_volume,
        tablespaces: resolved.tablespaces.clone(),
        grown_to: grown_to(user),
        retain_volumes: resolved.retain_volumes,
        fenced,
        hibernated,
        paused,
        pod_stamp: crate::objects::pod::stamp(owner, resolved),
        configuration_hash: resolved.template.configuration_hash.clone(),
        restarted_at: resolved.restarted_at.clone(),
        update_strategy: match user.primary_update_strategy {
            Some(PrimaryUpdateStrategy::Supervised) => UpdateStrategy::Supervised,
            Some(PrimaryUpdateStrategy::Unsupervised) | None => UpdateStrategy::Unsupervised,
        },
        update_method: match user.primary_update_method {
            Some(PrimaryUpdateMethod::Restart) => UpdateMethod::Restart,
            Some(PrimaryUpdateMethod::Switchover) | None => UpdateMethod::Switchover,
        },
        agent: owner.setup.agent.clone(),
        agents_wait: owner.setup.agents_wait,
        switchover_ms: i64::try_from(resolved.template.delays.switchover_seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000),
        secrets: secret_sources(owner, resolved),
        keeps_pods: pods::are_kept(owner),
        replaces_stranded: pods::maintenance(user) == pods::Maintenance::ReplacesVolumes,
        objects: objects(user),
        services: services::wishes(user),
        image_problem: resolved.image_problem.clone(),
    }
}

/// The volumes that grow with their size in the spec, and to what.
fn grown_to<'a>(user: &'a ClusterSpec) -> BTreeMap<VolumeRole, u64> {
    let of_tablespace =
        |it: &'a Tablespace| Some((VolumeRole::Tablespace(it.name.clone()?), &it.storage));
    [(VolumeRole::Data, &user.storage), (VolumeRole::Wal, &user.wal_storage)]
        .into_iter()
        .chain(user.tablespaces.iter().filter_map(of_tablespace))
        .filter_map(|(role, storage)| Some((role, storage.as_ref()?)))
        .filter(|(_, storage)| storage.resize_in_use_volumes.unwrap_or(true))
        .filter_map(|(role, storage)| Some((role, crate::objects::claim::requested(storage)?)))
        .collect()
}

fn objects(user: &ClusterSpec) -> BTreeSet<Object> {
    let mut objects: BTreeSet<Object> = [
        Object::Role,
        Object::RoleBinding,
        Object::Passwd,
        Object::ServiceReadWrite,
        Object::ServiceReadOnly,
        Object::ServiceRead,
        Object::ServicePrimary,
        Object::EndpointsReadWrite,
    ]
    .into();
    for disabled in services::disabled(user) {
        objects.remove(&disabled);
    }
    // Nodes in maintenance are emptied at once; the volumes on them come back with them.
    let waits_for_nodes = pods::maintenance(user) == pods::Maintenance::WaitsForNodes;
    if user.enable_pdb.unwrap_or(true) && !waits_for_nodes {
        objects.insert(Object::DisruptionBudget);
    }
    if user.service_account_name.is_none() {
        objects.insert(Object::ServiceAccount);
    }
    objects
}

/// Names of all Secrets that a cluster has, or may have.
fn secret_names(owner: &Owner<'_>) -> BTreeMap<SecretRole, String> {
    let user = &owner.cluster.spec;
    let cluster = owner.name();
    let given = user.certificates.clone().unwrap_or_default();
    let mut secrets = BTreeMap::new();
    secrets.insert(SecretRole::Authority, names::secret_ca(cluster));
    secrets.insert(
        SecretRole::Server,
        given.server_tls_secret.unwrap_or_else(|| names::secret_server(cluster)),
    );
    secrets.insert(
        SecretRole::Replication,
        given.replication_tls_secret.unwrap_or_else(|| names::secret_replication(cluster)),
    );
    if let Some(name) = given.server_ca_secret {
        secrets.insert(SecretRole::ServerAuthority, name);
    }
    if let Some(name) = given.client_ca_secret {
        secrets.insert(SecretRole::ClientAuthority, name);
    }
    secrets.insert(SecretRole::Application, user.application_secret(cluster));
    if user.enable_superuser_access == Some(true) {
        let superuser = user.superuser_secret.as_ref().map(|secret| secret.name.clone());
        let superuser = superuser.unwrap_or_else(|| names::secret_superuser(cluster));
        secrets.insert(SecretRole::Superuser, superuser);
    }
    secrets
}

fn secret_sources(owner: &Owner<'_>, resolved: &Resolved) -> BTreeMap<SecretRole, SecretSource> {
    let user = &owner.cluster.spec;
    let certificates = user.certificates.clone().unwrap_or_default();
    let mut sources = BTreeMap::new();
    for (role, name) in &resolved.secret_names {
        let given = match role {
            SecretRole::Authority => false,
            SecretRole::ServerAuthority | SecretRole::ClientAuthority => true,
            SecretRole::Server => certificates.server_tls_secret.is_some(),
            SecretRole::Replication => certificates.replication_tls_secret.is_some(),
            SecretRole::Application => user.given_application_secret().is_some(),
            SecretRole::Superuser => user.superuser_secret.is_some(),
        };
        let source =
            if given { SecretSource::Given { name: name.clone() } } else { SecretSource::Managed };
        sources.insert(*role, source);
    }
    // The cluster's own authority is made only where it has something to sign.
    let server_signs_itself = certificates.server_ca_secret.is_none();
    let clients_sign_themselves = certificates.client_ca_secret.is_none();
    if !server_signs_itself && !clients_sign_themselves {
        sources.remove(&SecretRole::Authority);
    }
    sources
}

fn template(
    owner: &Owner<'_>,
    addresses: &BTreeMap<String, Vec<IpAddr>>,
    initdb: &Initdb,
    secrets: &BTreeMap<SecretRole, String>,
    findings: &mut Findings,
) -> InstanceSpec {
    let user = &owner.cluster.spec;
    let configuration = configuration(owner, addresses);
    let configuration_hash = hash(&configuration);
    let given = user.certificates.clone().unwrap_or_default();
    let name = |role: SecretRole| secrets.get(&role).cloned();
    let server = name(SecretRole::Server).unwrap_or_default();
    let replication = name(SecretRole::Replication).unwrap_or_default();
    // What we signed carries the authorities that verify it; what the user gave has them beside.
    let verifier = |leaf_given: bool, authority: Option<String>, leaf: &str| match authority {
        Some(authority) if leaf_given => vec![authority],
        Some(_) | None => vec![leaf.to_owned()],
    };
    InstanceSpec {
        configuration,
        configuration_hash,
        lease: lease_timing(user, findings),
        failover: failover_limits(user),
        delays: delays(user),
        secrets: SecretNames {
            server_ca: verifier(
                given.server_tls_secret.is_some(),
                name(SecretRole::ServerAuthority),
                &server,
            ),
            client_ca: verifier(
                given.replication_tls_secret.is_some(),
                name(SecretRole::ClientAuthority),
                &replication,
            ),
            server,
            replication,
            application: name(SecretRole::Application),
            superuser: name(SecretRole::Superuser),
        },
        access: Access {
            database: initdb.database.clone(),
            owner: initdb.owner.clone(),
            secret_versions: BTreeMap::new(),
        },
        slot_copies: Some(slot_copies(user)),
        tablespaces: tablespaces(user, initdb),
        additional_endpoints: services::endpoints(user),
        log_level: user.log_level.unwrap_or(LogLevel::Info).word().to_owned(),
        ..InstanceSpec::default()
    }
}

fn hash(configuration: &Configuration) -> String {
    crate::stamp::hash(&serde_json::to_string(configuration).unwrap_or_default())
}

fn configuration(owner: &Owner<'_>, addresses: &BTreeMap<String, Vec<IpAddr>>) -> Configuration {
    let user = &owner.cluster.spec;
    let postgresql = user.postgresql.clone().unwrap_or_default();
    let slots = user.replication_slots.clone().unwrap_or_default();
    let high = slots.high_availability.unwrap_or_default();
    let synchronous = synchronous(user);
    Configuration {
        parameters: postgresql.parameters.clone(),
        pg_hba: pod_selectors::expand(user, addresses),
        ldap: postgresql.ldap.clone(),
        pg_ident: postgresql.pg_ident.clone(),
        shared_preload_libraries: postgresql.shared_preload_libraries.clone(),
        enable_alter_system: postgresql.enable_alter_system.unwrap_or(false),
        high_availability_slots: HighAvailabilitySlots {
            // PostgreSQL counts walsenders, and only a slot keeps a standby from having two.
            enabled: high.enabled.unwrap_or(true) || synchronous.is_some(),
            slot_prefix: high
                .slot_prefix
                .unwrap_or_else(|| owner.setup.identity.slot_prefix().to_owned()),
            update_interval_seconds: positive(slots.update_interval).unwrap_or(30),
        },
        synchronous,
        temporary_tablespaces: user
            .tablespaces
            .iter()
            .filter(|it| it.temporary == Some(true))
            .filter_map(|it| it.name.clone())
            .collect(),
    }
}

/// As directives say them; which of them may be made is the planner's part.
fn tablespaces(user: &ClusterSpec, initdb: &Initdb) -> Vec<instance::Tablespace> {
    let of_application = || match initdb.owner.as_str() {
        "" => names::SUPERUSER.to_owned(),
        owner => owner.to_owned(),
    };
    let named = |it: &Tablespace| {
        let owner = it.owner.as_ref().and_then(|owner| owner.name.clone());
        Some(instance::Tablespace {
            name: it.name.clone()?,
            owner: owner.unwrap_or_else(of_application),
            create: false,
        })
    };
    user.tablespaces.iter().filter_map(named).collect()
}

fn slot_copies(user: &ClusterSpec) -> SlotCopies {
    let slots = user.replication_slots.clone().unwrap_or_default();
    let written = slots.synchronize_replicas.unwrap_or_default();
    SlotCopies {
        enabled: written.enabled.unwrap_or(true),
        exclude_patterns: written.exclude_patterns,
    }
}

fn positive(value: Option<i32>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0)
}

/// Both of CloudNativePG's forms, resolved to one. The older form promises that at least
/// `minSyncReplicas` acknowledge, and wishes for `maxSyncReplicas`.
fn synchronous(user: &ClusterSpec) -> Option<Synchronous> {
    let written = user.postgresql.as_ref().and_then(|postgresql| postgresql.synchronous.clone());
    if let Some(written) = written {
        let number = written.number.unwrap_or(1);
        return Some(Synchronous {
            method: match written.method {
                Some(SynchronousMethod::First) => instance::SynchronousMethod::First,
                Some(SynchronousMethod::Any) | None => instance::SynchronousMethod::Any,
            },
            number: positive(Some(number)).unwrap_or(1),
            durability: match written.data_durability {
                Some(DataDurability::Preferred) => instance::DataDurability::Preferred,
                Some(DataDurability::Required) | None => instance::DataDurability::Required,
            },
            standby_names_pre: written.standby_names_pre,
            standby_names_post: written.standby_names_post,
            max_standby_names_from_cluster: positive(written.max_standby_names_from_cluster),
        });
    }
    let least = user.min_sync_replicas.unwrap_or(0);
    let most = user.max_sync_replicas.unwrap_or(0).max(least);
    let (number, durability) = if least > 0 {
        (least, instance::DataDurability::Required)
    } else {
        (most, instance::DataDurability::Preferred)
    };
    let number = positive(Some(number))?;
    Some(Synchronous { number, durability, ..Synchronous::default() })
}

fn lease_timing(user: &ClusterSpec, findings: &mut Findings) -> LeaseTiming {
    let mut timing = LeaseTiming::default();
    let Some(written) = &user.primary_lease else { return timing };
    if let Some(seconds) = positive(written.lease_duration_seconds) {
        timing.duration_ms = u64::from(seconds) * 1_000;
        timing.renew_ms = (timing.duration_ms / 5).max(500);
    }
    if let Some(seconds) = positive(written.retry_period_seconds) {
        timing.renew_ms = u64::from(seconds) * 1_000;
    }
    // A primary asks for failsafe at 0.6 D: two renewals must have been tried by then.
    if timing.renew_ms * 10 > timing.duration_ms * 3 {
        findings.add(
            "spec.primaryLease.retryPeriodSeconds",
            format!("renewals every {} ms leave too little of a Lease of {} ms; write at most 0.3 of leaseDurationSeconds", timing.renew_ms, timing.duration_ms),
        );
    }
    timing
}

fn failover_limits(user: &ClusterSpec) -> FailoverLimits {
    let mut limits = FailoverLimits::default();
    let written = user.failover.clone().unwrap_or_default();
    // What cannot be read is refused by `api::validate`; until it is mended the default holds.
    match validate::maximum_lag(written.maximum_lag.as_ref()) {
        Some(MaximumLag::Unlimited) => limits.maximum_lag_bytes = None,
        Some(MaximumLag::Bytes(bytes)) => limits.maximum_lag_bytes = Some(bytes),
        None => {}
    }
    if let Some(seconds) = positive(written.failsafe_max) {
        limits.failsafe_max_seconds = u64::from(seconds);
    }
    limits.delay_seconds = u64::from(positive(user.failover_delay).unwrap_or(0));
    limits
}

fn delays(user: &ClusterSpec) -> Delays {
    let defaults = Delays::default();
    let seconds = |value: Option<i32>, default: u64| positive(value).map_or(default, u64::from);
    Delays {
        start_seconds: seconds(user.start_delay, defaults.start_seconds),
        stop_seconds: seconds(user.stop_delay, defaults.stop_seconds),
        smart_shutdown_seconds: positive(user.smart_shutdown_timeout).map(u64::from),
        switchover_seconds: seconds(user.switchover_delay, defaults.switchover_seconds),
        promotion_seconds: seconds(
            user.postgresql.as_ref().and_then(|postgresql| postgresql.promotion_timeout),
            defaults.promotion_seconds,
        ),
    }
}
