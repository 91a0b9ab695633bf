//! Three instances under `matriarch local`: the primary is lost in every way while a client
//! writes through `-rw`.
//!
//! Figures printed here are local ones: no network, no kube-proxy. They are never put beside
//! another product's.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use matriarch_e2e::local::{Machine, PodProcesses, Tally, Victim, Writer, example};
use rustix::process::Signal;
use tokio::time::sleep;

const READY: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(120);
const HEALED: Duration = Duration::from_secs(120);

/// Twice the default duration of the Lease.
const FROZEN: Duration = Duration::from_secs(20);

/// In asynchronous mode acknowledged rows may be lost, and are counted; in synchronous mode not
/// one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Asynchronous,
    Synchronous,
}

impl Mode {
    fn example(self) -> String {
        example(match self {
            Self::Asynchronous => "cluster.yaml",
            Self::Synchronous => "cluster-synchronous.yaml",
        })
    }

    fn judge(self, what: &str, tally: &Tally) -> anyhow::Result<()> {
        println!(
            "{what}: {} acknowledged, {} lost, longest gap {:?} (local)",
            tally.acknowledged,
            tally.lost.len(),
            tally.longest_gap
        );
        ensure!(tally.acknowledged > 20, "{what}: hardly anything was written: {tally:?}");
        ensure!(
            self == Self::Asynchronous || tally.lost.is_empty(),
            "{what}: acknowledged rows are lost: {:?}",
            tally.lost
        );
        Ok(())
    }
}

async fn ready(machine: &mut Machine) -> anyhow::Result<()> {
    machine.wait_for("Ctrl-C stops everything", READY).await?;
    Ok(())
}

/// Breaks the primary while a client writes, and returns what the client found.
async fn broken(
    machine: &Machine,
    victim: Victim,
    signal: Signal,
    thaw_after: Option<Duration>,
) -> anyhow::Result<Tally> {
    let writer = Writer::start(&machine.connection_string()?).await?;
    sleep(Duration::from_secs(2)).await;
    let primary = machine.primary().await?;
    Machine::signal(&primary, victim, signal)?;
    if let Some(time) = thaw_after {
        sleep(time).await;
        Machine::signal(&primary, victim, Signal::CONT)?;
    }
    sleep(Duration::from_secs(6)).await;
    machine.healed(HEALED).await?;
    let zombies = machine.zombies()?;
    ensure!(zombies.is_empty(), "ended processes are not collected: {zombies:?}");
    writer.finish().await
}

async fn every_kill(mode: Mode, name: &str, port: u16) -> anyhow::Result<()> {
    let mut machine = Machine::new(name, port)?;
    machine.up(&[&mode.example()])?;
    ready(&mut machine).await?;
    for victim in [Victim::Postmaster, Victim::Agent, Victim::Both] {
        let tally = broken(&machine, victim, Signal::KILL, None).await?;
        mode.judge(&format!("kill -9 of {victim:?}"), &tally)?;
    }
    for victim in [Victim::Agent, Victim::Postmaster, Victim::Both] {
        let tally = broken(&machine, victim, Signal::STOP, Some(FROZEN)).await?;
        mode.judge(&format!("SIGSTOP of {victim:?} for {FROZEN:?}"), &tally)?;
    }
    let tally = proved_dead(&machine).await?;
    mode.judge("pod deleted, its agent frozen, its keeper killed", &tally)?;
    machine.stop(STOP).await
}

/// Rule 20: the pod is on its way out and cannot give the Lease away; kubelet reports the end of
/// the very container that stands in the Lease, and the operator frees it.
async fn proved_dead(machine: &Machine) -> anyhow::Result<Tally> {
    let writer = Writer::start(&machine.connection_string()?).await?;
    sleep(Duration::from_secs(2)).await;
    let primary = machine.primary().await?;
    let client = machine.client().await?;
    Machine::signal(&primary, Victim::Agent, Signal::STOP)?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.delete(&primary.name, &DeleteParams::default()).await?;
    // A container whose pod is not yet known to end would be started again.
    sleep(Duration::from_millis(500)).await;
    Machine::signal(&primary, Victim::Keeper, Signal::KILL)?;
    sleep(Duration::from_secs(6)).await;
    machine.healed(HEALED).await?;
    let events: Api<Event> = Api::default_namespaced(client);
    let freed = events.list(&ListParams::default()).await?.into_iter().any(|event| {
        event.note.is_some_and(|note| note.contains("proved terminated"))
            && event.related.and_then(|it| it.name).as_deref() == Some(&primary.name)
    });
    ensure!(freed, "the operator has not freed the Lease of {}", primary.name);
    writer.finish().await
}

#[tokio::test]
async fn writes_go_on_after_every_loss_of_the_primary() -> anyhow::Result<()> {
    every_kill(Mode::Asynchronous, "kills", 16432).await
}

#[tokio::test]
async fn no_acknowledged_row_is_lost_in_synchronous_mode() -> anyhow::Result<()> {
    every_kill(Mode::Synchronous, "sync", 16532).await
}

#[tokio::test]
async fn all_data_is_there_after_a_stop_and_a_kill_and_a_failover_needs_no_operator()
-> anyhow::Result<()> {
    let mut machine = Machine::new("all", 16632)?;
    machine.up(&[&example("cluster.yaml")])?;
    ready(&mut machine).await?;
    machine.sql("create table kept (value int); insert into kept values (42)").await?;
    machine.healed(HEALED).await?;
    machine.stop(STOP).await?;
    machine.up(&[])?;
    ready(&mut machine).await?;
    assert_eq!(machine.sql("select value from kept").await?, "42");
    machine.healed(HEALED).await?;
    machine.kill_everything().await?;
    machine.up(&["--no-operator"])?;
    ready(&mut machine).await?;
    assert_eq!(machine.sql("select value from kept").await?, "42");
    machine.healed(HEALED).await?;
    let tally = broken(&machine, Victim::Both, Signal::KILL, None).await?;
    Mode::Asynchronous.judge("operator stopped, kill -9 of both", &tally)?;
    machine.stop(STOP).await
}

/// Rule 3: the whole cohort says yes, for ten minutes at least; nothing happens within two.
#[tokio::test]
async fn nothing_happens_while_the_api_is_away() -> anyhow::Result<()> {
    let mut machine = Machine::new("api", 16832)?;
    machine.up(&[&example("cluster.yaml")])?;
    ready(&mut machine).await?;
    machine.healed(HEALED).await?;
    let before = machine.pods()?;
    let primary = machine.primary().await?.name;
    let writer = Writer::start(&machine.connection_string()?).await?;
    machine.verb(&["api", "pause"])?;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(machine.primary().await?.name, primary);
    assert_eq!(machine.sql("select count(*) from pg_stat_replication").await?, "2");
    machine.verb(&["api", "resume"])?;
    machine.healed(HEALED).await?;
    let tally = writer.finish().await?;
    Mode::Asynchronous.judge("API away for two minutes", &tally)?;
    ensure!(tally.lost.is_empty(), "{tally:?}");
    // A fraction of the outage, however slow the machine.
    ensure!(tally.longest_gap < Duration::from_secs(30), "writes stopped: {tally:?}");
    let after = machine.pods()?;
    for (name, pod) in &before {
        let postmaster = |pod: &PodProcesses| pod.postmaster.as_ref().map(|it| it.pid);
        let now = after.get(name).and_then(postmaster);
        ensure!(now.is_some() && now == postmaster(pod), "PostgreSQL of {name} was restarted");
    }
    assert_eq!(machine.primary().await?.name, primary);
    machine.stop(STOP).await
}
