//! Passwords of roles, from Secrets, on the primary only, as SCRAM verifiers: a clear password in a
//! statement ends up in logs and in pg_stat_statements (CVE-2026-55765).

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use matriarch_api::instance::{Access, SecretNames};
use sha2::{Digest, Sha256};

use crate::postgres::sql::{self, Session, identifier, literal};

/// The role that initdb makes.
const SUPERUSER: &str = "postgres";
/// How long a statement may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a role has not its password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Secret.
    #[error("cannot read Secret {name}")]
    Secret {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// A key is missing.
    #[error("Secret {name} has no key password")]
    Key {
        /// The Secret.
        name: String,
    },
    /// The statement.
    #[error("cannot set the password of role {role}")]
    Statement {
        /// The role.
        role: String,
        /// What PostgreSQL said.
        #[source]
        source: sql::Error,
    },
}

/// What was set by this process, so that it is set again only when it changed.
#[derive(Debug, Default)]
pub struct Passwords {
    /// Role → hash of user, password and system; never the password.
    set: BTreeMap<String, [u8; 32]>,
}

impl Passwords {
    /// Forgets what was set: another instance may have been primary meanwhile.
    pub fn forget(&mut self) {
        self.set.clear();
    }

    /// Sets what differs. Returns Secret name → version in use.
    ///
    /// # Errors
    /// If a Secret cannot be read or PostgreSQL refuses.
    pub async fn keep(
        &mut self,
        session: &Session,
        secrets: &Api<Secret>,
        names: &SecretNames,
        access: &Access,
    ) -> Result<BTreeMap<String, String>, Error> {
        let mut versions = BTreeMap::new();
        for RolePassword { role, password, version } in read_all(secrets, names, access).await? {
            self.set(session, &role, Some(&password)).await?;
            versions.extend([version]);
        }
        if names.superuser.is_none() {
            self.set(session, SUPERUSER, None).await?;
        }
        Ok(versions)
    }

    async fn set(
        &mut self,
        session: &Session,
        role: &str,
        password: Option<&str>,
    ) -> Result<(), Error> {
        let mut hash = Sha256::new();
        hash.update(role.as_bytes());
        hash.update([0, u8::from(password.is_some())]);
        hash.update(password.unwrap_or_default().as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        if self.set.get(role) == Some(&hash) {
            return Ok(());
        }
        let statement = statement(role, password);
        session
            .execute(&statement, LIMIT)
            .await
            .map_err(|source| Error::Statement { role: role.to_owned(), source })?;
        self.set.insert(role.to_owned(), hash);
        Ok(())
    }
}

/// A role and its password.
pub struct RolePassword {
    role: String,
    password: String,
    /// The name and version of the Secret that it is from.
    version: (String, String),
}

impl RolePassword {
    /// What sets it.
    #[must_use]
    pub fn statement(&self) -> String {
        statement(&self.role, Some(&self.password))
    }
}

/// `ALTER ROLE … PASSWORD`. The verifier is kept out of the server's log as well.
fn statement(role: &str, password: Option<&str>) -> String {
    let verifier = password.map_or_else(
        || "NULL".to_owned(),
        |password| literal(&postgres_protocol::password::scram_sha_256(password.as_bytes())),
    );
    format!(
        "BEGIN; SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1; \
         SET LOCAL log_min_error_statement = 'panic'; ALTER ROLE {} PASSWORD {verifier}; COMMIT",
        identifier(role)
    )
}

/// The passwords of all roles that have a Secret.
///
/// # Errors
/// If one cannot be read.
pub async fn read_all(
    secrets: &Api<Secret>,
    names: &SecretNames,
    access: &Access,
) -> Result<Vec<RolePassword>, Error> {
    let application = names.application.as_ref().filter(|_| !access.owner.is_empty());
    let roles = [(access.owner.as_str(), application), (SUPERUSER, names.superuser.as_ref())];
    let mut found = Vec::new();
    for (role, name) in roles {
        let Some(name) = name else { continue };
        let (password, version) = read(secrets, name).await?;
        let version = (name.clone(), version);
        found.push(RolePassword { role: role.to_owned(), password, version });
    }
    Ok(found)
}

async fn read(secrets: &Api<Secret>, name: &str) -> Result<(String, String), Error> {
    let secret = secrets
        .get(name)
        .await
        .map_err(|source| Error::Secret { name: name.to_owned(), source })?;
    let password = secret
        .data
        .as_ref()
        .and_then(|data| data.get("password"))
        .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
        .ok_or_else(|| Error::Key { name: name.to_owned() })?;
    Ok((password, secret.metadata.resource_version.unwrap_or_default()))
}
