//! Condition types of a Cluster's status and their reasons.

/// A condition's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The cluster does what the spec asks for.
    Ready,
    /// The cluster has had a primary.
    Initialized,
    /// WAL is archived.
    ContinuousArchiving,
    /// The last backup succeeded.
    LastBackupSucceeded,
    /// All instances have one system identifier.
    ConsistentSystemId,
    /// Synchronous standbys are in other failure domains than the primary.
    SyncReplicationTopologySatisfied,
    /// Fields of the spec that have no effect yet.
    UnsupportedFields,
    /// The spec as written can be carried out.
    SpecAccepted,
    /// A failover would be possible now, and without loss in synchronous mode.
    FailoverProtected,
    /// PostgreSQL runs with the configuration of the spec.
    ConfigurationApplied,
    /// All agents run from the operator's own binary.
    AgentsUpToDate,
}

impl ConditionType {
    /// All types.
    pub const ALL: [Self; 11] = [
        Self::Ready,
        Self::Initialized,
        Self::ContinuousArchiving,
        Self::LastBackupSucceeded,
        Self::ConsistentSystemId,
        Self::SyncReplicationTopologySatisfied,
        Self::UnsupportedFields,
        Self::SpecAccepted,
        Self::FailoverProtected,
        Self::ConfigurationApplied,
        Self::AgentsUpToDate,
    ];

    /// The type as written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Initialized => "Initialized",
            Self::ContinuousArchiving => "ContinuousArchiving",
            Self::LastBackupSucceeded => "LastBackupSucceeded",
            Self::ConsistentSystemId => "ConsistentSystemID",
            Self::SyncReplicationTopologySatisfied => "SyncReplicationTopologySatisfied",
            Self::UnsupportedFields => "UnsupportedFields",
            Self::SpecAccepted => "SpecAccepted",
            Self::FailoverProtected => "FailoverProtected",
            Self::ConfigurationApplied => "ConfigurationApplied",
            Self::AgentsUpToDate => "AgentsUpToDate",
        }
    }
}

/// The cluster has no pods, as its user wants.
pub const HIBERNATED: &str = "Hibernated";
/// The cluster is on its way into hibernation.
pub const DELETING_PODS: &str = "DeletingPods";
/// The cluster does not hibernate before it is healthy.
pub const WAITING_TO_HIBERNATE: &str = "WaitingForHealthyCluster";
/// `Ready` is true.
pub const CLUSTER_IS_READY: &str = "ClusterIsReady";
/// `Ready` is false.
pub const CLUSTER_IS_NOT_READY: &str = "ClusterIsNotReady";
/// `Initialized` is true.
pub const BOOTSTRAP_COMPLETED: &str = "BootstrapCompleted";
/// `Initialized` is false.
pub const BOOTSTRAP_PENDING: &str = "BootstrapPending";
/// `ConsistentSystemID` is true.
pub const UNIQUE: &str = "Unique";
/// `ConsistentSystemID` is false.
pub const MISMATCH: &str = "Mismatch";
/// `ConsistentSystemID` is unknown: no instance has reported one.
pub const NOT_FOUND: &str = "NotFound";
/// `UnsupportedFields` is true.
pub const FIELDS_WITHOUT_EFFECT: &str = "FieldsWithoutEffect";
/// `UnsupportedFields` is false.
pub const ALL_FIELDS_EFFECTIVE: &str = "AllFieldsEffective";
/// `SpecAccepted` is true.
pub const SPEC_ACCEPTED: &str = "Accepted";
/// `SpecAccepted` is false: the spec contradicts itself or PostgreSQL.
pub const SPEC_INVALID: &str = "Invalid";
/// `SpecAccepted` is false: a field decides about data and has no effect yet.
pub const SPEC_BLOCKED: &str = "UnsupportedDataField";
/// `FailoverProtected` is true.
pub const PROTECTED: &str = "Protected";
/// `FailoverProtected` is false: the cluster has one instance.
pub const SINGLE_INSTANCE: &str = "SingleInstance";
/// `FailoverProtected` is false: no instance could take over now.
pub const NO_FIT_SUCCESSOR: &str = "NoFitSuccessor";
/// `FailoverProtected` is false: names outside the cluster may be all that acknowledged (traps H15).
pub const OUTSIDE_STANDBYS: &str = "OutsideStandbys";
/// `ConfigurationApplied` is true.
pub const CONFIGURATION_LOADED: &str = "Loaded";
/// `ConfigurationApplied` is false: instances have yet to load it or to be restarted.
pub const CONFIGURATION_PENDING: &str = "Pending";
/// `ConfigurationApplied` is false: PostgreSQL refused it; the message has its own words.
pub const CONFIGURATION_REJECTED: &str = "Rejected";
/// `AgentsUpToDate` is true.
pub const AGENTS_CURRENT: &str = "Current";
/// `AgentsUpToDate` is false: they are replaced one after the other.
pub const AGENTS_UPGRADING: &str = "Upgrading";
/// `AgentsUpToDate` is false: one was not replaced, and the others wait.
pub const AGENT_FAILED: &str = "AgentFailed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_types_are_distinct_and_valid() {
        let names: std::collections::BTreeSet<_> =
            ConditionType::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), ConditionType::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}
