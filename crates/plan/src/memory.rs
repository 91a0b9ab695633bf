//! Decisions that must survive: recorded by compare-and-swap before anything acts on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::protocol::{LeaseMark, PodUid};
use crate::world::InstanceName;

/// What the cluster remembers. Losing it (a restored namespace) is survived: `steps::bootstrap`
/// takes what can be seen as decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// The instance that fills the Lease for the first time, once chosen; never chosen again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_primary: Option<InstanceName>,
    /// The Lease was filled once: there is data, and initdb will never run again in this cluster.
    pub initialized: bool,
    /// The Lease was seen; the operator never makes another one (traps H6).
    pub lease_made: bool,
    /// The instances that the cluster has.
    pub members: BTreeMap<InstanceName, Member>,
    /// A switchover under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Switchover>,
    /// The cluster is hibernating, or on its way there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hibernating: bool,
    /// The last holder of the Lease that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_primary: Option<InstanceName>,
    /// Where the pod that the Lease names runs: the Node outlives the pod's object (rule 20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder_node: Option<HolderNode>,
    /// The last Lease that was no older state which somebody restored (rule 7b).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseMark>,
}

/// The Node of the pod that the Lease names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HolderNode {
    /// The pod.
    pub pod: PodUid,
    /// The Node.
    pub name: String,
}

/// What is remembered of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Member {
    /// Number in its name.
    pub serial: u32,
    /// It was made with a volume of its own for WAL.
    pub wal_volume: bool,
    /// It is on its way out.
    pub leaving: bool,
    /// Id of the last restart that it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
}

/// A switchover under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Switchover {
    /// Names the request towards the agent.
    pub id: String,
    /// Who held the Lease when it was decided.
    pub from: InstanceName,
    /// Who is to hold it; the best fit one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<InstanceName>,
    /// When it was decided, milliseconds since 1970.
    pub since_ms: i64,
    /// Who wished it.
    pub reason: SwitchoverReason,
}

/// Who wished a switchover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SwitchoverReason {
    /// The user, by `status.targetPrimary`.
    User,
    /// A rollout that has come to the primary.
    Rollout,
    /// The primary's volume is on its way out.
    Volume,
}
