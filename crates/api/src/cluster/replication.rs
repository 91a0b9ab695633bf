//! Slots, the Lease's timing, certificates, and replicas of other clusters.

use crate::record::record;

record! {
    /// Slots that the cluster keeps.
    pub struct ReplicationSlots {
        /// Slots of the cluster's own standbys.
        high_availability "highAvailability": Option<HighAvailabilitySlots>,
        /// Seconds between two steps in which standbys move their slots forward.
        update_interval "updateInterval": Option<i32>,
        /// Are users' slots copied to standbys.
        synchronize_replicas "synchronizeReplicas": Option<SynchronizeReplicas>,
    }

    /// Slots of the cluster's own standbys.
    pub struct HighAvailabilitySlots {
        /// Are they kept; with synchronous replication always: a slot keeps a standby from being
        /// counted twice.
        enabled "enabled": Option<bool>,
        /// Beginning of their names; cannot be changed.
        slot_prefix "slotPrefix": Option<String>,
        /// Are logical slots kept on standbys.
        synchronize_logical_decoding "synchronizeLogicalDecoding": Option<bool>,
    }

    /// Users' physical slots on standbys: every standby has a copy of each that the primary has,
    /// moves it forward every updateInterval, and drops it when the primary has it no more. After a
    /// failover they are there on the new primary.
    pub struct SynchronizeReplicas {
        /// Are they copied. Where it becomes false, standbys drop their copies.
        enabled "enabled": Option<bool>,
        /// Regular expressions of names that are not, found anywhere in the name.
        exclude_patterns "excludePatterns": Vec<String>,
    }

    /// Timing of the cluster's Lease, in seconds.
    pub struct PrimaryLease {
        /// How long the primary's right to write lasts after a renewal.
        lease_duration_seconds "leaseDurationSeconds": Option<i32>,
        /// How long the primary tries to renew before it stops.
        renew_deadline_seconds "renewDeadlineSeconds": Option<i32>,
        /// Time between two renewals.
        retry_period_seconds "retryPeriodSeconds": Option<i32>,
        /// How long a Lease that was given up is said to last.
        released_lease_duration_seconds "releasedLeaseDurationSeconds": Option<i32>,
    }

    /// Certificates given by the user; what is absent is made.
    pub struct Certificates {
        /// Secret whose ca.crt verifies the server (and, with ca.key, signs it).
        server_ca_secret "serverCASecret": Option<String>,
        /// Secret (kubernetes.io/tls) of the server.
        server_tls_secret "serverTLSSecret": Option<String>,
        /// Secret whose ca.crt verifies clients (and, with ca.key, signs them).
        client_ca_secret "clientCASecret": Option<String>,
        /// Secret (kubernetes.io/tls) of role streaming_replica.
        replication_tls_secret "replicationTLSSecret": Option<String>,
        /// More names of the server.
        server_alt_dns_names "serverAltDNSNames": Vec<String>,
    }

    /// Makes the cluster a replica of another one.
    pub struct ReplicaCluster {
        /// Name of this cluster in a distributed topology.
        own_name "self": Option<String>,
        /// Name of the topology's primary cluster.
        primary "primary": Option<String>,
        /// Name in externalClusters that is followed.
        source "source": Option<String>,
        /// Is it a replica. Not together with `primary`.
        enabled "enabled": Option<bool>,
        /// Token of the cluster that was demoted.
        promotion_token "promotionToken": Option<String>,
        /// How far replay stays behind on purpose (recovery_min_apply_delay).
        min_apply_delay "minApplyDelay": Option<String>,
    }
}
