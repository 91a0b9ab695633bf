//! Reasons of events, of failures that agents report, and of `status.blockedBy`.

/// Events of normal life.
pub mod event {
    /// An instance is being made.
    pub const CREATING_INSTANCE: &str = "CreatingInstance";
    /// An instance is being removed because fewer are wanted.
    pub const SCALE_DOWN: &str = "ScaleDown";
    /// The primary is lost and another instance takes over.
    pub const FAILING_OVER: &str = "FailingOver";
    /// The instance that takes over.
    pub const FAILOVER_TARGET: &str = "FailoverTarget";
    /// The primary hands over as planned.
    pub const SWITCHING_OVER: &str = "SwitchingOver";
    /// The primary handed over as planned.
    pub const SWITCHOVER: &str = "Switchover";
    /// An instance is being replaced in a rollout.
    pub const UPGRADING_INSTANCE: &str = "UpgradingInstance";
    /// An agent is being replaced while PostgreSQL runs on.
    pub const UPGRADING_AGENT: &str = "UpgradingAgent";
    /// PostgreSQL is being restarted.
    pub const RESTARTING: &str = "ReStarting";
    /// A volume is made larger.
    pub const GROWING_VOLUME: &str = "GrowingVolume";
    /// The cluster goes into hibernation.
    pub const HIBERNATING: &str = "Hibernating";
    /// A pod is being deleted.
    pub const DELETE_POD: &str = "DeletePod";
    /// An instance is made anew on new volumes.
    pub const DELETE_UNRECOVERABLE_INSTANCE: &str = "DeleteUnrecoverableInstance";
    /// Volumes are being deleted.
    pub const DELETE_PVCS: &str = "DeletePVCs";
    /// An object of the cluster was missing and is made again.
    pub const RECREATED: &str = "Recreated";
    /// The cluster is complete.
    pub const COMPLETED: &str = "Completed";
}

/// Events of trouble.
pub mod warning {
    /// The spec cannot be carried out.
    pub const INVALID_DEFINITION: &str = "InvalidClusterDefinition";
    /// Fields of the spec have no effect yet.
    pub const UNSUPPORTED_FIELDS: &str = "UnsupportedFields";
    /// PostgreSQL refused a configuration.
    pub const CONFIGURATION_REJECTED: &str = "ConfigurationRejected";
    /// A Secret that the user names is not there.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// A CA that the user gives cannot be used.
    pub const INVALID_CA_SECRET: &str = "InvalidCASecret";
    /// A certificate ends soon and we cannot renew it.
    pub const SECRET_IS_EXPIRING: &str = "SecretIsExpiring";
    /// A server certificate that the user gives cannot be used.
    pub const INVALID_SERVER_CERTIFICATE: &str = "InvalidServerCertificate";
    /// A client certificate that the user gives cannot be used.
    pub const INVALID_CLIENT_CERTIFICATE: &str = "InvalidClientCertificate";
    /// The image catalog is not there or has no image for the major version.
    pub const IMAGE_CATALOG_ERROR: &str = "ImageCatalogError";
    /// The image's major version cannot be told.
    pub const DISCOVER_IMAGE: &str = "DiscoverImage";
    /// Fewer instances are wanted, but none may be removed now.
    pub const NO_SCALE_DOWN: &str = "NoScaleDown";
    /// An instance reports a failure.
    pub const INSTANCE_FAILED: &str = "InstanceFailed";
    /// An agent does not run from the binary that it was told of.
    pub const AGENT_NOT_UPGRADED: &str = "AgentNotUpgraded";
    /// The safety check held back an action.
    pub const ACTION_HELD_BACK: &str = "ActionHeldBack";
    /// A ServiceAccount that the user names is not there.
    pub const SERVICE_ACCOUNT_NOT_FOUND: &str = "ServiceAccountNotFound";
}

/// Why an instance cannot go on: `Instance.status.failure.reason`.
pub mod failure {
    /// PostgreSQL's programs are not in the image.
    pub const POSTGRES_NOT_INSTALLED: &str = "PostgresNotInstalled";
    /// A port is taken by another program.
    pub const PORT_TAKEN: &str = "PortTaken";
    /// The data directory is of another major version.
    pub const OTHER_MAJOR: &str = "DataDirectoryOfAnotherMajor";
    /// The data directory is of another cluster.
    pub const OTHER_SYSTEM: &str = "DataDirectoryOfAnotherCluster";
    /// The data directory cannot be used and is none of ours to move.
    pub const DATA_DIRECTORY_DAMAGED: &str = "DataDirectoryDamaged";
    /// No space is left on a volume.
    pub const DISK_FULL: &str = "DiskFull";
    /// A Secret is missing or unreadable.
    pub const SECRET_MISSING: &str = "SecretMissing";
    /// A key of a Secret or ConfigMap with SQL is missing.
    pub const SQL_REFERENCE_MISSING: &str = "SqlReferenceMissing";
    /// A certificate cannot be used.
    pub const CERTIFICATE_INVALID: &str = "CertificateInvalid";
    /// initdb failed.
    pub const INITDB_FAILED: &str = "InitdbFailed";
    /// SQL that the user gave failed after initdb.
    pub const BOOTSTRAP_SQL_FAILED: &str = "BootstrapSqlFailed";
    /// Cloning failed.
    pub const CLONE_FAILED: &str = "CloneFailed";
    /// pg_rewind failed, and a new clone follows.
    pub const REWIND_FAILED: &str = "RewindFailed";
    /// PostgreSQL does not start.
    pub const START_FAILED: &str = "StartFailed";
    /// PostgreSQL does not stop.
    pub const STOP_FAILED: &str = "StopFailed";
    /// A promotion did not succeed in time.
    pub const PROMOTION_FAILED: &str = "PromotionFailed";
    /// Another pod works on the same volume.
    pub const VOLUME_IN_USE: &str = "VolumeInUse";
    /// The file system or kernel lacks something that is needed.
    pub const UNSUPPORTED_PLATFORM: &str = "UnsupportedPlatform";

    /// All of them.
    pub const ALL: [&str; 18] = [
        POSTGRES_NOT_INSTALLED,
        PORT_TAKEN,
        OTHER_MAJOR,
        OTHER_SYSTEM,
        DATA_DIRECTORY_DAMAGED,
        DISK_FULL,
        SECRET_MISSING,
        SQL_REFERENCE_MISSING,
        CERTIFICATE_INVALID,
        INITDB_FAILED,
        BOOTSTRAP_SQL_FAILED,
        CLONE_FAILED,
        REWIND_FAILED,
        START_FAILED,
        STOP_FAILED,
        PROMOTION_FAILED,
        VOLUME_IN_USE,
        UNSUPPORTED_PLATFORM,
    ];
}

/// Why an agent does not run from the binary that it was told of:
/// `Instance.status.agent.failure.reason`.
pub mod binary {
    /// It is for other processors.
    pub const OTHER_ARCHITECTURE: &str = "BinaryOfAnotherArchitecture";
    /// It cannot be fetched; tried again.
    pub const NOT_FETCHED: &str = "BinaryNotFetched";
    /// What came is not what the directive names; tried again.
    pub const WRONG_CONTENT: &str = "BinaryHasWrongContent";
    /// There is no room for it; tried again.
    pub const NOT_STORED: &str = "BinaryNotStored";
    /// It does not run in this container.
    pub const DOES_NOT_RUN: &str = "BinaryDoesNotRun";
    /// The agent that ran from it died again and again, or said nothing.
    pub const DIED: &str = "AgentDied";
}

/// Why an agent can do nothing of itself: `Instance.status.waiting.reason`.
pub mod waiting {
    /// The Lease was deleted.
    pub const LEASE_ABSENT: &str = "LeaseAbsent";
    /// The Lease shows an older state than one that was obeyed.
    pub const LEASE_DAMAGED: &str = "LeaseDamaged";
    /// The instance was away and may lack what was acknowledged meanwhile.
    pub const STRAGGLER: &str = "Straggler";
    /// Another instance knows more of who was primary.
    pub const HIGHER_TERM: &str = "HigherTerm";
    /// Another instance runs as primary, or may.
    pub const PEER_RUNS: &str = "PeerRuns";
    /// Too few instances answer to find every acknowledged commit.
    pub const QUORUM_MISSING: &str = "QuorumMissing";
    /// Another instance has commits that this one lacks.
    pub const BEHIND: &str = "Behind";
    /// Its WAL is not on the history of the last primary.
    pub const LEFT_HISTORY: &str = "LeftHistory";
    /// It is further behind than the bound admits.
    pub const LAG: &str = "LagTooGreat";
    /// It could not be promoted.
    pub const COULD_NOT_PROMOTE: &str = "CouldNotPromote";
    /// Not every instance has answered.
    pub const UNANSWERED: &str = "Unanswered";
    /// What may be needed was given up for a new copy that nobody can give.
    pub const COPY_GIVEN_UP: &str = "CopyGivenUp";
    /// There is nobody to copy from.
    pub const NO_SOURCE: &str = "NoSource";
    /// No instance is fit to take over.
    pub const NO_SUCCESSOR: &str = "NoSuccessor";
}

/// What the operator waits for: `status.blockedBy[].reason`.
pub mod blocked {
    /// The spec cannot be carried out.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// A field decides about data and has no effect yet.
    pub const UNSUPPORTED_FIELD: &str = "UnsupportedField";
    /// A Secret that the user names is not there.
    pub const MISSING_SECRET: &str = "MissingSecret";
    /// The image catalog is not there or has no image for the major version.
    pub const MISSING_IMAGE: &str = "MissingImage";
    /// Nothing is known of an object that decides.
    pub const UNKNOWN_STATE: &str = "UnknownState";
    /// No primary holds the Lease.
    pub const NO_PRIMARY: &str = "NoPrimary";
    /// Another operation comes first.
    pub const OPERATION_IN_PROGRESS: &str = "OperationInProgress";
    /// Standbys must catch up first.
    pub const STANDBYS_BEHIND: &str = "StandbysBehind";
    /// The user has asked for a supervised update.
    pub const SUPERVISED: &str = "SupervisedUpdate";
    /// Instances are fenced by the user.
    pub const FENCED: &str = "Fenced";
    /// The annotation reconciliationLoop says so.
    pub const RECONCILIATION_DISABLED: &str = "ReconciliationDisabled";
    /// An instance is to be made anew on new volumes, and cannot be.
    pub const NOT_MADE_ANEW: &str = "InstanceNotReplaced";
    /// All volumes are lost.
    pub const ALL_VOLUMES_LOST: &str = "AllVolumesLost";
    /// A volume cannot be made larger.
    pub const VOLUME_NOT_GROWN: &str = "VolumeNotGrown";
    /// A pod cannot be scheduled.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// A volume is full.
    pub const DISK_FULL: &str = "DiskFull";
}

#[cfg(test)]
mod tests {
    #[test]
    fn failure_reasons_are_distinct_and_pascal_case() {
        let all: std::collections::BTreeSet<_> = super::failure::ALL.into_iter().collect();
        assert_eq!(all.len(), super::failure::ALL.len());
        assert!(all.iter().all(|reason| reason.starts_with(|c: char| c.is_ascii_uppercase())
            && reason.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}
