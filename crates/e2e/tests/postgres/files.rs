//! What `matriarch-pg` reads, against files that real PostgreSQL servers wrote: every major that
//! is installed, at least one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use matriarch_pg::control::{ControlData, FILE_SIZE};
use matriarch_pg::wal::{RecordAt, SegmentName, WalBytes, WalEnd, WalFileName};
use matriarch_pg::{Lsn, Major, SegmentSize, TimelineId, Version};

/// Installed servers: the directory of the programs of each major found.
fn installed() -> Vec<(Major, PathBuf)> {
    let cache = std::env::var_os("MATRIARCH_POSTGRESQL_CACHE").map(PathBuf::from);
    let roots = [Some(PathBuf::from("/usr/lib/postgresql")), cache];
    let mut found: BTreeMap<Major, PathBuf> = BTreeMap::new();
    for root in roots.into_iter().flatten() {
        for major in Major::ALL {
            let programs = root.join(major.to_string()).join("bin");
            if programs.join("initdb").exists() && programs.join("pg_waldump").exists() {
                found.entry(major).or_insert(programs);
            }
        }
    }
    found.into_iter().collect()
}

/// A directory that the server's user owns; removed at the end.
struct Scratch {
    path: PathBuf,
    user: Option<(u32, u32)>,
}

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("matriarch-{name}-{}", std::process::id()));
        fs::create_dir(&path)?;
        let user = crate::user::of_servers()?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        }
        Ok(Self { path, user })
    }

    /// Runs a program as the server's user, without locale and with an end of its own.
    fn run(&self, program: &Path, args: &[&str]) -> Result<Output> {
        let mut command = Command::new("timeout");
        command.arg("120").arg(program).args(args);
        command.current_dir(&self.path).env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.output().with_context(|| format!("cannot run {}", program.display()))
    }

    fn text(&self, program: &Path, args: &[&str]) -> Result<String> {
        let output = self.run(program, args)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{} {args:?}: {error}", program.display());
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left in the system's temporary directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A data directory fresh from initdb.
struct Cluster {
    scratch: Scratch,
    programs: PathBuf,
    data: PathBuf,
}

impl Cluster {
    fn new(name: &str, major: Major, programs: &Path, mebibytes: u32) -> Result<Self> {
        let scratch = Scratch::new(&format!("{name}-{major}"))?;
        let data = scratch.path.join("data");
        let size = format!("--wal-segsize={mebibytes}");
        let args = ["-D", "data", "-U", "postgres", "-A", "peer", "--data-checksums", "-N"];
        let args = args.iter().copied().chain([size.as_str()]).collect::<Vec<_>>();
        scratch.text(&programs.join("initdb"), &args)?;
        Ok(Self { scratch, programs: programs.to_owned(), data })
    }

    fn control(&self) -> Result<ControlData> {
        let bytes = fs::read(self.data.join("global/pg_control"))?;
        ensure!(bytes.len() == FILE_SIZE);
        Ok(ControlData::parse(&bytes)?)
    }

    fn controldata(&self) -> Result<BTreeMap<String, String>> {
        let text = self.scratch.text(&self.programs.join("pg_controldata"), &["-D", "data"])?;
        let line = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        };
        Ok(text.lines().filter_map(line).collect())
    }

    fn sql(&self, statements: &str) -> Result<()> {
        // A server without postmaster: it reads statements, one a line, and stops at their end.
        let input = self.scratch.path.join("statements");
        fs::write(&input, statements)?;
        let shell =
            format!("{}/postgres --single -D data postgres < statements", self.programs.display());
        let output = self.scratch.text(Path::new("/bin/sh"), &["-c", &shell])?;
        ensure!(!output.contains("ERROR"), "{output}");
        Ok(())
    }

    /// All segments that follow each other, oldest first.
    fn segments(&self, size: SegmentSize) -> Result<(Lsn, Vec<u8>)> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.data.join("pg_wal"))? {
            let name = entry?.file_name();
            if let Ok(WalFileName::Segment(name)) = name.to_string_lossy().parse() {
                names.push(name);
            }
        }
        names.sort();
        let first: SegmentName = *names.first().context("there is no segment")?;
        let mut bytes = Vec::new();
        let mut expected = Some(first);
        for name in names {
            ensure!(Some(name) == expected, "segments do not follow each other");
            bytes.extend(fs::read(self.data.join("pg_wal").join(name.to_string()))?);
            expected = name.next(size);
        }
        Ok((first.start(size).context("segment of another size")?, bytes))
    }
}

fn each_major(test: impl Fn(Major, &Path) -> Result<()>) -> Result<()> {
    let servers = installed();
    ensure!(!servers.is_empty(), "no PostgreSQL is installed below /usr/lib/postgresql");
    for (major, programs) in servers {
        test(major, &programs).with_context(|| format!("PostgreSQL {major}"))?;
        println!("PostgreSQL {major}: compared");
    }
    Ok(())
}

#[test]
fn the_control_file_says_what_pg_controldata_says() -> Result<()> {
    each_major(|major, programs| {
        let cluster = Cluster::new("control", major, programs, 1)?;
        let said = cluster.controldata()?;
        let read = cluster.control()?;
        let timeline = |timeline: Option<TimelineId>| timeline.map_or(0, TimelineId::get);
        let on = |flag: bool| if flag { "on" } else { "off" }.to_owned();
        let floor = read.floor;
        for (name, value) in [
            ("Catalog version number", read.catalog_version.to_string()),
            ("Database system identifier", read.system_id.to_string()),
            ("Database cluster state", read.state.words().to_owned()),
            ("Latest checkpoint location", read.checkpoint.to_string()),
            ("Latest checkpoint's REDO location", read.redo.to_string()),
            ("Latest checkpoint's TimeLineID", read.checkpoint_timeline.to_string()),
            ("Latest checkpoint's PrevTimeLineID", read.previous_timeline.to_string()),
            ("Latest checkpoint's full_page_writes", on(read.full_page_writes)),
            ("Minimum recovery ending location", read.min_recovery_point.to_string()),
            (
                "Min recovery ending loc's timeline",
                timeline(read.min_recovery_timeline).to_string(),
            ),
            ("Backup start location", read.backup_start.to_string()),
            ("Backup end location", read.backup_end.to_string()),
            (
                "End-of-backup record required",
                if read.backup_end_required { "yes" } else { "no" }.to_owned(),
            ),
            ("wal_level setting", format!("{:?}", read.wal_level).to_lowercase()),
            ("wal_log_hints setting", on(read.wal_log_hints)),
            ("max_connections setting", floor.max_connections.to_string()),
            ("max_worker_processes setting", floor.max_worker_processes.to_string()),
            ("max_wal_senders setting", floor.max_wal_senders.to_string()),
            ("max_prepared_xacts setting", floor.max_prepared_transactions.to_string()),
            ("max_locks_per_xact setting", floor.max_locks_per_transaction.to_string()),
            ("track_commit_timestamp setting", on(read.track_commit_timestamp)),
            ("Database block size", read.page_size.to_string()),
            ("WAL block size", read.wal_page_size.bytes().to_string()),
            ("Bytes per WAL segment", read.segment_size.bytes().to_string()),
            ("Data page checksum version", u8::from(read.data_checksums).to_string()),
        ] {
            let expected = said.get(name).with_context(|| format!("no line {name:?}"))?;
            ensure!(*expected == value, "{name}: pg_controldata {expected:?}, ours {value:?}");
        }
        ensure!(read.major == major);
        let version = cluster.scratch.text(&programs.join("postgres"), &["--version"])?;
        ensure!(version.parse::<Version>()?.major == major);
        let file = fs::read_to_string(cluster.data.join("PG_VERSION"))?;
        ensure!(file.parse::<Major>()? == major);
        Ok(())
    })
}

/// Start, length and back-link of each record, as pg_waldump prints them.
fn dumped(cluster: &Cluster, start: Lsn) -> Result<Vec<(Lsn, u32, Lsn)>> {
    let from = start.to_string();
    let program = cluster.programs.join("pg_waldump");
    // It ends with an error where the log ends: that is its way to say so.
    let output = cluster.scratch.run(&program, &["-p", "data/pg_wal", "-s", &from])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut records = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("rmgr:")) {
        let field = |name: &str, end: &str| -> Result<String> {
            let rest = line.split_once(name).context("field is missing")?.1;
            Ok(rest.split(end).next().unwrap_or_default().trim().to_owned())
        };
        let length = line
            .split_once("len (rec/tot):")
            .and_then(|(_, rest)| rest.split_once('/'))
            .map(|(_, rest)| rest.trim_start())
            .and_then(|rest| rest.split(',').next())
            .context("no length")?;
        let (lsn, prev) = (field("lsn: ", ",")?, field("prev ", ",")?);
        records.push((lsn.parse()?, length.trim().parse()?, prev.parse()?));
    }
    ensure!(!records.is_empty(), "pg_waldump printed no record: {output:?}");
    Ok(records)
}

#[test]
fn the_log_ends_where_pg_waldump_says_and_every_record_is_found() -> Result<()> {
    each_major(|major, programs| {
        // Segments of 1 MiB, so that records cross pages and segments, and one is switched.
        let cluster = Cluster::new("wal", major, programs, 1)?;
        cluster.sql(
            "create table t as select g, repeat(md5(g::text), 40) from generate_series(1, 3000) g\n\
             select pg_switch_wal()\n\
             insert into t select g, repeat(md5(g::text), 400) from generate_series(1, 300) g\n",
        )?;
        let control = cluster.control()?;
        let (start, bytes) = cluster.segments(control.segment_size)?;
        let layout = control.wal_layout(control.checkpoint_timeline);
        let wal = WalBytes { start, bytes: &bytes, layout };
        let records = dumped(&cluster, start)?;
        for (index, (lsn, length, previous)) in records.iter().enumerate() {
            match wal.record_at(*lsn, None) {
                RecordAt::Valid(found) => {
                    ensure!(
                        (found.start, found.length, found.previous) == (*lsn, *length, *previous),
                        "{lsn}: {found:?}"
                    );
                    // Where one ends, the next begins; a page's start counts as its first record.
                    if let Some((next, ..)) = records.get(index + 1) {
                        let at_end = wal.record_at(found.end, Some(*lsn));
                        let fits = matches!(at_end, RecordAt::Valid(at) if at.start == *next);
                        ensure!(fits, "after {lsn} at {}: {at_end:?}", found.end);
                    }
                }
                other => bail!("{lsn}: {other:?}"),
            }
        }
        let (last, ..) = *records.last().context("no record")?;
        ensure!(last == control.checkpoint, "the last record is the shutdown checkpoint");
        let RecordAt::Valid(last) = wal.record_at(last, None) else { bail!("no last record") };
        match wal.end() {
            WalEnd::At { end, .. } | WalEnd::NeedsMore { end, .. } => ensure!(end == last.end),
            WalEnd::NoStart(why) => bail!("no start: {why:?}"),
        }
        println!("PostgreSQL {major}: {} records over {} bytes", records.len(), bytes.len());

        // A standby that has everything but the last record has not everything.
        ensure!(matches!(wal.record_at(last.start, None), RecordAt::Valid(_)));
        ensure!(matches!(wal.record_at(last.end, Some(last.start)), RecordAt::None(_)));
        Ok(())
    })
}
