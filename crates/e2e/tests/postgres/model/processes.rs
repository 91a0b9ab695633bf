//! What outlives what: postmasters, backends, directories.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::server::{Scratch, eventually, succeeds, waits, within};

/// Busy for two seconds without waiting for anything, then the commit.
const BUSY_INSERT: &str = "insert into t values (42); do $$ declare until timestamptz := \
    clock_timestamp() + interval '2 s'; begin while clock_timestamp() < until loop end loop; end $$";

#[test]
fn backend_outlives_its_postmaster() -> Result<()> {
    let scratch = Scratch::new("outlives")?;
    let primary = scratch.primary("")?;
    let mut commit = primary.begin_busy(BUSY_INSERT)?;
    ensure!(waits(&mut commit, Duration::from_millis(500))?);
    primary.signal(primary.postmaster()?, Signal::KILL)?;
    ensure!(succeeds(&mut commit)?, "the commit is not answered");
    eventually("the rest ends", || Ok(primary.processes().is_empty()))?;
    primary.start()?;
    ensure!(primary.sql("select n from t")? == "42");
    Ok(())
}

#[test]
fn waiting_backend_gives_up_without_postmaster() -> Result<()> {
    let scratch = Scratch::new("gives-up")?;
    let primary = scratch.primary("")?;
    primary.wait_for_nobody()?;
    let mut commit = primary.begin_busy("insert into t values (1)")?;
    ensure!(waits(&mut commit, Duration::from_millis(500))?);
    primary.signal(primary.postmaster()?, Signal::KILL)?;
    ensure!(!succeeds(&mut commit)?, "it answers \"committed\"");
    Ok(())
}

#[test]
fn replication_ends_with_the_postmaster() -> Result<()> {
    let scratch = Scratch::new("ends")?;
    let primary = scratch.primary("")?;
    let one = primary.standby("one", "")?;
    ensure!(!primary.processes_called("walsender").is_empty());
    one.signal(one.postmaster()?, Signal::KILL)?;
    let second = Duration::from_secs(2);
    within(second, "the walreceiver ends", || Ok(one.processes_called("walreceiver").is_empty()))?;
    eventually("the rest ends", || Ok(one.processes().is_empty()))?;
    one.start()?;
    eventually("it streams again", || primary.streams("one"))?;
    primary.signal(primary.postmaster()?, Signal::KILL)?;
    within(second, "the walsender ends", || Ok(primary.processes_called("walsender").is_empty()))
}

#[test]
fn start_is_refused_beside_old_processes() -> Result<()> {
    let scratch = Scratch::new("beside")?;
    let primary = scratch.primary("")?;
    let mut commit = primary.begin_busy(BUSY_INSERT)?;
    ensure!(waits(&mut commit, Duration::from_millis(500))?);
    primary.signal(primary.postmaster()?, Signal::KILL)?;
    let said = primary.is_refused()?;
    ensure!(said.contains("pre-existing shared memory block"), "{said}");
    ensure!(succeeds(&mut commit)?);
    eventually("the rest ends", || Ok(primary.processes().is_empty()))?;
    primary.start()
}

#[test]
fn written_wal_survives_kill_of_all() -> Result<()> {
    let scratch = Scratch::new("survives")?;
    let primary = scratch.primary("")?;
    for value in 0..5 {
        primary.sql(&format!("insert into t values ({value})"))?;
        primary.kill_all()?;
        primary.start()?;
        ensure!(primary.sql("select count(*) from t")? == (value + 1).to_string());
    }
    Ok(())
}

#[test]
fn crash_recovery_keeps_the_timeline() -> Result<()> {
    let scratch = Scratch::new("recovery")?;
    let primary = scratch.primary("")?;
    primary.sql("insert into t values (1)")?;
    let before = primary.lsn("select pg_current_wal_insert_lsn()")?;
    primary.kill_all()?;
    primary.start()?;
    ensure!(primary.timeline()? == "1");
    ensure!(primary.lsn("select pg_current_wal_insert_lsn()")? >= before);
    Ok(())
}

#[test]
fn fast_shutdown_waits_for_standbys() -> Result<()> {
    let scratch = Scratch::new("fast")?;
    let primary = scratch.primary("")?;
    let standby = primary.standby("standby", "")?;
    let receiver = standby.process_called("walreceiver")?;
    standby.signal(receiver, Signal::STOP)?;
    primary.sql("insert into t values (1)")?;
    let mut session = primary.session()?;
    primary.signal(primary.postmaster()?, Signal::INT)?;
    eventually("sessions end", || Ok(session.ask("select 1").map_or(true, |it| it.is_empty())))?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(!primary.processes().is_empty(), "it does not wait for the standby");
    standby.signal(receiver, Signal::CONT)?;
    eventually("it ends", || Ok(primary.processes().is_empty()))?;
    ensure!(primary.control("Database cluster state")? == "shut down");
    let checkpoint = primary.control("Latest checkpoint location")?.parse()?;
    ensure!(standby.lsn("select pg_last_wal_receive_lsn()")? > checkpoint);
    Ok(())
}

#[test]
fn immediate_shutdown_leaves_no_checkpoint() -> Result<()> {
    let scratch = Scratch::new("quit")?;
    let primary = scratch.primary("")?;
    let postmaster = primary.postmaster()?;
    primary.signal(postmaster, Signal::STOP)?;
    primary.signal(postmaster, Signal::QUIT)?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(primary.processes().len() > 1, "a stopped postmaster has obeyed");
    primary.signal(postmaster, Signal::CONT)?;
    eventually("it ends", || Ok(primary.processes().is_empty()))?;
    ensure!(primary.control("Database cluster state")? == "in production");
    Ok(())
}

#[test]
fn backends_go_on_without_the_postmaster() -> Result<()> {
    let scratch = Scratch::new("frozen")?;
    let primary = scratch.primary("")?;
    let mut session = primary.session()?;
    let postmaster = primary.postmaster()?;
    primary.signal(postmaster, Signal::STOP)?;
    ensure!(session.ask("insert into t values (7) returning n")? == "7");
    let mut newcomer = primary.begin("select 1")?;
    ensure!(waits(&mut newcomer, Duration::from_secs(1))?, "a new connection is served");
    primary.signal(postmaster, Signal::CONT)?;
    ensure!(succeeds(&mut newcomer)?);
    Ok(())
}
