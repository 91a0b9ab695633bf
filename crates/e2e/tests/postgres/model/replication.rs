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
