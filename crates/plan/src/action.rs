//! What a pass does. Actions are absolute, idempotent and guarded; who executes them chooses nothing.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::binary::AgentBinary;
use crate::memory::Memory;
use crate::protocol::LeaseRecord;
use crate::report::{Report, Step, Wait};
use crate::world::{Identity, InstanceName, Object, PodRole, SecretRole, ServicePart};

/// The outcome of one pass of planning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What to remember; written before the first action.
    pub memory: Memory,
    /// What to do, stage after stage.
    pub stages: Vec<Stage>,
    /// What was done, awaited, blocked.
    pub report: Report,
    /// When to look again without an event, and why.
    pub wake: Option<Wake>,
}

impl Plan {
    /// An agent is being replaced, or is to be by this plan.
    pub fn replaces_agents(&self) -> bool {
        let steps = self.report.steps.iter();
        steps.filter(|step| step.step == Step::Agents).any(|step| {
            // One that does not serve is not waited for by other clusters.
            let waits =
                |wait: &Wait| matches!(wait, Wait::Agent(name) if self.report.ready.contains(name));
            !step.did.is_empty() || step.waits.iter().any(waits)
        })
    }
}

/// Actions that do not depend on each other. The next stage starts only if all of them succeeded.
pub type Stage = Vec<Action>;

/// When to look again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wake {
    /// In so many milliseconds.
    pub after_ms: u64,
    /// For a person.
    pub why: String,
}

/// The part of an Instance's spec that the planner decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Directive {
    /// Number in the instance's name.
    pub serial: u32,
    /// All instances of the cluster.
    pub members: BTreeSet<InstanceName>,
    /// An empty volume is filled by initdb (else by a clone).
    pub initdb: bool,
    /// It may fill the Lease for the first time.
    pub bootstrap_primary: bool,
    /// PostgreSQL stays stopped.
    pub fenced: bool,
    /// It is about to be removed.
    pub leaving: bool,
    /// It is nobody's successor.
    pub excluded: bool,
    /// Hand the Lease over: id of the request and the successor, if one is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switchover: Option<(String, Option<InstanceName>)>,
    /// Restart PostgreSQL in place: id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// The binary that its agent is to run from; absent: whatever it runs from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentBinary>,
    /// Tablespaces that a primary may make: every instance can replay that.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tablespaces: BTreeSet<String>,
}

/// Which volume of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum VolumeRole {
    /// PGDATA.
    Data,
    /// pg_wal.
    Wal,
    /// A tablespace.
    Tablespace(String),
}

impl fmt::Display for VolumeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data => f.write_str("data"),
            Self::Wal => f.write_str("WAL"),
            Self::Tablespace(name) => write!(f, "tablespace {name}"),
        }
    }
}

impl From<VolumeRole> for String {
    fn from(role: VolumeRole) -> Self {
        match role {
            VolumeRole::Data => "data".to_owned(),
            VolumeRole::Wal => "wal".to_owned(),
            VolumeRole::Tablespace(name) => format!("tablespace {name}"),
        }
    }
}

/// A key of maps, and so one text: what is neither of the two first is a tablespace.
impl From<String> for VolumeRole {
    fn from(text: String) -> Self {
        match text.strip_prefix("tablespace ") {
            Some(name) => Self::Tablespace(name.to_owned()),
            None if text == "data" => Self::Data,
            None if text == "wal" => Self::Wal,
            None => Self::Tablespace(text),
        }
    }
}

/// One change of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Make the object as it should be, whether it is there or not.
    Apply {
        /// Which.
        object: Object,
    },
    /// Remove an object that the spec no longer asks for.
    Remove {
        /// Which.
        object: Object,
        /// As it was seen.
        guard: Identity,
    },
    /// Make a part of a Service of the user's as it should be, whether it is there or not.
    ApplyService {
        /// Name of the Service.
        name: String,
        /// Which part.
        part: ServicePart,
    },
    /// Remove a part of a Service that the user no longer asks for, or that is to be made anew.
    RemoveService {
        /// Name of the Service.
        name: String,
        /// Which part.
        part: ServicePart,
        /// As it was seen.
        guard: Identity,
    },
    /// Make the empty Lease; one that is there already is success.
    CreateLease,
    /// Make a Secret; one that is there already is success.
    CreateSecret {
        /// Which.
        role: SecretRole,
    },
    /// Fill in what is derived (labels, `ca.crt`, URIs); keys and passwords stay.
    RepairSecret {
        /// Which.
        role: SecretRole,
        /// As it was seen.
        guard: Identity,
        /// Fingerprints of the authorities that its `ca.crt` is to hold.
        trusted: Vec<String>,
    },
    /// Make a new key and certificate; authorities so far stay trusted.
    RenewSecret {
        /// Which.
        role: SecretRole,
        /// As it was seen.
        guard: Identity,
        /// Fingerprints of the authorities that its `ca.crt` is to hold beside its signer.
        trusted: Vec<String>,
    },
    /// Make the Instance say this.
    Direct {
        /// Whom.
        instance: InstanceName,
        /// What.
        directive: Directive,
    },
    /// Make a volume; one that is there already is success.
    CreateVolume {
        /// Whose.
        instance: InstanceName,
        /// Which.
        volume: VolumeRole,
    },
    /// Put labels and owner of a volume right.
    AdoptVolume {
        /// Whose.
        instance: InstanceName,
        /// Which.
        volume: VolumeRole,
        /// As it was seen.
        guard: Identity,
    },
    /// Ask for a larger volume.
    GrowVolume {
        /// Whose.
        instance: InstanceName,
        /// Which.
        volume: VolumeRole,
        /// So many bytes.
        to: u64,
        /// As it was seen.
        guard: Identity,
    },
    /// Make a pod; one that is there already is success.
    CreatePod {
        /// Whose.
        instance: InstanceName,
        /// With a volume of its own for WAL.
        wal_volume: bool,
        /// Tablespaces with a volume.
        #[serde(default)]
        tablespaces: BTreeSet<String>,
    },
    /// Ask the API whether it would take the pod that is to be made in the place of the present one.
    /// Nothing is made; what the API refuses, the present pod outlives.
    TryPod {
        /// Whose.
        instance: InstanceName,
        /// With a volume of its own for WAL.
        wal_volume: bool,
        /// Tablespaces with a volume.
        #[serde(default)]
        tablespaces: BTreeSet<String>,
    },
    /// Put labels, annotations and owner of a pod right.
    AdoptPod {
        /// Whose.
        instance: InstanceName,
        /// As it was seen.
        guard: Identity,
    },
    /// Set the role label of a pod.
    LabelPod {
        /// Whose.
        instance: InstanceName,
        /// As it was seen.
        guard: Identity,
        /// The label.
        role: PodRole,
    },
    /// Have the init container bring the operator's own binary when the pod's containers are made
    /// anew. The pod lives on.
    SetBootstrapImage {
        /// Whose pod.
        instance: InstanceName,
        /// As it was seen.
        guard: Identity,
    },
    /// Delete a pod, gracefully: its volumes stay.
    DeletePod {
        /// Whose.
        instance: InstanceName,
        /// As it was seen.
        guard: Identity,
    },
    /// Delete a volume. The data on it is gone afterwards.
    DeleteVolume {
        /// Whose.
        instance: InstanceName,
        /// Which.
        volume: VolumeRole,
        /// As it was seen.
        guard: Identity,
    },
    /// Delete an Instance object.
    DeleteInstance {
        /// Which.
        instance: InstanceName,
        /// As it was seen.
        guard: Identity,
    },
    /// Write the Lease free: its holder's container is proved terminated (rule 20).
    FreeLease {
        /// As it was seen; the proof holds for this version alone.
        guard: Identity,
        /// Who held it.
        holder: InstanceName,
        /// What it is to say.
        record: LeaseRecord,
    },
}

impl Action {
    /// True if PostgreSQL of an instance stops, or data is lost, by it.
    pub fn disrupts(&self) -> bool {
        match self {
            Self::DeletePod { .. } | Self::DeleteVolume { .. } | Self::FreeLease { .. } => true,
            Self::Apply { .. }
            | Self::Remove { .. }
            | Self::CreateLease
            | Self::CreateSecret { .. }
            | Self::RepairSecret { .. }
            | Self::RenewSecret { .. }
            | Self::Direct { .. }
            | Self::CreateVolume { .. }
            | Self::AdoptVolume { .. }
            | Self::GrowVolume { .. }
            | Self::CreatePod { .. }
            | Self::TryPod { .. }
            | Self::ApplyService { .. }
            | Self::RemoveService { .. }
            | Self::AdoptPod { .. }
            | Self::LabelPod { .. }
            | Self::SetBootstrapImage { .. }
            | Self::DeleteInstance { .. } => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply { object } => write!(f, "apply {object:?}"),
            Self::Remove { object, .. } => write!(f, "remove {object:?}"),
            Self::CreateLease => f.write_str("create the Lease"),
            Self::CreateSecret { role } => write!(f, "create the {role:?} Secret"),
            Self::RepairSecret { role, .. } => write!(f, "repair the {role:?} Secret"),
            Self::RenewSecret { role, .. } => write!(f, "renew the {role:?} Secret"),
            Self::Direct { instance, .. } => write!(f, "direct {instance}"),
            Self::CreateVolume { instance, volume } => {
                write!(f, "create the {volume} volume of {instance}")
            }
            Self::AdoptVolume { instance, volume, .. } => {
                write!(f, "adopt the {volume} volume of {instance}")
            }
            Self::GrowVolume { instance, volume, to, .. } => {
                write!(f, "grow the {volume} volume of {instance} to {to} bytes")
            }
            Self::CreatePod { instance, .. } => write!(f, "create pod {instance}"),
            Self::TryPod { instance, .. } => write!(f, "try out the new pod of {instance}"),
            Self::ApplyService { name, part } => write!(f, "apply {part:?} {name}"),
            Self::RemoveService { name, part, .. } => write!(f, "remove {part:?} {name}"),
            Self::AdoptPod { instance, .. } => write!(f, "adopt pod {instance}"),
            Self::LabelPod { instance, role, .. } => write!(f, "label pod {instance} {role:?}"),
            Self::SetBootstrapImage { instance, .. } => {
                write!(f, "set the init container's image of pod {instance}")
            }
            Self::DeletePod { instance, .. } => write!(f, "delete pod {instance}"),
            Self::DeleteVolume { instance, volume, .. } => {
                write!(f, "delete the {volume} volume of {instance}")
            }
            Self::DeleteInstance { instance, .. } => write!(f, "delete instance {instance}"),
            Self::FreeLease { holder, .. } => write!(f, "free the Lease of {holder}"),
        }
    }
}
