//! Other servers, and plugins.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SecretKeySelector;

use super::BarmanObjectStore;
use crate::record::record;

record! {
    /// Another PostgreSQL server that this cluster reads from.
    pub struct ExternalCluster {
        /// The name used elsewhere in the spec.
        name: Option<String>,
        /// libpq's parameters, without the password.
        connection_parameters: BTreeMap<String, String>,
        /// Client certificate.
        ssl_cert: Option<SecretKeySelector>,
        /// Key of the client certificate.
        ssl_key: Option<SecretKeySelector>,
        /// CA of the server.
        ssl_root_cert: Option<SecretKeySelector>,
        /// Password.
        password: Option<SecretKeySelector>,
        /// Its backups on an object store.
        barman_object_store: Option<BarmanObjectStore>,
        /// Its backups through a plugin.
        plugin: Option<Plugin>,
    }

    /// A plugin by the CNPG-I interface.
    pub struct Plugin {
        /// Its name.
        name: Option<String>,
        /// Is it used.
        enabled: Option<bool>,
        /// Does it archive WAL.
        #[serde(rename = "isWALArchiver")]
        is_wal_archiver: Option<bool>,
        /// Its parameters.
        parameters: BTreeMap<String, String>,
    }
}
