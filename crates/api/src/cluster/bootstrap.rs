//! `spec.bootstrap`: where the data comes from.

use k8s_openapi::api::core::v1::{
    LocalObjectReference, SecretKeySelector, TypedLocalObjectReference,
};
use std::collections::BTreeMap;

use crate::cluster::ClusterSpec;
use crate::names;
use crate::record::{record, words};

record! {
    /// Where the data comes from; one of the three.
    pub struct Bootstrap {
        /// A new database cluster.
        initdb "initdb": Option<BootstrapInitdb>,
        /// A backup.
        recovery "recovery": Option<BootstrapRecovery>,
        /// A copy of a running server.
        pg_basebackup "pg_basebackup": Option<BootstrapBasebackup>,
    }

    /// A new database cluster.
    pub struct BootstrapInitdb {
        /// The application's database; `app` if absent.
        database "database": Option<String>,
        /// The role that owns it; the database's name if absent.
        owner "owner": Option<String>,
        /// Secret (kubernetes.io/basic-auth) with the owner's name and password; made if absent.
        secret "secret": Option<LocalObjectReference>,
        /// Arguments of initdb. Deprecated: the fields below say the same.
        options "options": Vec<String>,
        /// Page checksums; on unless false is written.
        data_checksums "dataChecksums": Option<bool>,
        /// Encoding; UTF8 if absent.
        encoding "encoding": Option<String>,
        /// LC_COLLATE; C if absent.
        locale_collate "localeCollate": Option<String>,
        /// LC_CTYPE; C if absent.
        locale_ctype "localeCType": Option<String>,
        /// Locale of all categories not named otherwise.
        locale "locale": Option<String>,
        /// Provider of collations (PostgreSQL 15 and later).
        locale_provider "localeProvider": Option<LocaleProvider>,
        /// ICU locale; with provider icu alone.
        icu_locale "icuLocale": Option<String>,
        /// ICU rules (PostgreSQL 16 and later); with provider icu alone.
        icu_rules "icuRules": Option<String>,
        /// Locale of the builtin provider (PostgreSQL 17 and later); with provider builtin alone.
        builtin_locale "builtinLocale": Option<String>,
        /// Size of a WAL segment in megabytes: a power of two from 1 to 1024.
        wal_segment_size "walSegmentSize": Option<i32>,
        /// SQL run as superuser in database postgres.
        post_init_sql "postInitSQL": Vec<String>,
        /// SQL run as superuser in the application's database.
        post_init_application_sql "postInitApplicationSQL": Vec<String>,
        /// SQL run as superuser in database template1.
        post_init_template_sql "postInitTemplateSQL": Vec<String>,
        /// SQL from Secrets and ConfigMaps, after postInitSQL.
        post_init_sql_refs "postInitSQLRefs": Option<SqlRefs>,
        /// SQL from Secrets and ConfigMaps, after postInitApplicationSQL.
        post_init_application_sql_refs "postInitApplicationSQLRefs": Option<SqlRefs>,
        /// SQL from Secrets and ConfigMaps, after postInitTemplateSQL.
        post_init_template_sql_refs "postInitTemplateSQLRefs": Option<SqlRefs>,
        /// Databases copied by pg_dump from another server.
        import "import": Option<Import>,
    }

    /// SQL in Secrets and ConfigMaps; all Secrets first.
    pub struct SqlRefs {
        /// Keys of Secrets.
        secret_refs "secretRefs": Vec<KeySelector>,
        /// Keys of ConfigMaps.
        config_map_refs "configMapRefs": Vec<KeySelector>,
    }

    /// A key of a Secret or ConfigMap.
    pub struct KeySelector {
        /// Name of the object.
        name "name": Option<String>,
        /// Key in its data.
        key "key": Option<String>,
    }

    /// Databases copied by pg_dump.
    pub struct Import {
        /// One database into ours, or several with their roles.
        kind "type": Option<ImportType>,
        /// The server.
        source "source": Option<ImportSource>,
        /// Databases; `*` is all.
        databases "databases": Vec<String>,
        /// Roles; `*` is all.
        roles "roles": Vec<String>,
        /// SQL run as superuser after the import.
        post_import_application_sql "postImportApplicationSQL": Vec<String>,
        /// Only the schema.
        schema_only "schemaOnly": Option<bool>,
        /// Arguments of pg_dump.
        pg_dump_extra_options "pgDumpExtraOptions": Vec<String>,
        /// Arguments of every pg_restore.
        pg_restore_extra_options "pgRestoreExtraOptions": Vec<String>,
        /// Arguments of pg_restore of the pre-data section.
        pg_restore_predata_options "pgRestorePredataOptions": Vec<String>,
        /// Arguments of pg_restore of the data section.
        pg_restore_data_options "pgRestoreDataOptions": Vec<String>,
        /// Arguments of pg_restore of the post-data section.
        pg_restore_postdata_options "pgRestorePostdataOptions": Vec<String>,
    }

    /// The server that is imported from.
    pub struct ImportSource {
        /// Name in externalClusters.
        external_cluster "externalCluster": Option<String>,
    }

    /// A backup to recover from.
    pub struct BootstrapRecovery {
        /// A Backup object.
        backup "backup": Option<BackupSource>,
        /// Name in externalClusters.
        source "source": Option<String>,
        /// Snapshots of volumes.
        volume_snapshots "volumeSnapshots": Option<DataSource>,
        /// Where recovery ends; the end of the archive if absent.
        recovery_target "recoveryTarget": Option<RecoveryTarget>,
        /// The application's database.
        database "database": Option<String>,
        /// The role that owns it.
        owner "owner": Option<String>,
        /// Secret with the owner's name and password.
        secret "secret": Option<LocalObjectReference>,
    }

    /// A Backup object.
    pub struct BackupSource {
        /// Its name.
        name "name": Option<String>,
        /// CA of the object store.
        endpoint_ca "endpointCA": Option<SecretKeySelector>,
    }

    /// Snapshots (VolumeSnapshot) or volumes (PersistentVolumeClaim) to start from.
    pub struct DataSource {
        /// The data.
        storage "storage": Option<TypedLocalObjectReference>,
        /// The WAL.
        wal_storage "walStorage": Option<TypedLocalObjectReference>,
        /// The tablespaces by name.
        tablespace_storage "tablespaceStorage": BTreeMap<String, TypedLocalObjectReference>,
    }

    /// Where recovery ends; at most one of the targets.
    pub struct RecoveryTarget {
        /// Which backup to start from.
        backup_id "backupID": Option<String>,
        /// Timeline: a number, `latest` or `current`.
        target_tli "targetTLI": Option<String>,
        /// Transaction id.
        target_xid "targetXID": Option<String>,
        /// Name of a restore point.
        target_name "targetName": Option<String>,
        /// Position in the WAL.
        target_lsn "targetLSN": Option<String>,
        /// Time, RFC 3339 or as PostgreSQL writes it.
        target_time "targetTime": Option<String>,
        /// As soon as the backup is consistent.
        target_immediate "targetImmediate": Option<bool>,
        /// Stop just before the target.
        exclusive "exclusive": Option<bool>,
    }

    /// A copy of a running server.
    pub struct BootstrapBasebackup {
        /// Name in externalClusters.
        source "source": Option<String>,
        /// The application's database.
        database "database": Option<String>,
        /// The role that owns it.
        owner "owner": Option<String>,
        /// Secret with the owner's name and password.
        secret "secret": Option<LocalObjectReference>,
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

impl ClusterSpec {
    fn initdb(&self) -> Option<&BootstrapInitdb> {
        self.bootstrap.as_ref()?.initdb.as_ref()
    }

    /// The Secret with the name and password of the application's owner, if the user gives one.
    pub fn given_application_secret(&self) -> Option<&str> {
        let secret = self.initdb()?.secret.as_ref()?;
        Some(secret.name.as_str()).filter(|name| !name.is_empty())
    }

    /// The Secret with the name and password of the application's owner.
    pub fn application_secret(&self, cluster: &str) -> String {
        let given = self.given_application_secret().map(str::to_owned);
        given.unwrap_or_else(|| names::secret_app(cluster))
    }

    /// The application's database.
    pub fn application_database(&self) -> String {
        let written = self.initdb();
        let written = written.and_then(|initdb| initdb.database.clone().or(initdb.owner.clone()));
        written.unwrap_or_else(|| names::DEFAULT_DATABASE.to_owned())
    }
}
