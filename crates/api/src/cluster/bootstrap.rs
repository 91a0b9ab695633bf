//! `spec.bootstrap`: where the data comes from.

use k8s_openapi::api::core::v1::{
    LocalObjectReference, SecretKeySelector, TypedLocalObjectReference,
};
use std::collections::BTreeMap;

use crate::record::{record, words};

record! {
    /// Where the data comes from; one of the three.
    pub struct Bootstrap {
        /// A new database cluster.
        initdb: Option<BootstrapInitdb>,
        /// A backup.
        recovery: Option<BootstrapRecovery>,
        /// A copy of a running server.
        #[serde(rename = "pg_basebackup")]
        pg_basebackup: Option<BootstrapBasebackup>,
    }

    /// A new database cluster.
    pub struct BootstrapInitdb {
        /// The application's database; `app` if absent.
        database: Option<String>,
        /// The role that owns it; the database's name if absent.
        owner: Option<String>,
        /// Secret (kubernetes.io/basic-auth) with the owner's name and password; made if absent.
        secret: Option<LocalObjectReference>,
        /// Arguments of initdb. Deprecated: the fields below say the same.
        options: Vec<String>,
        /// Page checksums; on unless false is written.
        data_checksums: Option<bool>,
        /// Encoding; UTF8 if absent.
        encoding: Option<String>,
        /// LC_COLLATE; C if absent.
        locale_collate: Option<String>,
        /// LC_CTYPE; C if absent.
        #[serde(rename = "localeCType")]
        locale_ctype: Option<String>,
        /// Locale of all categories not named otherwise.
        locale: Option<String>,
        /// Provider of collations (PostgreSQL 15 and later).
        locale_provider: Option<LocaleProvider>,
        /// ICU locale; with provider icu alone.
        icu_locale: Option<String>,
        /// ICU rules (PostgreSQL 16 and later); with provider icu alone.
        icu_rules: Option<String>,
        /// Locale of the builtin provider (PostgreSQL 17 and later); with provider builtin alone.
        builtin_locale: Option<String>,
        /// Size of a WAL segment in megabytes: a power of two from 1 to 1024.
        wal_segment_size: Option<i32>,
        /// SQL run as superuser in database postgres.
        #[serde(rename = "postInitSQL")]
        post_init_sql: Vec<String>,
        /// SQL run as superuser in the application's database.
        #[serde(rename = "postInitApplicationSQL")]
        post_init_application_sql: Vec<String>,
        /// SQL run as superuser in database template1.
        #[serde(rename = "postInitTemplateSQL")]
        post_init_template_sql: Vec<String>,
        /// SQL from Secrets and ConfigMaps, after postInitSQL.
        #[serde(rename = "postInitSQLRefs")]
        post_init_sql_refs: Option<SqlRefs>,
        /// SQL from Secrets and ConfigMaps, after postInitApplicationSQL.
        #[serde(rename = "postInitApplicationSQLRefs")]
        post_init_application_sql_refs: Option<SqlRefs>,
        /// SQL from Secrets and ConfigMaps, after postInitTemplateSQL.
        #[serde(rename = "postInitTemplateSQLRefs")]
        post_init_template_sql_refs: Option<SqlRefs>,
        /// Databases copied by pg_dump from another server.
        import: Option<Import>,
    }

    /// SQL in Secrets and ConfigMaps; all Secrets first.
    pub struct SqlRefs {
        /// Keys of Secrets.
        secret_refs: Vec<KeySelector>,
        /// Keys of ConfigMaps.
        config_map_refs: Vec<KeySelector>,
    }

    /// A key of a Secret or ConfigMap.
    pub struct KeySelector {
        /// Name of the object.
        name: Option<String>,
        /// Key in its data.
        key: Option<String>,
    }

    /// Databases copied by pg_dump.
    pub struct Import {
        /// One database into ours, or several with their roles.
        #[serde(rename = "type")]
        kind: Option<ImportType>,
        /// The server.
        source: Option<ImportSource>,
        /// Databases; `*` is all.
        databases: Vec<String>,
        /// Roles; `*` is all.
        roles: Vec<String>,
        /// SQL run as superuser after the import.
        #[serde(rename = "postImportApplicationSQL")]
        post_import_application_sql: Vec<String>,
        /// Only the schema.
        schema_only: Option<bool>,
        /// Arguments of pg_dump.
        pg_dump_extra_options: Vec<String>,
        /// Arguments of every pg_restore.
        pg_restore_extra_options: Vec<String>,
        /// Arguments of pg_restore of the pre-data section.
        pg_restore_predata_options: Vec<String>,
        /// Arguments of pg_restore of the data section.
        pg_restore_data_options: Vec<String>,
        /// Arguments of pg_restore of the post-data section.
        pg_restore_postdata_options: Vec<String>,
    }

    /// The server that is imported from.
    pub struct ImportSource {
        /// Name in externalClusters.
        external_cluster: Option<String>,
    }

    /// A backup to recover from.
    pub struct BootstrapRecovery {
        /// A Backup object.
        backup: Option<BackupSource>,
        /// Name in externalClusters.
        source: Option<String>,
        /// Snapshots of volumes.
        volume_snapshots: Option<DataSource>,
        /// Where recovery ends; the end of the archive if absent.
        recovery_target: Option<RecoveryTarget>,
        /// The application's database.
        database: Option<String>,
        /// The role that owns it.
        owner: Option<String>,
        /// Secret with the owner's name and password.
        secret: Option<LocalObjectReference>,
    }

    /// A Backup object.
    pub struct BackupSource {
        /// Its name.
        name: Option<String>,
        /// CA of the object store.
        #[serde(rename = "endpointCA")]
        endpoint_ca: Option<SecretKeySelector>,
    }

    /// Snapshots (VolumeSnapshot) or volumes (PersistentVolumeClaim) to start from.
    pub struct DataSource {
        /// The data.
        storage: Option<TypedLocalObjectReference>,
        /// The WAL.
        wal_storage: Option<TypedLocalObjectReference>,
        /// The tablespaces by name.
        tablespace_storage: BTreeMap<String, TypedLocalObjectReference>,
    }

    /// Where recovery ends; at most one of the targets.
    pub struct RecoveryTarget {
        /// Which backup to start from.
        #[serde(rename = "backupID")]
        backup_id: Option<String>,
        /// Timeline: a number, `latest` or `current`.
        #[serde(rename = "targetTLI")]
        target_tli: Option<String>,
        /// Transaction id.
        #[serde(rename = "targetXID")]
        target_xid: Option<String>,
        /// Name of a restore point.
        target_name: Option<String>,
        /// Position in the WAL.
        #[serde(rename = "targetLSN")]
        target_lsn: Option<String>,
        /// Time, RFC 3339 or as PostgreSQL writes it.
        target_time: Option<String>,
        /// As soon as the backup is consistent.
        target_immediate: Option<bool>,
        /// Stop just before the target.
        exclusive: Option<bool>,
    }

    /// A copy of a running server.
    pub struct BootstrapBasebackup {
        /// Name in externalClusters.
        source: Option<String>,
        /// The application's database.
        database: Option<String>,
        /// The role that owns it.
        owner: Option<String>,
        /// Secret with the owner's name and password.
        secret: Option<LocalObjectReference>,
    }
}

words! {
    /// Provider of collations.
    pub enum LocaleProvider {
        /// The C library.
        Libc = "libc",
        /// ICU.
        Icu = "icu",
        /// PostgreSQL itself.
        Builtin = "builtin",
    }

    /// What is imported.
    pub enum ImportType {
        /// One database into the application's.
        Microservice = "microservice",
        /// Several databases and roles.
        Monolith = "monolith",
    }
}
