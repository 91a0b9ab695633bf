//! `spec.backup`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SecretKeySelector;

use crate::record::{record, words};

record! {
    /// Backups.
    pub struct Backup {
        /// Which instance backups are taken from.
        target "target": Option<BackupTarget>,
        /// How long backups are kept: a number and d, w or m.
        retention_policy "retentionPolicy": Option<String>,
        /// Backups by volume snapshots.
        volume_snapshot "volumeSnapshot": Option<VolumeSnapshotConfiguration>,
        /// Backups and WAL on an object store.
        barman_object_store "barmanObjectStore": Option<BarmanObjectStore>,
    }

    /// Backups by volume snapshots.
    pub struct VolumeSnapshotConfiguration {
        /// Labels of the snapshots.
        labels "labels": BTreeMap<String, String>,
        /// Annotations of the snapshots.
        annotations "annotations": BTreeMap<String, String>,
        /// Snapshot class.
        class_name "className": Option<String>,
        /// Snapshot class of WAL volumes.
        wal_class_name "walClassName": Option<String>,
        /// Snapshot class of tablespaces by name.
        tablespace_class_name "tablespaceClassName": BTreeMap<String, String>,
        /// Who owns the snapshots.
        snapshot_owner_reference "snapshotOwnerReference": Option<SnapshotOwnerReference>,
        /// Taken while PostgreSQL runs.
        online "online": Option<bool>,
        /// Options of backups taken while PostgreSQL runs.
        online_configuration "onlineConfiguration": Option<OnlineConfiguration>,
    }

    /// Options of backups taken while PostgreSQL runs.
    pub struct OnlineConfiguration {
        /// Wait until the WAL is archived.
        wait_for_archive "waitForArchive": Option<bool>,
        /// Begin with a checkpoint at full speed.
        immediate_checkpoint "immediateCheckpoint": Option<bool>,
    }

    /// Backups and WAL on an object store, in the layout of Barman Cloud.
    pub struct BarmanObjectStore {
        /// URL of the directory.
        destination_path "destinationPath": Option<String>,
        /// URL of the service.
        endpoint_url "endpointURL": Option<String>,
        /// CA of the service.
        endpoint_ca "endpointCA": Option<SecretKeySelector>,
        /// Name of the server in the store; the cluster's name if absent.
        server_name "serverName": Option<String>,
        /// Tags of objects.
        tags "tags": BTreeMap<String, String>,
        /// Tags of history files.
        history_tags "historyTags": BTreeMap<String, String>,
        /// Credentials of S3.
        s3_credentials "s3Credentials": Option<S3Credentials>,
        /// Credentials of Azure.
        azure_credentials "azureCredentials": Option<AzureCredentials>,
        /// Credentials of Google.
        google_credentials "googleCredentials": Option<GoogleCredentials>,
        /// Base backups.
        data "data": Option<BarmanData>,
        /// WAL.
        wal "wal": Option<BarmanWal>,
    }

    /// Credentials of S3.
    pub struct S3Credentials {
        /// Access key id.
        access_key_id "accessKeyId": Option<SecretKeySelector>,
        /// Secret access key.
        secret_access_key "secretAccessKey": Option<SecretKeySelector>,
        /// Session token.
        session_token "sessionToken": Option<SecretKeySelector>,
        /// Region.
        region "region": Option<SecretKeySelector>,
        /// Use the role of the pod.
        inherit_from_iam_role "inheritFromIAMRole": Option<bool>,
    }

    /// Credentials of Azure.
    pub struct AzureCredentials {
        /// Connection string.
        connection_string "connectionString": Option<SecretKeySelector>,
        /// Storage account.
        storage_account "storageAccount": Option<SecretKeySelector>,
        /// Key of the account.
        storage_key "storageKey": Option<SecretKeySelector>,
        /// Token of the account.
        storage_sas_token "storageSasToken": Option<SecretKeySelector>,
        /// Use the identity of the pod.
        inherit_from_azure_ad "inheritFromAzureAD": Option<bool>,
        /// Use Azure's chain of default credentials.
        use_default_azure_credentials "useDefaultAzureCredentials": Option<bool>,
    }

    /// Credentials of Google.
    pub struct GoogleCredentials {
        /// The file of the application's credentials.
        application_credentials "applicationCredentials": Option<SecretKeySelector>,
        /// Use the identity of the pod.
        gke_environment "gkeEnvironment": Option<bool>,
    }

    /// Base backups.
    pub struct BarmanData {
        /// Compression.
        compression "compression": Option<DataCompression>,
        /// Encryption by the service.
        encryption "encryption": Option<Encryption>,
        /// Begin with a checkpoint at full speed.
        immediate_checkpoint "immediateCheckpoint": Option<bool>,
        /// Parallel uploads.
        jobs "jobs": Option<i32>,
        /// More arguments of the backup.
        additional_command_args "additionalCommandArgs": Vec<String>,
        /// More arguments of the restore.
        restore_additional_command_args "restoreAdditionalCommandArgs": Vec<String>,
    }

    /// WAL.
    pub struct BarmanWal {
        /// Compression.
        compression "compression": Option<WalCompression>,
        /// Encryption by the service.
        encryption "encryption": Option<Encryption>,
        /// Parallel uploads.
        max_parallel "maxParallel": Option<i32>,
        /// More arguments of the archive.
        archive_additional_command_args "archiveAdditionalCommandArgs": Vec<String>,
        /// More arguments of the restore.
        restore_additional_command_args "restoreAdditionalCommandArgs": Vec<String>,
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
