//! What the user wants, with every default filled in and nothing that the planner does not read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::action::VolumeRole;
use crate::binary::AgentBinary;
use crate::stamp::PodStamp;
use crate::world::{InstanceName, Object, SecretRole};

/// The outcome of resolving the user's spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wanted {
    /// It can be carried out.
    Valid(Box<Spec>),
    /// It cannot: all findings at once. What runs keeps running, nothing is made.
    Invalid {
        /// What is wrong.
        findings: Vec<SpecFinding>,
    },
}

/// One thing that is wrong with the user's spec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecFinding {
    /// Where, as a path into the object (`spec.postgresql.parameters.port`).
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The cluster's name: the beginning of its instances' names.
    pub cluster: String,
    /// How many instances.
    pub instances: u32,
    /// Do new instances get a volume of their own for WAL.
    pub wal_volume: bool,
    /// Tablespaces, each with a volume of each instance.
    #[serde(default)]
    pub tablespaces: BTreeSet<String>,
    /// Volumes that are there and smaller are grown to so many bytes.
    pub grown_to: BTreeMap<VolumeRole, u64>,
    /// Do volumes outlive the instances and the cluster.
    pub retain_volumes: bool,
    /// Whom the user has fenced.
    pub fenced: Fenced,
    /// The user wants the volumes alone, and no pods (annotation `hibernation`).
    pub hibernated: bool,
    /// The user asked the operator to keep its hands off (`reconciliationLoop: disabled`).
    pub paused: bool,
    /// What a pod made now would be made from.
    pub pod_stamp: PodStamp,
    /// Pods stay as they are, whatever they would be made from now (`reconcilePodSpec: disabled`).
    #[serde(default)]
    pub keeps_pods: bool,
    /// A standby whose volume is on a node that cannot take its pod is made anew elsewhere
    /// (`nodeMaintenanceWindow` in progress, `reusePVC: false`).
    #[serde(default)]
    pub replaces_stranded: bool,
    /// Hash over the configuration that the directives carry.
    pub configuration_hash: String,
    /// The user's last wish for a rolling restart, an opaque string.
    pub restarted_at: Option<String>,
    /// Who decides when the primary is updated.
    pub update_strategy: UpdateStrategy,
    /// How the primary is updated.
    pub update_method: UpdateMethod,
    /// The binary that all agents are to run from; absent: they go on with theirs.
    #[serde(default)]
    pub agent: Option<AgentBinary>,
    /// No further agent is to be told of it now: enough of other clusters are.
    #[serde(default)]
    pub agents_wait: bool,
    /// How long a switchover may take, in milliseconds.
    pub switchover_ms: i64,
    /// Where each Secret comes from.
    pub secrets: BTreeMap<SecretRole, SecretSource>,
    /// The objects without state that the cluster is to have.
    pub objects: BTreeSet<Object>,
    /// Services of the user's, by name.
    #[serde(default)]
    pub services: BTreeMap<String, ServiceWish>,
    /// Why the image that is used is the last one known and not the one that the spec leads to.
    #[serde(default)]
    pub image_problem: Option<ImageProblem>,
}

/// A Service that the user asks for beside those that every cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceWish {
    /// It leads to the holder of the Lease, by an EndpointSlice of its own.
    pub read_write: bool,
    /// How a change is applied.
    pub update: ServiceUpdate,
}

/// How a change of a Service is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceUpdate {
    /// In place.
    #[default]
    Patch,
    /// By a new one under the same name.
    Replace,
}

/// Why the image that the spec leads to is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageProblem {
    /// Kind and name of the catalog.
    pub object: String,
    /// What is wrong, and what goes on meanwhile.
    pub message: String,
}

/// Where a Secret comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretSource {
    /// The operator makes it and keeps it true.
    Managed,
    /// The user gave it; the operator only reads it.
    Given {
        /// Its name.
        name: String,
    },
}

/// Whom the user has fenced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fenced {
    /// Nobody.
    #[default]
    None,
    /// Everybody (`["*"]`).
    All,
    /// These.
    Named(BTreeSet<InstanceName>),
}

impl Spec {
    /// Which authority signs a certificate: one that the user gave for it, else the cluster's own.
    pub fn signer(&self, leaf: SecretRole) -> Option<SecretRole> {
        let given = match leaf {
            SecretRole::Server => SecretRole::ServerAuthority,
            SecretRole::Replication => SecretRole::ClientAuthority,
            SecretRole::Authority
            | SecretRole::ServerAuthority
            | SecretRole::ClientAuthority
            | SecretRole::Application
            | SecretRole::Superuser => return None,
        };
        Some(if self.secrets.contains_key(&given) { given } else { SecretRole::Authority })
    }
}

impl Fenced {
    /// Is this instance fenced.
    pub fn contains(&self, name: &InstanceName) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }
}

/// CloudNativePG's `primaryUpdateStrategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UpdateStrategy {
    /// The operator goes on by itself.
    #[default]
    Unsupervised,
    /// A person starts the primary's update.
    Supervised,
}

/// CloudNativePG's `primaryUpdateMethod`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UpdateMethod {
    /// Another instance becomes primary first.
    #[default]
    Switchover,
    /// The primary restarts in place.
    Restart,
}
