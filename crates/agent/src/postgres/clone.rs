//! Cloning another instance, and the connection to one.

use std::path::Path;
use std::time::Duration;

use super::data;
use super::initdb::REPLICATION_ROLE;
use super::program::{self, Installation, Run};
use super::tablespaces;
use crate::certificates::Files;
use crate::root::Root;

/// How long a base backup may take: a day for the largest.
const CLONE_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// An instance to connect to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Source {
    /// Its name, which its certificate must bear.
    pub name: String,
    /// Its pod's address, never that of a Service (traps H13).
    pub host: String,
    /// PostgreSQL's port there.
    pub port: u16,
}

impl Source {
    /// The libpq connection string, without a database.
    ///
    /// The name is only verified, never resolved: the address is given beside it.
    #[must_use]
    pub fn connection_string(&self, root: &Root, application_name: &str) -> String {
        let files = Files::new(root);
        let parts: [(&str, String); 14] = [
            ("host", self.name.clone()),
            ("hostaddr", self.host.clone()),
            ("port", self.port.to_string()),
            ("user", REPLICATION_ROLE.to_owned()),
            ("application_name", application_name.to_owned()),
            ("sslmode", "verify-full".to_owned()),
            ("sslrootcert", path_text(&files.server_ca())),
            ("sslcert", path_text(&files.replication_certificate())),
            ("sslkey", path_text(&files.replication_key())),
            ("connect_timeout", "5".to_owned()),
            // Who only waits for the other end sends nothing that could be acknowledged, and asks
            // after two hours if not told otherwise: a pg_rewind whose source's node was cut off
            // stood still, and the former primary with it (the bench of a cut node).
            ("keepalives_idle", "5".to_owned()),
            ("keepalives_interval", "2".to_owned()),
            ("tcp_user_timeout", "5000".to_owned()),
            ("gssencmode", "disable".to_owned()),
        ];
        parts
            .iter()
            .map(|(name, value)| format!("{name}={}", quote(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A value in a libpq connection string.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Why there is no clone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume.
    #[error("cannot prepare the data volume")]
    Volume(#[source] data::Error),
    /// pg_basebackup.
    #[error("cannot clone")]
    Backup(#[source] program::Error),
}

/// Copies `source` into the directory in the making. If the future is dropped, the copy ends.
///
/// `theirs` is the root of the source's pod, below which it has its tablespaces: on Kubernetes it is
/// everybody's.
///
/// # Errors
/// If the copy fails; then nothing of it is taken for data.
pub async fn make(
    root: &Root,
    installation: &Installation,
    source: &Source,
    theirs: &Root,
    application_name: &str,
) -> Result<(), Error> {
    let directory = data::begin(root).map_err(Error::Volume)?;
    let mut run = Run::new(installation.program("pg_basebackup"), CLONE_LIMIT)
        .arg("--pgdata")
        .arg(directory)
        .args(["--wal-method=stream", "--checkpoint=fast", "--no-password"])
        .arg("--dbname")
        .arg(source.connection_string(root, application_name));
    if let Some(wal) = data::wal_directory(root) {
        run = run.arg("--waldir").arg(wal);
    }
    for name in tablespaces::mounted(root) {
        let (there, here) = (theirs.tablespace(&name), root.tablespace_in_making(&name));
        run = run.arg(format!("--tablespace-mapping={}={}", there.display(), here.display()));
    }
    run.run().await.map(|_| ()).map_err(Error::Backup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_verified_by_its_name_and_reached_by_its_address() {
        let source = Source { name: "c-1".to_owned(), host: "10.0.0.7".to_owned(), port: 5432 };
        let text = source.connection_string(&Root::new("/o'dd"), "me");
        assert!(text.starts_with("host='c-1' hostaddr='10.0.0.7' port='5432'"), "{text}");
        assert!(text.contains("keepalives_idle='5'"), "{text}");
        assert!(text.contains("sslmode='verify-full'") && text.contains("/o\\'dd/"), "{text}");
    }
}
