//! `matriarch local`, its operator a process of its own, as on Kubernetes.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use matriarch_e2e::budget::{self, Budget};
use matriarch_e2e::local::{Machine, Victim, Writer, example};
use matriarch_e2e::writer::Place;
use rustix::process::{Pid, Signal};

use crate::failover::{self, Arguments, Event, Site};
use crate::load::{Load, Running};

const READY: Duration = Duration::from_secs(180);
const PORT: u16 = 18432;

/// Runs all and prints the tables.
///
/// # Errors
/// If the cluster does not come up or does not heal.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let manifest = example(&arguments.manifest);
    println!("figures of one machine (local): no network, no kube-proxy; {}\n", arguments.manifest);
    let mut ready = Vec::new();
    for number in 0..arguments.clusters {
        ready.push(time_to_ready(&manifest, number).await?);
    }
    failover::print_ready("`matriarch local up`", &ready);
    let mut bench = OneMachine::start(&manifest).await?;
    bench.print_memory()?;
    failover::print_heading();
    failover::measure_all(&mut bench, arguments).await?;
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

struct OneMachine {
    machine: Machine,
    operator: Option<Child>,
}

impl Drop for OneMachine {
    fn drop(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            let _ = operator.kill();
            let _ = operator.wait();
        }
    }
}

impl OneMachine {
    async fn start(manifest: &str) -> Result<Self> {
        let mut machine = Machine::new("bench", PORT)?;
        machine.up(&["--no-operator", manifest])?;
        machine.wait_for("applied", READY).await?;
        let mut bench = Self { machine, operator: None };
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

    async fn delete(&self, pod: &str, parameters: &DeleteParams) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.machine.client().await?, "default");
        pods.delete(pod, parameters).await?;
        Ok(())
    }

    fn print_memory(&self) -> Result<()> {
        failover::print_memory_heading();
        if let Some(operator) = &self.operator {
            failover::print_memory("operator", i32::try_from(operator.id())?)?;
        }
        for (name, pod) in self.machine.pods()? {
            failover::print_memory(&format!("keeper of {name}"), pod.keeper.pid)?;
            if let Some(agent) = &pod.agent {
                failover::print_memory(&format!("agent of {name}"), agent.pid)?;
            }
        }
        println!();
        Ok(())
    }
}

impl Site for OneMachine {
    fn events(&self) -> &[Event] {
        &[
            Event::PostmasterKilled,
            Event::PodDeleted,
            Event::PodForceDeleted,
            Event::Switchover,
            Event::OperatorStopped,
        ]
    }

    async fn healed(&self) -> Result<()> {
        self.machine.healed(READY).await
    }

    async fn prepare(&mut self, event: Event) -> Result<()> {
        if event == Event::OperatorStopped {
            self.stop_operator()?;
        }
        Ok(())
    }

    async fn writer(&self) -> Result<Writer> {
        Writer::start(&self.machine.connection_string()?).await
    }

    async fn load(&self, load: Load) -> Result<Option<Running>> {
        load.start(&Place::default(), &self.machine.connection_string()?).await
    }

    async fn strike(&mut self, event: Event) -> Result<()> {
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
            Event::NodeCut | Event::NodeCutSynchronous => bail!("one machine has no nodes"),
        }
    }

    async fn mend(&mut self, event: Event) -> Result<()> {
        if event == Event::OperatorStopped {
            self.start_operator()?;
        }
        Ok(())
    }

    async fn budget(&self, began: SystemTime, ended: SystemTime) -> Result<Budget> {
        let directory = self.machine.state().join("logs");
        let mut logs = Vec::new();
        for entry in
            std::fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))?
        {
            // A pod that has not said anything has no file.
            logs.extend(std::fs::read_to_string(entry?.path().join("postgres.log")));
        }
        Ok(budget::of(&logs, began, ended))
    }
}
