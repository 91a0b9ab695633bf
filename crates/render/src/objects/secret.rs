//! Secrets. Keys, certificates and passwords come from outside: PURE code makes none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use matriarch_api::labels::{self, Label};
use matriarch_api::names;
use matriarch_api::secret::{self, Connection};
use matriarch_plan::world::SecretRole;
use serde_json::{Map, Value, json};

use crate::resolve::Resolved;
use crate::setup::Owner;

fn object<K: AsRef<str>, V: AsRef<str>>(
    owner: &Owner<'_>,
    name: &str,
    kind: &str,
    data: impl IntoIterator<Item = (K, V)>,
) -> Value {
    let data: Map<String, Value> = data
        .into_iter()
        .map(|(key, value)| (key.as_ref().to_owned(), json!(STANDARD.encode(value.as_ref()))))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owner.metadata(name),
        "type": kind,
        "data": data,
    })
}

/// The authority: with its key, read by the operator alone.
pub fn authority(owner: &Owner<'_>, certificates: &str, key: &str) -> Value {
    let data = [(secret::CA_CERTIFICATE, certificates), (secret::CA_KEY, key)];
    object(owner, &names::secret_ca(owner.name()), secret::TYPE_OPAQUE, data)
}

/// A certificate with its key, and the authorities that verify its like.
pub fn leaf(owner: &Owner<'_>, role: SecretRole, certificate: &str, key: &str, ca: &str) -> Value {
    let name = match role {
        SecretRole::Replication => names::secret_replication(owner.name()),
        SecretRole::Server
        | SecretRole::Authority
        | SecretRole::ServerAuthority
        | SecretRole::ClientAuthority
        | SecretRole::Application
        | SecretRole::Superuser => names::secret_server(owner.name()),
    };
    let data = [
        (secret::TLS_CERTIFICATE, certificate),
        (secret::TLS_KEY, key),
        (secret::CA_CERTIFICATE, ca),
    ];
    object(owner, &name, secret::TYPE_TLS, data)
}

/// The user of a Secret with a password, and the database that it leads to.
pub fn account(resolved: &Resolved, role: SecretRole) -> (&str, &str) {
    match role {
        SecretRole::Superuser => (names::SUPERUSER, "*"),
        SecretRole::Application
        | SecretRole::Authority
        | SecretRole::ServerAuthority
        | SecretRole::ClientAuthority
        | SecretRole::Server
        | SecretRole::Replication => (&resolved.initdb.owner, &resolved.initdb.database),
    }
}

/// A user's Secret with everything that follows from name and password.
pub fn login(
    owner: &Owner<'_>,
    resolved: &Resolved,
    role: SecretRole,
    password: &str,
    ca: &str,
) -> Value {
    let cluster = owner.name();
    let (user, database) = account(resolved, role);
    let (name, user_type) = match role {
        SecretRole::Superuser => (names::secret_superuser(cluster), labels::USER_TYPE_SUPERUSER),
        SecretRole::Application
        | SecretRole::Authority
        | SecretRole::ServerAuthority
        | SecretRole::ClientAuthority
        | SecretRole::Server
        | SecretRole::Replication => (names::secret_app(cluster), labels::USER_TYPE_APP),
    };
    let connection = Connection {
        user,
        password,
        database,
        host: &names::service_rw(cluster),
        namespace: owner.cluster.namespace(),
        domain: &owner.setup.cluster_domain,
        port: names::POSTGRES_PORT,
        ca,
    };
    let mut login = object(owner, &name, secret::TYPE_BASIC_AUTH, connection.data());
    login["metadata"]["labels"][owner.label(Label::UserType)] = json!(user_type);
    login["metadata"]["labels"][owner.label(Label::Reload)] = json!(labels::TRUE);
    login
}
