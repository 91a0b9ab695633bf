//! Passwords of roles, from Secrets, on the primary only, as SCRAM verifiers: a clear password in a
//! statement ends up in logs and in pg_stat_statements (CVE-2026-55765).

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use matriarch_api::instance::{Access, SecretNames};
use matriarch_api::names::SUPERUSER;
use sha2::{Digest, Sha256};

use crate::postgres::sql::{self, Session, identifier, literal};

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
    /// If a Secret cannot be read or PostgreSQL refuses; the other passwords are set all the same.
    pub async fn keep(
        &mut self,
        session: &Session,
        secrets: &Api<Secret>,
        names: &SecretNames,
        access: &Access,
    ) -> Result<BTreeMap<String, String>, Error> {
        let mut versions = BTreeMap::new();
        let mut result = Ok(());
        for (role, name) in roles(names, access) {
            match self.keep_one(session, secrets, role, name).await {
                Ok(version) => _ = versions.insert(name.to_owned(), version),
                Err(error) => result = result.and(Err(error)),
            }
        }
        if names.superuser.is_none() {
            result = result.and(self.set(session, SUPERUSER, None).await);
        }
        result.map(|()| versions)
    }

    async fn keep_one(
        &mut self,
        session: &Session,
        secrets: &Api<Secret>,
        role: &str,
        name: &str,
    ) -> Result<String, Error> {
        let (password, version) = read(secrets, name).await?;
        self.set(session, role, Some(&password)).await?;
        Ok(version)
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

/// Roles whose passwords are in Secrets, with these.
fn roles<'a>(
    names: &'a SecretNames,
    access: &'a Access,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let application = names.application.as_deref().filter(|_| !access.owner.is_empty());
    [(access.owner.as_str(), application), (SUPERUSER, names.superuser.as_deref())]
        .into_iter()
        .filter_map(|(role, name)| Some((role, name?)))
}

/// What sets the passwords that can be read now; the others are told of by who keeps them all.
pub async fn statements(
    secrets: &Api<Secret>,
    names: &SecretNames,
    access: &Access,
) -> Vec<String> {
    let mut statements = Vec::new();
    for (role, name) in roles(names, access) {
        if let Ok((password, _)) = read(secrets, name).await {
            statements.push(statement(role, Some(&password)));
        }
    }
    statements
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

#[cfg(test)]
mod tests {
    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// Secrets of which there is only `app`.
    fn secrets() -> Api<Secret> {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let (code, body) = if request.uri().path().ends_with("/secrets/app") {
                let data = json!({"password": "c2VjcmV0"});
                (StatusCode::OK, json!({"metadata": {"name": "app"}, "data": data}))
            } else {
                let status = json!({"status": "Failure", "reason": "NotFound", "code": 404});
                (StatusCode::NOT_FOUND, status)
            };
            let mut response = Response::new(Body::from(body.to_string().into_bytes()));
            *response.status_mut() = code;
            Ok::<_, std::convert::Infallible>(response)
        });
        Api::default_namespaced(kube::Client::new(service, "default"))
    }

    #[tokio::test]
    async fn a_secret_that_is_not_there_keeps_no_other_password_from_being_set() {
        let names = SecretNames {
            application: Some("app".to_owned()),
            superuser: Some("superuser".to_owned()),
            ..SecretNames::default()
        };
        let access = Access { owner: "orders".to_owned(), ..Access::default() };
        let found = statements(&secrets(), &names, &access).await;
        let [only] = found.as_slice() else { panic!("{found:?}") };
        assert!(only.contains("ALTER ROLE \"orders\" PASSWORD 'SCRAM-SHA-256$"), "{only}");
    }
}
