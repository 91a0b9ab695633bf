//! `Cluster.spec`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EphemeralVolumeSource, LocalObjectReference, PodSecurityContext,
    ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecurityContext,
    TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    Affinity, Backup, Bootstrap, Certificates, EphemeralVolumesSizeLimit, ExternalCluster, Managed,
    Monitoring, NodeMaintenanceWindow, Plugin, PostgresConfiguration, PrimaryLease, Probes,
    ReplicaCluster, ReplicationSlots, ServiceAccountTemplate, Storage, Tablespace,
};
use crate::record::{record, words};

record! {
    /// What the user wants.
    pub struct ClusterSpec {
        /// Free text.
        description "description": Option<String>,
        /// Labels and annotations put on every object that is made for the cluster.
        inherited_metadata "inheritedMetadata": Option<InheritedMetadata>,
        /// Image with PostgreSQL in it. Not together with `imageCatalogRef`.
        image_name "imageName": Option<String>,
        /// Where the image is looked up by major version. Not together with `imageName`.
        image_catalog_ref "imageCatalogRef": Option<ImageCatalogRef>,
        /// When the image is pulled: Always, Never, IfNotPresent.
        image_pull_policy "imagePullPolicy": Option<String>,
        /// Secrets with which the image is pulled.
        image_pull_secrets "imagePullSecrets": Vec<LocalObjectReference>,
        /// Scheduler of the pods.
        scheduler_name "schedulerName": Option<String>,
        /// Priority class of the pods.
        priority_class_name "priorityClassName": Option<String>,
        /// User id of PostgreSQL in the pods; cannot be changed.
        postgres_uid "postgresUID": Option<i64>,
        /// Group id of PostgreSQL in the pods; cannot be changed.
        postgres_gid "postgresGID": Option<i64>,
        /// How many instances: one primary, the others standbys.
        instances "instances": Option<i32>,
        /// Older form of synchronous replication: at least so many standbys acknowledge a commit.
        min_sync_replicas "minSyncReplicas": Option<i32>,
        /// Older form of synchronous replication: at most so many standbys acknowledge a commit.
        max_sync_replicas "maxSyncReplicas": Option<i32>,
        /// Configuration of PostgreSQL.
        postgresql "postgresql": Option<PostgresConfiguration>,
        /// Pods whose addresses can be used in pg_hba as `${podselector:NAME}`.
        pod_selector_refs "podSelectorRefs": Vec<PodSelectorRef>,
        /// Slots that the cluster keeps.
        replication_slots "replicationSlots": Option<ReplicationSlots>,
        /// Where the data comes from. Cannot be changed in effect once the cluster exists.
        bootstrap "bootstrap": Option<Bootstrap>,
        /// Makes this a replica of another cluster.
        replica "replica": Option<ReplicaCluster>,
        /// Secret with the superuser's password; made if absent.
        superuser_secret "superuserSecret": Option<LocalObjectReference>,
        /// Does the superuser have a password; without one it connects from inside the pod only.
        enable_superuser_access "enableSuperuserAccess": Option<bool>,
        /// Certificates given by the user.
        certificates "certificates": Option<Certificates>,
        /// Volume of the data directory.
        storage "storage": Option<Storage>,
        /// Volume of the WAL; without it WAL is on the data volume.
        wal_storage "walStorage": Option<Storage>,
        /// Tablespaces, each with a volume.
        tablespaces "tablespaces": Vec<Tablespace>,
        /// Volume of temporary data.
        ephemeral_volume_source "ephemeralVolumeSource": Option<EphemeralVolumeSource>,
        /// Limits of the pods' scratch volumes.
        ephemeral_volumes_size_limit "ephemeralVolumesSizeLimit": Option<EphemeralVolumesSizeLimit>,
        /// Labels and annotations of the ServiceAccount that is made.
        service_account_template "serviceAccountTemplate": Option<ServiceAccountTemplate>,
        /// An existing ServiceAccount for the pods; cannot be changed.
        service_account_name "serviceAccountName": Option<String>,
        /// Seconds that a start may take before the probe calls it failed.
        start_delay "startDelay": Option<i32>,
        /// Seconds that a stop may take in all.
        stop_delay "stopDelay": Option<i32>,
        /// Seconds of a smart shutdown before a fast one. Counts only if written, and only where no successor is fit.
        smart_shutdown_timeout "smartShutdownTimeout": Option<i32>,
        /// Seconds that a successor may take to receive everything in a switchover.
        switchover_delay "switchoverDelay": Option<i32>,
        /// Seconds that a crashed primary is given to come back before another instance takes over.
        failover_delay "failoverDelay": Option<i32>,
        /// Seconds without an answer after which kubelet restarts the container.
        liveness_probe_timeout "livenessProbeTimeout": Option<i32>,
        /// Limits of an election.
        failover "failover": Option<Failover>,
        /// On which nodes pods run.
        affinity "affinity": Option<Affinity>,
        /// How pods spread.
        topology_spread_constraints "topologySpreadConstraints": Vec<TopologySpreadConstraint>,
        /// Requests and limits of the database container.
        resources "resources": Option<ResourceRequirements>,
        /// Does a rollout go on to the primary by itself.
        primary_update_strategy "primaryUpdateStrategy": Option<PrimaryUpdateStrategy>,
        /// How the primary is updated at the end of a rollout.
        primary_update_method "primaryUpdateMethod": Option<PrimaryUpdateMethod>,
        /// Timing of the cluster's Lease.
        primary_lease "primaryLease": Option<PrimaryLease>,
        /// Backups.
        backup "backup": Option<Backup>,
        /// A node is in maintenance.
        node_maintenance_window "nodeMaintenanceWindow": Option<NodeMaintenanceWindow>,
        /// Metrics.
        monitoring "monitoring": Option<Monitoring>,
        /// Other PostgreSQL servers that this cluster reads from.
        external_clusters "externalClusters": Vec<ExternalCluster>,
        /// Level of the agents' log.
        log_level "logLevel": Option<LogLevel>,
        /// Volume mounted at /projected.
        projected_volume_template "projectedVolumeTemplate": Option<ProjectedVolumeSource>,
        /// Environment of the database container. Reserved: names beginning with PG or the operator's prefix, POD_NAME, NAMESPACE, CLUSTER_NAME.
        env "env": Vec<EnvVar>,
        /// Environment of the database container, from Secrets and ConfigMaps.
        env_from "envFrom": Vec<EnvFromSource>,
        /// Roles and Services that the operator keeps.
        managed "managed": Option<Managed>,
        /// Seccomp profile of the pods.
        seccomp_profile "seccompProfile": Option<SeccompProfile>,
        /// Security context of the pods.
        pod_security_context "podSecurityContext": Option<PodSecurityContext>,
        /// Security context of the database container.
        security_context "securityContext": Option<SecurityContext>,
        /// Are PodDisruptionBudgets made.
        enable_pdb "enablePDB": Option<bool>,
        /// Plugins by the CNPG-I interface.
        plugins "plugins": Vec<Plugin>,
        /// Probes of the database container.
        probes "probes": Option<Probes>,
    }

    /// Labels and annotations put on every object.
    pub struct InheritedMetadata {
        /// Labels.
        labels "labels": BTreeMap<String, String>,
        /// Annotations.
        annotations "annotations": BTreeMap<String, String>,
    }

    /// Where the image is looked up.
    pub struct ImageCatalogRef {
        /// Group of the catalog.
        api_group "apiGroup": Option<String>,
        /// ImageCatalog or ClusterImageCatalog.
        kind "kind": Option<String>,
        /// Name of the catalog.
        name "name": Option<String>,
        /// Major version of PostgreSQL.
        major "major": Option<i32>,
    }

    /// A set of pods by name.
    pub struct PodSelectorRef {
        /// The name used in pg_hba.
        name "name": Option<String>,
        /// Which pods of the cluster's namespace.
        selector "selector": Option<LabelSelector>,
    }

    /// Limits of an election.
    pub struct Failover {
        /// How far the successor may be behind the primary's last published position in asynchronous mode: bytes, a quantity, or `unlimited`. 1Mi if absent. An instance that is further behind is not promoted, and status says what a human may do.
        maximum_lag "maximumLag": Option<IntOrString>,
        /// Seconds that the primary goes on without the Kubernetes API while a member of its cohort does not answer. 600 if absent.
        failsafe_max "failsafeMax": Option<i32>,
        /// Between equal positions the greater priority is elected. Instance name to priority; 0 if absent, -1 means never.
        priority "priority": BTreeMap<String, i32>,
    }
}

words! {
    /// Does a rollout go on to the primary by itself.
    pub enum PrimaryUpdateStrategy {
        /// Yes.
        Unsupervised = "unsupervised",
        /// It waits for a switchover by the user.
        Supervised = "supervised",
    }

    /// How the primary is updated at the end of a rollout.
    pub enum PrimaryUpdateMethod {
        /// Restarted where it is.
        Restart = "restart",
        /// A standby takes over first.
        Switchover = "switchover",
    }

    /// Level of the agents' log.
    pub enum LogLevel {
        /// Errors.
        Error = "error",
        /// Errors and warnings.
        Warning = "warning",
        /// What happens.
        Info = "info",
        /// More.
        Debug = "debug",
        /// All.
        Trace = "trace",
    }
}
