//! Other servers, and plugins.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SecretKeySelector;

use super::BarmanObjectStore;
use crate::record::record;

record! {
    /// Another PostgreSQL server that this cluster reads from.
    pub struct ExternalCluster {
        /// The name used elsewhere in the spec.
        name "name": Option<String>,
        /// libpq's parameters, without the password.
        connection_parameters "connectionParameters": BTreeMap<String, String>,
        /// Client certificate.
        ssl_cert "sslCert": Option<SecretKeySelector>,
        /// Key of the client certificate.
        ssl_key "sslKey": Option<SecretKeySelector>,
        /// CA of the server.
        ssl_root_cert "sslRootCert": Option<SecretKeySelector>,
        /// Password.
        password "password": Option<SecretKeySelector>,
        /// Its backups on an object store.
        barman_object_store "barmanObjectStore": Option<BarmanObjectStore>,
        /// Its backups through a plugin.
        plugin "plugin": Option<Plugin>,
    }

    /// A plugin by the CNPG-I interface.
    pub struct Plugin {
        /// Its name.
        name "name": Option<String>,
        /// Is it used.
        enabled "enabled": Option<bool>,
        /// Does it archive WAL.
        is_wal_archiver "isWALArchiver": Option<bool>,
        /// Its parameters.
        parameters "parameters": BTreeMap<String, String>,
    }
}
