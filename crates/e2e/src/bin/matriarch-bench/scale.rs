//! The operator with many clusters: what it occupies, computes and asks for, and how soon it acts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use matriarch_api::{Cluster, Identity, names};
use matriarch_e2e::apiserver::{self, ApiServer};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::crowd::{Crowd, RENEWAL, REPEAT};
use crate::figures::{Memory, Spread, seconds};
use crate::watched::{Audit, Operator, Requests, install};

/// Longest time until all clusters are ready.
const READY: Duration = Duration::from_secs(3_600);
/// Longest time until a change is acted upon.
const ACTED: Duration = Duration::from_secs(120);
/// So long nothing is measured after something has happened.
const SETTLE: Duration = Duration::from_secs(30);
/// How many nodes there are.
const NODES: usize = 10;
/// The clusters of an ordinary user.
const FEW: usize = 3;
const INSTANCES: usize = 3;
/// So much room the full number of clusters wants, in bytes.
const ROOM: u64 = 80_000_000_000;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How many clusters [default: 1000; 300 where less than 80 GB are free].
    #[arg(long)]
    clusters: Option<usize>,
    /// How many clusters are on their way at once while they are made [default: all].
    #[arg(long)]
    at_once: Option<usize>,
    /// How many clusters share a namespace.
    #[arg(long, default_value_t = 10)]
    per_namespace: usize,
    /// For how long the operator is watched while nothing changes, in seconds.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// How many clusters are changed, one after the other.
    #[arg(long, default_value_t = 20)]
    changes: usize,
}

/// One row of the table.
struct Phase {
    what: String,
    took: Duration,
    most: Memory,
    after: Memory,
    computed: Duration,
    requests: Requests,
    /// How often the operator ended by itself: it does when it cannot renew its leadership.
    restarts: u32,
    /// What agents and kubelet, played, wrote meanwhile.
    played: u64,
    load: String,
}

struct Bench {
    client: Client,
    crowd: Crowd,
    kubeconfig: PathBuf,
    operator: Operator,
    audit: Audit,
    per_namespace: usize,
    at_once: usize,
    phases: Vec<Phase>,
    _server: ApiServer,
}

/// Where a phase began.
struct Mark {
    at: Instant,
    computed: Duration,
    played: u64,
}

/// Runs all and prints the tables.
///
/// # Errors
/// If the API server or the operator does not start, or clusters do not become ready.
pub async fn run(arguments: Arguments) -> Result<()> {
    let clusters = arguments.clusters.map_or_else(fitting, Ok)?.max(FEW + 1);
    let changes = arguments.changes.min(clusters);
    println!(
        "{clusters} clusters of {INSTANCES} instances, {} in a namespace; load average {}\n",
        arguments.per_namespace,
        load()
    );
    let mut bench = Bench::start(&arguments).await?;
    bench.create(0..FEW).await?;
    let idle = Duration::from_secs(arguments.idle);
    bench.watch_idle(FEW, idle).await?;
    let ready = bench.create(FEW..clusters).await?;
    bench.watch_idle(clusters, idle).await?;
    let changed = bench.change(clusters, changes).await?;
    let acted = bench.restart(clusters).await?;
    bench.print_phases();
    print_spreads(&ready, &changed, acted);
    bench.operator.stop()
}

/// As many as the disk has room for.
fn fitting() -> Result<usize> {
    let room = rustix::fs::statvfs(std::env::temp_dir().as_path())?;
    Ok(if room.f_bavail * room.f_frsize >= ROOM { 1_000 } else { 300 })
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" / ")
}

impl Bench {
    async fn start(arguments: &Arguments) -> Result<Self> {
        let tools = apiserver::tools().context("there is no kube-apiserver: cargo xtask setup")?;
        let server = ApiServer::start(&tools)?;
        let kubeconfig = install(&server).await?;
        let client = server.client().await?;
        let nodes: Api<Node> = Api::all(client.clone());
        for number in 0..NODES {
            let node = serde_json::from_value(json!({"metadata": {"name": format!("n{number}")}}))?;
            nodes.create(&PostParams::default(), &node).await?;
        }
        let crowd = Crowd::start(&client, NODES);
        let audit = Audit::new(server.audit_log());
        let operator = Operator::start(&kubeconfig)?;
        let per_namespace = arguments.per_namespace.max(1);
        let at_once = arguments.at_once.unwrap_or(usize::MAX).max(1);
        let phases = Vec::new();
        Ok(Self {
            client,
            crowd,
            kubeconfig,
            operator,
            audit,
            per_namespace,
            at_once,
            phases,
            _server: server,
        })
    }

    fn place(&self, number: usize) -> (String, String) {
        (format!("team-{}", number / self.per_namespace), format!("c{number}"))
    }

    fn clusters(&self, namespace: &str) -> Api<Cluster> {
        Api::namespaced_with(self.client.clone(), namespace, &Identity::Matriarch)
    }

    fn begin(&mut self) -> Result<Mark> {
        self.audit.since()?;
        self.operator.most();
        let computed = self.operator.computed()?;
        Ok(Mark { at: Instant::now(), computed, played: self.crowd.writes() })
    }

    /// Ends a phase that began at `mark`.
    fn end(&mut self, mark: &Mark, what: String) -> Result<()> {
        let phase = Phase {
            what,
            took: mark.at.elapsed(),
            most: self.operator.most(),
            after: self.operator.memory()?,
            computed: self.operator.computed()?.saturating_sub(mark.computed),
            requests: self.audit.since()?,
            restarts: self.operator.restarts(),
            played: self.crowd.writes() - mark.played,
            load: load(),
        };
        eprintln!("{}: {:.0} s", phase.what, phase.took.as_secs_f64());
        self.phases.push(phase);
        Ok(())
    }

    /// Makes clusters, all at once; for each the time until it was ready.
    async fn create(&mut self, numbers: std::ops::Range<usize>) -> Result<Vec<Duration>> {
        let count = numbers.len();
        let all = numbers.end;
        self.make_namespaces(numbers.clone()).await?;
        let mark = self.begin()?;
        let created: BTreeMap<(String, String), Instant> = stream::iter(numbers)
            .map(|number| self.make_cluster(number))
            .buffer_unordered(self.at_once.min(8))
            .try_collect()
            .await?;
        self.crowd.wait_ready(all, READY).await?;
        self.end(&mark, format!("{count} made, until all are ready"))?;
        let ready = self.crowd.ready();
        let took = |(key, made): (&(String, String), &Instant)| {
            ready.get(key).map(|ready| ready.saturating_duration_since(*made))
        };
        Ok(created.iter().filter_map(took).collect())
    }

    async fn make_namespaces(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let mut namespaces: Vec<String> = numbers.map(|number| self.place(number).0).collect();
        namespaces.dedup();
        for name in namespaces {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            api.patch(&name, &PatchParams::apply("bench"), &Patch::Apply(&namespace)).await?;
        }
        Ok(())
    }

    async fn make_cluster(&self, number: usize) -> Result<((String, String), Instant)> {
        self.crowd.wait_ready((number + 1).saturating_sub(self.at_once), READY).await?;
        let (namespace, name) = self.place(number);
        let cluster: Cluster = serde_json::from_value(json!({
            "apiVersion": "matriarch.dev/v1", "kind": "Cluster",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "instances": INSTANCES,
                "imageName": "ghcr.io/cloudnative-pg/postgresql:17",
                "storage": {"size": "1Gi"},
                "postgresql": {"parameters": {"work_mem": "8MB"}},
            },
        }))?;
        let made = Instant::now();
        self.clusters(&namespace).create(&PostParams::default(), &cluster).await?;
        Ok(((namespace, name), made))
    }

    async fn watch_idle(&mut self, clusters: usize, idle: Duration) -> Result<()> {
        sleep(SETTLE).await;
        let mark = self.begin()?;
        sleep(idle).await;
        self.end(&mark, format!("{clusters} clusters, idle"))
    }

    async fn scale(&self, number: usize, instances: usize) -> Result<()> {
        let (namespace, name) = self.place(number);
        let patch: Value = json!({"spec": {"instances": instances}});
        let parameters = PatchParams::default();
        self.clusters(&namespace).patch(&name, &parameters, &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Waits for the pod of a cluster's fourth instance; when its Instance and it were there.
    async fn fourth(&self, number: usize) -> Result<(Instant, Instant)> {
        let (namespace, name) = self.place(number);
        let instance = names::instance(&name, 4);
        let begun = Instant::now();
        loop {
            if let (Some(directive), Some(pod)) = self.crowd.appeared(&namespace, &instance) {
                return Ok((directive, pod));
            }
            ensure!(begun.elapsed() < ACTED, "{instance} does not appear");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// One more instance in one cluster after the other: the times until its Instance and its pod
    /// are there.
    async fn change(
        &mut self,
        clusters: usize,
        changes: usize,
    ) -> Result<Vec<(Duration, Duration)>> {
        let mark = self.begin()?;
        let mut took = Vec::new();
        for change in 0..changes {
            let number = change * clusters / changes.max(1);
            let asked = Instant::now();
            self.scale(number, INSTANCES + 1).await?;
            let (directive, pod) = self.fourth(number).await?;
            let since = |at: Instant| at.saturating_duration_since(asked);
            took.push((since(directive), since(pod)));
            self.crowd.wait_ready(clusters, READY).await?;
        }
        self.end(&mark, format!("an instance more in {changes} of {clusters} clusters"))?;
        Ok(took)
    }

    /// A new operator looks at every cluster; meanwhile the last one is changed.
    async fn restart(&mut self, clusters: usize) -> Result<Duration> {
        sleep(SETTLE).await;
        let operator = Operator::start(&self.kubeconfig)?;
        let former = std::mem::replace(&mut self.operator, operator);
        let mark = self.begin()?;
        former.stop()?;
        // Nobody has changed this one yet: the changes were spread from the first one on.
        let asked = Instant::now();
        self.scale(clusters - 1, INSTANCES + 1).await?;
        let (_, pod) = self.fourth(clusters - 1).await?;
        let acted = pod.saturating_duration_since(asked);
        self.settle().await?;
        self.end(&mark, format!("a new operator, until it has looked at all {clusters}"))?;
        sleep(SETTLE).await;
        let mark = self.begin()?;
        sleep(SETTLE).await;
        self.end(&mark, "the new operator, idle".to_owned())?;
        Ok(acted)
    }

    /// Waits until the operator computes no more than a twentieth of the time.
    async fn settle(&self) -> Result<()> {
        let begun = Instant::now();
        let mut before = self.operator.computed()?;
        while begun.elapsed() < READY {
            sleep(Duration::from_secs(2)).await;
            let now = self.operator.computed()?;
            if now.saturating_sub(before) < Duration::from_millis(100) {
                return Ok(());
            }
            before = now;
        }
        Ok(())
    }

    fn print_phases(&self) {
        println!(
            "| phase | s | most resident, MiB | of it anonymous | resident at the end | of it anonymous | computed, s | of a processor | requests a second | requests of the operator | turned away | started again | played writes a second | load average |\n|{}",
            "---|".repeat(14)
        );
        for phase in &self.phases {
            let took = phase.took.as_secs_f64();
            let requests = phase.requests.count();
            println!(
                "| {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} % | {:.1} | {requests} | {} | {} | {:.0} | {} |",
                phase.what,
                took,
                phase.most.resident,
                phase.most.anonymous,
                phase.after.resident,
                phase.after.anonymous,
                phase.computed.as_secs_f64(),
                phase.computed.as_secs_f64() / took * 100.0,
                rate(requests, took),
                phase.requests.throttled,
                phase.restarts,
                rate(phase.played, took),
                phase.load,
            );
        }
        println!(
            "\nPlayed: a Lease is renewed every {} s, a report written again every {} s.\n",
            RENEWAL.as_secs(),
            REPEAT.as_secs()
        );
        for phase in &self.phases {
            let commonest = phase.requests.commonest(8);
            let listed: Vec<String> =
                commonest.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            println!("- {}: {}", phase.what, listed.join(", "));
        }
        println!();
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far from 2^52")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

fn print_spreads(ready: &[Duration], changed: &[(Duration, Duration)], acted: Duration) {
    println!("| time in s | minimum | median | maximum | of |\n|---|---|---|---|---|");
    let print = |what: &str, spread: &Spread| {
        println!(
            "| {what} | {} | {} | {} | {} |",
            seconds(spread.minimum()),
            seconds(spread.median()),
            seconds(spread.maximum()),
            spread.count()
        );
    };
    print("a cluster made, until it is ready", &Spread::of(ready.iter().copied()));
    print(
        "an instance more, until its Instance is there",
        &Spread::of(changed.iter().map(|it| it.0)),
    );
    print("an instance more, until its pod is there", &Spread::of(changed.iter().map(|it| it.1)));
    print("the same while a new operator begins", &Spread::of([acted]));
}
