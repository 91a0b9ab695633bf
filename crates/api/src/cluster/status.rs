//! `Cluster.status`: CloudNativePG's fields, and what explains a cluster to people.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::{
    DataDurability, PrimaryUpdateMethod, PrimaryUpdateStrategy, RetainPolicy, SynchronousMethod,
};
use crate::record::record;

record! {
    /// What is.
    pub struct ClusterStatus {
        /// `metadata.generation` of the spec that this status is about.
        observed_generation: Option<i64>,
        /// Instances that have a volume.
        instances: Option<i32>,
        /// Instances that accept connections.
        ready_instances: Option<i32>,
        /// Label selector of the pods, for the scale subresource.
        selector: Option<String>,
        /// healthy, replicating or failed to names of instances.
        instances_status: BTreeMap<String, Vec<String>>,
        /// What each instance last said of itself.
        instances_reported_state: BTreeMap<String, InstanceReportedState>,
        /// Names of all instances.
        instance_names: Vec<String>,
        /// Roles that the operator keeps.
        managed_roles_status: Option<ManagedRolesStatus>,
        /// Tablespaces.
        tablespaces_status: Vec<TablespaceState>,
        /// Addresses found for podSelectorRefs.
        pod_selector_refs: Vec<PodSelectorRefStatus>,
        /// Timeline of the primary.
        #[serde(rename = "timelineID")]
        timeline_id: Option<i32>,
        /// Labels of the nodes that instances run on.
        topology: Option<Topology>,
        /// Highest serial given out.
        latest_generated_node: Option<i32>,
        /// The primary.
        current_primary: Option<String>,
        /// The instance that is becoming the primary, or `pending` while one is elected.
        target_primary: Option<String>,
        /// Since when the primary is it, RFC 3339.
        current_primary_timestamp: Option<String>,
        /// Since when the target is it, RFC 3339.
        target_primary_timestamp: Option<String>,
        /// Since when the primary fails, RFC 3339.
        current_primary_failing_since_timestamp: Option<String>,
        /// Token with which this cluster was promoted.
        last_promotion_token: Option<String>,
        /// Token of this cluster's demotion.
        demotion_token: Option<String>,
        /// Is a switch of the distributed topology going on.
        switch_replica_cluster_status: Option<SwitchReplicaClusterStatus>,
        /// PostgreSQL's system identifier.
        #[serde(rename = "systemID")]
        system_id: Option<String>,
        /// Number of volumes.
        pvc_count: Option<i32>,
        /// Number of jobs.
        job_count: Option<i32>,
        /// Volumes without a pod.
        #[serde(rename = "danglingPVC")]
        dangling_pvc: Vec<String>,
        /// Volumes that grow.
        #[serde(rename = "resizingPVC")]
        resizing_pvc: Vec<String>,
        /// Volumes that are being filled.
        #[serde(rename = "initializingPVC")]
        initializing_pvc: Vec<String>,
        /// Volumes in use.
        #[serde(rename = "healthyPVC")]
        healthy_pvc: Vec<String>,
        /// Volumes whose group is not whole.
        #[serde(rename = "unusablePVC")]
        unusable_pvc: Vec<String>,
        /// Service of the primary.
        write_service: Option<String>,
        /// Service of the standbys.
        read_service: Option<String>,
        /// What the cluster is doing, in CloudNativePG's words.
        phase: Option<String>,
        /// Why.
        phase_reason: Option<String>,
        /// Versions of the Secrets in use.
        secrets_resource_version: Option<SecretsResourceVersion>,
        /// Versions of the ConfigMaps in use.
        config_map_resource_version: Option<ConfigMapResourceVersion>,
        /// Certificates in use.
        certificates: Option<CertificatesStatus>,
        /// First point in time that can be recovered, RFC 3339.
        first_recoverability_point: Option<String>,
        /// The same by method of backup.
        first_recoverability_point_by_method: BTreeMap<String, String>,
        /// Last backup that succeeded, RFC 3339.
        last_successful_backup: Option<String>,
        /// The same by method of backup.
        last_successful_backup_by_method: BTreeMap<String, String>,
        /// Last backup that failed, RFC 3339.
        last_failed_backup: Option<String>,
        /// Commit of the operator.
        #[serde(rename = "cloudNativePGCommitHash")]
        cloud_native_pg_commit_hash: Option<String>,
        /// Hash of the operator's binary.
        #[serde(rename = "cloudNativePGOperatorHash")]
        cloud_native_pg_operator_hash: Option<String>,
        /// Fingerprint of the operator's client certificate.
        operator_certificate_fingerprint: Option<String>,
        /// What poolers need.
        pooler_integrations: Option<PoolerIntegrations>,
        /// Architectures of the operator's binary.
        available_architectures: Vec<AvailableArchitecture>,
        /// Are agents replaced without a restart of PostgreSQL.
        online_update_enabled: Option<bool>,
        /// Image in use.
        image: Option<String>,
        /// Image that the data directory was made or upgraded with.
        pg_data_image_info: Option<ImageInfo>,
        /// Image that the data directory is being upgraded to.
        target_pg_data_image_info: Option<ImageInfo>,
        /// Plugins.
        plugin_status: Vec<PluginStatus>,
        /// Conditions.
        conditions: Vec<Condition>,
        /// What is used where the user wrote nothing or where fields depend on each other.
        effective: Option<Effective>,
        /// What the operator waits for; empty when nothing waits.
        blocked_by: Vec<BlockedBy>,
        /// What the operator does next.
        next_action: Option<String>,
        /// What a human may do, with what it costs.
        human_options: Vec<HumanOption>,
        /// What the planner must remember. Written by compare-and-swap before it acts; not for people.
        memory: Option<Memory>,
    }

    /// What an instance last said of itself.
    pub struct InstanceReportedState {
        /// Is it the primary.
        is_primary: Option<bool>,
        /// Its timeline.
        #[serde(rename = "timeLineID")]
        time_line_id: Option<i32>,
        /// Its address.
        ip: Option<String>,
    }

    /// Roles that the operator keeps.
    pub struct ManagedRolesStatus {
        /// reconciled, not-managed, pending-reconciliation or reserved to names.
        by_status: BTreeMap<String, Vec<String>>,
        /// Role to why it cannot be kept.
        cannot_reconcile: BTreeMap<String, Vec<String>>,
        /// Role to the password that was set last.
        password_status: BTreeMap<String, PasswordState>,
    }

    /// The password that was set last.
    pub struct PasswordState {
        /// Transaction that set it.
        #[serde(rename = "transactionID")]
        transaction_id: Option<i64>,
        /// Version of its Secret.
        resource_version: Option<String>,
    }

    /// A tablespace.
    pub struct TablespaceState {
        /// Its name.
        name: Option<String>,
        /// Its owner.
        owner: Option<String>,
        /// reconciled or pending.
        state: Option<String>,
        /// What is wrong.
        error: Option<String>,
    }

    /// Addresses found for a name in podSelectorRefs.
    pub struct PodSelectorRefStatus {
        /// The name.
        name: Option<String>,
        /// The addresses.
        ips: Vec<String>,
    }

    /// Labels of the nodes that instances run on.
    pub struct Topology {
        /// Instance to label to value.
        instances: BTreeMap<String, BTreeMap<String, String>>,
        /// Number of different nodes.
        nodes_used: Option<i32>,
        /// Were all labels read.
        successfully_extracted: Option<bool>,
    }

    /// A switch of the distributed topology.
    pub struct SwitchReplicaClusterStatus {
        /// Is it going on.
        in_progress: Option<bool>,
    }

    /// Versions of the Secrets in use.
    pub struct SecretsResourceVersion {
        /// Of the superuser.
        superuser_secret_version: Option<String>,
        /// Of replication.
        replication_secret_version: Option<String>,
        /// Of the application.
        application_secret_version: Option<String>,
        /// Of managed roles.
        #[serde(rename = "managedRoleSecretVersion")]
        managed_role_secret_versions: BTreeMap<String, String>,
        /// Of the CA.
        ca_secret_version: Option<String>,
        /// Of the CA of clients.
        client_ca_secret_version: Option<String>,
        /// Of the CA of the server.
        server_ca_secret_version: Option<String>,
        /// Of the server.
        server_secret_version: Option<String>,
        /// Of the CA of the object store.
        #[serde(rename = "barmanEndpointCA")]
        barman_endpoint_ca: Option<String>,
        /// Of external clusters.
        #[serde(rename = "externalClusterSecretVersion")]
        external_cluster_secret_versions: BTreeMap<String, String>,
        /// Of monitoring queries.
        metrics: BTreeMap<String, String>,
    }

    /// Versions of the ConfigMaps in use.
    pub struct ConfigMapResourceVersion {
        /// Of monitoring queries.
        metrics: BTreeMap<String, String>,
    }

    /// Certificates in use.
    pub struct CertificatesStatus {
        /// Secret of the server's CA.
        #[serde(rename = "serverCASecret")]
        server_ca_secret: Option<String>,
        /// Secret of the server.
        #[serde(rename = "serverTLSSecret")]
        server_tls_secret: Option<String>,
        /// Secret of the clients' CA.
        #[serde(rename = "clientCASecret")]
        client_ca_secret: Option<String>,
        /// Secret of role streaming_replica.
        #[serde(rename = "replicationTLSSecret")]
        replication_tls_secret: Option<String>,
        /// More names of the server.
        #[serde(rename = "serverAltDNSNames")]
        server_alt_dns_names: Vec<String>,
        /// Secret to the end of its certificate.
        expirations: BTreeMap<String, String>,
    }

    /// What poolers need.
    pub struct PoolerIntegrations {
        /// PgBouncer.
        pg_bouncer_integration: Option<PgBouncerIntegration>,
    }

    /// What PgBouncer needs.
    pub struct PgBouncerIntegration {
        /// Its Secrets.
        secrets: Vec<String>,
    }

    /// An architecture of the operator's binary.
    pub struct AvailableArchitecture {
        /// Its name, e.g. amd64.
        go_arch: Option<String>,
        /// Hash of the binary.
        hash: Option<String>,
    }

    /// An image that a data directory was made with.
    pub struct ImageInfo {
        /// The image.
        image: Option<String>,
        /// Major version of PostgreSQL in it.
        major_version: Option<i32>,
        /// Its extensions.
        extensions: Vec<super::Extension>,
    }

    /// A plugin.
    pub struct PluginStatus {
        /// Its name.
        name: Option<String>,
        /// Its version.
        version: Option<String>,
        /// What it can do.
        capabilities: Vec<String>,
        /// What it can do for the operator.
        operator_capabilities: Vec<String>,
        /// What it can do with WAL.
        #[serde(rename = "walCapabilities")]
        wal_capabilities: Vec<String>,
        /// What it can do with backups.
        backup_capabilities: Vec<String>,
        /// What it can do in restores.
        restore_job_hook_capabilities: Vec<String>,
        /// What it says of the cluster.
        status: Option<String>,
    }

    /// What is used where the user wrote nothing or where fields depend on each other.
    pub struct Effective {
        /// Image of the pods.
        image: Option<String>,
        /// Major version of PostgreSQL.
        postgres_major: Option<i32>,
        /// User id of PostgreSQL.
        #[serde(rename = "postgresUID")]
        postgres_uid: Option<i64>,
        /// Group id of PostgreSQL.
        #[serde(rename = "postgresGID")]
        postgres_gid: Option<i64>,
        /// The application's database.
        database: Option<String>,
        /// Its owner.
        owner: Option<String>,
        /// All parameters of PostgreSQL but those with a secret in them.
        parameters: BTreeMap<String, String>,
        /// Synchronous replication, if any; both of its forms resolved to one.
        synchronous: Option<EffectiveSynchronous>,
        /// Beginning of the names of slots for high availability; absent if none are kept.
        slot_prefix: Option<String>,
        /// Does a rollout go on to the primary by itself.
        primary_update_strategy: Option<PrimaryUpdateStrategy>,
        /// How the primary is updated at the end of a rollout.
        primary_update_method: Option<PrimaryUpdateMethod>,
        /// Milliseconds that the primary's right lasts after a renewal.
        lease_duration_milliseconds: Option<i64>,
        /// Milliseconds between renewals.
        lease_renew_milliseconds: Option<i64>,
        /// How far a successor may be behind, in bytes; absent: no bound.
        maximum_lag_bytes: Option<i64>,
        /// Seconds of failsafe with a straggler.
        failsafe_max_seconds: Option<i64>,
        /// Seconds that a start may take.
        start_delay_seconds: Option<i64>,
        /// Seconds that a stop may take.
        stop_delay_seconds: Option<i64>,
        /// Seconds of a smart shutdown; absent: none.
        smart_shutdown_seconds: Option<i64>,
        /// Seconds that a switchover may take.
        switchover_delay_seconds: Option<i64>,
        /// Seconds that a crashed primary is given to come back.
        failover_delay_seconds: Option<i64>,
        /// Seconds that a promotion may take.
        promotion_timeout_seconds: Option<i64>,
        /// What becomes of the volumes when the Cluster is deleted.
        retain_policy: Option<RetainPolicy>,
        /// Level of the agents' log.
        log_level: Option<String>,
    }

    /// Synchronous replication in effect.
    pub struct EffectiveSynchronous {
        /// As written by the user.
        method: Option<SynchronousMethod>,
        /// How many standbys acknowledge a commit.
        number: Option<i32>,
        /// What happens while standbys are missing.
        data_durability: Option<DataDurability>,
    }

    /// Something that the operator waits for.
    pub struct BlockedBy {
        /// PascalCase, from `reasons`.
        reason: Option<String>,
        /// For a person: what is awaited and why.
        message: Option<String>,
        /// Kind and name of the object that is awaited, e.g. `Secret/c-app`.
        object: Option<String>,
        /// Since when, RFC 3339.
        since: Option<String>,
    }

    /// Something that a human may do.
    pub struct HumanOption {
        /// The command or change.
        action: Option<String>,
        /// What it brings and what it costs.
        consequence: Option<String>,
    }

    /// What the planner must remember between passes: decisions that cannot be seen in objects.
    pub struct Memory {
        /// Instance that was chosen to fill the Lease for the first time.
        bootstrap_primary: Option<String>,
        /// Next serial that may be given out.
        next_serial: Option<u32>,
        /// True once the operator has made the cluster's Lease; it never makes it again (traps H6).
        lease_made: Option<bool>,
        /// True once the cluster has had a primary; an empty volume set is then a loss, no beginning.
        initialized: Option<bool>,
        /// A long operation that is under way.
        operation: Option<Operation>,
        /// What else the planner keeps, by name.
        facts: BTreeMap<String, Value>,
    }

    /// A long operation that is under way.
    pub struct Operation {
        /// What it is, e.g. `switchover`, `rollout`, `scaleDown`.
        kind: Option<String>,
        /// Identifies it to the agents.
        id: Option<String>,
        /// Where it stands.
        step: Option<String>,
        /// The instance that it is about.
        instance: Option<String>,
        /// Since when, RFC 3339.
        since: Option<String>,
        /// What else belongs to it, by name.
        details: BTreeMap<String, Value>,
    }
}
