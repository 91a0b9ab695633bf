//! The outage that a client of `-rw` sees, event by event, and where its time goes.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use matriarch_e2e::budget::{self, Budget, Part};
use matriarch_e2e::local::{Machine, Victim, Writer, example};
use rustix::process::{Pid, Signal};
use tokio::time::sleep;

use crate::figures::{Spread, memory, millis, seconds};
use crate::load::Load;
use crate::pauses::Pauses;

const READY: Duration = Duration::from_secs(180);
/// So long it writes before the event, so that what is measured is a steady state.
const BEFORE: Duration = Duration::from_secs(2);
/// So long it is watched afterwards, at least.
const AFTER: Duration = Duration::from_secs(4);
const PORT: u16 = 18432;

/// What is measured, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// On this machine, without Kubernetes.
    #[arg(long, required = true)]
    local: bool,
    /// Runs of each event.
    #[arg(long, default_value_t = 10)]
    runs: u32,
    /// Clusters that are made to see how long that takes.
    #[arg(long, default_value_t = 10)]
    clusters: u32,
    /// Transactions a second of pgbench in the runs under load.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Only the events whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// The manifest.
    #[arg(long, default_value = "cluster.yaml")]
    manifest: String,
}

/// What happens to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    PostmasterKilled,
    PodDeleted,
    PodForceDeleted,
    Switchover,
    OperatorStopped,
}

impl Event {
    const ALL: [Self; 5] = [
        Self::PostmasterKilled,
        Self::PodDeleted,
        Self::PodForceDeleted,
        Self::Switchover,
        Self::OperatorStopped,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::PostmasterKilled => "postmaster killed",
            Self::PodDeleted => "pod deleted",
            Self::PodForceDeleted => "pod force-deleted",
            Self::Switchover => "switchover",
            Self::OperatorStopped => "operator stopped, postmaster killed",
        }
    }

    /// What the design wants of the slowest run.
    fn goal(self) -> Duration {
        match self {
            Self::PostmasterKilled | Self::Switchover | Self::OperatorStopped => {
                Duration::from_secs(1)
            }
            Self::PodDeleted | Self::PodForceDeleted => Duration::from_secs(2),
        }
    }
}

/// What one run found.
struct Run {
    gap: Duration,
    /// For how long of it the machine itself stood still.
    paused: Duration,
    /// Rows acknowledged that are gone: none in synchronous mode, counted in asynchronous mode.
    lost: usize,
    budget: Budget,
}

/// The cluster under test, its operator a process of its own, as on Kubernetes.
struct Bench {
    machine: Machine,
    operator: Option<Child>,
    pauses: Pauses,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            let _ = operator.kill();
            let _ = operator.wait();
        }
    }
}

/// Runs all and prints the tables.
///
/// # Errors
/// If the cluster does not come up or does not heal.
pub async fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.local, "only --local is there yet");
    let manifest = example(&arguments.manifest);
    println!("figures of one machine (local): no network, no kube-proxy; {}\n", arguments.manifest);
    let mut ready = Vec::new();
    for number in 0..arguments.clusters {
        ready.push(time_to_ready(&manifest, number).await?);
    }
    if !ready.is_empty() {
        let spread = Spread::of(ready);
        println!(
            "| three instances ready, s | minimum | median | maximum | runs |\n|---|---|---|---|---|"
        );
        println!(
            "| `matriarch local up` | {} | {} | {} | {} |\n",
            seconds(spread.minimum()),
            seconds(spread.median()),
            seconds(spread.maximum()),
            spread.count()
        );
    }
    let mut bench = Bench::start(&manifest).await?;
    bench.print_memory()?;
    print_heading();
    for load in [Load::Idle, Load::Pgbench(arguments.rate)] {
        let running = load.start(&bench.machine.connection_string()?).await?;
        for event in Event::ALL {
            if arguments.only.as_ref().is_some_and(|only| !event.name().contains(only.as_str())) {
                continue;
            }
            let mut runs = Vec::new();
            for _ in 0..arguments.runs {
                runs.push(bench.measure(event).await.with_context(|| event.name())?);
            }
            print_runs(event, load, &runs);
        }
        drop(running);
    }
    bench.stop_operator()?;
    bench.machine.stop(READY).await
}

async fn time_to_ready(manifest: &str, number: u32) -> Result<Duration> {
    let mut machine = Machine::new(&format!("ready{number}"), PORT)?;
    let begun = Instant::now();
    machine.up(&[manifest])?;
    machine.wait_for("Ctrl-C stops everything", READY).await?;
    let took = begun.elapsed();
    machine.stop(READY).await?;
    Ok(took)
}

impl Bench {
    async fn start(manifest: &str) -> Result<Self> {
        let mut machine = Machine::new("bench", PORT)?;
        machine.up(&["--no-operator", manifest])?;
        machine.wait_for("applied", READY).await?;
        let mut bench = Self { machine, operator: None, pauses: Pauses::watch() };
        bench.start_operator()?;
        bench.machine.wait_for("Ctrl-C stops everything", READY).await?;
        bench.machine.healed(READY).await?;
        Ok(bench)
    }

    fn start_operator(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.machine.state().join("operator.log"))?;
        let child = Command::new(Machine::binary()?)
            .arg("operator")
            .env("KUBECONFIG", self.machine.kubeconfig())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.operator = Some(child);
        Ok(())
    }

    fn stop_operator(&mut self) -> Result<()> {
        let mut child = self.operator.take().context("no operator runs")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process has a number")?;
        rustix::process::kill_process(pid, Signal::TERM)?;
        child.wait()?;
        Ok(())
    }

    async fn measure(&mut self, event: Event) -> Result<Run> {
        self.machine.healed(READY).await?;
        if event == Event::OperatorStopped {
            self.stop_operator()?;
        }
        let writer = Writer::start(&self.machine.connection_string()?).await?;
        sleep(BEFORE).await;
        self.strike(event).await?;
        sleep(AFTER).await;
        if event == Event::OperatorStopped {
            self.start_operator()?;
        }
        self.machine.healed(READY).await?;
        let tally = writer.finish().await?;
        let Some(end) = tally.gap_ended else { bail!("nothing was written") };
        let began = end.checked_sub(tally.longest_gap).context("a time")?;
        let budget = budget::read(&self.machine.state().join("logs"), began, end)?;
        let paused = self.pauses.within(began, end);
        Ok(Run { gap: tally.longest_gap, paused, lost: tally.lost.len(), budget })
    }

    async fn strike(&self, event: Event) -> Result<()> {
        let primary = self.machine.primary().await?;
        match event {
            Event::PostmasterKilled | Event::OperatorStopped => {
                Machine::signal(&primary, Victim::Postmaster, Signal::KILL)
            }
            Event::PodDeleted => self.delete(&primary.name, &DeleteParams::default()).await,
            Event::PodForceDeleted => {
                self.delete(&primary.name, &DeleteParams::default().grace_period(0)).await
            }
            Event::Switchover => {
                let pods = self.machine.pods()?;
                let to = pods.keys().find(|name| **name != primary.name).context("a standby")?;
                let (cluster, _) = to.rsplit_once('-').context("an instance has a serial")?;
                self.machine.verb(&["promote", cluster, to]).map(|_| ())
            }
        }
    }

    async fn delete(&self, pod: &str, parameters: &DeleteParams) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.machine.client().await?, "default");
        pods.delete(pod, parameters).await?;
        Ok(())
    }

    fn print_memory(&self) -> Result<()> {
        println!("| memory, MiB | resident | of it anonymous |\n|---|---|---|");
        let print = |what: &str, pid: i32| -> Result<()> {
            let memory = memory(pid)?;
            println!("| {what} | {:.1} | {:.1} |", memory.resident, memory.anonymous);
            Ok(())
        };
        if let Some(operator) = &self.operator {
            print("operator", i32::try_from(operator.id())?)?;
        }
        for (name, pod) in self.machine.pods()? {
            print(&format!("keeper of {name}"), pod.keeper.pid)?;
            if let Some(agent) = &pod.agent {
                print(&format!("agent of {name}"), agent.pid)?;
            }
        }
        println!();
        Ok(())
    }
}

fn print_heading() {
    let parts: Vec<&str> = Part::ALL.iter().map(|part| part.name()).collect();
    println!(
        "Outage in s; of it the machine itself stood still (no program of it ran); the parts of it in \
         ms, first the median of each, then the slowest run's.\n"
    );
    println!(
        "| event | load | runs | minimum | median | maximum | machine stood still, median | in the slowest | goal | rows lost | {} |",
        parts.join(" | ")
    );
    println!("|{}", "---|".repeat(10 + parts.len()));
}

fn print_runs(event: Event, load: Load, runs: &[Run]) {
    let spread = Spread::of(runs.iter().map(|run| run.gap));
    let paused = Spread::of(runs.iter().map(|run| run.paused));
    let slowest = runs.iter().max_by_key(|run| run.gap);
    let parts: Vec<String> = Part::ALL
        .iter()
        .map(|part| {
            let own = Spread::of(runs.iter().filter_map(|run| run.budget.get(part).copied()));
            if own.count() == 0 {
                return "–".to_owned();
            }
            let slow = slowest.and_then(|run| run.budget.get(part).copied());
            format!("{} / {}", millis(own.median()), slow.map_or("–".to_owned(), millis))
        })
        .collect();
    println!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        event.name(),
        load.name(),
        spread.count(),
        seconds(spread.minimum()),
        seconds(spread.median()),
        seconds(spread.maximum()),
        seconds(paused.median()),
        slowest.map_or("–".to_owned(), |run| seconds(run.paused)),
        seconds(event.goal()),
        runs.iter().map(|run| run.lost).sum::<usize>(),
        parts.join(" | ")
    );
}
