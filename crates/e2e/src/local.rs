//! `matriarch local` as a user runs it: the built binary with a state directory and ports of its
//! own, a client that writes all the time and checks at the end, and ways to break things.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use matriarch_local::layout::Layout;
use matriarch_local::processes::{self, Mark, Process};
use rustix::process::Signal;

use crate::turn::{self, Turn};
pub use crate::writer::{Tally, Writer};

/// One `matriarch local` with its state directory.
pub struct Machine {
    state: PathBuf,
    port: u16,
    child: Option<Child>,
    stopped: bool,
    _turn: Turn,
    output: Arc<Mutex<Vec<String>>>,
}

/// The processes of one pod.
#[derive(Clone, Debug)]
pub struct PodProcesses {
    /// The instance's name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Process 1 of the container.
    pub keeper: Process,
    /// The agent, if it runs.
    pub agent: Option<Process>,
    /// The postmaster, if it runs.
    pub postmaster: Option<Process>,
}

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// PostgreSQL's first process.
    Postmaster,
    /// The agent.
    Agent,
    /// Both.
    Both,
    /// Process 1: nothing of the container is left.
    Keeper,
}

impl Machine {
    /// A fresh state directory; nothing runs yet. Waits for its turn.
    pub fn new(name: &str, port: u16) -> anyhow::Result<Self> {
        let turn = turn::wait()?;
        let state = std::env::temp_dir().join(format!("m-{name}-{}", std::process::id()));
        ensure!(!state.exists(), "{} exists", state.display());
        Ok(Self { state, port, child: None, stopped: false, _turn: turn, output: Arc::default() })
    }

    /// The binary under test: beside the tests, or `MATRIARCH_BINARY`.
    pub fn binary() -> anyhow::Result<PathBuf> {
        if let Some(path) = std::env::var_os("MATRIARCH_BINARY") {
            return Ok(path.into());
        }
        let own = std::env::current_exe()?;
        let directory = own.parent().and_then(Path::parent).context("tests lie in a directory")?;
        let path = directory.join("matriarch");
        ensure!(path.exists(), "{} is not built: cargo build -p matriarch", path.display());
        Ok(path)
    }

    /// Starts `matriarch local up`.
    pub fn up(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let mut child = Command::new(Self::binary()?)
            .args(["local", "up", "--state"])
            .arg(&self.state)
            .args(["--port", &self.port.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        self.lines().clear();
        collect(stdout.context("stdout is piped")?, self.output.clone());
        collect(stderr.context("stderr is piped")?, self.output.clone());
        self.child = Some(child);
        self.stopped = false;
        Ok(())
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that it has printed since the last start.
    pub fn printed(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits until it has printed a line with `text`.
    pub async fn wait_for(&mut self, text: &str, limit: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            if self.lines().iter().any(|line| line.contains(text)) {
                return Ok(start.elapsed());
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("it ended ({status}) before {text:?}:\n{}", self.printed());
            }
            if start.elapsed() > limit {
                bail!("no {text:?} within {limit:?}:\n{}", self.printed());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it as Ctrl-C does and waits.
    pub async fn stop(&mut self, limit: Duration) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        let pid = i32::try_from(child.id())?;
        let process = processes::read(pid).context("it has gone")?;
        processes::signal(&process, Signal::INT);
        let start = Instant::now();
        while child.try_wait()?.is_none() {
            if start.elapsed() > limit {
                let left = self.printed();
                self.child = Some(child);
                bail!("it did not stop within {limit:?}:\n{left}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.stopped = true;
        Ok(())
    }

    /// Kills `matriarch local` and everything that it has started, at once.
    pub async fn kill_everything(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        let left = processes::kill_all(&self.mark()?, Duration::from_secs(10)).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    }

    /// Kills `matriarch local` alone.
    pub fn kill_local(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn mark(&self) -> anyhow::Result<Mark> {
        Ok(matriarch_local::up::leftovers::mark(&Layout::open(&self.state)?))
    }

    /// All processes that it has started.
    pub fn processes(&self) -> anyhow::Result<Vec<Process>> {
        Ok(processes::find(&self.mark()?)?)
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// A client of its API server, with the administrator's rights.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        // A provider that is already installed is this one.
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// libpq's connection string, as it was printed.
    pub fn connection_string(&self) -> anyhow::Result<String> {
        let printed = self.printed();
        let (_, rest) = printed.split_once("psql \"").context("no connection string printed")?;
        Ok(rest.split_once('"').context("the string has an end")?.0.to_owned())
    }

    /// What `matriarch local status` prints.
    pub fn status(&self) -> anyhow::Result<String> {
        self.verb(&["status"])
    }

    /// What a verb of `matriarch local` prints.
    pub fn verb(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(Self::binary()?);
        printed_by(command.arg("local").args(words).arg("--state").arg(&self.state))
            .with_context(|| format!("local {}", words.join(" ")))
    }

    /// What a verb of the plugin prints, given as a user gives it; the error is what it says
    /// otherwise.
    pub fn plugin(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(Self::binary()?);
        printed_by(command.args(words).env("KUBECONFIG", self.kubeconfig()))
    }

    /// Runs SQL through psql with the printed connection string.
    pub async fn sql(&self, sql: &str) -> anyhow::Result<String> {
        let string = self.connection_string()?;
        let output = tokio::process::Command::new("psql")
            .args([&string, "-XAtqc", sql])
            .env("PGCONNECT_TIMEOUT", "5")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(30), output).await??;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{sql}: {error}");
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// Waits until all three instances are there, one primary and two standbys that stream.
    pub async fn healed(&self, limit: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let ready = self.status()?.contains("3 of 3 ready");
            // The application's role may not see the standbys' states, which "ready" tells.
            let streaming = self.sql("select count(*) from pg_stat_replication").await;
            if ready && streaming.is_ok_and(|count| count == "2") {
                return Ok(());
            }
            if begun.elapsed() > limit {
                bail!("two standbys never stream:\n{}\n{}", self.printed(), self.status()?);
            }
            // Each look is two processes, which take their time from what is looked at.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The pods by their keepers.
    pub fn pods(&self) -> anyhow::Result<BTreeMap<String, PodProcesses>> {
        let all = self.processes()?;
        let mut pods = BTreeMap::new();
        for keeper in all.iter().filter(|process| verb(process) == "keeper") {
            let environment = environment(keeper.pid)?;
            let value = |name: &str| environment.get(name).cloned().unwrap_or_default();
            let children = || all.iter().filter(|process| process.parent == keeper.pid);
            let name = value("POD_NAME");
            let pod = PodProcesses {
                name: name.clone(),
                address: value("POD_IP"),
                keeper: keeper.clone(),
                agent: children().find(|process| verb(process) == "agent").cloned(),
                postmaster: children().find(|process| process.program == "postgres").cloned(),
            };
            pods.insert(name, pod);
        }
        Ok(pods)
    }

    /// Processes of the keepers that have ended and that nobody has collected.
    pub fn zombies(&self) -> anyhow::Result<Vec<i32>> {
        let keepers: BTreeSet<i32> = self.pods()?.values().map(|pod| pod.keeper.pid).collect();
        let mut zombies = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let process = processes::read(pid);
            zombies.extend(
                process.filter(|it| it.zombie && keepers.contains(&it.parent)).map(|it| it.pid),
            );
        }
        Ok(zombies)
    }

    /// The pod that accepts writes, asked through `-rw`.
    pub async fn primary(&self) -> anyhow::Result<PodProcesses> {
        let address = self.sql("select host(inet_server_addr())").await?;
        let pods = self.pods()?;
        pods.into_values()
            .find(|pod| pod.address == address)
            .with_context(|| format!("no pod has the address {address}"))
    }

    /// Sends a signal to processes of a pod.
    pub fn signal(pod: &PodProcesses, victim: Victim, signal: Signal) -> anyhow::Result<()> {
        let agent = || pod.agent.as_ref().context("no agent runs");
        let postmaster = || pod.postmaster.as_ref().context("no postmaster runs");
        match victim {
            Victim::Postmaster => processes::signal(postmaster()?, signal),
            Victim::Agent => processes::signal(agent()?, signal),
            Victim::Both => {
                processes::signal(agent()?, signal);
                processes::signal(postmaster()?, signal);
            }
            Victim::Keeper => processes::signal(&pod.keeper, signal),
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.stopped {
            eprintln!("--- matriarch local printed:\n{}", self.printed());
            eprintln!("--- what it left is in {}", self.state.display());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let Ok(mark) = self.mark() else { return };
        for _ in 0..100 {
            let Ok(left) = processes::find(&mark) else { break };
            if left.is_empty() {
                break;
            }
            for process in &left {
                processes::signal(process, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // What a failed test leaves is there to be read.
        if self.stopped {
            let _ = std::fs::remove_dir_all(&self.state);
        }
    }
}

fn collect(pipe: impl std::io::Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

/// What a program prints; the error is what it says otherwise.
fn printed_by(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", error.trim_end());
    Ok(String::from_utf8(output.stdout)?)
}

/// The verb that a process of ours was started with.
fn verb(process: &Process) -> String {
    if process.program != "matriarch" {
        return String::new();
    }
    let line = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).skip(1);
    words.next().map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default()
}

fn environment(pid: i32) -> anyhow::Result<BTreeMap<String, String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ"))?;
    Ok(bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// The repository's example manifests.
pub fn example(name: &str) -> String {
    format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Numbers acknowledged that are not in the table.
pub fn lost(acknowledged: &BTreeSet<i64>, stored: &BTreeSet<i64>) -> Vec<i64> {
    acknowledged.difference(stored).copied().collect()
}
