//! The outage that a client of `-rw` sees, event by event, and where its time goes.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use matriarch_e2e::budget::{Budget, Part};
use matriarch_e2e::local::Writer;
use tokio::time::sleep;

use crate::figures::{Spread, memory, millis, seconds};
use crate::kubernetes;
use crate::load::{Load, Running};
use crate::one_machine;
use crate::pauses::Pauses;

/// So long it writes before the event, so that what is measured is a steady state.
const BEFORE: Duration = Duration::from_secs(2);
/// So long it is watched afterwards, at least.
const AFTER: Duration = Duration::from_secs(4);

/// What is measured, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// On this machine, without Kubernetes.
    #[arg(long, required_unless_present = "kube")]
    local: bool,
    /// On the Kubernetes of `cargo xtask kube`.
    #[arg(long, conflicts_with_all = ["local", "manifest"])]
    kube: bool,
    /// Runs of each event.
    #[arg(long, default_value_t = 10)]
    pub runs: u32,
    /// Clusters that are made to see how long that takes.
    #[arg(long, default_value_t = 10)]
    pub clusters: u32,
    /// Transactions a second of pgbench in the runs under load.
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    /// Only the events whose name contains this.
    #[arg(long)]
    pub only: Option<String>,
    /// The manifest.
    #[arg(long, default_value = "cluster.yaml")]
    pub manifest: String,
}

/// What happens to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// kill -9.
    PostmasterKilled,
    /// As by a drain.
    PodDeleted,
    /// Without any grace.
    PodForceDeleted,
    /// `promote`.
    Switchover,
    /// kill -9 while no operator runs.
    OperatorStopped,
    /// Its node is taken off the network; commits need no standby.
    NodeCut,
    /// The same, and commits need a standby.
    NodeCutSynchronous,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::PostmasterKilled => "postmaster killed",
            Self::PodDeleted => "pod deleted",
            Self::PodForceDeleted => "pod force-deleted",
            Self::Switchover => "switchover",
            Self::OperatorStopped => "operator stopped, postmaster killed",
            Self::NodeCut => "node cut",
            Self::NodeCutSynchronous => "node cut, synchronous",
        }
    }

    /// What the design wants of the slowest run.
    fn goal(self) -> Duration {
        match self {
            Self::PostmasterKilled | Self::Switchover | Self::OperatorStopped => {
                Duration::from_secs(1)
            }
            Self::PodDeleted | Self::PodForceDeleted => Duration::from_secs(2),
            Self::NodeCut => Duration::from_secs(13),
            Self::NodeCutSynchronous => Duration::from_secs(5),
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

/// Where it is measured: a cluster that runs there.
pub trait Site {
    /// What can be done to it.
    fn events(&self) -> &[Event];

    /// Waits until all is well.
    async fn healed(&self) -> Result<()>;

    /// Makes ready for the event: nothing of it is seen yet.
    async fn prepare(&mut self, event: Event) -> Result<()>;

    /// A client that writes.
    async fn writer(&self) -> Result<Writer>;

    /// Load beside it.
    async fn load(&self, load: Load) -> Result<Option<Running>>;

    /// Lets it happen.
    async fn strike(&mut self, event: Event) -> Result<()>;

    /// Takes back what the event needed.
    async fn mend(&mut self, event: Event) -> Result<()>;

    /// Where the time between the two went.
    async fn budget(&self, began: SystemTime, ended: SystemTime) -> Result<Budget>;
}

/// Runs all and prints the tables.
///
/// # Errors
/// If the cluster does not come up or does not heal.
pub async fn run(arguments: Arguments) -> Result<()> {
    if arguments.kube {
        return kubernetes::run(&arguments).await;
    }
    one_machine::run(&arguments).await
}

/// Prints how long it took until clusters were ready.
pub fn print_ready(what: &str, took: &[Duration]) {
    if took.is_empty() {
        return;
    }
    let spread = Spread::of(took.iter().copied());
    println!(
        "| three instances ready, s | minimum | median | maximum | runs |\n|---|---|---|---|---|"
    );
    println!(
        "| {what} | {} | {} | {} | {} |\n",
        seconds(spread.minimum()),
        seconds(spread.median()),
        seconds(spread.maximum()),
        spread.count()
    );
}

/// Measures each event of a site, idle and under load.
///
/// # Errors
/// If the cluster does not heal.
pub async fn measure_all(site: &mut impl Site, arguments: &Arguments) -> Result<()> {
    let pauses = Pauses::watch();
    for load in [Load::Idle, Load::Pgbench(arguments.rate)] {
        let events: Vec<Event> = site.events().to_vec();
        let wanted = |event: &&Event| {
            arguments.only.as_ref().is_none_or(|only| event.name().contains(only.as_str()))
        };
        site.healed().await?;
        let running = site.load(load).await?;
        for event in events.iter().filter(wanted) {
            let mut runs = Vec::new();
            for _ in 0..arguments.runs {
                let run = measure(site, *event, &pauses).await;
                runs.push(run.with_context(|| event.name())?);
            }
            print_runs(*event, load, &runs);
        }
        drop(running);
    }
    Ok(())
}

async fn measure(site: &mut impl Site, event: Event, pauses: &Pauses) -> Result<Run> {
    site.healed().await?;
    site.prepare(event).await?;
    let writer = site.writer().await?;
    sleep(BEFORE).await;
    let struck = site.strike(event).await;
    sleep(AFTER).await;
    // Writes go on before anything is put right again.
    let goes_on = writer.goes_on(Duration::from_secs(120)).await;
    site.mend(event).await?;
    struck?;
    goes_on?;
    site.healed().await?;
    let tally = writer.finish().await?;
    let Some(end) = tally.gap_ended else { bail!("nothing was written") };
    let began = end.checked_sub(tally.longest_gap).context("a time")?;
    let budget = site.budget(began, end).await?;
    let paused = pauses.within(began, end);
    Ok(Run { gap: tally.longest_gap, paused, lost: tally.lost.len(), budget })
}

/// Prints the heading of the memory that processes occupy.
pub fn print_memory_heading() {
    println!("| memory, MiB | resident | of it anonymous |\n|---|---|---|");
}

/// Prints what a process occupies.
///
/// # Errors
/// If it has gone.
pub fn print_memory(what: &str, pid: i32) -> Result<()> {
    let memory = memory(pid)?;
    println!("| {what} | {:.1} | {:.1} |", memory.resident, memory.anonymous);
    Ok(())
}

/// Prints the heading of the outages.
pub fn print_heading() {
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
