//! `spec.postgresql`: the configuration of PostgreSQL.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ImageVolumeSource, SecretKeySelector};

use crate::record::{record, words};

record! {
    /// Configuration of PostgreSQL.
    pub struct PostgresConfiguration {
        /// Parameters as in postgresql.conf.
        parameters "parameters": BTreeMap<String, String>,
        /// Synchronous replication.
        synchronous "synchronous": Option<SynchronousReplication>,
        /// Lines of pg_hba.conf, between the fixed first and last ones. `host` is written as
        /// `hostssl`, and `md5` as `scram-sha-256`.
        pg_hba "pg_hba": Vec<String>,
        /// Lines of pg_ident.conf.
        pg_ident "pg_ident": Vec<String>,
        /// Older form of failure domains for synchronous standbys.
        sync_replica_election_constraint "syncReplicaElectionConstraint": Option<SyncReplicaElectionConstraint>,
        /// Libraries loaded at start, before those that the operator adds.
        shared_preload_libraries "shared_preload_libraries": Vec<String>,
        /// Authentication by LDAP.
        ldap "ldap": Option<Ldap>,
        /// Seconds that a promotion may take.
        promotion_timeout "promotionTimeout": Option<i32>,
        /// May users run ALTER SYSTEM.
        enable_alter_system "enableAlterSystem": Option<bool>,
        /// Extensions in images of their own (PostgreSQL 18 and later).
        extensions "extensions": Vec<Extension>,
    }

    /// Synchronous replication.
    pub struct SynchronousReplication {
        /// `any`: a quorum; `first`: by priority. Members of the cluster are always arranged as a quorum.
        method "method": Option<SynchronousMethod>,
        /// How many standbys acknowledge a commit.
        number "number": Option<i32>,
        /// At most so many members of the cluster are listed.
        max_standby_names_from_cluster "maxStandbyNamesFromCluster": Option<i32>,
        /// Standbys outside the cluster, before its members.
        standby_names_pre "standbyNamesPre": Vec<String>,
        /// Standbys outside the cluster, after its members.
        standby_names_post "standbyNamesPost": Vec<String>,
        /// `required`: commits wait while standbys are missing; `preferred`: with those that are there.
        data_durability "dataDurability": Option<DataDurability>,
        /// Is a failover checked against the quorum. Ours always is.
        failover_quorum "failoverQuorum": Option<bool>,
        /// Labels of pods that name a failure domain. Not together with nodeFailureDomainKeys.
        pod_failure_domain_keys "podFailureDomainKeys": Vec<String>,
        /// Labels of nodes that name a failure domain.
        node_failure_domain_keys "nodeFailureDomainKeys": Vec<String>,
    }

    /// Older form of failure domains.
    pub struct SyncReplicaElectionConstraint {
        /// Is it used.
        enabled "enabled": Option<bool>,
        /// Labels of nodes in which the primary and a synchronous standby differ.
        node_labels_anti_affinity "nodeLabelsAntiAffinity": Vec<String>,
    }

    /// Authentication by LDAP.
    pub struct Ldap {
        /// Host.
        server "server": Option<String>,
        /// Port.
        port "port": Option<i32>,
        /// ldap or ldaps.
        scheme "scheme": Option<LdapScheme>,
        /// StartTLS.
        tls "tls": Option<bool>,
        /// Simple bind.
        bind_as_auth "bindAsAuth": Option<LdapBindAsAuth>,
        /// Search, then bind.
        bind_search_auth "bindSearchAuth": Option<LdapBindSearchAuth>,
    }

    /// Simple bind.
    pub struct LdapBindAsAuth {
        /// Before the user's name.
        prefix "prefix": Option<String>,
        /// After the user's name.
        suffix "suffix": Option<String>,
    }

    /// Search, then bind.
    pub struct LdapBindSearchAuth {
        /// Where the search begins.
        base_dn "baseDN": Option<String>,
        /// Who searches.
        bind_dn "bindDN": Option<String>,
        /// Their password.
        bind_password "bindPassword": Option<SecretKeySelector>,
        /// The attribute that holds the user's name.
        search_attribute "searchAttribute": Option<String>,
        /// Filter of the search.
        search_filter "searchFilter": Option<String>,
    }

    /// An extension in an image of its own.
    pub struct Extension {
        /// Its name.
        name "name": Option<String>,
        /// The image.
        image "image": Option<ImageVolumeSource>,
        /// Directories of control files in the image; `share` if absent.
        extension_control_path "extension_control_path": Vec<String>,
        /// Directories of libraries in the image; `lib` if absent.
        dynamic_library_path "dynamic_library_path": Vec<String>,
        /// Directories of system libraries in the image.
        ld_library_path "ld_library_path": Vec<String>,
        /// Directories of programs in the image.
        bin_path "bin_path": Vec<String>,
        /// Environment; `${image_root}` is the image's directory.
        env "env": Vec<ExtensionEnv>,
    }

    /// A variable of an extension.
    pub struct ExtensionEnv {
        /// Its name.
        name "name": Option<String>,
        /// Its value.
        value "value": Option<String>,
    }
}

words! {
    /// How synchronous standbys are chosen.
    pub enum SynchronousMethod {
        /// Quorum.
        Any = "any",
        /// Priority.
        First = "first",
    }

    /// What happens while standbys are missing.
    pub enum DataDurability {
        /// Commits wait.
        Required = "required",
        /// As many as stream.
        Preferred = "preferred",
    }

    /// Scheme of LDAP.
    pub enum LdapScheme {
        /// Plain.
        Ldap = "ldap",
        /// TLS.
        Ldaps = "ldaps",
    }
}
