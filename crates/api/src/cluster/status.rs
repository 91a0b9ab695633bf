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
        observed_generation "observedGeneration": Option<i64>,
        /// Instances that have a volume.
        instances "instances": Option<i32>,
        /// Instances that accept connections.
        ready_instances "readyInstances": Option<i32>,
        /// Label selector of the pods, for the scale subresource.
        selector "selector": Option<String>,
        /// healthy, replicating or failed to names of instances.
        instances_status "instancesStatus": BTreeMap<String, Vec<String>>,
        /// What each instance last said of itself.
        instances_reported_state "instancesReportedState": BTreeMap<String, InstanceReportedState>,
        /// Names of all instances.
        instance_names "instanceNames": Vec<String>,
        /// Roles that the operator keeps.
        managed_roles_status "managedRolesStatus": Option<ManagedRolesStatus>,
        /// Tablespaces.
        tablespaces_status "tablespacesStatus": Vec<TablespaceState>,
        /// Addresses found for podSelectorRefs.
        pod_selector_refs "podSelectorRefs": Vec<PodSelectorRefStatus>,
        /// Timeline of the primary.
        timeline_id "timelineID": Option<i32>,
        /// Labels of the nodes that instances run on.
        topology "topology": Option<Topology>,
        /// Highest serial given out.
        latest_generated_node "latestGeneratedNode": Option<i32>,
        /// The primary.
        current_primary "currentPrimary": Option<String>,
        /// The instance that is becoming the primary, or `pending` while one is elected.
        target_primary "targetPrimary": Option<String>,
        /// Since when the primary is it, RFC 3339.
        current_primary_timestamp "currentPrimaryTimestamp": Option<String>,
        /// Since when the target is it, RFC 3339.
        target_primary_timestamp "targetPrimaryTimestamp": Option<String>,
        /// Since when the primary fails, RFC 3339.
        current_primary_failing_since_timestamp "currentPrimaryFailingSinceTimestamp": Option<String>,
        /// Token with which this cluster was promoted.
        last_promotion_token "lastPromotionToken": Option<String>,
        /// Token of this cluster's demotion.
        demotion_token "demotionToken": Option<String>,
        /// Is a switch of the distributed topology going on.
        switch_replica_cluster_status "switchReplicaClusterStatus": Option<SwitchReplicaClusterStatus>,
        /// PostgreSQL's system identifier.
        system_id "systemID": Option<String>,
        /// Number of volumes.
        pvc_count "pvcCount": Option<i32>,
        /// Number of jobs.
        job_count "jobCount": Option<i32>,
        /// Volumes without a pod.
        dangling_pvc "danglingPVC": Vec<String>,
        /// Volumes that grow.
        resizing_pvc "resizingPVC": Vec<String>,
        /// Volumes that are being filled.
        initializing_pvc "initializingPVC": Vec<String>,
        /// Volumes in use.
        healthy_pvc "healthyPVC": Vec<String>,
        /// Volumes whose group is not whole.
        unusable_pvc "unusablePVC": Vec<String>,
        /// Service of the primary.
        write_service "writeService": Option<String>,
        /// Service of the standbys.
        read_service "readService": Option<String>,
        /// What the cluster is doing, in CloudNativePG's words.
        phase "phase": Option<String>,
        /// Why.
        phase_reason "phaseReason": Option<String>,
        /// Versions of the Secrets in use.
        secrets_resource_version "secretsResourceVersion": Option<SecretsResourceVersion>,
        /// Versions of the ConfigMaps in use.
        config_map_resource_version "configMapResourceVersion": Option<ConfigMapResourceVersion>,
        /// Certificates in use.
        certificates "certificates": Option<CertificatesStatus>,
        /// First point in time that can be recovered, RFC 3339.
        first_recoverability_point "firstRecoverabilityPoint": Option<String>,
        /// The same by method of backup.
        first_recoverability_point_by_method "firstRecoverabilityPointByMethod": BTreeMap<String, String>,
        /// Last backup that succeeded, RFC 3339.
        last_successful_backup "lastSuccessfulBackup": Option<String>,
        /// The same by method of backup.
        last_successful_backup_by_method "lastSuccessfulBackupByMethod": BTreeMap<String, String>,
        /// Last backup that failed, RFC 3339.
        last_failed_backup "lastFailedBackup": Option<String>,
        /// Commit of the operator.
        cloud_native_pg_commit_hash "cloudNativePGCommitHash": Option<String>,
        /// Hash of the operator's binary.
        cloud_native_pg_operator_hash "cloudNativePGOperatorHash": Option<String>,
        /// Fingerprint of the operator's client certificate.
        operator_certificate_fingerprint "operatorCertificateFingerprint": Option<String>,
        /// What poolers need.
        pooler_integrations "poolerIntegrations": Option<PoolerIntegrations>,
        /// Architectures of the operator's binary.
        available_architectures "availableArchitectures": Vec<AvailableArchitecture>,
        /// Are agents replaced without a restart of PostgreSQL.
        online_update_enabled "onlineUpdateEnabled": Option<bool>,
        /// Image in use.
        image "image": Option<String>,
        /// Image that the data directory was made or upgraded with.
        pg_data_image_info "pgDataImageInfo": Option<ImageInfo>,
        /// Image that the data directory is being upgraded to.
        target_pg_data_image_info "targetPgDataImageInfo": Option<ImageInfo>,
        /// Plugins.
        plugin_status "pluginStatus": Vec<PluginStatus>,
        /// Conditions.
        conditions "conditions": Vec<Condition>,
        /// What is used where the user wrote nothing or where fields depend on each other.
        effective "effective": Option<Effective>,
        /// What the operator waits for; empty when nothing waits.
        blocked_by "blockedBy": Vec<BlockedBy>,
        /// What the operator does next.
        next_action "nextAction": Option<String>,
        /// What a human may do, with what it costs.
        human_options "humanOptions": Vec<HumanOption>,
        /// What the planner must remember. Written by compare-and-swap before it acts; not for people.
        memory "memory": Option<Memory>,
    }

    /// What an instance last said of itself.
    pub struct InstanceReportedState {
        /// Is it the primary.
        is_primary "isPrimary": Option<bool>,
        /// Its timeline.
        time_line_id "timeLineID": Option<i32>,
        /// Its address.
        ip "ip": Option<String>,
    }

    /// Roles that the operator keeps.
    pub struct ManagedRolesStatus {
        /// reconciled, not-managed, pending-reconciliation or reserved to names.
        by_status "byStatus": BTreeMap<String, Vec<String>>,
        /// Role to why it cannot be kept.
        cannot_reconcile "cannotReconcile": BTreeMap<String, Vec<String>>,
        /// Role to the password that was set last.
        password_status "passwordStatus": BTreeMap<String, PasswordState>,
    }

    /// The password that was set last.
    pub struct PasswordState {
        /// Transaction that set it.
        transaction_id "transactionID": Option<i64>,
        /// Version of its Secret.
        resource_version "resourceVersion": Option<String>,
    }

    /// A tablespace.
    pub struct TablespaceState {
        /// Its name.
        name "name": Option<String>,
        /// Its owner.
        owner "owner": Option<String>,
        /// reconciled or pending.
        state "state": Option<String>,
        /// What is wrong.
        error "error": Option<String>,
    }

    /// Addresses found for a name in podSelectorRefs.
    pub struct PodSelectorRefStatus {
        /// The name.
        name "name": Option<String>,
        /// The addresses.
        ips "ips": Vec<String>,
    }

    /// Labels of the nodes that instances run on.
    pub struct Topology {
        /// Instance to label to value.
        instances "instances": BTreeMap<String, BTreeMap<String, String>>,
        /// Number of different nodes.
        nodes_used "nodesUsed": Option<i32>,
        /// Were all labels read.
        successfully_extracted "successfullyExtracted": Option<bool>,
    }

    /// A switch of the distributed topology.
    pub struct SwitchReplicaClusterStatus {
        /// Is it going on.
        in_progress "inProgress": Option<bool>,
    }

    /// Versions of the Secrets in use.
    pub struct SecretsResourceVersion {
        /// Of the superuser.
        superuser_secret_version "superuserSecretVersion": Option<String>,
        /// Of replication.
        replication_secret_version "replicationSecretVersion": Option<String>,
        /// Of the application.
        application_secret_version "applicationSecretVersion": Option<String>,
        /// Of managed roles.
        managed_role_secret_versions "managedRoleSecretVersion": BTreeMap<String, String>,
        /// Of the CA.
        ca_secret_version "caSecretVersion": Option<String>,
        /// Of the CA of clients.
        client_ca_secret_version "clientCaSecretVersion": Option<String>,
        /// Of the CA of the server.
        server_ca_secret_version "serverCaSecretVersion": Option<String>,
        /// Of the server.
        server_secret_version "serverSecretVersion": Option<String>,
        /// Of the CA of the object store.
        barman_endpoint_ca "barmanEndpointCA": Option<String>,
        /// Of external clusters.
        external_cluster_secret_versions "externalClusterSecretVersion": BTreeMap<String, String>,
        /// Of monitoring queries.
        metrics "metrics": BTreeMap<String, String>,
    }

    /// Versions of the ConfigMaps in use.
    pub struct ConfigMapResourceVersion {
        /// Of monitoring queries.
        metrics "metrics": BTreeMap<String, String>,
    }

    /// Certificates in use.
    pub struct CertificatesStatus {
        /// Secret of the server's CA.
        server_ca_secret "serverCASecret": Option<String>,
        /// Secret of the server.
        server_tls_secret "serverTLSSecret": Option<String>,
        /// Secret of the clients' CA.
        client_ca_secret "clientCASecret": Option<String>,
        /// Secret of role streaming_replica.
        replication_tls_secret "replicationTLSSecret": Option<String>,
        /// More names of the server.
        server_alt_dns_names "serverAltDNSNames": Vec<String>,
        /// Secret to the end of its certificate.
        expirations "expirations": BTreeMap<String, String>,
    }

    /// What poolers need.
    pub struct PoolerIntegrations {
        /// PgBouncer.
        pg_bouncer_integration "pgBouncerIntegration": Option<PgBouncerIntegration>,
    }

    /// What PgBouncer needs.
    pub struct PgBouncerIntegration {
        /// Its Secrets.
        secrets "secrets": Vec<String>,
    }

    /// An architecture of the operator's binary.
    pub struct AvailableArchitecture {
        /// Its name, e.g. amd64.
        go_arch "goArch": Option<String>,
        /// Hash of the binary.
        hash "hash": Option<String>,
    }

    /// An image that a data directory was made with.
    pub struct ImageInfo {
        /// The image.
        image "image": Option<String>,
        /// Major version of PostgreSQL in it.
        major_version "majorVersion": Option<i32>,
        /// Its extensions.
        extensions "extensions": Vec<super::Extension>,
    }

    /// A plugin.
    pub struct PluginStatus {
        /// Its name.
        name "name": Option<String>,
        /// Its version.
        version "version": Option<String>,
        /// What it can do.
        capabilities "capabilities": Vec<String>,
        /// What it can do for the operator.
        operator_capabilities "operatorCapabilities": Vec<String>,
        /// What it can do with WAL.
        wal_capabilities "walCapabilities": Vec<String>,
        /// What it can do with backups.
        backup_capabilities "backupCapabilities": Vec<String>,
        /// What it can do in restores.
        restore_job_hook_capabilities "restoreJobHookCapabilities": Vec<String>,
        /// What it says of the cluster.
        status "status": Option<String>,
    }

    /// What is used where the user wrote nothing or where fields depend on each other.
    pub struct Effective {
        /// Image of the pods.
        image "image": Option<String>,
        /// Major version of PostgreSQL.
        postgres_major "postgresMajor": Option<i32>,
        /// User id of PostgreSQL.
        postgres_uid "postgresUID": Option<i64>,
        /// Group id of PostgreSQL.
        postgres_gid "postgresGID": Option<i64>,
        /// The application's database.
        database "database": Option<String>,
        /// Its owner.
        owner "owner": Option<String>,
        /// All parameters of PostgreSQL but those with a secret in them.
        parameters "parameters": BTreeMap<String, String>,
        /// Synchronous replication, if any; both of its forms resolved to one.
        synchronous "synchronous": Option<EffectiveSynchronous>,
        /// Beginning of the names of slots for high availability; absent if none are kept.
        slot_prefix "slotPrefix": Option<String>,
        /// Does a rollout go on to the primary by itself.
        primary_update_strategy "primaryUpdateStrategy": Option<PrimaryUpdateStrategy>,
        /// How the primary is updated at the end of a rollout.
        primary_update_method "primaryUpdateMethod": Option<PrimaryUpdateMethod>,
        /// Milliseconds that the primary's right lasts after a renewal.
        lease_duration_milliseconds "leaseDurationMilliseconds": Option<i64>,
        /// Milliseconds between renewals.
        lease_renew_milliseconds "leaseRenewMilliseconds": Option<i64>,
        /// How far a successor may be behind, in bytes; absent: no bound.
        maximum_lag_bytes "maximumLagBytes": Option<i64>,
        /// Seconds of failsafe with a straggler.
        failsafe_max_seconds "failsafeMaxSeconds": Option<i64>,
        /// Seconds that a start may take.
        start_delay_seconds "startDelaySeconds": Option<i64>,
        /// Seconds that a stop may take.
        stop_delay_seconds "stopDelaySeconds": Option<i64>,
        /// Seconds of a smart shutdown; absent: none.
        smart_shutdown_seconds "smartShutdownSeconds": Option<i64>,
        /// Seconds that a switchover may take.
        switchover_delay_seconds "switchoverDelaySeconds": Option<i64>,
        /// Seconds that a crashed primary is given to come back.
        failover_delay_seconds "failoverDelaySeconds": Option<i64>,
        /// Seconds that a promotion may take.
        promotion_timeout_seconds "promotionTimeoutSeconds": Option<i64>,
        /// What becomes of the volumes when the Cluster is deleted.
        retain_policy "retainPolicy": Option<RetainPolicy>,
        /// Level of the agents' log.
        log_level "logLevel": Option<String>,
    }

    /// Synchronous replication in effect.
    pub struct EffectiveSynchronous {
        /// As written by the user.
        method "method": Option<SynchronousMethod>,
        /// How many standbys acknowledge a commit.
        number "number": Option<i32>,
        /// What happens while standbys are missing.
        data_durability "dataDurability": Option<DataDurability>,
    }

    /// Something that the operator waits for.
    pub struct BlockedBy {
        /// PascalCase, from `reasons`.
        reason "reason": Option<String>,
        /// For a person: what is awaited and why.
        message "message": Option<String>,
        /// Kind and name of the object that is awaited, e.g. `Secret/c-app`.
        object "object": Option<String>,
        /// Since when, RFC 3339.
        since "since": Option<String>,
    }

    /// Something that a human may do.
    pub struct HumanOption {
        /// The command or change.
        action "action": Option<String>,
        /// What it brings and what it costs.
        consequence "consequence": Option<String>,
    }

    /// What the planner must remember between passes: decisions that cannot be seen in objects.
    pub struct Memory {
        /// Instance that was chosen to fill the Lease for the first time.
        bootstrap_primary "bootstrapPrimary": Option<String>,
        /// Next serial that may be given out.
        next_serial "nextSerial": Option<u32>,
        /// True once the operator has made the cluster's Lease; it never makes it again (traps H6).
        lease_made "leaseMade": Option<bool>,
        /// True once the cluster has had a primary; an empty volume set is then a loss, no beginning.
        initialized "initialized": Option<bool>,
        /// A long operation that is under way.
        operation "operation": Option<Operation>,
        /// What else the planner keeps, by name.
        facts "facts": BTreeMap<String, Value>,
    }

    /// A long operation that is under way.
    pub struct Operation {
        /// What it is, e.g. `switchover`, `rollout`, `scaleDown`.
        kind "kind": Option<String>,
        /// Identifies it to the agents.
        id "id": Option<String>,
        /// Where it stands.
        step "step": Option<String>,
        /// The instance that it is about.
        instance "instance": Option<String>,
        /// Since when, RFC 3339.
        since "since": Option<String>,
        /// What else belongs to it, by name.
        details "details": BTreeMap<String, Value>,
    }
}
