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
        description: Option<String>,
        /// Labels and annotations put on every object that is made for the cluster.
        inherited_metadata: Option<InheritedMetadata>,
        /// Image with PostgreSQL in it. Not together with `imageCatalogRef`.
        image_name: Option<String>,
        /// Where the image is looked up by major version. Not together with `imageName`.
        image_catalog_ref: Option<ImageCatalogRef>,
        /// When the image is pulled: Always, Never, IfNotPresent.
        image_pull_policy: Option<String>,
        /// Secrets with which the image is pulled.
        image_pull_secrets: Vec<LocalObjectReference>,
        /// Scheduler of the pods.
        scheduler_name: Option<String>,
        /// Priority class of the pods.
        priority_class_name: Option<String>,
        /// User id of PostgreSQL in the pods; cannot be changed.
        #[serde(rename = "postgresUID")]
        postgres_uid: Option<i64>,
        /// Group id of PostgreSQL in the pods; cannot be changed.
        #[serde(rename = "postgresGID")]
        postgres_gid: Option<i64>,
        /// How many instances: one primary, the others standbys.
        instances: Option<i32>,
        /// Older form of synchronous replication: at least so many standbys acknowledge a commit.
        min_sync_replicas: Option<i32>,
        /// Older form of synchronous replication: at most so many standbys acknowledge a commit.
        max_sync_replicas: Option<i32>,
        /// Configuration of PostgreSQL.
        postgresql: Option<PostgresConfiguration>,
        /// Pods whose addresses can be used in pg_hba as `${podselector:NAME}`.
        pod_selector_refs: Vec<PodSelectorRef>,
        /// Slots that the cluster keeps.
        replication_slots: Option<ReplicationSlots>,
        /// Where the data comes from. Cannot be changed in effect once the cluster exists.
        bootstrap: Option<Bootstrap>,
        /// Makes this a replica of another cluster.
        replica: Option<ReplicaCluster>,
        /// Secret with the superuser's password; made if absent.
        superuser_secret: Option<LocalObjectReference>,
        /// Does the superuser have a password; without one it connects from inside the pod only.
        enable_superuser_access: Option<bool>,
        /// Certificates given by the user.
        certificates: Option<Certificates>,
        /// Volume of the data directory.
        storage: Option<Storage>,
        /// Volume of the WAL; without it WAL is on the data volume.
        wal_storage: Option<Storage>,
        /// Tablespaces, each with a volume.
        tablespaces: Vec<Tablespace>,
        /// Volume of temporary data.
        ephemeral_volume_source: Option<EphemeralVolumeSource>,
        /// Limits of the pods' scratch volumes.
        ephemeral_volumes_size_limit: Option<EphemeralVolumesSizeLimit>,
        /// Labels and annotations of the ServiceAccount that is made.
        service_account_template: Option<ServiceAccountTemplate>,
        /// An existing ServiceAccount for the pods; cannot be changed.
        service_account_name: Option<String>,
        /// Seconds that a start may take before the probe calls it failed.
        start_delay: Option<i32>,
        /// Seconds that a stop may take in all.
        stop_delay: Option<i32>,
        /// Seconds of a smart shutdown before a fast one. Counts only if written, and only where no successor is fit.
        smart_shutdown_timeout: Option<i32>,
        /// Seconds that a successor may take to receive everything in a switchover.
        switchover_delay: Option<i32>,
        /// Seconds that a crashed primary is given to come back before another instance takes over.
        failover_delay: Option<i32>,
        /// Seconds without an answer after which kubelet restarts the container.
        liveness_probe_timeout: Option<i32>,
        /// Limits of an election.
        failover: Option<Failover>,
        /// On which nodes pods run.
        affinity: Option<Affinity>,
        /// How pods spread.
        topology_spread_constraints: Vec<TopologySpreadConstraint>,
        /// Requests and limits of the database container.
        resources: Option<ResourceRequirements>,
        /// Does a rollout go on to the primary by itself.
        primary_update_strategy: Option<PrimaryUpdateStrategy>,
        /// How the primary is updated at the end of a rollout.
        primary_update_method: Option<PrimaryUpdateMethod>,
        /// Timing of the cluster's Lease.
        primary_lease: Option<PrimaryLease>,
        /// Backups.
        backup: Option<Backup>,
        /// A node is in maintenance.
        node_maintenance_window: Option<NodeMaintenanceWindow>,
        /// Metrics.
        monitoring: Option<Monitoring>,
        /// Other PostgreSQL servers that this cluster reads from.
        external_clusters: Vec<ExternalCluster>,
        /// Level of the agents' log.
        log_level: Option<LogLevel>,
        /// Volume mounted at /projected.
        projected_volume_template: Option<ProjectedVolumeSource>,
        /// Environment of the database container. Reserved: names beginning with PG or the operator's prefix, POD_NAME, NAMESPACE, CLUSTER_NAME.
        env: Vec<EnvVar>,
        /// Environment of the database container, from Secrets and ConfigMaps.
        env_from: Vec<EnvFromSource>,
        /// Roles and Services that the operator keeps.
        managed: Option<Managed>,
        /// Seccomp profile of the pods.
        seccomp_profile: Option<SeccompProfile>,
        /// Security context of the pods.
        pod_security_context: Option<PodSecurityContext>,
        /// Security context of the database container.
        security_context: Option<SecurityContext>,
        /// Are PodDisruptionBudgets made.
        #[serde(rename = "enablePDB")]
        enable_pdb: Option<bool>,
        /// Plugins by the CNPG-I interface.
        plugins: Vec<Plugin>,
        /// Probes of the database container.
        probes: Option<Probes>,
    }

    /// Labels and annotations put on every object.
    pub struct InheritedMetadata {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
    }

    /// Where the image is looked up.
    pub struct ImageCatalogRef {
        /// Group of the catalog.
        api_group: Option<String>,
        /// ImageCatalog or ClusterImageCatalog.
        kind: Option<String>,
        /// Name of the catalog.
        name: Option<String>,
        /// Major version of PostgreSQL.
        major: Option<i32>,
    }

    /// A set of pods by name.
    pub struct PodSelectorRef {
        /// The name used in pg_hba.
        name: Option<String>,
        /// Which pods of the cluster's namespace.
        selector: Option<LabelSelector>,
    }

    /// Limits of an election.
    pub struct Failover {
        /// How far the successor may be behind the primary's last published position in asynchronous mode: bytes, a quantity, or `unlimited`. 1Mi if absent. An instance that is further behind is not promoted, and status says what a human may do.
        maximum_lag: Option<IntOrString>,
        /// Seconds that the primary goes on without the Kubernetes API while a member of its cohort does not answer. 600 if absent.
        failsafe_max: Option<i32>,
        /// Between equal positions the greater priority is elected. Instance name to priority; 0 if absent, -1 means never.
        priority: BTreeMap<String, i32>,
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
