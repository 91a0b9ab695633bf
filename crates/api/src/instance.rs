//! The Instance kind: the contract between the operator and the agent of one database pod.
//!
//! `spec` is the operator's directive, written by the operator alone; `status` is the agent's
//! report, written by the agent alone, and only when something changed in kind: no periodic
//! positions (a thousand clusters would otherwise write three hundred times a second).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::{HumanOption, Ldap};

/// The operator's directive to one agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceSpec {
    /// Name of the Cluster that this instance belongs to.
    pub cluster_name: String,
    /// Number in the instance's name; never used twice while its volume exists.
    pub serial: u32,
    /// Names of all Instances that the cluster wants, this one included.
    pub members: Vec<String>,
    /// How to fill an empty volume.
    pub bootstrap: Bootstrap,
    /// True for the one instance that may fill the cluster's Lease for the first time.
    pub bootstrap_primary: bool,
    /// What PostgreSQL is to be configured with.
    pub configuration: Configuration,
    /// The operator's hash over `configuration`; the agent echoes it once it is loaded.
    pub configuration_hash: String,
    /// The user has fenced this instance: PostgreSQL stays stopped.
    pub fenced: bool,
    /// The instance is about to be removed: it leaves the cohort and is no successor.
    pub leaving: bool,
    /// It is nobody's successor, and does not run for the Lease.
    pub excluded: bool,
    /// A switchover that the holder of the Lease is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switchover: Option<SwitchoverRequest>,
    /// A restart of PostgreSQL in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartRequest>,
    /// Timing of the Lease.
    pub lease: LeaseTiming,
    /// Limits of an election.
    pub failover: FailoverLimits,
    /// Limits of starting and stopping.
    pub delays: Delays,
    /// Names of the Secrets that the agent reads.
    pub secrets: SecretNames,
    /// The application's database, owner and users whose passwords the agent keeps true.
    pub access: Access,
    /// Copies of users' slots on standbys; absent: whatever is there stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_copies: Option<SlotCopies>,
    /// Tablespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<Tablespace>,
    /// EndpointSlices that the holder of the Lease points to itself, beside that of `-rw`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_endpoints: Vec<AdditionalEndpoints>,
    /// Level of the agent's log: error, warning, info, debug, trace.
    pub log_level: String,
    /// The binary that the agent is to run from; absent: whatever it runs from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentBinary>,
}

/// A binary of this program, served by an operator. The agent takes it over in place: PostgreSQL
/// runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentBinary {
    /// Its version, for people.
    pub version: String,
    /// SHA-256 of the file, hexadecimal: what decides whether it is trusted.
    pub sha256: String,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// For which processors, as Rust names them: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Where it is served.
    pub url: String,
    /// SHA-256 of the server's certificate (DER), hexadecimal.
    pub certificate_sha256: String,
}

/// The EndpointSlice of a Service of the user's that leads to the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdditionalEndpoints {
    /// Name of the EndpointSlice, and of the Service.
    pub name: String,
    /// The Service's ports.
    pub ports: Vec<EndpointPort>,
}

/// Where a port of a Service leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name of the Service's port; empty if it has none.
    pub name: String,
    /// Number of the pod's port.
    pub port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: String,
}

/// How an empty volume is filled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "BootstrapForm", into = "BootstrapForm")]
pub enum Bootstrap {
    /// Clone another instance of the cluster; waits until there is one.
    #[default]
    Clone,
    /// Make a new database cluster.
    Initdb(Box<Initdb>),
}

/// [`Bootstrap`] as JSON: an object with one field, because a structural schema knows no choice
/// between a string and an object.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct BootstrapForm {
    /// Make a new database cluster; if absent, clone another instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    initdb: Option<Box<Initdb>>,
}

impl From<BootstrapForm> for Bootstrap {
    fn from(form: BootstrapForm) -> Self {
        form.initdb.map_or(Self::Clone, Self::Initdb)
    }
}

impl From<Bootstrap> for BootstrapForm {
    fn from(bootstrap: Bootstrap) -> Self {
        match bootstrap {
            Bootstrap::Clone => Self { initdb: None },
            Bootstrap::Initdb(initdb) => Self { initdb: Some(initdb) },
        }
    }
}

/// Options of `initdb` and what runs after it. The meaning is CloudNativePG's `bootstrap.initdb`;
/// references to Secrets and ConfigMaps stay references, the agent reads them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Initdb {
    /// The application's database.
    pub database: String,
    /// The role that owns it.
    pub owner: String,
    /// Arguments of initdb beyond those that the agent always gives (from encoding, locale, …).
    pub arguments: Vec<String>,
    /// SQL run as superuser in database postgres.
    pub post_init_sql: Vec<String>,
    /// SQL run as superuser in database template1.
    pub post_init_template_sql: Vec<String>,
    /// SQL run as superuser in the application's database.
    pub post_init_application_sql: Vec<String>,
    /// The same, from Secrets and ConfigMaps, after the literal statements.
    pub post_init_sql_refs: Vec<KeyReference>,
    /// See `post_init_sql_refs`.
    pub post_init_template_sql_refs: Vec<KeyReference>,
    /// See `post_init_sql_refs`.
    pub post_init_application_sql_refs: Vec<KeyReference>,
}

/// A key in a Secret or ConfigMap of the cluster's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyReference {
    /// Which kind of object.
    pub kind: KeyReferenceKind,
    /// Its name.
    pub name: String,
    /// The key in its data.
    pub key: String,
}

/// The kind of object that a [`KeyReference`] points to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyReferenceKind {
    /// A Secret.
    #[default]
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

/// What PostgreSQL is to be configured with. The agent adds the defaults and the fixed parameters
/// of its major version (`pg::parameters`), the paths of its pod, and what replication needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Configuration {
    /// The user's parameters, names checked.
    pub parameters: BTreeMap<String, String>,
    /// The user's pg_hba lines, between the fixed first and last ones.
    pub pg_hba: Vec<String>,
    /// Authentication by LDAP, if any; the agent reads the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ldap: Option<Ldap>,
    /// The user's pg_ident lines.
    pub pg_ident: Vec<String>,
    /// The user's libraries, before the managed ones.
    pub shared_preload_libraries: Vec<String>,
    /// May users run ALTER SYSTEM.
    pub enable_alter_system: bool,
    /// Synchronous replication, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronous: Option<Synchronous>,
    /// Slots for high availability.
    pub high_availability_slots: HighAvailabilitySlots,
    /// Tablespaces for temporary tables and files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub temporary_tablespaces: Vec<String>,
}

/// Synchronous replication as asked for (both of CloudNativePG's forms resolved to one).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Synchronous {
    /// FIRST or ANY; both are arranged as ANY for members of the cluster (traps H15).
    pub method: SynchronousMethod,
    /// How many standbys must have flushed a commit.
    pub number: u32,
    /// Fewer than `number` when fewer are there (`preferred`), or commits wait (`required`).
    pub durability: DataDurability,
    /// Names outside the cluster before the members.
    pub standby_names_pre: Vec<String>,
    /// Names outside the cluster after the members.
    pub standby_names_post: Vec<String>,
    /// At most so many members are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_standby_names_from_cluster: Option<u32>,
}

/// CloudNativePG's `postgresql.synchronous.method`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SynchronousMethod {
    /// Quorum.
    #[default]
    Any,
    /// Priority.
    First,
}

/// CloudNativePG's `postgresql.synchronous.dataDurability`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DataDurability {
    /// Never fewer than asked; commits wait.
    #[default]
    Required,
    /// As many as stream.
    Preferred,
}

/// Physical slots that every member keeps for every other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HighAvailabilitySlots {
    /// Are they kept.
    pub enabled: bool,
    /// Beginning of their names.
    pub slot_prefix: String,
    /// How often standbys move theirs forward, in seconds.
    pub update_interval_seconds: u32,
}

impl HighAvailabilitySlots {
    /// The slot that every member keeps for `instance`: what a slot's name cannot have becomes `_`.
    #[must_use]
    pub fn slot_name(&self, instance: &str) -> String {
        format!("{}{instance}", self.slot_prefix)
            .to_lowercase()
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' })
            .collect()
    }
}

impl Default for HighAvailabilitySlots {
    fn default() -> Self {
        Self { enabled: true, slot_prefix: "_matriarch_".to_owned(), update_interval_seconds: 30 }
    }
}

/// A tablespace that PostgreSQL is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tablespace {
    /// Its name.
    pub name: String,
    /// Who is to own it.
    pub owner: String,
    /// The primary may make it: every instance has its place, and can replay that.
    pub create: bool,
}

/// Copies of users' physical slots on standbys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SlotCopies {
    /// Are they made; if not, those that were made are dropped.
    pub enabled: bool,
    /// Regular expressions of names of which none are made ([`crate::SlotPatterns`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_patterns: Vec<String>,
}

/// A wish that the holder hand the Lease over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SwitchoverRequest {
    /// Identifies the request; the agent reports it once dealt with.
    pub id: String,
    /// The instance to hand over to; the best fit one if empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A wish that PostgreSQL be restarted in place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartRequest {
    /// Identifies the request; the agent reports it once dealt with.
    pub id: String,
}

/// Timing of the Lease, in milliseconds (docs/ha-protocol.md, "Defaults").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseTiming {
    /// D: how long the holder's right lasts after a renewal.
    pub duration_ms: u64,
    /// Time between renewals.
    pub renew_ms: u64,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self { duration_ms: 10_000, renew_ms: 2_000 }
    }
}

/// Limits of an election.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailoverLimits {
    /// Greatest lag behind the Lease's last published position, in bytes; no bound if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_lag_bytes: Option<u64>,
    /// F: how long failsafe lasts while a straggler does not answer, in seconds.
    pub failsafe_max_seconds: u64,
    /// After a crash, how long a restart in place is tried before the Lease is handed over.
    pub delay_seconds: u64,
    /// Priority in an election; greater wins between equal positions.
    pub priority: i32,
}

impl Default for FailoverLimits {
    fn default() -> Self {
        Self {
            maximum_lag_bytes: Some(1 << 20),
            failsafe_max_seconds: 600,
            delay_seconds: 0,
            priority: 0,
        }
    }
}

/// Limits of starting and stopping, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Delays {
    /// How long a start may take without progress.
    pub start_seconds: u64,
    /// How long a stop may take in all.
    pub stop_seconds: u64,
    /// How long a smart shutdown is tried before a fast one; absent: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smart_shutdown_seconds: Option<u64>,
    /// How long a successor may take to receive everything in a switchover.
    pub switchover_seconds: u64,
    /// How long a promotion may take.
    pub promotion_seconds: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            start_seconds: 3600,
            stop_seconds: 1800,
            smart_shutdown_seconds: None,
            switchover_seconds: 3600,
            promotion_seconds: 40_000_000,
        }
    }
}

/// Names of the Secrets that the agent reads by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretNames {
    /// Secrets whose `ca.crt` verifies servers; the first is the current one.
    pub server_ca: Vec<String>,
    /// Secrets whose `ca.crt` verifies clients.
    pub client_ca: Vec<String>,
    /// `tls.crt` and `tls.key` of PostgreSQL and of the agent's port.
    pub server: String,
    /// `tls.crt` and `tls.key` of role streaming_replica and of agents among themselves.
    pub replication: String,
    /// User and password of the application's owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Password of role postgres; none: the role has no password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superuser: Option<String>,
}

/// The application's database and owner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// The application's database.
    pub database: String,
    /// Its owner.
    pub owner: String,
    /// resourceVersions (or content hashes) of the Secrets, so that a change wakes the agent.
    pub secret_versions: BTreeMap<String, String>,
}

/// The agent's report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceStatus {
    /// `metadata.generation` of the directive that this report knows.
    pub observed_generation: i64,
    /// Random id made with the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// Uid of the pod whose agent reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Where it can be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// PostgreSQL's version, e.g. `17.6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres_version: Option<String>,
    /// PostgreSQL's system identifier, decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// Timeline of the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// Highest term obeyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// What it is to PostgreSQL.
    pub role: InstanceRole,
    /// What it is doing.
    pub state: InstanceState,
    /// True while a standby's walreceiver streams.
    pub streaming: bool,
    /// Name of the instance that it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub following: Option<String>,
    /// `spec.configurationHash` that PostgreSQL has loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded_configuration_hash: Option<String>,
    /// Parameters that wait for a restart.
    pub pending_restart: Vec<String>,
    /// True if one of them was decreased and standbys depend on it (max_connections and its like).
    pub pending_restart_decrease: bool,
    /// What PostgreSQL said against the configuration, in its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration_error: Option<String>,
    /// Secret name → version in use.
    pub secret_versions: BTreeMap<String, String>,
    /// Id of the last switchover request dealt with, and what became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switchover: Option<RequestOutcome>,
    /// Id of the last restart request dealt with, and what became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RequestOutcome>,
    /// Why it cannot go on, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Why its agent can do nothing of itself although something is to be done, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<InstanceWaiting>,
    /// Version of the agent.
    pub agent_version: String,
    /// What the agent runs from.
    pub agent: AgentReport,
    /// Directories moved aside that are still kept.
    pub kept_directories: Vec<KeptDirectory>,
    /// The tablespaces of the directive.
    pub tablespaces: Vec<TablespaceReport>,
}

/// How a tablespace of the directive is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TablespaceReport {
    /// Its name.
    pub name: String,
    /// Its place is there: PostgreSQL can make it, or replay that.
    pub ready: bool,
    /// On a primary: it is there and belongs to whom it should.
    pub reconciled: bool,
    /// Who owns it, where it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What is wrong, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What an agent runs from, and what keeps it from running from what it was told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentReport {
    /// SHA-256 of its file, hexadecimal; absent until it has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// It was put into place lately, and the former one is still kept.
    pub trial: bool,
    /// Why it does not run from the binary of the directive, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<AgentFailure>,
    /// Why its keeper does not understand all of it, or it not all of its keeper, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keeper: Option<String>,
}

/// Why an agent does not run from a binary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentFailure {
    /// SHA-256 of that binary.
    pub sha256: String,
    /// PascalCase, from the list in `api::reasons`.
    pub reason: String,
    /// For a person: what is wrong, and what to do.
    pub message: String,
}

/// Where an instance can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Address {
    /// IP address.
    pub host: String,
    /// PostgreSQL's port.
    pub postgres_port: u16,
    /// The agent's port.
    pub agent_port: u16,
}

/// What an instance is to PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InstanceRole {
    /// Not known, or not running.
    #[default]
    Unknown,
    /// Accepts writes.
    Primary,
    /// In recovery.
    Standby,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InstanceState {
    /// The agent has not yet looked.
    #[default]
    Unknown,
    /// Waits for a source, a Lease or a directive.
    Waiting,
    /// Runs initdb.
    Initializing,
    /// Copies another instance.
    Cloning,
    /// Runs pg_rewind.
    Rewinding,
    /// PostgreSQL starts or recovers.
    Starting,
    /// PostgreSQL answers.
    Running,
    /// PostgreSQL is being promoted.
    Promoting,
    /// PostgreSQL is being stopped.
    Stopping,
    /// PostgreSQL is stopped.
    Stopped,
    /// Stopped because the user fenced it.
    Fenced,
    /// Cannot go on; `failure` says why.
    Failed,
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestOutcome {
    /// The request's id.
    pub id: String,
    /// True if it was done.
    pub done: bool,
    /// Why not, or what is awaited.
    pub message: String,
}

/// Why an instance cannot go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Failure {
    /// PascalCase, from the list in `api::reasons`.
    pub reason: String,
    /// For a person: what is wrong, where, and what to do.
    pub message: String,
}

/// Why an agent can do nothing of itself, and what a person may do about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceWaiting {
    /// PascalCase, from the list in `api::reasons`.
    pub reason: String,
    /// For a person: what it waits for.
    pub message: String,
    /// What a person may do.
    pub human_options: Vec<HumanOption>,
}

/// A data directory that was moved aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KeptDirectory {
    /// Path in the pod.
    pub path: String,
    /// Why it is kept.
    pub reason: String,
    /// Bytes of WAL in it that no other instance has, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_wal_bytes: Option<u64>,
}
