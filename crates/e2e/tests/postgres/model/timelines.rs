//! Timelines: how they get their numbers, and who may follow whom.

use anyhow::{Result, ensure};

use super::server::{Scratch, eventually};

#[test]
fn start_without_signal_keeps_the_number() -> Result<()> {
    let scratch = Scratch::new("signal")?;
    let primary = scratch.primary("")?;
    let standby = primary.standby("standby", "")?;
    standby.stop("fast")?;
    std::fs::remove_file(standby.data.join("standby.signal"))?;
    standby.start()?;
    standby.sql("insert into t values (1)")?;
    primary.sql("insert into t values (2)")?;
    ensure!(standby.timeline()? == "1" && primary.timeline()? == "1");
    Ok(())
}

#[test]
fn promotion_counts_placeholder_histories() -> Result<()> {
    let scratch = Scratch::new("placeholder")?;
    let primary = scratch.primary("")?;
    let standby = primary.standby("standby", "")?;
    for number in 2..=4 {
        let file = standby.data.join(format!("pg_wal/{number:08X}.history"));
        std::fs::write(file, "1\t0/FF000000\tplaceholder\n")?;
    }
    standby.promote()?;
    ensure!(standby.timeline()? == "5", "{}", standby.timeline()?);
    Ok(())
}

#[test]
fn two_promotions_take_the_same_number() -> Result<()> {
    let scratch = Scratch::new("same")?;
    let primary = scratch.primary("")?;
    let (one, two) = (primary.standby("one", "")?, primary.standby("two", "")?);
    primary.kill_all()?;
    one.promote()?;
    two.promote()?;
    ensure!(one.timeline()? == "2" && two.timeline()? == "2");
    Ok(())
}

#[test]
fn standby_beyond_the_fork_is_refused() -> Result<()> {
    let scratch = Scratch::new("fork")?;
    let primary = scratch.primary("")?;
    let (one, two) = (primary.standby("one", "")?, primary.standby("two", "")?);
    one.stop("fast")?;
    primary.sql("insert into t select generate_series(1, 1000)")?;
    let written = primary.lsn("select pg_current_wal_flush_lsn()")?;
    eventually("two has it", || Ok(two.lsn("select pg_last_wal_replay_lsn()")? >= written))?;
    primary.kill_all()?;
    one.start()?;
    one.promote()?;
    two.stop("fast")?;
    two.follow(&one, "")?;
    two.start()?;
    eventually("it is told", || Ok(two.said().contains("forked off current database")))?;
    ensure!(!one.streams("two")?);
    ensure!(two.sql("select count(*) from t")? == "1000", "what it has is gone");
    Ok(())
}

#[test]
fn rewind_between_equal_numbers_does_nothing() -> Result<()> {
    let scratch = Scratch::new("rewind")?;
    let primary = scratch.primary("wal_log_hints = on\n")?;
    let hints = "wal_log_hints = on\n";
    let (one, two) = (primary.standby("one", hints)?, primary.standby("two", hints)?);
    primary.kill_all()?;
    for (server, value) in [(&one, 1), (&two, 2)] {
        server.promote()?;
        server.sql(&format!("insert into t values ({value}); checkpoint"))?;
        server.stop("fast")?;
    }
    let source = format!("--source-pgdata={}", one.name());
    let target = format!("--target-pgdata={}", two.name());
    let said = scratch.done("pg_rewind", &[&source, &target])?;
    ensure!(said.contains("no rewind required"), "{said}");
    two.start()?;
    ensure!(two.sql("select n from t")? == "2", "the content is the other's");
    Ok(())
}
