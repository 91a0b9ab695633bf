//! Everything that a decision rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::action::{Directive, VolumeRole};
use crate::binary::AgentFacts;
use crate::memory::Memory;
use crate::protocol::proof::NodeEvidence;
use crate::protocol::{ContainerId, PodUid};
use crate::seen::Seen;
use crate::spec::Wanted;
use crate::stamp::PodStamp;

/// Name of an instance, of its pod and of its data volume's claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceName(pub String);

impl InstanceName {
    /// The name of the instance of a cluster with this serial.
    pub fn new(cluster: &str, serial: u32) -> Self {
        Self(format!("{cluster}-{serial}"))
    }

    /// The serial of this name, if it is one of an instance of the cluster.
    pub fn serial(&self, cluster: &str) -> Option<u32> {
        let digits = self.0.strip_prefix(cluster)?.strip_prefix('-')?;
        let serial: u32 = digits.parse().ok()?;
        (serial > 0 && serial.to_string() == digits).then_some(serial)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that a decision rests on, read at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct World {
    /// When it was read, milliseconds since 1970.
    pub now_ms: i64,
    /// The Cluster is being deleted: what it owns goes by itself, nothing is made any more.
    pub deleting: bool,
    /// What the user wants.
    pub wanted: Wanted,
    /// What was decided before.
    pub memory: Memory,
    /// `status.targetPrimary` if it differs from the `status.currentPrimary` beside it: the user
    /// has asked for a switchover.
    pub requested_primary: Option<InstanceName>,
    /// The cluster's Lease.
    pub lease: Seen<Lease>,
    /// Containers whose end kubelet has reported, also of pods that are gone since.
    pub ended: BTreeSet<EndedContainer>,
    /// The Node of the pod that the Lease names, if it was looked at: where that pod is not ready.
    #[serde(default)]
    pub node: Option<Node>,
    /// Kinds that could not be listed: of these nothing is known, not even that it is absent.
    pub blind: BTreeMap<Kind, String>,
    /// Every instance of which anything is there or remembered.
    pub instances: BTreeMap<InstanceName, Instance>,
    /// Objects without state.
    pub objects: BTreeMap<Object, Seen<ObjectFacts>>,
    /// Services of the user's by name: those that the spec asks for, and those that were made.
    #[serde(default)]
    pub services: BTreeMap<String, ManagedService>,
    /// Secrets.
    pub secrets: BTreeMap<SecretRole, Seen<SecretFacts>>,
}

/// A container that has ended: the kubelet said so, and named it (rule 20).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndedContainer {
    /// Its pod.
    pub pod: PodUid,
    /// The id that its keeper gave itself.
    pub container: ContainerId,
}

/// A Node (rule 20).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub facts: Seen<NodeFacts>,
}

/// What a Node says about the containers on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeFacts {
    /// Tainted `node.kubernetes.io/out-of-service` and not ready: somebody vouches that it is off.
    /// A kubelet that says it is ready contradicts the taint (Kubernetes' own pod collector asks for
    /// both as well).
    pub out_of_service: bool,
}

/// Kinds that are listed at each pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Instances.
    Instance,
    /// Pods.
    Pod,
    /// PersistentVolumeClaims.
    PersistentVolumeClaim,
}

/// An object's identity: what a guarded action names (invariant I20).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

/// What is seen of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Number in its name.
    pub serial: u32,
    /// The Instance object's spec.
    pub directive: Seen<DirectiveFacts>,
    /// The Instance object's status; stale if it is of another pod than the present one.
    pub report: Seen<Report>,
    /// Its pod.
    pub pod: Seen<Pod>,
    /// Its data volume.
    pub data: Seen<Volume>,
    /// Its WAL volume.
    pub wal: Seen<Volume>,
    /// Volumes of tablespaces by name; of those that are not in here nothing is there.
    #[serde(default)]
    pub tablespaces: BTreeMap<String, Seen<Volume>>,
}

/// The Instance object, but for its status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectiveFacts {
    /// The object.
    pub identity: Identity,
    /// It is being deleted.
    pub deleting: bool,
    /// The part that the planner decides.
    pub directive: Directive,
    /// The rest (configuration, names, delays), and labels and owner, are as they should be.
    pub conforms: bool,
}

/// An agent's report: the part of it that decisions rest on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// Primary, standby, or not known.
    pub role: Role,
    /// What it is doing.
    pub state: State,
    /// It speaks of the directive as it stands: its agent has read that.
    pub heeds: bool,
    /// Its walreceiver streams.
    pub streaming: bool,
    /// Hash of the configuration that PostgreSQL has loaded.
    pub configuration_hash: Option<String>,
    /// Parameters that wait for a restart.
    pub pending_restart: Vec<String>,
    /// One of them was decreased and standbys depend on it.
    pub pending_decrease: bool,
    /// What PostgreSQL said against the configuration.
    pub configuration_error: Option<String>,
    /// The last switchover request dealt with.
    pub switchover: Option<Outcome>,
    /// The last restart request dealt with.
    pub restart: Option<Outcome>,
    /// Why it cannot go on: reason and message.
    pub failure: Option<(String, String)>,
    /// Why its agent can do nothing of itself.
    pub waiting: Option<Stall>,
    /// Identity of the data directory.
    pub incarnation: Option<String>,
    /// PostgreSQL's system identifier.
    pub system_id: Option<String>,
    /// Timeline of the data directory.
    pub timeline: Option<u32>,
    /// Highest term of the Lease that it has obeyed.
    pub term: u64,
    /// Secret → version in use.
    pub secret_versions: BTreeMap<String, String>,
    /// What its agent runs from.
    pub agent: AgentFacts,
    /// Tablespaces by name.
    pub tablespaces: BTreeMap<String, TablespaceFacts>,
}

/// What an agent says of a tablespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TablespaceFacts {
    /// Its place is there: PostgreSQL can make it, or replay that.
    pub ready: bool,
    /// A primary has it as it should be.
    pub reconciled: bool,
    /// Who owns it.
    pub owner: Option<String>,
    /// Why it is not as it should be.
    pub error: Option<String>,
}

/// Why an agent can do nothing of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stall {
    /// PascalCase.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// What a person may do: the action, and what it brings and costs.
    pub options: Vec<(String, String)>,
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outcome {
    /// The request.
    pub id: String,
    /// It was done.
    pub done: bool,
    /// Why not, or what is awaited.
    pub message: String,
}

/// What an instance is to PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Not known, or not running.
    #[default]
    Unknown,
    /// Accepts writes.
    Primary,
    /// In recovery.
    Standby,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Not known.
    #[default]
    Unknown,
    /// Gets ready: waits, makes or fetches its data, starts, is promoted.
    Preparing,
    /// PostgreSQL answers.
    Running,
    /// PostgreSQL is stopped or being stopped.
    Stopped,
    /// Stopped because the user fenced it.
    Fenced,
    /// Cannot go on.
    Failed,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// The object.
    pub identity: Identity,
    /// It is being deleted.
    pub deleting: bool,
    /// It has ended for good (phase Succeeded or Failed).
    pub ended: bool,
    /// Kubernetes says that it is ready.
    pub ready: bool,
    /// Its container runs.
    pub running: bool,
    /// What it was made from (`Spec::pod_stamp` of then).
    pub stamp: PodStamp,
    /// `Spec::restarted_at` of when it was made.
    pub restarted_at: Option<String>,
    /// Its role label.
    pub role: Option<PodRole>,
    /// Labels, annotations and owner that it should have and has not.
    pub conforms: bool,
    /// Its init container brings the binary of this operator.
    pub brings_own_binary: bool,
    /// A user says that its volumes are of no use any more (annotation `unrecoverable`).
    #[serde(default)]
    pub unrecoverable: bool,
    /// It is older than its ServiceAccount: that was deleted and made anew, and the API server takes
    /// no token of the former one.
    #[serde(default)]
    pub locked_out: bool,
    /// The Node that it is bound to.
    pub node: Option<String>,
    /// Why it is not scheduled or not started, in Kubernetes' words.
    pub trouble: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// Tablespaces whose volumes it has.
    pub tablespaces: BTreeSet<String>,
}

/// The role label of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodRole {
    /// Holds the Lease.
    Primary,
    /// Does not.
    Replica,
}

/// A volume's claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// The object.
    pub identity: Identity,
    /// It is being deleted.
    pub deleting: bool,
    /// Labels and owner are as they should be.
    pub conforms: bool,
    /// What its claim asks for, in bytes.
    pub requested: Option<u64>,
    /// What it has, in bytes: less than it asks for while it grows.
    pub capacity: Option<u64>,
    /// Why it does not grow, in Kubernetes' words.
    pub trouble: Option<String>,
}

impl Volume {
    /// It has less than it asks for.
    #[must_use]
    pub fn is_growing(&self) -> bool {
        self.requested.zip(self.capacity).is_some_and(|(asks, has)| has < asks)
    }
}

/// The cluster's Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lease {
    /// The object.
    pub identity: Identity,
    /// Who holds it.
    pub holder: Option<InstanceName>,
    /// As the agents read it; none while it is empty.
    pub state: Option<crate::protocol::Lease>,
    /// For how long the operator has seen this very version, in milliseconds.
    pub unchanged_ms: u64,
    /// How often it changed hands.
    pub term: u64,
    /// It was filled once: it names a cohort.
    pub filled: bool,
    /// Members that may run, and stragglers, by name.
    pub cohort: BTreeSet<InstanceName>,
    /// The data directories, by id, on which acknowledged commits are promised to be; empty
    /// without a promise.
    pub quorum: BTreeSet<String>,
}

/// Objects without state, of which a cluster has at most one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Object {
    /// Identity of the pods.
    ServiceAccount,
    /// What the pods may do.
    Role,
    /// Gives the Role to the ServiceAccount.
    RoleBinding,
    /// passwd and group files of the pods.
    Passwd,
    /// The Service that leads to the holder; no selector.
    ServiceReadWrite,
    /// The Service that leads to standbys.
    ServiceReadOnly,
    /// The Service that leads to all instances.
    ServiceRead,
    /// The Service for people that leads to the primary by label.
    ServicePrimary,
    /// The EndpointSlice of `ServiceReadWrite`; its endpoints belong to the holder.
    EndpointsReadWrite,
    /// How many instances may be evicted at once.
    DisruptionBudget,
}

impl Object {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::Passwd,
        Self::ServiceReadWrite,
        Self::ServiceReadOnly,
        Self::ServiceRead,
        Self::ServicePrimary,
        Self::EndpointsReadWrite,
        Self::DisruptionBudget,
    ];
}

/// What is seen of an object without state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectFacts {
    /// The object.
    pub identity: Identity,
    /// It is being deleted.
    pub deleting: bool,
    /// Every field that it should have is there.
    pub conforms: bool,
}

/// What is seen of a Service of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedService {
    /// The Service.
    pub service: Seen<ObjectFacts>,
    /// Its EndpointSlice, if it leads to the holder; the endpoints are the holder's.
    pub endpoints: Seen<ObjectFacts>,
}

/// The objects that a Service of the user's consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ServicePart {
    /// The Service.
    Service,
    /// The EndpointSlice of the same name.
    Endpoints,
}

/// What a Secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SecretRole {
    /// The authority that signs; with its key, read by the operator alone.
    Authority,
    /// An authority for servers' certificates that the user gave.
    ServerAuthority,
    /// An authority for clients' certificates that the user gave.
    ClientAuthority,
    /// Certificate of PostgreSQL and of the agent's port.
    Server,
    /// Certificate for streaming and for agents among themselves.
    Replication,
    /// The application's user and password.
    Application,
    /// Password of role postgres.
    Superuser,
}

/// What is seen of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretFacts {
    /// The object.
    pub identity: Identity,
    /// Its name.
    pub name: String,
    /// It is being deleted.
    pub deleting: bool,
    /// Changes with its content.
    pub version: String,
    /// Why it cannot be used, if so.
    pub invalid: Option<String>,
    /// Derived keys, labels and owner are as they should be.
    pub conforms: bool,
    /// The certificate, if it holds one.
    pub certificate: Option<Certificate>,
    /// Fingerprints of the authorities in its `ca.crt`; of the authority itself: its own first.
    pub trusted: Vec<String>,
}

/// A certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificate {
    /// Milliseconds since 1970.
    pub not_before_ms: i64,
    /// Milliseconds since 1970.
    pub not_after_ms: i64,
    /// Fingerprint of the authority that signed it, if it is among those that were read.
    pub issuer: Option<String>,
    /// All names that it should have are there.
    pub names_suffice: bool,
}

impl World {
    /// The holder of the Lease, if that is known.
    pub fn holder(&self) -> Option<&InstanceName> {
        self.lease.known().and_then(|lease| lease.holder.as_ref())
    }

    /// False if it is sure that nothing which was acknowledged may have to be found on this
    /// instance: it is in neither cohort nor stragglers, and every data directory of the promised
    /// quorum is another instance's (docs/ha-protocol.md, rules 4 and 14).
    pub fn counts_on(&self, name: &InstanceName) -> bool {
        let Some(lease) = self.lease.known() else { return true };
        let of_another = |incarnation: &String| {
            self.instances.iter().any(|(other, instance)| {
                let report = instance.report.last();
                other != name && report.and_then(|it| it.incarnation.as_ref()) == Some(incarnation)
            })
        };
        lease.cohort.contains(name) || !lease.quorum.iter().all(of_another)
    }

    /// What the Node to which this pod was bound proves about its containers (rule 20).
    pub fn node_evidence(&self, memory: &Memory, pod: &PodUid) -> NodeEvidence {
        let bound = memory.holder_node.as_ref().filter(|bound| bound.pod == *pod);
        let found = self.node.as_ref().filter(|node| bound.is_some_and(|it| it.name == node.name));
        match found.map(|node| &node.facts) {
            Some(Seen::Known(facts)) if facts.out_of_service => NodeEvidence::OutOfService,
            Some(Seen::Absent) => NodeEvidence::Gone,
            Some(Seen::Known(_) | Seen::Stale(_) | Seen::Unknown { .. }) | None => {
                NodeEvidence::NotProved
            }
        }
    }

    /// True if all kinds that members consist of, and the Lease, could be read.
    pub fn sees_members(&self) -> bool {
        self.blind.is_empty() && !self.lease.is_unknown()
    }
}

impl Instance {
    /// Nothing of it is there.
    pub fn nothing(serial: u32) -> Self {
        Self {
            serial,
            directive: Seen::Absent,
            report: Seen::Absent,
            pod: Seen::Absent,
            data: Seen::Absent,
            wal: Seen::Absent,
            tablespaces: BTreeMap::new(),
        }
    }

    /// One of its volumes.
    pub fn volume(&self, role: &VolumeRole) -> &Seen<Volume> {
        match role {
            VolumeRole::Data => &self.data,
            VolumeRole::Wal => &self.wal,
            VolumeRole::Tablespace(name) => self.tablespaces.get(name).unwrap_or(&Seen::Absent),
        }
    }

    /// All of its volumes of which anything is or may be there, and those for data and WAL.
    pub fn volumes(&self) -> impl Iterator<Item = (VolumeRole, &Seen<Volume>)> {
        let tablespaces = self.tablespaces.iter();
        [(VolumeRole::Data, &self.data), (VolumeRole::Wal, &self.wal)]
            .into_iter()
            .chain(tablespaces.map(|(name, seen)| (VolumeRole::Tablespace(name.clone()), seen)))
    }

    /// The tablespaces of a pod that is made now: those of the spec, and those that have a volume,
    /// on which there may be data.
    pub fn with_tablespaces(&self, wanted: &BTreeSet<String>) -> BTreeSet<String> {
        let there = self.tablespaces.iter().filter(|(_, seen)| seen.known().is_some());
        there.map(|(name, _)| name.clone()).chain(wanted.iter().cloned()).collect()
    }

    /// It serves: its pod is ready and its agent says that PostgreSQL runs as it should.
    pub fn is_ready(&self) -> bool {
        // A pod that has ended serves nobody, whatever its last condition says.
        let pod = self.pod.known().is_some_and(|pod| pod.ready && !pod.deleting && !pod.ended);
        pod && self.report.known().is_some_and(|report| {
            report.state == State::Running
                && match report.role {
                    Role::Primary => true,
                    Role::Standby => report.streaming,
                    Role::Unknown => false,
                }
        })
    }

    /// Nothing of it is left, for certain.
    pub fn is_gone(&self) -> bool {
        self.directive.is_absent()
            && self.pod.is_absent()
            && self.volumes().all(|(_, volume)| volume.is_absent())
    }
}
