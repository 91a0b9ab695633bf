//! Copies in the making, and connections that fall silent.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::server::{Scratch, eventually};

#[test]
fn interrupted_basebackup_is_not_startable() -> Result<()> {
    let scratch = Scratch::new("half")?;
    let primary = scratch.primary("")?;
    let sockets = primary.sockets();
    let arguments = ["-h", &sockets, "-U", "postgres", "-D", "copy", "-c", "fast", "-r", "1M"];
    let mut backup = scratch.spawn("pg_basebackup", &arguments)?;
    let copy = scratch.server("copy");
    eventually("something was copied", || Ok(copy.data.join("base").exists()))?;
    std::thread::sleep(Duration::from_secs(1));
    // Killed: asked to stop it would remove what it has made.
    backup.kill()?;
    ensure!(!backup.wait()?.success(), "it was over before it was cut off");
    ensure!(!copy.data.join("global/pg_control").exists(), "pg_control is no longer the last");
    copy.is_refused()?;
    Ok(())
}

#[test]
fn basebackup_of_a_standby_has_what_that_has() -> Result<()> {
    let scratch = Scratch::new("from-standby")?;
    let primary = scratch.primary("")?;
    let standby = primary.standby("standby", "")?;
    primary.sql("insert into t values (1)")?;
    let written = primary.lsn("select pg_current_wal_flush_lsn()")?;
    eventually("it has it", || Ok(standby.lsn("select pg_last_wal_replay_lsn()")? >= written))?;
    let sockets = standby.sockets();
    let arguments = ["-h", &sockets, "-U", "postgres", "-D", "copy", "-c", "fast", "-X", "stream"];
    scratch.done("pg_basebackup", &arguments)?;
    let copy = scratch.server("copy");
    copy.follow(&primary, "")?;
    copy.start()?;
    ensure!(copy.sql("select n from t")? == "1", "it has what the standby had");
    eventually("it streams from the primary", || primary.streams("copy"))
}

#[test]
fn basebackup_of_a_standby_ends_with_its_promotion() -> Result<()> {
    let scratch = Scratch::new("promoted")?;
    let primary = scratch.primary("")?;
    let standby = primary.standby("standby", "")?;
    let sockets = standby.sockets();
    let arguments = ["-h", &sockets, "-U", "postgres", "-D", "copy", "-c", "fast", "-r", "5M"];
    let mut backup = scratch.spawn("pg_basebackup", &arguments)?;
    let copy = scratch.server("copy");
    eventually("something was copied", || Ok(copy.data.join("base").exists()))?;
    primary.kill_all()?;
    standby.promote()?;
    ensure!(!backup.wait()?.success(), "it counts although the standby was promoted meanwhile");
    Ok(())
}

#[test]
fn silent_replication_ends_by_timeout() -> Result<()> {
    let scratch = Scratch::new("silent")?;
    let primary = scratch.primary("wal_sender_timeout = 3s\n")?;
    let standby = primary.standby("standby", "wal_receiver_timeout = 3s\n")?;
    let receiver = standby.process_called("walreceiver")?;
    standby.signal(receiver, Signal::STOP)?;
    let begun = Instant::now();
    eventually("the walsender ends", || Ok(primary.processes_called("walsender").is_empty()))?;
    let took = begun.elapsed();
    // It counts from the last word, which may be up to half the time-out old.
    ensure!(took > Duration::from_millis(1400) && took < Duration::from_secs(10), "{took:?}");
    standby.signal(receiver, Signal::CONT)?;
    eventually("it streams again", || primary.streams("standby"))?;

    let receiver = standby.process_called("walreceiver")?;
    let sender = primary.process_called("walsender")?;
    primary.signal(sender, Signal::STOP)?;
    let begun = Instant::now();
    eventually("another walreceiver", || {
        Ok(standby.processes_called("walreceiver").iter().all(|it| *it != receiver))
    })?;
    let took = begun.elapsed();
    ensure!(took > Duration::from_millis(1400) && took < Duration::from_secs(10), "{took:?}");
    primary.signal(sender, Signal::CONT)
}
