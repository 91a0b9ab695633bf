//! How clients reach a cluster's databases from this machine.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Secret, Service};
use kube::{Api, Client, ResourceExt};
use matriarch_api::names;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::layout::{Layout, make_directory, write_file};
use crate::proxy::HOST_ADDRESS;
use crate::up::progress::ClusterView;

/// How long PostgreSQL may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Why there is no way to connect (yet).
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The API server does not answer.
    #[error("cannot read the objects of cluster {cluster}")]
    Read {
        /// The cluster.
        cluster: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Something is not there yet.
    #[error("cluster {cluster} has no {what} yet")]
    Missing {
        /// The cluster.
        cluster: String,
        /// What is missing.
        what: &'static str,
    },
    /// The files for clients cannot be written.
    #[error("cannot write the files for clients in {path}")]
    Write {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Port of 127.0.0.1 that leads to the primary.
    pub port: u16,
    /// The application's database.
    pub database: String,
    /// Its owner.
    pub user: String,
    /// The CA that verifies the server.
    pub ca_file: PathBuf,
    /// The owner's password, as libpq reads it.
    pub password_file: PathBuf,
}

impl Access {
    /// True if a PostgreSQL answers behind the port.
    pub async fn answers(&self) -> bool {
        /// The request for TLS that opens a connection (PostgreSQL: Message Formats, SSLRequest).
        const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
        let asking = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            stream.write_all(&REQUEST).await?;
            stream.read_u8().await
        };
        matches!(timeout(ANSWER_LIMIT, asking).await, Ok(Ok(b'S')))
    }

    /// libpq's connection string; the server's certificate names localhost.
    #[must_use]
    pub fn connection_string(&self) -> String {
        format!(
            "host=localhost port={} dbname={} user={} sslmode=verify-full sslrootcert={} \
             passfile={}",
            self.port,
            self.database,
            self.user,
            self.ca_file.display(),
            self.password_file.display()
        )
    }
}

/// Collects what a client of the application's database needs, and writes the files.
pub async fn access(
    client: &Client,
    layout: &Layout,
    view: &ClusterView,
) -> Result<Access, AccessError> {
    let ClusterView { namespace, name: cluster, .. } = view;
    let read = |source| AccessError::Read { cluster: cluster.to_owned(), source: Box::new(source) };
    let missing = |what| AccessError::Missing { cluster: cluster.to_owned(), what };
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = services.get_opt(&names::service_rw(cluster)).await.map_err(read)?;
    let port = service
        .as_ref()
        .and_then(|service| service.annotations().get(HOST_ADDRESS))
        .and_then(|address| address.rsplit_once(':')?.1.parse().ok())
        .ok_or_else(|| missing("address on 127.0.0.1"))?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let app = secrets.get_opt(&view.secret).await.map_err(read)?;
    let app = app.ok_or_else(|| missing("application secret"))?;
    let user = value(&app, "username").ok_or_else(|| missing("user name"))?;
    let password = value(&app, "password").ok_or_else(|| missing("password"))?;
    let database = value(&app, "dbname").unwrap_or_else(|| view.database.clone());
    let ca = match value(&app, "ca.crt") {
        Some(ca) => ca,
        None => {
            let secret = secrets.get_opt(&names::secret_ca(cluster)).await.map_err(read)?;
            secret.and_then(|secret| value(&secret, "ca.crt")).ok_or_else(|| missing("CA"))?
        }
    };
    let directory = layout.clients().join(format!("{namespace}.{cluster}"));
    let write = |source| AccessError::Write { path: directory.clone(), source };
    make_directory(&layout.clients(), 0o700)
        .and_then(|()| make_directory(&directory, 0o700))
        .map_err(write)?;
    let ca_file = directory.join("ca.crt");
    let password_file = directory.join("pgpass");
    let line = format!("*:*:*:{}:{}\n", escape(&user), escape(&password));
    for (path, text) in [(&ca_file, &ca), (&password_file, &line)] {
        if std::fs::read_to_string(path).is_ok_and(|present| present == *text) {
            continue;
        }
        write_file(path, text.as_bytes(), 0o600).map_err(write)?;
    }
    Ok(Access { port, database, user, ca_file, password_file })
}

fn value(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone()).ok()
}

/// A field of a password file.
fn escape(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_files_escape_what_separates() {
        assert_eq!(escape(r"a:b\c"), r"a\:b\\c");
    }
}
