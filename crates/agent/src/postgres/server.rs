//! What a running server says of itself.

use std::time::Duration;

use matriarch_pg::{Lsn, TimelineId};

use super::sql::{self, Session, literal};

/// How long an observation may take: a server that does not answer by then is silent.
pub const OBSERVATION_LIMIT: Duration = Duration::from_millis(1500);
/// How long a checkpoint may take.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(3600);

/// The connection of a standby to the server that it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receiver {
    /// True while records arrive.
    pub streaming: bool,
    /// Address of the sender.
    pub host: String,
    /// Time since the sender's last message.
    pub silent: Duration,
    /// The timeline it receives.
    pub timeline: Option<TimelineId>,
}

/// The connection of a primary to one standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The standby's name of itself.
    pub application_name: String,
    /// True while it streams (and is not catching up or being backed up).
    pub streaming: bool,
    /// What it has received and flushed.
    pub flushed: Lsn,
    /// What it has replayed.
    pub replayed: Lsn,
    /// Its backend.
    pub pid: u32,
    /// True if it uses a slot, which lets nobody else in beside it.
    pub slot: bool,
    /// True while a base backup is taken, which releases no commit and reports no position.
    pub backup: bool,
}

/// A server at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// True for a standby.
    pub in_recovery: bool,
    /// The timeline that it writes or replays.
    pub timeline: Option<TimelineId>,
    /// End of what is flushed: written by a primary, received or replayed by a standby.
    pub flushed: Lsn,
    /// End of what is replayed; what is flushed, on a primary.
    pub replayed: Lsn,
    /// The hash that stands in the loaded configuration.
    pub configuration: String,
    /// The hash that stands in the loaded replication settings.
    pub replication: String,
    /// The connection to the server that it follows.
    pub receiver: Option<Receiver>,
    /// The connections of its standbys.
    pub senders: Vec<Sender>,
}

/// The marker parameters by which a reload is seen to be in force.
pub const CONFIGURATION_MARKER: &str = "matriarch.configuration_sha256";
/// See [`CONFIGURATION_MARKER`].
pub const REPLICATION_MARKER: &str = "matriarch.replication_sha256";

const STATE: &str = "SELECT pg_is_in_recovery(), \
    CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), \
        pg_last_wal_replay_lsn()) ELSE pg_current_wal_flush_lsn() END, \
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
        ELSE pg_current_wal_flush_lsn() END, \
    CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli::text FROM pg_stat_wal_receiver) \
        ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
    (SELECT timeline_id FROM pg_control_checkpoint()), \
    current_setting('matriarch.configuration_sha256', true), \
    current_setting('matriarch.replication_sha256', true)";

const RECEIVER: &str = "SELECT status, sender_host, received_tli, \
    (extract(epoch FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint \
    FROM pg_stat_wal_receiver";

const SENDERS: &str = "SELECT application_name, state, flush_lsn, replay_lsn, pid, \
    EXISTS (SELECT FROM pg_replication_slots WHERE active_pid = pg_stat_replication.pid) \
    FROM pg_stat_replication";

fn lsn(text: Option<&String>) -> Lsn {
    text.and_then(|text| text.parse().ok()).unwrap_or(Lsn::INVALID)
}

/// Looks at the server.
///
/// # Errors
/// If it does not answer.
pub async fn observe(session: &Session) -> Result<Observation, sql::Error> {
    let rows = session.rows(STATE, OBSERVATION_LIMIT).await?;
    let row = rows.first().map(Vec::as_slice).unwrap_or_default();
    let column = |index: usize| row.get(index).and_then(Option::as_ref);
    let in_recovery = column(0).is_none_or(|text| text != "f");
    let timeline =
        column(3)
            .and_then(|text| {
                if in_recovery { text.parse().ok() } else { u32::from_str_radix(text, 16).ok() }
            })
            .or_else(|| column(4).and_then(|text| text.parse().ok()))
            .and_then(TimelineId::new);
    let receiver = if in_recovery {
        let rows = session.rows(RECEIVER, OBSERVATION_LIMIT).await?;
        rows.first().map(|row| receiver(row))
    } else {
        None
    };
    let senders = session.rows(SENDERS, OBSERVATION_LIMIT).await?;
    Ok(Observation {
        in_recovery,
        timeline,
        flushed: lsn(column(1)),
        replayed: lsn(column(2)),
        configuration: column(5).cloned().unwrap_or_default(),
        replication: column(6).cloned().unwrap_or_default(),
        receiver,
        senders: senders.iter().map(|row| sender(row)).collect(),
    })
}

fn receiver(row: &[Option<String>]) -> Receiver {
    let text = |index: usize| row.get(index).and_then(Option::as_ref);
    Receiver {
        streaming: text(0).is_some_and(|status| status == "streaming"),
        host: text(1).cloned().unwrap_or_default(),
        timeline: text(2).and_then(|text| text.parse().ok()).and_then(TimelineId::new),
        silent: text(3)
            .and_then(|text| text.parse::<i64>().ok())
            .map_or(Duration::MAX, |ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
    }
}

fn sender(row: &[Option<String>]) -> Sender {
    let text = |index: usize| row.get(index).and_then(Option::as_ref);
    Sender {
        application_name: text(0).cloned().unwrap_or_default(),
        streaming: text(1).is_some_and(|state| state == "streaming"),
        flushed: lsn(text(2)),
        replayed: lsn(text(3)),
        pid: text(4).and_then(|text| text.parse().ok()).unwrap_or(0),
        slot: text(5).is_some_and(|slot| slot == "t"),
        backup: text(1).is_some_and(|state| state == "backup"),
    }
}

/// Names of the parameters that wait for a restart.
///
/// # Errors
/// If the server does not answer.
pub async fn pending_restart(session: &Session) -> Result<Vec<String>, sql::Error> {
    texts(session, "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name").await
}

/// What PostgreSQL has against the configuration files, in its own words.
///
/// # Errors
/// If the server does not answer.
pub async fn configuration_errors(session: &Session) -> Result<Vec<String>, sql::Error> {
    // Rows with neither a name nor a file are parameters that left the file and wait for a restart,
    // which `pending_restart` tells.
    let statement = format!(
        "SELECT format('%s: %s', coalesce(name, sourcefile || ' line ' || \
        sourceline), error) FROM pg_file_settings WHERE error IS NOT NULL \
        AND (name IS NOT NULL OR sourcefile IS NOT NULL) \
        AND (error <> 'setting could not be applied' OR name NOT IN \
        (SELECT name FROM pg_settings WHERE pending_restart)) \
        UNION ALL {}",
        rule_errors_statement(session).await?
    );
    texts(session, &statement).await
}

/// What PostgreSQL has against the rules in the files that lie there, loaded or not
/// (`pg_hba_file_rules`, and `pg_ident_file_mappings`, which 14 does not have).
///
/// # Errors
/// If the server does not answer.
pub async fn rule_errors(session: &Session) -> Result<Vec<String>, sql::Error> {
    let statement = rule_errors_statement(session).await?;
    texts(session, &statement).await
}

async fn rule_errors_statement(session: &Session) -> Result<String, sql::Error> {
    let version = session.value("SHOW server_version_num", OBSERVATION_LIMIT).await?;
    let maps = version.and_then(|it| it.parse::<u32>().ok()).is_some_and(|it| it >= 150_000);
    let errors = |file: &str, view: &str| {
        format!(
            "SELECT format('{file} line %s: %s', line_number, error) FROM {view} \
            WHERE error IS NOT NULL"
        )
    };
    let hba = errors("pg_hba.conf", "pg_hba_file_rules");
    if !maps {
        return Ok(hba);
    }
    Ok(format!("{hba} UNION ALL {}", errors("pg_ident.conf", "pg_ident_file_mappings")))
}

/// The only column of a statement's rows, without those that are null.
async fn texts(session: &Session, statement: &str) -> Result<Vec<String>, sql::Error> {
    let rows = session.rows(statement, OBSERVATION_LIMIT).await?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// Writes a checkpoint.
///
/// # Errors
/// If it fails.
pub async fn checkpoint(session: &Session) -> Result<(), sql::Error> {
    session.execute("CHECKPOINT", CHECKPOINT_LIMIT).await
}

/// Asks a standby to become a primary; does not wait for it.
///
/// # Errors
/// If it refuses.
pub async fn promote(session: &Session) -> Result<(), sql::Error> {
    session.execute("SELECT pg_promote(false)", OBSERVATION_LIMIT).await
}

/// Writes a WAL record and flushes it; returns the end of WAL after it. A standby that has flushed
/// that much was served by a walsender that has seen every signal sent before.
///
/// # Errors
/// If it fails.
pub async fn emit_record(session: &Session) -> Result<Lsn, sql::Error> {
    session
        .execute("SELECT pg_logical_emit_message(true, 'matriarch', '')", OBSERVATION_LIMIT)
        .await?;
    let end = session.value("SELECT pg_current_wal_flush_lsn()", OBSERVATION_LIMIT).await?;
    Ok(lsn(end.as_ref()))
}

/// Makes the physical slots `wanted` exist and drops those that begin with `prefix`, are not
/// wanted and not in use.
///
/// # Errors
/// If the server does not answer, or a slot cannot be dropped: it is left for next time, and keeps
/// none of the others back.
pub async fn keep_slots(
    session: &Session,
    prefix: &str,
    wanted: &[String],
) -> Result<(), sql::Error> {
    let statement = format!(
        "SELECT slot_name, active FROM pg_replication_slots \
         WHERE slot_type = 'physical' AND starts_with(slot_name, {})",
        literal(prefix)
    );
    let present = session.rows(&statement, OBSERVATION_LIMIT).await?;
    let name = |row: &Vec<Option<String>>| row.first().cloned().flatten().unwrap_or_default();
    for slot in wanted {
        if !present.iter().any(|row| name(row) == *slot) {
            let statement =
                format!("SELECT pg_create_physical_replication_slot({}, true)", literal(slot));
            session.execute(&statement, OBSERVATION_LIMIT).await?;
        }
    }
    let mut outcome = Ok(());
    for row in &present {
        let idle = row.get(1).is_some_and(|active| active.as_deref() == Some("f"));
        if idle && !wanted.contains(&name(row)) {
            let statement = format!("SELECT pg_drop_replication_slot({})", literal(&name(row)));
            outcome = outcome.and(session.execute(&statement, OBSERVATION_LIMIT).await);
        }
    }
    outcome
}

/// Moves a standby's copies of slots forward, each to what its owner has replayed.
///
/// # Errors
/// If the server does not answer.
pub async fn advance_slots(
    session: &Session,
    positions: &[(String, Lsn)],
) -> Result<(), sql::Error> {
    for (slot, position) in positions {
        let statement = format!(
            "SELECT pg_replication_slot_advance(slot_name, least({}::pg_lsn, \
             pg_last_wal_replay_lsn())) FROM pg_replication_slots WHERE slot_name = {} \
             AND NOT active AND restart_lsn < least({}::pg_lsn, pg_last_wal_replay_lsn())",
            literal(&position.to_string()),
            literal(slot),
            literal(&position.to_string())
        );
        session.execute(&statement, OBSERVATION_LIMIT).await?;
    }
    Ok(())
}
