//! Replication slots: what a server has, and what is done to a standby's copies.

use matriarch_plan::slots::{Slot, Step};

use super::server::{OBSERVATION_LIMIT, advance_slots};
use super::sql::{self, Session, literal};

const STATEMENT: &str = "SELECT pg_is_in_recovery(), slot_name, \
    slot_type = 'physical' AND NOT temporary, active, restart_lsn, \
    wal_status IS NOT DISTINCT FROM 'lost', xmin IS NOT NULL \
    FROM (SELECT) AS one LEFT JOIN pg_replication_slots ON true ORDER BY slot_name";

/// A slot that exists for as long as the session, while another is made anew.
const PLACEHOLDER: &str = "matriarch_released";

/// True if the server is in recovery, and all of its slots. Both in one statement, so that no
/// promotion comes between.
///
/// # Errors
/// If the server does not answer.
pub async fn read(session: &Session) -> Result<(bool, Vec<Slot>), sql::Error> {
    let rows = session.rows(STATEMENT, OBSERVATION_LIMIT).await?;
    let is = |row: &[Option<String>], index: usize| {
        row.get(index).and_then(Option::as_deref).is_some_and(|text| text == "t")
    };
    let slot = |row: &Vec<Option<String>>| {
        let name = row.get(1).cloned().flatten()?;
        Some(Slot {
            name,
            lasting_physical: is(row, 2),
            active: is(row, 3),
            restart_lsn: row.get(4).and_then(Option::as_ref).and_then(|text| text.parse().ok()),
            lost: is(row, 5),
            holds_rows: is(row, 6),
        })
    };
    // What cannot be told is a standby, whose word decides nothing.
    let in_recovery = rows.first().is_none_or(|row| !row.first().is_some_and(is_false));
    Ok((in_recovery, rows.iter().filter_map(slot).collect()))
}

fn is_false(value: &Option<String>) -> bool {
    value.as_deref() == Some("f")
}

/// Does one step to a standby's copy. On a server that has become primary, and to a slot that has
/// come into use, it does nothing.
///
/// # Errors
/// As the server says.
pub async fn carry_out(session: &Session, step: &Step) -> Result<(), sql::Error> {
    let untouched = |name: &str| {
        format!("WHERE pg_is_in_recovery() AND slot_name = {} AND NOT active", literal(name))
    };
    let statement = match step {
        Step::Create { name, reserve } => format!(
            "SELECT pg_create_physical_replication_slot({}, {reserve}) WHERE pg_is_in_recovery()",
            literal(name)
        ),
        Step::Advance { name, to } => {
            return advance_slots(session, &[(name.clone(), *to)]).await;
        }
        Step::Release { name } => return release(session, name, &untouched(name)).await,
        Step::Drop { name } => format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots {}",
            untouched(name)
        ),
    };
    session.execute(&statement, OBSERVATION_LIMIT).await
}

/// A slot's hold on rows ends only with the slot, and a copy of a slot has none. The WAL is kept by
/// another copy meanwhile; that one ends with the session if this one breaks off.
async fn release(session: &Session, name: &str, untouched: &str) -> Result<(), sql::Error> {
    let placeholder = literal(PLACEHOLDER);
    let statements = [
        format!(
            "SELECT pg_copy_physical_replication_slot(slot_name, {placeholder}, true) \
             FROM pg_replication_slots {untouched}"
        ),
        format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots {untouched}"),
        format!(
            "SELECT pg_copy_physical_replication_slot({placeholder}, {}, false)",
            literal(name)
        ),
        format!("SELECT pg_drop_replication_slot({placeholder})"),
    ];
    for statement in statements {
        if let Err(error) = session.execute(&statement, OBSERVATION_LIMIT).await {
            let statement = format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                 WHERE slot_name = {placeholder}"
            );
            // Else it goes with the session.
            let _gone = session.execute(&statement, OBSERVATION_LIMIT).await;
            return Err(error);
        }
    }
    Ok(())
}
