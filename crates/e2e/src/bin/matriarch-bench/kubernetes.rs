//! The Kubernetes of three nodes that `cargo xtask kube` starts, with the program as it ships.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, ResourceExt};
use matriarch_e2e::budget::{self, Budget};
use matriarch_e2e::kubernetes::{
    Database, Kubernetes, Namespace, OPERATOR_NAMESPACE, PATIENCE, until,
};
use matriarch_e2e::local::{Machine, Writer};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::failover::{self, Arguments, Event, Site};
use crate::load::{Load, Running};

/// The figures are of clusters of so many instances.
const INSTANCES: usize = 3;

/// Runs all and prints the tables.
///
/// # Errors
/// If a cluster does not come up or does not heal.
pub async fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "figures of Kubernetes: three nodes on one machine, the client on another node than the primary, TLS verified\n"
    );
    Namespace::without_verdict("bench", async |namespace| {
        let mut ready = Vec::new();
        for number in 0..arguments.clusters {
            ready.push(time_to_ready(namespace, number).await?);
        }
        failover::print_ready("a new Cluster", &ready);
        let events = [
            Event::PostmasterKilled,
            Event::PodDeleted,
            Event::PodForceDeleted,
            Event::Switchover,
            Event::NodeCut,
        ];
        let mut site = Nodes::start(namespace, "db", &events, json!({})).await?;
        site.print_memory().await?;
        failover::print_heading();
        failover::measure_all(&mut site, arguments).await?;
        remove(&site.database).await?;
        let synchronous = json!({"method": "any", "number": 1, "dataDurability": "required"});
        let synchronous = json!({"synchronous": synchronous});
        let events = [Event::NodeCutSynchronous];
        let mut site = Nodes::start(namespace, "sync", &events, synchronous).await?;
        failover::measure_all(&mut site, arguments).await
    })
    .await
}

fn spec(postgresql: &Value) -> Value {
    // Each failover leaves a segment of WAL, and wal_keep_size keeps 512 MB of them.
    json!({"instances": INSTANCES, "postgresql": postgresql, "storage": {"size": "4Gi"}})
}

async fn time_to_ready(namespace: &Namespace, number: u32) -> Result<Duration> {
    let begun = Instant::now();
    let database = namespace.healthy(&format!("ready{number}"), spec(&json!({}))).await?;
    let took = begun.elapsed();
    remove(&database).await?;
    Ok(took)
}

async fn remove(database: &Database<'_>) -> Result<()> {
    database.api().delete(database.name(), &DeleteParams::background()).await?;
    until("its pods are gone", PATIENCE, async || {
        Ok(database.pods().list(&ListParams::default()).await?.items.is_empty())
    })
    .await
}

struct Nodes<'a> {
    database: Database<'a>,
    events: &'a [Event],
    /// The node that is off the network.
    cut: Option<String>,
}

/// A process of a pod.
struct Process {
    pid: i32,
    parent: i32,
    name: String,
    words: Vec<String>,
}

/// The processes of a pod, by the control group that kubelet gives it.
fn processes(uid: &str) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let directory = entry?.path();
        let number = directory.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(pid) = number else { continue };
        // A process that has ended meanwhile is none.
        if let Some(process) = process(&directory, pid, uid) {
            found.push(process);
        }
    }
    Ok(found)
}

fn process(directory: &Path, pid: i32, uid: &str) -> Option<Process> {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
    if !read("cgroup")?.contains(uid) {
        return None;
    }
    let status = read("status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').trim().to_owned())
    };
    let words = read("cmdline")?.split('\0').map(str::to_owned).collect();
    Some(Process { pid, parent: field("PPid")?.parse().ok()?, name: field("Name")?, words })
}

impl<'a> Nodes<'a> {
    async fn start(
        namespace: &'a Namespace,
        name: &str,
        events: &'a [Event],
        postgresql: Value,
    ) -> Result<Self> {
        let database = namespace.healthy(name, spec(&postgresql)).await?;
        Ok(Self { database, events, cut: None })
    }

    fn kubernetes(&self) -> &Kubernetes {
        self.database.namespace().kubernetes()
    }

    /// The primary. The status of the Cluster names it a moment later.
    async fn holder(&self) -> Result<String> {
        self.database.lease_holder().await?.context("nobody holds the Lease")
    }

    async fn delete_primary(&self, parameters: &DeleteParams) -> Result<()> {
        self.database.pods().delete(&self.holder().await?, parameters).await?;
        Ok(())
    }

    async fn kill_postmaster(&self) -> Result<()> {
        let pod = self.database.pods().get(&self.holder().await?).await?;
        let all = processes(&pod.uid().context("a pod has a uid")?)?;
        let names: BTreeMap<i32, &str> =
            all.iter().map(|process| (process.pid, process.name.as_str())).collect();
        let mut postmasters = all.iter().filter(|process| {
            process.name == "postgres" && names.get(&process.parent) != Some(&"postgres")
        });
        let postmaster = postmasters.next().context("no postmaster runs")?;
        ensure!(postmasters.next().is_none(), "several postmasters run");
        let pid = Pid::from_raw(postmaster.pid).context("a process has a number")?;
        rustix::process::kill_process(pid, Signal::KILL)?;
        Ok(())
    }

    async fn print_memory(&self) -> Result<()> {
        failover::print_memory_heading();
        let operators: Api<Pod> =
            Api::namespaced(self.kubernetes().client().clone(), OPERATOR_NAMESPACE);
        for (pods, verbs) in
            [(operators, &["operator"][..]), (self.database.pods(), &["keeper", "agent"][..])]
        {
            for pod in pods.list(&ListParams::default()).await?.items {
                for process in processes(&pod.uid().context("a pod has a uid")?)? {
                    let verb = process.words.get(1).map_or("", String::as_str);
                    let ours = process.words.first().is_some_and(|it| it.ends_with("matriarch"));
                    if ours && verbs.contains(&verb) {
                        failover::print_memory(
                            &format!("{verb} of {}", pod.name_any()),
                            process.pid,
                        )?;
                    }
                }
            }
        }
        println!();
        Ok(())
    }
}

impl Site for Nodes<'_> {
    fn events(&self) -> &[Event] {
        self.events
    }

    async fn healed(&self) -> Result<()> {
        self.database.healthy(INSTANCES).await?;
        // The client's node is chosen by what the status says.
        until("the status names the holder", PATIENCE, async || {
            Ok(self.database.primary().await? == self.holder().await?)
        })
        .await?;
        // The status is from before the last failover for a moment: one that still rewinds is no
        // standby, and with synchronous replication one that no commit waits for protects nothing.
        let standbys = (INSTANCES - 1).to_string();
        self.database.answer("select count(*) from pg_stat_replication", &standbys).await?;
        if !self.events.contains(&Event::NodeCutSynchronous) {
            return Ok(());
        }
        until("the quorum is of all instances", PATIENCE, async || {
            Ok(self.database.protected().await? == INSTANCES)
        })
        .await
    }

    async fn prepare(&mut self, _: Event) -> Result<()> {
        Ok(())
    }

    async fn writer(&self) -> Result<Writer> {
        self.database.writer().await
    }

    async fn load(&self, load: Load) -> Result<Option<Running>> {
        self.database.leads_to_primary().await?;
        let place = self.database.elsewhere().await?;
        load.start(&place, &self.database.libpq_string().await?).await
    }

    async fn strike(&mut self, event: Event) -> Result<()> {
        match event {
            Event::PostmasterKilled => self.kill_postmaster().await,
            Event::PodDeleted => self.delete_primary(&DeleteParams::default()).await,
            Event::PodForceDeleted => {
                self.delete_primary(&DeleteParams::default().grace_period(0)).await
            }
            Event::Switchover => {
                let to = self.database.standby().await?;
                let space = self.database.namespace().name();
                let words = ["promote", self.database.name(), &to, "-n", space];
                self.kubernetes().run(&Machine::binary()?, &words).await.map(|_| ())
            }
            Event::NodeCut | Event::NodeCutSynchronous => {
                let node = self.database.node_of(&self.holder().await?).await?;
                let number = node.trim_start_matches("node").to_owned();
                self.kubernetes().verb(&["cut", &number]).await?;
                self.cut = Some(number);
                Ok(())
            }
            Event::OperatorStopped => bail!("it is measured on one machine"),
        }
    }

    async fn mend(&mut self, _: Event) -> Result<()> {
        if let Some(number) = self.cut.take() {
            self.kubernetes().verb(&["heal", &number]).await?;
        }
        Ok(())
    }

    async fn budget(&self, began: SystemTime, ended: SystemTime) -> Result<Budget> {
        let logs = pod_logs(&self.database.pods()).await?;
        Ok(budget::of(&logs, began, ended))
    }
}

/// What the containers of these pods have logged, and those before them. Asked for afterwards:
/// nothing of it takes time from what is measured.
async fn pod_logs(pods: &Api<Pod>) -> Result<Vec<String>> {
    let mut logs = Vec::new();
    for pod in pods.list(&ListParams::default()).await?.items {
        for previous in [true, false] {
            let parameters = LogParams { previous, ..LogParams::default() };
            // There is no former container, or the node is cut off: then there is no log.
            logs.extend(pods.logs(&pod.name_any(), &parameters).await);
        }
    }
    Ok(logs)
}
