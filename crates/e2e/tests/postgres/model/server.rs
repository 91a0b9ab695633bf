//! A PostgreSQL server of a test's own, on a socket in its own directory and on no port.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use matriarch_pg::Lsn;
use rustix::process::{Pid, Signal};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so.
pub fn eventually(what: &str, so: impl FnMut() -> Result<bool>) -> Result<()> {
    within(PATIENCE, what, so)
}

/// Waits until it is so, but not for longer than `limit`.
pub fn within(limit: Duration, what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !so()? {
        ensure!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The servers of one test; their processes are killed and their files removed at the end.
pub struct Scratch {
    path: PathBuf,
    programs: PathBuf,
    user: Option<(u32, u32)>,
}

impl Scratch {
    /// With the newest major that the machine itself has.
    pub fn new(name: &str) -> Result<Self> {
        let mut majors: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .context("PostgreSQL is not installed: run `cargo xtask setup`")?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|programs| programs.join("initdb").exists())
            .collect();
        majors.sort();
        let programs = majors.pop().context("no server: run `cargo xtask setup`")?;
        // Short: a socket's path has at most 107 bytes.
        let path = std::env::temp_dir().join(format!("mm-{name}-{}", std::process::id()));
        fs::create_dir(&path)?;
        let user = crate::user::of_servers()?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        }
        Ok(Self { path, programs, user })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.path).env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Runs one of PostgreSQL's programs to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        self.command(program).args(arguments).output().with_context(|| program.to_owned())
    }

    /// The same, and it has to succeed; what it printed, both streams.
    pub fn done(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.run(program, arguments)?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(output.status.success(), "{program} {arguments:?}: {text}");
        Ok(text)
    }

    /// Starts a program and leaves it to the caller.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().with_context(|| program.to_owned())
    }

    /// A new server that runs, with these lines of configuration.
    pub fn primary(&self, configuration: &str) -> Result<Server<'_>> {
        self.done("initdb", &["-D", "primary", "-U", "postgres", "-A", "trust", "-N"])?;
        let server = self.server("primary");
        server.configure(configuration)?;
        server.start()?;
        server.sql("create table t (n int)")?;
        Ok(server)
    }

    /// An empty directory of the servers' user.
    pub fn directory(&self, name: &str) -> Result<String> {
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        if let Some((uid, gid)) = self.user {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        }
        Ok(path.display().to_string())
    }

    /// A server on a directory of that name.
    pub fn server(&self, name: &str) -> Server<'_> {
        Server { scratch: self, name: name.to_owned(), data: self.path.join(name) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Programs such as pg_receivewal work in the scratch directory itself.
        let _ended = kill_all(&self.path);
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            // What has ended needs no signal.
            let _ended = kill_all(&entry.path());
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Processes that work in a directory.
fn processes_in(directory: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let works_there = |pid: &Pid| {
        let link = format!("/proc/{}/cwd", pid.as_raw_nonzero());
        fs::read_link(link).is_ok_and(|path| path == directory)
    };
    entries
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(works_there)
        .collect()
}

fn kill_all(directory: &Path) -> Result<()> {
    eventually("all processes end", || {
        let left = processes_in(directory);
        for pid in &left {
            // One that has just ended needs no signal.
            let _ended = rustix::process::kill_process(*pid, Signal::KILL);
        }
        Ok(left.is_empty())
    })
}

/// One server and its directory.
pub struct Server<'a> {
    scratch: &'a Scratch,
    name: String,
    pub data: PathBuf,
}

impl Server<'_> {
    /// The data directory's name below the scratch directory, and of the server for its primary.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replaces this test's lines of configuration.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let path = self.data.join("postgresql.auto.conf");
        let sockets = self.scratch.path.join(format!("{}-sockets", self.name));
        let mut text = String::from("listen_addresses = ''\nautovacuum = off\n");
        writeln!(text, "unix_socket_directories = '{}'", sockets.display())?;
        writeln!(text, "hot_standby = on\nwal_retrieve_retry_interval = 200ms\n{lines}")?;
        fs::create_dir_all(&sockets)?;
        if let Some((uid, gid)) = self.scratch.user {
            std::os::unix::fs::chown(&sockets, Some(uid), Some(gid))?;
        }
        // In place: the file stays the server's own.
        fs::write(path, text)?;
        Ok(())
    }

    /// New lines of configuration, in force at once where a reload does that.
    pub fn reconfigure(&self, lines: &str) -> Result<()> {
        self.configure(lines)?;
        self.signal(self.postmaster()?, Signal::HUP)
    }

    /// Makes commits wait for a standby that does not exist, in every new session.
    pub fn wait_for_nobody(&self) -> Result<()> {
        self.reconfigure("synchronous_standby_names = 'nobody'")?;
        eventually("the names are in force", || {
            Ok(self.sql("show synchronous_standby_names")? == "nobody")
        })
    }

    fn log(&self) -> PathBuf {
        self.scratch.path.join(format!("{}.log", self.name))
    }

    /// What it has said since it was first started.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Starts it without waiting.
    pub fn spawn(&self) -> Result<Child> {
        let log = fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = self.scratch.command("postgres");
        command.arg("-D").arg(&self.data).stdout(log.try_clone()?).stderr(log);
        Ok(command.spawn()?)
    }

    /// Tries to start it, which has to fail; what it has said.
    pub fn is_refused(&self) -> Result<String> {
        let mut child = self.spawn()?;
        ensure!(!succeeds(&mut child)?, "it ended well");
        Ok(self.said())
    }

    /// Starts it and waits until it answers.
    pub fn start(&self) -> Result<()> {
        let mut child = self.spawn()?;
        eventually("the server answers", || {
            if let Some(status) = child.try_wait()? {
                bail!("it ended, {status}: {}", self.said());
            }
            Ok(self.sql("select 1").is_ok())
        })?;
        // Somebody has to collect it when it ends.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// A standby of this server that streams, made by pg_basebackup.
    pub fn standby(&self, name: &str, configuration: &str) -> Result<Self> {
        let sockets = self.sockets();
        let arguments =
            ["-h", &sockets, "-U", "postgres", "-D", name, "-c", "fast", "-X", "stream"];
        self.scratch.done("pg_basebackup", &[&arguments[..], &["--no-sync"]].concat())?;
        let standby = Self {
            scratch: self.scratch,
            name: name.to_owned(),
            data: self.scratch.path.join(name),
        };
        standby.follow(self, configuration)?;
        standby.start()?;
        eventually("it streams", || self.streams(name))?;
        Ok(standby)
    }

    /// Writes the configuration of a standby of `primary`.
    pub fn follow(&self, primary: &Self, configuration: &str) -> Result<()> {
        fs::write(self.data.join("standby.signal"), "")?;
        let conninfo = primary.conninfo(&self.name);
        self.configure(&format!("primary_conninfo = '{conninfo}'\n{configuration}"))
    }

    /// How a standby of that name connects to it.
    pub fn conninfo(&self, standby: &str) -> String {
        format!("host={} user=postgres application_name={standby}", self.sockets())
    }

    /// Does the standby of that name stream from here.
    pub fn streams(&self, standby: &str) -> Result<bool> {
        let query = format!(
            "select count(*) from pg_stat_replication where application_name = '{standby}' \
             and state = 'streaming'"
        );
        Ok(self.sql(&query)? == "1")
    }

    /// The directory of the socket.
    pub fn sockets(&self) -> String {
        self.scratch.path.join(format!("{}-sockets", self.name)).display().to_string()
    }

    fn psql(&self) -> Command {
        let mut psql = self.scratch.command("psql");
        psql.args(["-h", &self.sockets(), "-U", "postgres", "-d", "postgres", "-XAtq"]);
        psql.args(["-v", "ON_ERROR_STOP=1"]).env("PGCONNECT_TIMEOUT", "3");
        psql
    }

    /// What a statement answers; several of them are one transaction.
    pub fn sql(&self, sql: &str) -> Result<String> {
        let output = self.psql().args(["-c", sql]).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{sql}: {error}");
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// The same, of a position.
    pub fn lsn(&self, sql: &str) -> Result<Lsn> {
        Ok(self.sql(sql)?.parse()?)
    }

    /// Sends a statement and leaves the answer to the caller.
    pub fn begin(&self, sql: &str) -> Result<Child> {
        let mut psql = self.psql();
        psql.args(["-c", sql]).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(psql.spawn()?)
    }

    /// The same of one that takes its time; its backend is at work when this returns.
    pub fn begin_busy(&self, sql: &str) -> Result<Child> {
        let count = "select count(*) from pg_stat_activity where state = 'active' \
                     and backend_type = 'client backend' and pid <> pg_backend_pid()";
        let before = self.sql(count)?;
        let child = self.begin(sql)?;
        eventually("a backend works", || Ok(self.sql(count)? != before))?;
        Ok(child)
    }

    /// A session that stays.
    pub fn session(&self) -> Result<Session> {
        let mut psql = self.psql();
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = psql.spawn()?;
        let input = child.stdin.take().context("stdin is piped")?;
        let output = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut session = Session { child, input, output };
        ensure!(session.ask("select 1")? == "1");
        Ok(session)
    }

    /// The first process.
    pub fn postmaster(&self) -> Result<Pid> {
        let text = fs::read_to_string(self.data.join("postmaster.pid"))?;
        let number = text.lines().next().context("a number")?.trim().parse()?;
        Pid::from_raw(number).context("a process has a number")
    }

    /// All processes that work in its directory.
    pub fn processes(&self) -> Vec<Pid> {
        processes_in(&self.data)
    }

    /// Its processes whose title has this text.
    pub fn processes_called(&self, title: &str) -> Vec<Pid> {
        let titled = |pid: &Pid| {
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
            line.is_ok_and(|line| String::from_utf8_lossy(&line).contains(title))
        };
        self.processes().into_iter().filter(titled).collect()
    }

    /// Its only process whose title has this text.
    pub fn process_called(&self, title: &str) -> Result<Pid> {
        let found = self.processes_called(title);
        let [one] = found.as_slice() else { bail!("{} processes are called {title}", found.len()) };
        Ok(*one)
    }

    /// Sends a signal.
    pub fn signal(&self, pid: Pid, signal: Signal) -> Result<()> {
        rustix::process::kill_process(pid, signal).with_context(|| format!("signal to {pid:?}"))
    }

    /// Kills all processes, as the loss of the container does.
    pub fn kill_all(&self) -> Result<()> {
        kill_all(&self.data)
    }

    /// Stops it in a mode of pg_ctl.
    pub fn stop(&self, mode: &str) -> Result<()> {
        self.scratch.done("pg_ctl", &["stop", "-D", &self.name, "-m", mode, "-t", "60"])?;
        Ok(())
    }

    /// Promotes it and waits.
    pub fn promote(&self) -> Result<()> {
        ensure!(self.sql("select pg_promote()")? == "t", "{}", self.said());
        Ok(())
    }

    /// A field of pg_controldata.
    pub fn control(&self, field: &str) -> Result<String> {
        let text = self.scratch.done("pg_controldata", &["-D", &self.name])?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("no {field} in {text}"))?.trim().to_owned())
    }

    /// The timeline that it writes.
    pub fn timeline(&self) -> Result<String> {
        self.sql("checkpoint")?;
        self.sql("select timeline_id from pg_control_checkpoint()")
    }
}

/// psql that stays connected.
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// The first row of the answer.
    pub fn ask(&mut self, sql: &str) -> Result<String> {
        writeln!(self.input, "{sql};")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is a statement still without an answer after that time.
pub fn waits(statement: &mut Child, time: Duration) -> Result<bool> {
    std::thread::sleep(time);
    Ok(statement.try_wait()?.is_none())
}

/// Waits for a statement's answer: was it good.
pub fn succeeds(statement: &mut Child) -> Result<bool> {
    let mut status = None;
    eventually("the statement ends", || {
        status = statement.try_wait()?;
        Ok(status.is_some())
    })?;
    Ok(status.is_some_and(|status| status.success()))
}
