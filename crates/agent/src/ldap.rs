//! The password with which PostgreSQL searches users at an LDAP server: from a Secret, kept on the
//! data volume (where it stands in pg_hba.conf as well) for a start while the API is away.

use k8s_openapi::api::core::v1::{Secret, SecretKeySelector};
use kube::Api;
use matriarch_api::cluster::Ldap;
use matriarch_pg::hba;

use crate::postgres::data;
use crate::root::Root;

/// Why the password is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Secret.
    #[error("cannot read Secret {name} with the password for LDAP")]
    Secret {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The key.
    #[error("Secret {name} has no key {key} with the password for LDAP")]
    Key {
        /// The Secret.
        name: String,
        /// The key.
        key: String,
    },
    /// Its content.
    #[error("the password for LDAP in Secret {name} has a line break or a NUL in it")]
    Content {
        /// The Secret.
        name: String,
    },
}

/// Where the password comes from, if one is needed.
#[must_use]
pub fn reference(ldap: Option<&Ldap>) -> Option<&SecretKeySelector> {
    ldap?.bind_search_auth.as_ref()?.bind_password.as_ref()
}

/// Reads the password. A line break at its end, as editors leave it, is no part of it.
///
/// # Errors
/// If there is none that can be used.
pub async fn read(secrets: &Api<Secret>, reference: &SecretKeySelector) -> Result<String, Error> {
    let name = || reference.name.clone();
    let secret = secrets
        .get(&reference.name)
        .await
        .map_err(|source| Error::Secret { name: name(), source })?;
    let missing = || Error::Key { name: name(), key: reference.key.clone() };
    let bytes = secret.data.as_ref().and_then(|data| data.get(&reference.key));
    let text = bytes.and_then(|it| String::from_utf8(it.0.clone()).ok()).ok_or_else(missing)?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.contains(['\n', '\r', '\0']) {
        return Err(Error::Content { name: name() });
    }
    Ok(text.to_owned())
}

fn path(root: &Root) -> std::path::PathBuf {
    root.state().join("ldap-password")
}

/// The password that was read last, by this agent or one before it.
#[must_use]
pub fn load(root: &Root) -> Option<String> {
    std::fs::read_to_string(path(root)).ok()
}

/// Keeps it for the next start.
///
/// # Errors
/// As the system says.
pub fn save(root: &Root, password: &str) -> Result<(), data::Error> {
    data::write_atomically(&path(root), password.as_bytes())
}

/// What pg_hba.conf is to say. Without the password nobody in particular searches; whoever is found
/// still has to know their own.
#[must_use]
pub fn rule(ldap: &Ldap, password: Option<&str>) -> hba::Ldap {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let bind = match &ldap.bind_search_auth {
        Some(search) => hba::Bind::Search {
            base: text(&search.base_dn),
            as_dn: text(&search.bind_dn),
            password: password.map(str::to_owned),
            attribute: search.search_attribute.clone(),
            filter: search.search_filter.clone(),
        },
        None => {
            let bind = ldap.bind_as_auth.clone().unwrap_or_default();
            hba::Bind::Name { prefix: text(&bind.prefix), suffix: text(&bind.suffix) }
        }
    };
    hba::Ldap {
        server: text(&ldap.server),
        port: ldap.port.and_then(|port| u16::try_from(port).ok()),
        scheme: ldap.scheme.map(|scheme| scheme.word().to_owned()),
        tls: ldap.tls.unwrap_or(false),
        bind,
    }
}
