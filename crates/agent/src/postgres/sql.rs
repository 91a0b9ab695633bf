//! SQL, over the local socket only, with `search_path` pinned in the startup packet: a schema that
//! a user can write to must never stand before `pg_catalog` in a superuser's session
//! (CVE-2026-55769, docs of CVE-2018-1058).

use std::time::Duration;

use matriarch_api::causes::chain;
use tokio_postgres::{Client, NoTls};

use crate::options::POSTGRES_PORT;
use crate::root::Root;

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Whose search path a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchPath {
    /// Only the catalog: the agent's own statements.
    Catalog,
    /// PostgreSQL's default: statements that the user wrote.
    User,
}

/// Why SQL failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("cannot connect to PostgreSQL's local socket")]
    Connect(#[source] tokio_postgres::Error),
    /// It did not answer.
    #[error("PostgreSQL does not answer within {} ms", .0.as_millis())]
    Limit(Duration),
    /// It refused the statement.
    #[error("{}", in_its_own_words(.0))]
    Statement(tokio_postgres::Error),
}

/// PostgreSQL's message with detail and hint, or what the driver says.
fn in_its_own_words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |said| {
            let mut text = format!("{}: {}", said.severity(), said.message());
            for more in [said.detail(), said.hint()].into_iter().flatten() {
                text.push_str("; ");
                text.push_str(more);
            }
            text
        },
    )
}

impl Error {
    /// True while PostgreSQL starts, recovers or shuts down.
    #[must_use]
    pub fn is_cannot_connect_now(&self) -> bool {
        let (Self::Connect(error) | Self::Statement(error)) = self else { return false };
        error.code() == Some(&tokio_postgres::error::SqlState::CANNOT_CONNECT_NOW)
    }

    /// True if PostgreSQL answered that it does not do this. All else tells only that it is not
    /// there, or not now: nobody answers, or it starts or ends and says so (SQLSTATE 57P01 to 57P03).
    /// That is no news to whoever asks in the middle of a switchover, and who observes PostgreSQL
    /// says it.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        use tokio_postgres::error::SqlState;
        let (Self::Connect(error) | Self::Statement(error)) = self else { return false };
        error.as_db_error().is_some_and(|said| {
            ![SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW]
                .contains(said.code())
        })
    }

    /// Logs what could not be done: a refusal is a warning.
    pub fn tell(&self, what: &'static str) {
        if self.is_refusal() {
            tracing::warn!(error = chain(self), "{what}");
        } else {
            tracing::info!(error = chain(self), "{what}");
        }
    }

    /// True if PostgreSQL answered at all, if only with a refusal.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        let (Self::Connect(error) | Self::Statement(error)) = self else { return false };
        error.as_db_error().is_some()
    }
}

/// A superuser's session over the local socket. It ends when dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects to `database` as role postgres.
    ///
    /// # Errors
    /// If PostgreSQL does not answer or refuses.
    pub async fn open(root: &Root, database: &str, path: SearchPath) -> Result<Self, Error> {
        Self::open_in(&root.run(), database, path).await
    }

    /// The same over the socket in `directory`.
    ///
    /// # Errors
    /// If PostgreSQL does not answer or refuses.
    pub async fn open_in(
        directory: &std::path::Path,
        database: &str,
        path: SearchPath,
    ) -> Result<Self, Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(directory)
            .port(POSTGRES_PORT)
            .user("postgres")
            .dbname(database)
            .application_name("matriarch")
            .connect_timeout(CONNECT_LIMIT);
        match path {
            SearchPath::Catalog => {
                // A commit of the agent's own never waits for a standby.
                config.options("-c search_path=pg_catalog,pg_temp -c synchronous_commit=local")
            }
            SearchPath::User => config.options("-c search_path=\"$user\",public"),
        };
        let (client, connection) = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls))
            .await
            .map_err(|_| Error::Limit(CONNECT_LIMIT))?
            .map_err(Error::Connect)?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "session ended");
            }
        });
        Ok(Self { client, driver })
    }

    /// True once the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements without results.
    ///
    /// # Errors
    /// If PostgreSQL refuses one or takes longer than `limit`.
    pub async fn execute(&self, statements: &str, limit: Duration) -> Result<(), Error> {
        tokio::time::timeout(limit, self.client.batch_execute(statements))
            .await
            .map_err(|_| Error::Limit(limit))?
            .map_err(Error::Statement)
    }

    /// Runs one statement and returns its rows as text, null as none.
    ///
    /// # Errors
    /// If PostgreSQL refuses it or takes longer than `limit`.
    pub async fn rows(
        &self,
        statement: &str,
        limit: Duration,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        let messages = tokio::time::timeout(limit, self.client.simple_query(statement))
            .await
            .map_err(|_| Error::Limit(limit))?
            .map_err(Error::Statement)?;
        let text = |row: &tokio_postgres::SimpleQueryRow| {
            (0..row.len()).map(|index| row.get(index).map(ToOwned::to_owned)).collect()
        };
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(text(row)),
                _ => None,
            })
            .collect())
    }

    /// The first column of the first row.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn value(&self, statement: &str, limit: Duration) -> Result<Option<String>, Error> {
        let rows = self.rows(statement, limit).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }
}

/// A string as an SQL literal, whatever `standard_conforming_strings` is.
#[must_use]
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// A name as an SQL identifier.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_stay_inside() {
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
