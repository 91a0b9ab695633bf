//! `spec.backup`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SecretKeySelector;

use crate::record::{record, words};

record! {
    /// Backups.
    pub struct Backup {
        /// Which instance backups are taken from.
        target: Option<BackupTarget>,
        /// How long backups are kept: a number and d, w or m.
        retention_policy: Option<String>,
        /// Backups by volume snapshots.
        volume_snapshot: Option<VolumeSnapshotConfiguration>,
        /// Backups and WAL on an object store.
        barman_object_store: Option<BarmanObjectStore>,
    }

    /// Backups by volume snapshots.
    pub struct VolumeSnapshotConfiguration {
        /// Labels of the snapshots.
        labels: BTreeMap<String, String>,
        /// Annotations of the snapshots.
        annotations: BTreeMap<String, String>,
        /// Snapshot class.
        class_name: Option<String>,
        /// Snapshot class of WAL volumes.
        wal_class_name: Option<String>,
        /// Snapshot class of tablespaces by name.
        tablespace_class_name: BTreeMap<String, String>,
        /// Who owns the snapshots.
        snapshot_owner_reference: Option<SnapshotOwnerReference>,
        /// Taken while PostgreSQL runs.
        online: Option<bool>,
        /// Options of backups taken while PostgreSQL runs.
        online_configuration: Option<OnlineConfiguration>,
    }

    /// Options of backups taken while PostgreSQL runs.
    pub struct OnlineConfiguration {
        /// Wait until the WAL is archived.
        wait_for_archive: Option<bool>,
        /// Begin with a checkpoint at full speed.
        immediate_checkpoint: Option<bool>,
    }

    /// Backups and WAL on an object store, in the layout of Barman Cloud.
    pub struct BarmanObjectStore {
        /// URL of the directory.
        destination_path: Option<String>,
        /// URL of the service.
        #[serde(rename = "endpointURL")]
        endpoint_url: Option<String>,
        /// CA of the service.
        #[serde(rename = "endpointCA")]
        endpoint_ca: Option<SecretKeySelector>,
        /// Name of the server in the store; the cluster's name if absent.
        server_name: Option<String>,
        /// Tags of objects.
        tags: BTreeMap<String, String>,
        /// Tags of history files.
        history_tags: BTreeMap<String, String>,
        /// Credentials of S3.
        s3_credentials: Option<S3Credentials>,
        /// Credentials of Azure.
        azure_credentials: Option<AzureCredentials>,
        /// Credentials of Google.
        google_credentials: Option<GoogleCredentials>,
        /// Base backups.
        data: Option<BarmanData>,
        /// WAL.
        wal: Option<BarmanWal>,
    }

    /// Credentials of S3.
    pub struct S3Credentials {
        /// Access key id.
        access_key_id: Option<SecretKeySelector>,
        /// Secret access key.
        secret_access_key: Option<SecretKeySelector>,
        /// Session token.
        session_token: Option<SecretKeySelector>,
        /// Region.
        region: Option<SecretKeySelector>,
        /// Use the role of the pod.
        #[serde(rename = "inheritFromIAMRole")]
        inherit_from_iam_role: Option<bool>,
    }

    /// Credentials of Azure.
    pub struct AzureCredentials {
        /// Connection string.
        connection_string: Option<SecretKeySelector>,
        /// Storage account.
        storage_account: Option<SecretKeySelector>,
        /// Key of the account.
        storage_key: Option<SecretKeySelector>,
        /// Token of the account.
        storage_sas_token: Option<SecretKeySelector>,
        /// Use the identity of the pod.
        #[serde(rename = "inheritFromAzureAD")]
        inherit_from_azure_ad: Option<bool>,
        /// Use Azure's chain of default credentials.
        use_default_azure_credentials: Option<bool>,
    }

    /// Credentials of Google.
    pub struct GoogleCredentials {
        /// The file of the application's credentials.
        application_credentials: Option<SecretKeySelector>,
        /// Use the identity of the pod.
        gke_environment: Option<bool>,
    }

    /// Base backups.
    pub struct BarmanData {
        /// Compression.
        compression: Option<DataCompression>,
        /// Encryption by the service.
        encryption: Option<Encryption>,
        /// Begin with a checkpoint at full speed.
        immediate_checkpoint: Option<bool>,
        /// Parallel uploads.
        jobs: Option<i32>,
        /// More arguments of the backup.
        additional_command_args: Vec<String>,
        /// More arguments of the restore.
        restore_additional_command_args: Vec<String>,
    }

    /// WAL.
    pub struct BarmanWal {
        /// Compression.
        compression: Option<WalCompression>,
        /// Encryption by the service.
        encryption: Option<Encryption>,
        /// Parallel uploads.
        max_parallel: Option<i32>,
        /// More arguments of the archive.
        archive_additional_command_args: Vec<String>,
        /// More arguments of the restore.
        restore_additional_command_args: Vec<String>,
    }
}

words! {
    /// Which instance backups are taken from.
    pub enum BackupTarget {
        /// The primary.
        Primary = "primary",
        /// A standby, if one is fit.
        PreferStandby = "prefer-standby",
    }

    /// Who owns snapshots.
    pub enum SnapshotOwnerReference {
        /// Nobody.
        None = "none",
        /// The Cluster.
        Cluster = "cluster",
        /// The Backup.
        Backup = "backup",
    }

    /// Compression of base backups.
    pub enum DataCompression {
        /// bzip2.
        Bzip2 = "bzip2",
        /// gzip.
        Gzip = "gzip",
        /// lz4.
        Lz4 = "lz4",
        /// Snappy.
        Snappy = "snappy",
    }

    /// Compression of WAL.
    pub enum WalCompression {
        /// bzip2.
        Bzip2 = "bzip2",
        /// gzip.
        Gzip = "gzip",
        /// lz4.
        Lz4 = "lz4",
        /// Snappy.
        Snappy = "snappy",
        /// xz.
        Xz = "xz",
        /// Zstandard.
        Zstd = "zstd",
    }

    /// Encryption by the service.
    pub enum Encryption {
        /// Keys of the service.
        Aes256 = "AES256",
        /// Keys of AWS KMS.
        AwsKms = "aws:kms",
    }
}
