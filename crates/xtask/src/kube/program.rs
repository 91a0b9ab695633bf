//! Programs that run on the cluster's machines until they are stopped.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cgroup::Hierarchies;
use super::cluster::{self, Cluster, Machine};

/// Enters the control group that is its first argument, and becomes the program.
const ONCE: &str = r#"echo $$ > "$0" && exec "$@""#;
/// Enters it, and starts the program whenever it has ended.
const AGAIN: &str = r#"echo $$ > "$0" || exit
while :; do
    "$@"
    echo "ended with status $?, is started again" >&2
    sleep 1
done"#;

/// A program on a machine, running or not.
pub struct Program<'a> {
    cluster: &'a Cluster,
    hierarchies: &'a Hierarchies,
    machine: Machine,
    name: &'a str,
}

impl<'a> Program<'a> {
    /// The program of that name on that machine.
    pub fn new(
        cluster: &'a Cluster,
        hierarchies: &'a Hierarchies,
        machine: Machine,
        name: &'a str,
    ) -> Self {
        Self { cluster, hierarchies, machine, name }
    }

    /// Its process, if it runs: recorded at its start, and still in its control group, so that no
    /// other process that got the number is taken for it.
    pub fn process(&self) -> Option<u32> {
        let text = fs::read_to_string(self.process_file()).ok()?;
        let process = text.trim().parse().ok()?;
        let all = self.hierarchies.processes_of_program(self.machine, self.name);
        all.contains(&process).then_some(process)
    }

    /// Starts `line`, unless it runs, and again whenever it ends: as on any node.
    pub fn start(&self, line: &[OsString]) -> Result<()> {
        self.start_by(AGAIN, line)
    }

    /// Starts `line`, unless it runs; when it ends, it has ended.
    pub fn start_once(&self, line: &[OsString]) -> Result<()> {
        self.start_by(ONCE, line)
    }

    fn start_by(&self, script: &str, line: &[OsString]) -> Result<()> {
        if self.process().is_some() {
            return Ok(());
        }
        let group = self.hierarchies.make_for_program(self.machine, self.name)?;
        let log = self.log();
        cluster::make(log.parent().unwrap_or(&log))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", script]).arg(group).args(line);
        let errors = log.try_clone().context("cannot open the log twice")?;
        command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        cluster::write(&self.process_file(), &child.id().to_string())
    }

    /// Ends it, with what it started.
    pub fn kill(&self) -> Result<()> {
        self.hierarchies.kill_program(self.machine, self.name)
    }

    /// Waits until `done`, at most `limit`; on failure the end of its log is in the error.
    pub fn wait(&self, what: &str, limit: Duration, done: impl Fn() -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        while !done() {
            // A moment after its start it has not yet entered its group.
            let young = Instant::now() + limit < end + Duration::from_secs(1);
            let ended = !young && self.process().is_none();
            if ended || Instant::now() > end {
                let why = if ended {
                    "it has ended".to_owned()
                } else {
                    format!("not within {} s", limit.as_secs())
                };
                bail!(
                    "{} on {}: {what}: {why}. The end of {}:\n{}",
                    self.name,
                    self.machine.name(),
                    self.log().display(),
                    tail(&self.log(), 15)
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.cluster.log(self.machine, self.name)
    }

    fn process_file(&self) -> PathBuf {
        let file = format!("{}-{}.pid", self.machine.name(), self.name);
        self.cluster.directory.join("processes").join(file)
    }
}

/// The last lines of a log.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last = all[all.len().saturating_sub(lines)..].iter();
    last.map(|line| format!("  {}\n", line.chars().take(300).collect::<String>())).collect()
}

/// A command line of words of several types.
#[macro_export]
macro_rules! line {
    ($($word:expr),* $(,)?) => { vec![$(std::ffi::OsString::from($word)),*] };
}
