//! When a commit is answered.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::server::{Scratch, eventually, succeeds, waits};

const MOMENT: Duration = Duration::from_millis(700);
const INSERT: &str = "insert into t values (1)";

/// Only the WAL writer, which sleeps, flushes what nobody waits for.
const LAZY: &str = "wal_writer_delay = 10s\nwal_writer_flush_after = 1GB\n";

#[test]
fn commit_is_answered_after_its_flush() -> Result<()> {
    let scratch = Scratch::new("flush")?;
    let primary = scratch.primary(LAZY)?;
    let mut session = primary.session()?;
    let flushed = "select pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()";
    for _ in 0..20 {
        session.ask("insert into t values (1) returning n")?;
        ensure!(session.ask(flushed)? == "t");
    }
    // That the comparison can fail at all.
    session.ask("set synchronous_commit = off; select 1")?;
    let mut behind = 0;
    for _ in 0..20 {
        session.ask("insert into t values (1) returning n")?;
        behind += usize::from(session.ask(flushed)? == "f");
    }
    ensure!(behind > 0, "without waiting for the flush nothing is ever behind");
    Ok(())
}

#[test]
fn walsender_sends_only_flushed_wal() -> Result<()> {
    let scratch = Scratch::new("sent")?;
    let primary = scratch.primary(LAZY)?;
    let _standby = primary.standby("standby", "")?;
    let mut session = primary.session()?;
    session.ask("set synchronous_commit = off; select 1")?;
    let mut unflushed = 0;
    for _ in 0..30 {
        session.ask("insert into t select generate_series(1, 50) returning 1")?;
        for _ in 1..50 {
            session.ask("")?;
        }
        let row = session.ask(
            "select sent_lsn <= pg_current_wal_flush_lsn(), \
             pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn() from pg_stat_replication",
        )?;
        ensure!(row.starts_with("t|"), "sent before the flush: {row}");
        unflushed += usize::from(row == "t|t");
    }
    ensure!(unflushed > 0, "there was never anything that was not flushed");
    Ok(())
}

#[test]
fn standby_reports_only_flushed_wal() -> Result<()> {
    let scratch = Scratch::new("reported")?;
    let primary = scratch.primary("")?;
    let standby = primary.standby("standby", "")?;
    let reported = || primary.lsn("select flush_lsn from pg_stat_replication");
    let first = reported()?;
    for _ in 0..20 {
        primary.sql("insert into t select generate_series(1, 500)")?;
        let reported = reported()?;
        // Documented as "received and synced to disk".
        let flushed = standby.lsn("select pg_last_wal_receive_lsn()")?;
        ensure!(reported <= flushed, "{reported} is reported, {flushed} is flushed");
    }
    ensure!(reported()? > first, "nothing was reported");
    Ok(())
}

#[test]
fn any_m_of_n_waits_for_m_flushes() -> Result<()> {
    let scratch = Scratch::new("quorum")?;
    let primary = scratch.primary("")?;
    let _one = primary.standby("one", "")?;
    let two = primary.standby("two", "")?;
    primary.reconfigure("synchronous_standby_names = 'ANY 2 (one, two, three)'")?;
    ensure!(succeeds(&mut primary.begin(INSERT)?)?);
    let receiver = two.process_called("walreceiver")?;
    two.signal(receiver, Signal::STOP)?;
    let mut commit = primary.begin(INSERT)?;
    ensure!(waits(&mut commit, MOMENT)?, "one of two flushes is enough");
    two.signal(receiver, Signal::CONT)?;
    ensure!(succeeds(&mut commit)?);
    Ok(())
}

#[test]
fn walsenders_take_new_names_one_by_one() -> Result<()> {
    let scratch = Scratch::new("names")?;
    let primary = scratch.primary("")?;
    let one = primary.standby("one", "")?;
    let _two = primary.standby("two", "")?;
    primary.reconfigure("synchronous_standby_names = 'one'")?;
    ensure!(succeeds(&mut primary.begin(INSERT)?)?);
    one.signal(one.process_called("walreceiver")?, Signal::STOP)?;
    let mut commit = primary.begin(INSERT)?;
    ensure!(waits(&mut commit, MOMENT)?, "who is not named releases nobody");
    let senders = primary.processes_called("walsender");
    for sender in &senders {
        primary.signal(*sender, Signal::STOP)?;
    }
    primary.reconfigure("synchronous_standby_names = 'two'")?;
    ensure!(waits(&mut commit, MOMENT)?, "released before a walsender has read the new names");
    for sender in &senders {
        primary.signal(*sender, Signal::CONT)?;
    }
    ensure!(succeeds(&mut commit)?);
    Ok(())
}

#[test]
fn empty_names_release_all() -> Result<()> {
    let scratch = Scratch::new("empty")?;
    let primary = scratch.primary("")?;
    primary.reconfigure("synchronous_standby_names = 'nobody'")?;
    eventually("the names are in force", || {
        Ok(primary.sql("show synchronous_standby_names")? == "nobody")
    })?;
    let mut commits = [primary.begin(INSERT)?, primary.begin(INSERT)?];
    let checkpointer = primary.process_called("checkpointer")?;
    ensure!(waits(&mut commits[0], MOMENT)? && waits(&mut commits[1], Duration::ZERO)?);
    primary.signal(checkpointer, Signal::STOP)?;
    primary.reconfigure("synchronous_standby_names = ''")?;
    ensure!(waits(&mut commits[0], MOMENT)?, "released before the checkpointer has read them");
    primary.signal(checkpointer, Signal::CONT)?;
    for commit in &mut commits {
        ensure!(succeeds(commit)?);
    }
    Ok(())
}

#[test]
fn new_walsender_has_new_names() -> Result<()> {
    let scratch = Scratch::new("fresh")?;
    let primary = scratch.primary("")?;
    let standby = primary.standby("late", "")?;
    standby.stop("fast")?;
    primary.reconfigure("synchronous_standby_names = 'nobody'")?;
    eventually("the names are in force", || {
        Ok(primary.sql("show synchronous_standby_names")? == "nobody")
    })?;
    let mut commit = primary.begin(INSERT)?;
    ensure!(waits(&mut commit, MOMENT)?);
    primary.reconfigure("synchronous_standby_names = 'late'")?;
    ensure!(waits(&mut commit, MOMENT)?);
    standby.start()?;
    ensure!(succeeds(&mut commit)?);
    Ok(())
}
