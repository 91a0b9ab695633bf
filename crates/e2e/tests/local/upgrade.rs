//! The agents of a cluster are replaced in place while a client writes: forth by an operator of
//! another build, back by the first one, and to a program that dies (traps P3).
//!
//! The other build is a copy with bytes behind its end: another hash, the same behaviour.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use matriarch_api::instance::AgentReport;
use matriarch_api::{Cluster, Identity, Instance};
use matriarch_e2e::local::{Machine, PodProcesses, Writer, example};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

const NAME: &str = "cluster-example";
const NAMESPACE: &str = "default";
const PATIENCE: Duration = Duration::from_secs(180);
/// Far below what any change of the primary takes, and above the pauses of a busy machine.
const GAP_MAX: Duration = Duration::from_secs(2);

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `matriarch operator` as a process of its own, against the API server of `matriarch local`.
struct Operator(Child);

impl Operator {
    fn start(program: &Path, machine: &Machine, port: u16) -> Result<Self> {
        let log = std::fs::File::create(machine.state().join("operator.log"))?;
        let child = Command::new(program)
            .args(["operator", "--agent-url", &format!("https://127.0.0.1:{port}")])
            .args(["--agent-listen", &format!("127.0.0.1:{port}")])
            .env("KUBECONFIG", machine.kubeconfig())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self(child))
    }

    fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "the operator ended with {status}");
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Ended already, unless the test has failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct World {
    machine: Machine,
    client: Client,
}

impl World {
    async fn start(name: &str, port: u16) -> Result<(Self, Operator)> {
        let mut machine = Machine::new(name, port)?;
        machine.up(&["--no-operator", &example("cluster.yaml")])?;
        machine.wait_for("API server on", PATIENCE).await?;
        let operator = Operator::start(&Machine::binary()?, &machine, port + 50)?;
        machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
        let client = machine.client().await?;
        Ok((Self { machine, client }, operator))
    }

    fn instances(&self) -> Api<Instance> {
        Api::namespaced_with(self.client.clone(), NAMESPACE, &Identity::Matriarch)
    }

    async fn agents(&self) -> Result<BTreeMap<String, AgentReport>> {
        let found = self.instances().list(&ListParams::default()).await?.items;
        Ok(found
            .into_iter()
            .map(|it| (it.name_any(), it.status.unwrap_or_default().agent))
            .collect())
    }

    async fn phase(&self) -> Result<String> {
        let clusters: Api<Cluster> =
            Api::namespaced_with(self.client.clone(), NAMESPACE, &Identity::Matriarch);
        Ok(clusters.get(NAME).await?.status.and_then(|it| it.phase).unwrap_or_default())
    }

    async fn term(&self) -> Result<(Option<String>, Option<i32>)> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let spec = leases.get(NAME).await?.spec.context("the Lease has a spec")?;
        Ok((spec.holder_identity, spec.lease_transitions))
    }

    /// Waits until every agent runs from the file with this hash, for good. Returns the instances in
    /// the order in which that was so, and the phases that were seen meanwhile.
    async fn all_run(&self, sha256: &str) -> Result<(Vec<String>, Vec<String>)> {
        let (begun, mut order, mut phases) = (Instant::now(), Vec::new(), Vec::new());
        loop {
            let agents = self.agents().await?;
            for (name, agent) in &agents {
                if agent.sha256.as_deref() == Some(sha256) && !order.contains(name) {
                    order.push(name.clone());
                }
            }
            let phase = self.phase().await?;
            let healthy = phase == "Cluster in healthy state";
            if !phases.contains(&phase) {
                phases.push(phase);
            }
            if healthy && order.len() == agents.len() && agents.values().all(|it| !it.trial) {
                return Ok((order, phases));
            }
            if begun.elapsed() > PATIENCE {
                bail!("not all run from {sha256}: {agents:#?}\n{}", self.machine.printed());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The processes that must live on: of each pod the keeper and the postmaster.
    fn lasting(&self) -> Result<BTreeMap<String, (i32, i32)>> {
        let pods = self.machine.pods()?;
        pods.into_iter()
            .map(|(name, pod)| {
                let postmaster = pod.postmaster.context("a postmaster runs")?;
                Ok((name, (pod.keeper.pid, postmaster.pid)))
            })
            .collect()
    }
}

/// A copy of the binary under test with another hash.
fn other_build(machine: &Machine) -> Result<(PathBuf, String)> {
    let mut bytes = std::fs::read(Machine::binary()?)?;
    bytes.extend_from_slice(b"another build");
    let directory = machine.state().join("other");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("matriarch");
    std::fs::write(&path, &bytes)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode)?;
    Ok((path, hexadecimal(&Sha256::digest(&bytes))))
}

fn judge(tally: &matriarch_e2e::local::Tally) -> Result<()> {
    println!("{} acknowledged, longest gap {:?}", tally.acknowledged, tally.longest_gap);
    ensure!(tally.acknowledged > 100, "hardly anything was written: {tally:?}");
    ensure!(tally.lost.is_empty(), "acknowledged rows are lost: {:?}", tally.lost);
    ensure!(tally.longest_gap < GAP_MAX, "writes paused for {:?}", tally.longest_gap);
    Ok(())
}

#[tokio::test]
async fn another_operator_replaces_the_agents_and_the_first_one_takes_them_back() -> Result<()> {
    let (world, operator) = World::start("upgrade", 17632).await?;
    let first = hexadecimal(&Sha256::digest(std::fs::read(Machine::binary()?)?));
    let (other, second) = other_build(&world.machine)?;
    world.all_run(&first).await?;
    operator.stop()?;

    let writer = Writer::start(&world.machine.connection_string()?).await?;
    let (lasting, term) = (world.lasting()?, world.term().await?);
    let primary = world.machine.primary().await?.name;
    let mut program = other;
    for sha256 in [second, first] {
        let agents = |pods: BTreeMap<String, PodProcesses>| {
            pods.into_values().map(|it| it.agent.map(|it| it.pid)).collect::<Vec<_>>()
        };
        let before = agents(world.machine.pods()?);
        let operator = Operator::start(&program, &world.machine, 17682)?;
        let begun = Instant::now();
        let (order, phases) = world.all_run(&sha256).await?;
        println!("{order:?} after {:?}, {phases:?}", begun.elapsed());
        assert_eq!(order.last(), Some(&primary), "the primary's agent is the last");
        ensure!(phases.iter().any(|it| it == "Online upgrade in progress"), "{phases:?}");
        let after = agents(world.machine.pods()?);
        ensure!(before.iter().all(|pid| !after.contains(pid)), "agents live on: {after:?}");
        assert_eq!(world.lasting()?, lasting, "a keeper or a postmaster was replaced");
        assert_eq!(world.term().await?, term, "the Lease changed hands");
        // Absent operator: nothing happens.
        operator.stop()?;
        program = Machine::binary()?;
    }
    judge(&writer.finish().await?)?;
    assert_eq!(world.lasting()?, lasting);
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}

/// Serves one file to whoever asks; returns what a directive says of it.
async fn served(body: &'static [u8]) -> Result<Value> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key =
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 1024];
            let _read = stream.read(&mut head).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _sent = stream.write_all(answer.as_bytes()).await;
            let _sent = stream.write_all(body).await;
            let _ended = stream.shutdown().await;
        }
    });
    Ok(json!({
        "version": "9.9.9",
        "sha256": hexadecimal(&Sha256::digest(body)),
        "bytes": body.len(),
        "architecture": std::env::consts::ARCH,
        "url": format!("https://127.0.0.1:{port}/"),
        "certificateSha256": hexadecimal(&Sha256::digest(&certificate)),
    }))
}

#[tokio::test]
async fn a_program_whose_agents_die_or_hang_is_taken_back_and_told_of() -> Result<()> {
    const DIES: &[u8] = b"#!/bin/sh\n[ \"$1\" = --version ] && exec echo matriarch 9.9.9\nexit 7\n";
    const HANGS: &[u8] =
        b"#!/bin/sh\n[ \"$1\" = --version ] && exec echo matriarch 9.9.9\nexec sleep 600\n";
    let (world, operator) = World::start("badagent", 17732).await?;
    let first = hexadecimal(&Sha256::digest(std::fs::read(Machine::binary()?)?));
    world.all_run(&first).await?;
    operator.stop()?;
    let writer = Writer::start(&world.machine.connection_string()?).await?;
    let (lasting, term) = (world.lasting()?, world.term().await?);
    let primary = world.machine.primary().await?.name;
    for program in [DIES, HANGS] {
        let offered = served(program).await?;
        let patch = json!({"spec": {"agent": offered}});
        let instances = world.instances();
        instances.patch(&primary, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        let begun = Instant::now();
        let failure = loop {
            let agent = world.agents().await?.remove(&primary).context("it is there")?;
            if let Some(failure) = agent.failure.filter(|it| it.sha256 == offered["sha256"]) {
                assert_eq!(agent.sha256.as_ref(), Some(&first), "the former one runs");
                break failure;
            }
            ensure!(begun.elapsed() < PATIENCE, "nothing is told:\n{}", world.machine.printed());
            sleep(Duration::from_millis(100)).await;
        };
        println!("{:?} after {:?}: {}", failure.reason, begun.elapsed(), failure.message);
        assert_eq!(failure.reason, "AgentDied");
        // It is not tried again.
        let agent = world.machine.pods()?[&primary].agent.clone().context("an agent runs")?;
        sleep(Duration::from_secs(8)).await;
        let now = world.machine.pods()?[&primary].agent.clone().context("an agent runs")?;
        assert_eq!(now.pid, agent.pid);
        assert_eq!(world.lasting()?, lasting, "a keeper or a postmaster was replaced");
        assert_eq!(world.term().await?, term, "the Lease changed hands");
    }
    judge(&writer.finish().await?)?;
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}
