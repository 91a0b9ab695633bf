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
fn walreceiver_goes_on_to_a_later_timeline_by_itself() -> Result<()> {
    let scratch = Scratch::new("goes-on")?;
    let primary = scratch.primary("")?;
    let (one, two) = (primary.standby("one", "")?, primary.standby("two", "")?);
    two.stop("fast")?;
    two.follow(&one, "")?;
    two.start()?;
    eventually("two streams from one", || one.streams("two"))?;
    primary.kill_all()?;
    one.promote()?;
    one.sql("insert into t values (1)")?;
    // Nobody told it anything.
    let received = "select received_tli from pg_stat_wal_receiver";
    eventually("it is on timeline 2", || Ok(two.sql(received)? == "2"))?;
    eventually("it has the row", || Ok(two.sql("select count(*) from t")? == "1"))
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

/// A server that has seen a history file aims at its timeline; what it has is on the old one still.
#[test]
fn aim_of_recovery_is_not_its_position() -> Result<()> {
    let scratch = Scratch::new("aim")?;
    let primary = scratch.primary("")?;
    let (one, two) = (primary.standby("one", "")?, primary.standby("two", "")?);
    two.stop("fast")?;
    primary.sql("insert into t values (1)")?;
    let written = primary.lsn("select pg_current_wal_flush_lsn()")?;
    eventually("one has it", || Ok(one.lsn("select pg_last_wal_replay_lsn()")? >= written))?;
    primary.kill_all()?;
    one.promote()?;

    // It hears of the timeline, and gets no WAL: the archive gives nothing but tells what it is
    // asked for.
    let history = "pg_wal/00000002.history";
    std::fs::write(two.data.join(history), std::fs::read(one.data.join(history))?)?;
    two.configure("restore_command = 'echo %f >> asked; false'\n")?;
    two.start()?;
    let asked = || std::fs::read_to_string(two.data.join("asked")).unwrap_or_default();
    eventually("it asks for WAL of the new timeline", || {
        Ok(asked().lines().any(|file| file.len() == 24 && file.starts_with("00000002")))
    })?;
    ensure!(two.lsn("select pg_last_wal_replay_lsn()")? < written, "it has got WAL");
    let timeline = two.sql("select timeline_id from pg_control_checkpoint()")?;
    ensure!(timeline == "1", "pg_control says {timeline}");
    let newer = std::fs::read_dir(two.data.join("pg_wal"))?.flatten().any(|file| {
        let name = file.file_name();
        name.len() == 24 && name.to_string_lossy().starts_with("00000002")
    });
    ensure!(!newer, "it has WAL of the new timeline");
    Ok(())
}

/// Two that were promoted apart from one place, each with rows of its own: one streams from the
/// other, and keeps rows that the other never had.
#[test]
fn walreceiver_compares_numbers_only() -> Result<()> {
    let scratch = Scratch::new("numbers")?;
    let primary = scratch.primary("")?;
    let (one, two) = (primary.standby("one", "")?, primary.standby("two", "")?);
    primary.kill_all()?;
    one.promote()?;
    two.promote()?;
    two.sql("insert into t values (2)")?;
    two.kill_all()?;
    one.sql("insert into t select 1 from generate_series(1, 1000)")?;
    two.follow(&one, "")?;
    two.start()?;
    eventually("a walreceiver streams on the common number", || {
        Ok(two.said().lines().any(|line| {
            line.contains("started streaming WAL from primary") && line.ends_with("on timeline 2")
        }))
    })?;
    ensure!(!two.said().contains("forked off current database"), "{}", two.said());
    ensure!(two.sql("select n from t where n = 2")? == "2", "its own row is gone");
    ensure!(one.sql("select count(*) from t where n = 2")? == "0");
    Ok(())
}

/// A cut-off pg_rewind leaves pg_control as it was: nothing of PostgreSQL's tells that the files
/// are partly another server's. Whether PostgreSQL starts on them depends on where it was cut off
/// (one of four tries did); only a mark of our own keeps it from that for certain.
#[test]
fn interrupted_rewind_looks_whole() -> Result<()> {
    let hints = "wal_log_hints = on\nwal_keep_size = 4GB\n";
    let scratch = Scratch::new("cut")?;
    let primary = scratch.primary(hints)?;
    let standby = primary.standby("standby", hints)?;
    standby.promote()?;
    // Each has changed every block in its own way.
    for (server, value) in [(&primary, 1), (&standby, 2)] {
        let rows = format!("select {value} from generate_series(1, 2000000)");
        server.sql(&format!("create table large as {rows}"))?;
        server.sql("checkpoint")?;
    }
    primary.stop("fast")?;
    let before = primary.control("Latest checkpoint location")?;
    let source = format!("--source-server={} dbname=postgres", standby.conninfo("rewind"));
    let target = format!("--target-pgdata={}", primary.name());

    let refused = scratch.run("pg_rewind", &["--source-server=host=/nowhere", &target])?;
    ensure!(!refused.status.success(), "it needs no source that runs");

    let signs = || -> Result<Vec<_>> {
        let mut signs = Vec::new();
        for database in std::fs::read_dir(primary.data.join("base"))? {
            for file in std::fs::read_dir(database?.path())? {
                let file = file?;
                let metadata = file.metadata()?;
                signs.push((file.path(), metadata.len(), metadata.modified()?));
            }
        }
        signs.sort();
        Ok(signs)
    };
    let untouched = signs()?;
    let mut rewind = scratch.spawn("pg_rewind", &[&source, &target, "--no-sync"])?;
    eventually("it changes files", || {
        ensure!(rewind.try_wait()?.is_none(), "it was over before it was cut off");
        Ok(signs()? != untouched)
    })?;
    rewind.kill()?;
    ensure!(!rewind.wait()?.success(), "it was over before it was cut off");
    ensure!(primary.control("Database cluster state")? == "shut down");
    ensure!(primary.control("Latest checkpoint location")? == before);
    Ok(())
}
