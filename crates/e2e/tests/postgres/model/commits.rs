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
        session.ask(
            "with made as (insert into t select generate_series(1, 50) returning n) \
             select count(*) from made",
        )?;
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
    let reported = "select flush_lsn from pg_stat_replication";
    // A walsender streams before its standby has replied; until then the column is null.
    eventually("the standby replies", || Ok(!primary.sql(reported)?.is_empty()))?;
    let reported = || primary.lsn(reported);
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
    let mut commit = primary.begin_busy(INSERT)?;
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
    let mut commit = primary.begin_busy(INSERT)?;
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
fn walsenders_of_one_name_count_each() -> Result<()> {
    let scratch = Scratch::new("twice")?;
    let primary = scratch.primary("")?;
    let _one = primary.standby("one", "")?;
    primary.reconfigure("synchronous_standby_names = 'ANY 2 (one, two)'")?;
    let mut commit = primary.begin_busy(INSERT)?;
    ensure!(waits(&mut commit, MOMENT)?, "one of two is enough");
    let received = scratch.directory("received")?;
    let again = primary.conninfo("one");
    let arguments = ["-d", again.as_str(), "-D", received.as_str(), "--synchronous"];
    let mut receiver = scratch.spawn("pg_receivewal", &arguments)?;
    ensure!(succeeds(&mut commit)?, "two of one name are counted once");
    receiver.kill()?;
    receiver.wait()?;
    Ok(())
}

#[test]
fn slot_serves_one_walsender() -> Result<()> {
    let scratch = Scratch::new("slot")?;
    let primary = scratch.primary("")?;
    primary.sql("select pg_create_physical_replication_slot('one', true)")?;
    let one = primary.standby("one", "primary_slot_name = 'one'\n")?;
    // Silent, as after the loss of its machine.
    one.signal(one.process_called("walreceiver")?, Signal::STOP)?;
    let received = scratch.directory("received")?;
    let again = primary.conninfo("one");
    let arguments = ["-d", again.as_str(), "-D", received.as_str(), "-S", "one", "--no-loop"];
    let output = scratch.run("pg_receivewal", &arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("is active for PID"), "{said}");
    Ok(())
}

#[test]
fn position_is_final_without_walreceiver() -> Result<()> {
    let scratch = Scratch::new("final")?;
    let primary = scratch.primary("")?;
    let one = primary.standby("one", "")?;
    for _ in 0..5 {
        let load = "insert into t select generate_series(1, 300000)";
        let mut load = primary.begin_busy(load)?;
        one.reconfigure("primary_conninfo = ''")?;
        eventually("the walreceiver ends", || Ok(one.processes_called("walreceiver").is_empty()))?;
        let received = one.lsn("select pg_last_wal_receive_lsn()")?;
        std::thread::sleep(MOMENT);
        ensure!(one.lsn("select pg_last_wal_receive_lsn()")? == received, "it goes on receiving");
        let replayed = one.lsn("select pg_last_wal_replay_lsn()")?;
        ensure!(replayed <= received, "{replayed} is replayed, {received} was received");
        ensure!(succeeds(&mut load)?);
        one.follow(&primary, "")?;
        one.signal(one.postmaster()?, Signal::HUP)?;
        eventually("it streams", || primary.streams("one"))?;
    }
    Ok(())
}

#[test]
fn empty_names_release_all() -> Result<()> {
    let scratch = Scratch::new("empty")?;
    let primary = scratch.primary("")?;
    primary.wait_for_nobody()?;
    let mut commits = [primary.begin_busy(INSERT)?, primary.begin_busy(INSERT)?];
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
    primary.wait_for_nobody()?;
    let mut commit = primary.begin_busy(INSERT)?;
    ensure!(waits(&mut commit, MOMENT)?);
    primary.reconfigure("synchronous_standby_names = 'late'")?;
    ensure!(waits(&mut commit, MOMENT)?);
    standby.start()?;
    ensure!(succeeds(&mut commit)?);
    Ok(())
}
