//! What PostgreSQL says of itself when somebody asks for the agent's status.

use std::time::Duration;

use matriarch_api::statistics::Statistics;

use super::sql::{self, Session};

/// How long it may take; the sizes of many databases are read from disk.
const LIMIT: Duration = Duration::from_secs(3);

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not answer.
    #[error("cannot ask PostgreSQL for its statistics")]
    Ask(#[source] sql::Error),
    /// It answers something else.
    #[error("cannot read PostgreSQL's statistics")]
    Read(#[source] serde_json::Error),
}

/// Asks for everything in one statement.
///
/// # Errors
/// If the server does not answer, or not so.
pub async fn read(session: &Session) -> Result<Statistics, Error> {
    let answer = session.value(STATEMENT, LIMIT).await.map_err(Error::Ask)?;
    serde_json::from_str(&answer.unwrap_or_default()).map_err(Error::Read)
}

/// On a standby `pg_walfile_name` is an error. What has no value is left out.
const STATEMENT: &str = "
SELECT json_strip_nulls(json_build_object(
    'lsn', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
           ELSE pg_current_wal_lsn() END,
    'walFile', CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END,
    'databaseBytes', (SELECT coalesce(sum(pg_database_size(oid)), 0) FROM pg_database),
    'walBytes', (SELECT coalesce(sum(size), 0) FROM pg_ls_waldir()),
    'senders', (SELECT coalesce(json_agg(json_build_object(
        'applicationName', sender.application_name,
        'state', sender.state,
        'sentLsn', sender.sent_lsn,
        'writeLsn', sender.write_lsn,
        'flushLsn', sender.flush_lsn,
        'replayLsn', sender.replay_lsn,
        'writeLag', sender.write_lag::text,
        'flushLag', sender.flush_lag::text,
        'replayLag', sender.replay_lag::text,
        'syncState', sender.sync_state,
        'syncPriority', sender.sync_priority,
        'slot', slot.slot_name) ORDER BY sender.application_name), '[]')
        FROM pg_stat_replication AS sender
        LEFT JOIN pg_replication_slots AS slot ON slot.active_pid = sender.pid),
    'slots', (SELECT coalesce(json_agg(json_build_object(
        'name', slot_name,
        'kind', slot_type,
        'active', active,
        'restartLsn', restart_lsn,
        'walStatus', wal_status,
        'safeWalBytes', safe_wal_size) ORDER BY slot_name), '[]')
        FROM pg_replication_slots)))::text";
