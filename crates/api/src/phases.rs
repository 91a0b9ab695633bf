//! Phases of a Cluster: CloudNativePG's exact strings, because clients match on them.

/// What a cluster is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The first primary is being made.
    SettingUpPrimary,
    /// A standby is being made.
    CreatingReplica,
    /// All is as it should be.
    Healthy,
    /// Instances have yet to become active.
    WaitingForInstances,
    /// The primary hands over.
    Switchover,
    /// Another instance takes over.
    FailingOver,
    /// Instances are being replaced or restarted one after the other.
    Upgrading,
    /// PostgreSQL's major version is being upgraded.
    MajorUpgrade,
    /// An upgrade waits for its turn.
    UpgradeDelayed,
    /// Only a human can go on.
    WaitingForUser,
    /// The primary is being restarted where it is.
    InplacePrimaryRestart,
    /// The primary is being restarted because a parameter was decreased.
    InplaceDeletePrimaryRestart,
    /// A configuration is being applied.
    ApplyingConfiguration,
    /// Agents are being replaced.
    OnlineUpgrading,
    /// A replica cluster is becoming a primary one.
    PromotingToPrimaryCluster,
    /// A plugin is missing.
    UnknownPlugin,
    /// A plugin failed.
    FailurePlugin,
    /// The image catalog has no image for the major version, or is not there.
    ImageCatalogError,
    /// All volumes are lost.
    Unrecoverable,
    /// The operator has no binary for an instance's architecture.
    ArchitectureBinaryMissing,
    /// An object could not be made.
    CannotCreateClusterObjects,
    /// The spec cannot be carried out.
    InvalidDefinition,
    /// A volume is full.
    NotEnoughDiskSpace,
    /// Instances do not answer.
    InstanceStatusExtraction,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 24] = [
        Self::SettingUpPrimary,
        Self::CreatingReplica,
        Self::Healthy,
        Self::WaitingForInstances,
        Self::Switchover,
        Self::FailingOver,
        Self::Upgrading,
        Self::MajorUpgrade,
        Self::UpgradeDelayed,
        Self::WaitingForUser,
        Self::InplacePrimaryRestart,
        Self::InplaceDeletePrimaryRestart,
        Self::ApplyingConfiguration,
        Self::OnlineUpgrading,
        Self::PromotingToPrimaryCluster,
        Self::UnknownPlugin,
        Self::FailurePlugin,
        Self::ImageCatalogError,
        Self::Unrecoverable,
        Self::ArchitectureBinaryMissing,
        Self::CannotCreateClusterObjects,
        Self::InvalidDefinition,
        Self::NotEnoughDiskSpace,
        Self::InstanceStatusExtraction,
    ];

    /// The string in `status.phase`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::SettingUpPrimary => "Setting up primary",
            Self::CreatingReplica => "Creating a new replica",
            Self::Healthy => "Cluster in healthy state",
            Self::WaitingForInstances => "Waiting for the instances to become active",
            Self::Switchover => "Switchover in progress",
            Self::FailingOver => "Failing over",
            Self::Upgrading => "Upgrading cluster",
            Self::MajorUpgrade => "Upgrading Postgres major version",
            Self::UpgradeDelayed => "Cluster upgrade delayed",
            Self::WaitingForUser => "Waiting for user action",
            Self::InplacePrimaryRestart => "Primary instance is being restarted in-place",
            Self::InplaceDeletePrimaryRestart => {
                "Primary instance is being restarted without a switchover"
            }
            Self::ApplyingConfiguration => "Applying configuration",
            Self::OnlineUpgrading => "Online upgrade in progress",
            Self::PromotingToPrimaryCluster => "Promoting to primary cluster",
            Self::UnknownPlugin => {
                "Cluster cannot proceed to reconciliation due to an unknown plugin being required"
            }
            Self::FailurePlugin => {
                "Cluster cannot proceed to reconciliation due to an error while interacting with plugins"
            }
            Self::ImageCatalogError => "Cluster has incomplete or invalid image catalog",
            Self::Unrecoverable => "Cluster is unrecoverable and needs manual intervention",
            Self::ArchitectureBinaryMissing => {
                "Cluster cannot execute instance online upgrade due to missing architecture binary"
            }
            Self::CannotCreateClusterObjects => "Unable to create required cluster objects",
            Self::InvalidDefinition => "Invalid cluster definition",
            Self::NotEnoughDiskSpace => "Not enough disk space",
            Self::InstanceStatusExtraction => {
                "Instance Status Extraction Error: HTTP communication issue"
            }
        }
    }

    /// The phase with this string.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.text() == text)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

/// `status.targetPrimary` while an instance is being elected.
pub const TARGET_PRIMARY_PENDING: &str = "pending";

/// `status.tablespacesStatus[].state` of a tablespace that is not as it should be yet.
pub const TABLESPACE_PENDING: &str = "pending";
/// `status.tablespacesStatus[].state` of one that is.
pub const TABLESPACE_RECONCILED: &str = "reconciled";

/// Key of `status.instancesStatus` for ready instances.
pub const INSTANCES_HEALTHY: &str = "healthy";
/// Key of `status.instancesStatus` for instances that are not ready yet.
pub const INSTANCES_REPLICATING: &str = "replicating";
/// Key of `status.instancesStatus` for instances that failed.
pub const INSTANCES_FAILED: &str = "failed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_read_back_from_its_string() {
        for phase in Phase::ALL {
            assert_eq!(Phase::from_text(phase.text()), Some(phase));
        }
        assert_eq!(Phase::from_text("Healthy"), None);
    }
}
