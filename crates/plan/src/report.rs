//! Why something happens, or does not: data from which status, conditions and events are rendered.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::binary::BinaryFailure;
use crate::memory::SwitchoverReason;
use crate::spec::{ImageProblem, SpecFinding};
use crate::world::{InstanceName, Kind, SecretRole, Stall};

/// What a pass found and decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One entry for each step that had something to say, in the order of the steps.
    pub steps: Vec<StepReport>,
    /// The holder of the Lease, if known.
    pub primary: Option<InstanceName>,
    /// The instance that a switchover goes to; the primary itself if there is none.
    pub target_primary: Option<InstanceName>,
    /// Instances that serve.
    pub ready: BTreeSet<InstanceName>,
    /// Instances that the cluster has.
    pub members: BTreeSet<InstanceName>,
    /// What the cluster is doing, in one word.
    pub activity: Activity,
}

/// What a cluster is doing. The most telling one that holds; later ones tell more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Activity {
    /// Nothing: all is as it should be.
    #[default]
    Healthy,
    /// Waits for instances to become ready.
    WaitingForInstances,
    /// A standby is being made.
    CreatingReplica,
    /// A change of parameters is being carried out.
    ApplyingConfiguration,
    /// Agents are being replaced while PostgreSQL runs on.
    UpgradingAgents,
    /// Pods are being replaced.
    Upgrading,
    /// The primary restarts and stays primary.
    RestartingPrimary,
    /// A person has to act first.
    WaitingForUser,
    /// The Lease is being handed over on request.
    SwitchingOver,
    /// Nobody holds the Lease.
    FailingOver,
    /// The first primary is being made.
    SettingUpPrimary,
    /// Objects that the cluster needs cannot be made.
    UnableToCreate,
    /// No instance can serve, and only a person can change that.
    Unrecoverable,
    /// The spec cannot be carried out.
    InvalidSpec,
    /// The operator was told to keep its hands off.
    Paused,
    /// The Cluster is being deleted.
    Deleting,
}

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// Is there anything to do at all.
    Admission,
    /// Secrets and certificates.
    Access,
    /// Objects without state.
    Services,
    /// The first primary.
    Bootstrap,
    /// Who belongs to the cluster.
    Members,
    /// The way into hibernation.
    Hibernation,
    /// Volumes.
    Storage,
    /// Pods.
    Pods,
    /// Proof of death.
    Failover,
    /// Handing over on request.
    Switchover,
    /// Restarts and replacements, one by one.
    Rollout,
    /// The agents' binaries.
    Agents,
    /// What agents are told.
    Directives,
    /// Role labels.
    Labels,
}

/// What one step found and decided. An unread report is not actionable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// Which step.
    pub step: Step,
    /// What it started.
    pub did: Vec<Did>,
    /// What it waits for: it goes on by itself.
    pub waits: Vec<Wait>,
    /// What keeps it from going on.
    pub blocked: Vec<Block>,
}

impl StepReport {
    /// The report of a step that has found nothing to do.
    pub fn new(step: Step) -> Self {
        Self { step, did: Vec::new(), waits: Vec::new(), blocked: Vec::new() }
    }

    /// True if there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.did.is_empty() && self.waits.is_empty() && self.blocked.is_empty()
    }
}

/// Something that was started; an event for the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Did {
    /// A new instance was decided on.
    AddInstance(InstanceName),
    /// An instance was told to leave.
    RetireInstance(InstanceName),
    /// An instance was told to leave, and another one takes its place: why.
    ReplaceInstance(InstanceName, String),
    /// An instance has left and was forgotten.
    ForgetInstance(InstanceName),
    /// A pod is made.
    CreatePod(InstanceName),
    /// A pod is deleted to be made anew: why.
    ReplacePod(InstanceName, String),
    /// The pod of a cluster that hibernates is deleted.
    RemovePod(InstanceName),
    /// A volume is made.
    CreateVolume(InstanceName),
    /// A volume is to become larger.
    GrowVolume(InstanceName),
    /// Volumes of an instance that has left are deleted.
    DeleteVolumes(InstanceName),
    /// PostgreSQL is restarted in place: why.
    Restart(InstanceName, String),
    /// An agent is told to run from a binary: its version.
    UpgradeAgent(InstanceName, String),
    /// A switchover was asked for.
    StartSwitchover {
        /// From whom.
        from: InstanceName,
        /// To whom, if named.
        to: Option<InstanceName>,
        /// Who wished it.
        reason: SwitchoverReason,
    },
    /// A switchover has ended.
    EndSwitchover {
        /// Who is primary now.
        primary: InstanceName,
    },
    /// A switchover was given up: why.
    AbandonSwitchover {
        /// Who was to be primary.
        to: Option<InstanceName>,
        /// Why.
        why: String,
    },
    /// Another instance holds the Lease without our having asked for it.
    SeePrimary {
        /// Who held it before.
        before: InstanceName,
        /// Who holds it now.
        now: InstanceName,
    },
    /// The Lease of a dead holder was freed.
    FreeLease(InstanceName),
    /// A Secret is made.
    CreateSecret(SecretRole),
    /// A certificate is renewed.
    RenewSecret(SecretRole),
}

/// Something that is awaited: it comes by itself, or a deadline does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wait {
    /// These could not be read: nothing is decided on a guess.
    Sight {
        /// What, and why not.
        what: String,
    },
    /// The first primary makes the data.
    FirstPrimary(InstanceName),
    /// Instances to become ready.
    Ready(BTreeSet<InstanceName>),
    /// A leaving instance to leave the cohort.
    Cohort(InstanceName),
    /// Something being deleted to be gone.
    Gone(InstanceName),
    /// Agents to load the configuration.
    Configuration(BTreeSet<InstanceName>),
    /// PostgreSQL of an instance to restart.
    Restart(InstanceName),
    /// An agent to run from the binary that it was told of.
    Agent(InstanceName),
    /// Agents of other clusters to be replaced first.
    Turn,
    /// The Lease to be handed over.
    Handover {
        /// From whom.
        from: InstanceName,
        /// To whom, if named.
        to: Option<InstanceName>,
        /// What the holder says.
        message: String,
    },
    /// Somebody to take the Lease.
    Election,
    /// A failover to end, before this instance gets a pod.
    Failover(InstanceName),
    /// A volume to become larger.
    Growth(InstanceName),
    /// Volumes of tablespaces to be made, before a pod that has them.
    Volumes(InstanceName),
    /// Instances to have the place of a tablespace.
    Tablespace {
        /// Its name.
        name: String,
        /// Who has not.
        missing: BTreeSet<InstanceName>,
    },
    /// All instances to be well, before the cluster may hibernate; those that are not.
    HealthyToHibernate(BTreeSet<InstanceName>),
    /// The primary to stop, and standbys to receive the rest.
    Hibernation,
    /// Agents to take note of changed Secrets.
    Secret(SecretRole),
}

/// Why an instance is not made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReplacementBlock {
    /// It is the primary.
    Primary,
    /// Its volumes outlive it, and would be used again.
    RetainedVolumes,
}

/// What keeps a step from going on until a person, or another part of the system, acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Block {
    /// The spec cannot be carried out.
    Spec(SpecFinding),
    /// The image that the spec leads to is not known; the last one goes on.
    Image(ImageProblem),
    /// A Secret that the user names is missing or cannot be used.
    Secret {
        /// Which.
        role: SecretRole,
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The primary's update waits for a person (`primaryUpdateStrategy: supervised`).
    Supervised {
        /// The primary.
        primary: InstanceName,
        /// Who could be promoted.
        candidates: BTreeSet<InstanceName>,
    },
    /// PostgreSQL rejects the configuration.
    Configuration {
        /// Who says so.
        instance: InstanceName,
        /// In PostgreSQL's words.
        message: String,
    },
    /// An instance cannot go on.
    Failed {
        /// Which.
        instance: InstanceName,
        /// PascalCase.
        reason: String,
        /// For a person.
        message: String,
    },
    /// An agent can do nothing of itself.
    Stalled {
        /// Whose.
        instance: InstanceName,
        /// Why, and what a person may do.
        stall: Stall,
    },
    /// A pod is not scheduled or not started.
    Pod {
        /// Which.
        instance: InstanceName,
        /// In Kubernetes' words.
        why: String,
    },
    /// A volume does not become larger.
    Growth {
        /// Whose.
        instance: InstanceName,
        /// In Kubernetes' words.
        why: String,
    },
    /// A Service of the user's cannot be kept.
    Service {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// A volume is being deleted that holds the only, or the best, copy of the data.
    LastCopy(InstanceName),
    /// The instance named for a switchover is none, or cannot take over.
    NoSuccessor {
        /// Who was named, if anyone.
        to: Option<InstanceName>,
        /// Why not.
        why: String,
    },
    /// An agent does not run from the binary that it was told of: no other is told of it.
    Agent {
        /// Whose.
        instance: InstanceName,
        /// Why not.
        failure: BinaryFailure,
    },
    /// A restart was done and parameters wait for one still.
    StillPending {
        /// Who.
        instance: InstanceName,
        /// Which.
        parameters: Vec<String>,
    },
    /// An instance is to be made anew and cannot be now.
    Replacement {
        /// Which.
        instance: InstanceName,
        /// Why not.
        why: ReplacementBlock,
    },
    /// Data was there once and nothing of it is left.
    NothingLeft,
    /// The user has fenced these.
    Fenced(BTreeSet<InstanceName>),
    /// A user of the API asked the operator to keep its hands off.
    Paused,
    /// A kind could not be listed.
    Blind {
        /// Which.
        kind: Kind,
        /// Why not.
        why: String,
    },
}
