//! `cargo xtask kube`: a real Kubernetes of several nodes on this machine, without Docker and
//! without an image registry. docs/kubernetes.md says how it is built.

mod addons;
mod cgroup;
mod clean;
mod cluster;
mod control;
mod mounts;
mod network;
mod node;
mod pki;
mod program;
mod storage;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::setup::release::{RELEASES, Release};
use crate::{paths, setup};
use cgroup::Hierarchies;
use cluster::{Cluster, Machine, run_directory};
use node::Node;

/// Beside each node, the names of the archives whose images it was given.
const LOADED: &str = "loaded";

/// What can be done with the test cluster.
#[derive(Subcommand)]
pub enum Verb {
    /// Start the cluster, or what of it does not run; prints how to reach it.
    Up {
        /// How many nodes.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
        /// Which Kubernetes.
        #[arg(long, default_value = RELEASES[0].minor)]
        kubernetes: String,
    },
    /// End the cluster, and check that nothing of it stays. Its images and logs are kept.
    Down,
    /// Say what runs.
    Status,
    /// Make the images of an archive known to all nodes.
    Load {
        /// The archive, as `cargo xtask image` writes it.
        archive: PathBuf,
    },
    /// Take a node off the network; its pods run on.
    Cut {
        /// Which node, from 1.
        node: u8,
    },
    /// Put a node back on the network.
    Heal {
        /// Which node, from 1.
        node: u8,
    },
    /// End a node for good: its pods, its network, its data. `up` makes a new, empty one.
    Lose {
        /// Which node, from 1.
        node: u8,
    },
    /// Run a program in the network of a node, with the files of this machine.
    In {
        /// Which node, from 1.
        node: u8,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        line: Vec<String>,
    },
    /// End the API server; all else runs on.
    StopApi,
    /// Start the API server again, and wait until it is ready.
    StartApi,
}

/// Does it.
pub fn run(verb: Verb) -> Result<ExitCode> {
    if !paths::is_root() {
        bail!(
            "`cargo xtask kube` makes network namespaces, mounts and control groups: run as root"
        );
    }
    match verb {
        Verb::Up { nodes, kubernetes } => up(nodes, release(&kubernetes)?)?,
        Verb::Down => down()?,
        Verb::Status => return status(),
        Verb::Load { archive } => load(&archive)?,
        Verb::Cut { node } => network::connect(Cluster::existing()?.node(node)?, false)?,
        Verb::Heal { node } => network::connect(Cluster::existing()?.node(node)?, true)?,
        Verb::Lose { node } => lose(node)?,
        Verb::In { node, line } => return inside(node, &line),
        Verb::StopApi => control::stop_api(&Cluster::existing()?, &Hierarchies::read()?)?,
        Verb::StartApi => control::start_api(&Cluster::existing()?, &Hierarchies::read()?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a cluster can be started here: a container's root may often make no namespaces.
pub fn is_possible() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--pid", "--fork", "true"]);
    paths::is_root() && unshare.output().is_ok_and(|output| output.status.success())
}

/// How tests reach the cluster: as its administrator, with `kubectl` of its own version.
pub fn environment() -> Result<[(&'static str, PathBuf); 2]> {
    let cluster = Cluster::existing()?;
    let missing = missing(&cluster, &Hierarchies::read()?);
    if !missing.is_empty() {
        bail!("the cluster is not complete ({}): cargo xtask kube up", missing.join(", "));
    }
    Ok([("KUBECONFIG", cluster.kubeconfig()), ("MATRIARCH_TOOLS", cluster.release.programs())])
}

fn release(minor: &str) -> Result<&'static Release> {
    let found = RELEASES.iter().find(|release| release.minor == minor);
    found.with_context(|| {
        let known: Vec<&str> = RELEASES.iter().map(|release| release.minor).collect();
        format!("Kubernetes {minor} is not known; known are: {}", known.join(", "))
    })
}

fn up(nodes: u8, release: &'static Release) -> Result<()> {
    setup::run(setup::For::Cluster(release))?;
    let hierarchies = Hierarchies::read()?;
    let cluster = Cluster::new(nodes, release);
    let _lock = lock(&cluster.directory)?;
    refuse_second(&cluster.directory, &hierarchies)?;
    if let Some(recorded) = Cluster::recorded()? {
        if missing(&recorded, &hierarchies).is_empty() {
            require_same(&recorded, &cluster)?;
            println!("kube: runs already");
            return say_how_to_reach(&cluster);
        }
        if control_plane_runs(&recorded, &hierarchies) {
            require_same(&recorded, &cluster)?;
            println!("kube: starting what does not run");
            return start(&cluster, &hierarchies);
        }
    }
    if cluster.directory.join("machines").exists() || !hierarchies.groups().is_empty() {
        println!("kube: removing what an earlier cluster has left");
        clean::down(&cluster.directory, &hierarchies)?;
    }
    cluster::remove(&cluster.directory.join("log"))?;
    start(&cluster, &hierarchies)
}

/// Keeps others from making, ending or mending the cluster until it is dropped.
fn lock(directory: &Path) -> Result<File> {
    cluster::make(directory)?;
    let path = directory.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another `cargo xtask kube` is at work in {}", directory.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Two clusters would have the same addresses.
fn refuse_second(directory: &Path, hierarchies: &Hierarchies) -> Result<()> {
    let owner = run_directory().join("directory");
    let other = fs::read_to_string(&owner).map(|text| PathBuf::from(text.trim()));
    if let Ok(other) = other
        && other != directory
        && !hierarchies.processes().is_empty()
    {
        bail!(
            "this machine runs the cluster of {0} already. Use it with KUBE_DIR={0}, or end it: \
             KUBE_DIR={0} cargo xtask kube down",
            other.display()
        );
    }
    Ok(())
}

fn require_same(recorded: &Cluster, wanted: &Cluster) -> Result<()> {
    if recorded.nodes == wanted.nodes && recorded.release == wanted.release {
        return Ok(());
    }
    bail!(
        "the cluster that runs has {} nodes and Kubernetes {}; end it first: cargo xtask kube down",
        recorded.nodes,
        recorded.release.minor
    )
}

/// The programs that should run and do not.
fn missing(cluster: &Cluster, hierarchies: &Hierarchies) -> Vec<String> {
    let control = control::PROGRAMS.iter().chain(&storage::CONTROL).filter(|name| {
        let program = program::Program::new(cluster, hierarchies, Machine::Control, name);
        program.process().is_none()
    });
    let mut missing: Vec<String> = control.map(|name| format!("control {name}")).collect();
    for machine in cluster.nodes() {
        let programs = Node::new(cluster, hierarchies, machine).missing();
        missing.extend(programs.iter().map(|name| format!("{} {name}", machine.name())));
    }
    missing
}

/// True if the cluster's state is there: then what else is missing can be started again.
fn control_plane_runs(cluster: &Cluster, hierarchies: &Hierarchies) -> bool {
    let etcd = program::Program::new(cluster, hierarchies, Machine::Control, "etcd");
    etcd.process().is_some()
}

fn start(cluster: &Cluster, hierarchies: &Hierarchies) -> Result<()> {
    let begin = Instant::now();
    let say = |what: &str| println!("kube: {:>4} s  {what}", begin.elapsed().as_secs());
    cluster::write(&run_directory().join("directory"), &cluster.directory.display().to_string())?;
    cluster.record()?;
    addons::make_images(cluster)?;
    let covered = mounts::make_covered()?;
    if !covered.is_empty() {
        let lines: String = covered.iter().map(|place| format!("{}\n", place.display())).collect();
        cluster::write(&cluster.directory.join("covered"), &lines)?;
    }
    say("certificates and network");
    pki::make(cluster)?;
    network::make(cluster)?;
    storage::make(cluster, hierarchies)?;
    say("control plane");
    control::start(cluster, hierarchies)?;
    addons::apply(cluster, &addons::manifests().join("kube-proxy.yaml"))?;
    storage::start(cluster, hierarchies)?;
    say("nodes");
    for machine in cluster.nodes() {
        let node = Node::new(cluster, hierarchies, machine);
        let fresh = node.program("kubelet").process().is_none();
        node.start_containers()?;
        if fresh {
            addons::load_images(cluster, &node)?;
            load_known_elsewhere(cluster, &node, machine)?;
        }
        node.start_kubelet()?;
        storage::start_node(cluster, &node, machine)?;
    }
    addons::wait_for_nodes(cluster, hierarchies)?;
    say("nodes are ready; DNS and volumes");
    // Not before: both of its pods would go to the node that is ready first.
    addons::apply(cluster, &addons::manifests().join("dns.yaml"))?;
    storage::wait(cluster, hierarchies)?;
    addons::wait_for_dns(cluster)?;
    say("complete");
    say_how_to_reach(cluster)
}

fn say_how_to_reach(cluster: &Cluster) -> Result<()> {
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(())
}

fn down() -> Result<()> {
    let begin = Instant::now();
    let (directory, hierarchies) = (paths::kube(), Hierarchies::read()?);
    let _lock = lock(&directory)?;
    refuse_second(&directory, &hierarchies)?;
    clean::down(&directory, &hierarchies)?;
    println!("kube: ended in {} s, and nothing of it is left", begin.elapsed().as_secs());
    Ok(())
}

fn status() -> Result<ExitCode> {
    let (cluster, hierarchies) = (Cluster::existing()?, Hierarchies::read()?);
    println!("Kubernetes {}, {} nodes", cluster.release.version, cluster.nodes);
    let missing = missing(&cluster, &hierarchies);
    for machine in cluster.nodes() {
        let name = machine.name();
        let ended = missing.iter().any(|line| line.starts_with(&format!("{name} ")));
        let state = match (network::connected(machine), ended) {
            (None, _) => "lost",
            (Some(_), true) => "not complete",
            (Some(false), false) => "cut off",
            (Some(true), false) => "runs",
        };
        println!("{name:>8}  {}  {state}", machine.address());
    }
    for line in &missing {
        println!("does not run: {line}");
    }
    say_how_to_reach(&cluster)?;
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(archive: &Path) -> Result<()> {
    let (cluster, hierarchies) = (Cluster::existing()?, Hierarchies::read()?);
    let archive =
        fs::canonicalize(archive).with_context(|| format!("cannot read {}", archive.display()))?;
    for machine in cluster.nodes() {
        Node::new(&cluster, &hierarchies, machine).load(&archive)?;
    }
    Ok(())
}

/// Makes the images of an archive known to the nodes that do not know them yet; true if there was
/// such a node. What a node knows is remembered beside it, and goes with it.
pub fn load_once(archive: &Path) -> Result<bool> {
    let (cluster, hierarchies) = (Cluster::existing()?, Hierarchies::read()?);
    let mut loaded = false;
    for machine in cluster.nodes() {
        loaded |= load_to(&cluster, &Node::new(&cluster, &hierarchies, machine), machine, archive)?;
    }
    Ok(loaded)
}

/// Makes the images of an archive known to one node; false if it knows them.
fn load_to(cluster: &Cluster, node: &Node<'_>, machine: Machine, archive: &Path) -> Result<bool> {
    let shown = archive.display();
    let file = fs::metadata(archive).with_context(|| format!("cannot read {shown}"))?;
    let changed = file.modified().with_context(|| format!("{shown} has no time of change"))?;
    let mark = format!("{changed:?}, {} bytes", file.len());
    let name = archive.file_name().with_context(|| format!("{shown} is no file"))?;
    let noted = cluster.home(machine).join(LOADED).join(name);
    if fs::read_to_string(&noted).is_ok_and(|text| text == mark) {
        return Ok(false);
    }
    node.load(archive)?;
    cluster::write(&noted, &mark)?;
    Ok(true)
}

/// A node that takes a lost one's place knows what the others do: elsewhere it would pull it.
fn load_known_elsewhere(cluster: &Cluster, node: &Node<'_>, machine: Machine) -> Result<()> {
    let mut names = BTreeSet::new();
    for other in cluster.nodes() {
        // A node that was given nothing yet has no such folder.
        let noted = fs::read_dir(cluster.home(other).join(LOADED)).into_iter().flatten();
        names.extend(noted.flatten().map(|entry| entry.file_name()));
    }
    for archive in names.into_iter().map(|name| cluster.images().join(name)) {
        if archive.exists() {
            load_to(cluster, node, machine, &archive)?;
        }
    }
    Ok(())
}

fn lose(number: u8) -> Result<()> {
    let cluster = Cluster::existing()?;
    let _lock = lock(&cluster.directory)?;
    clean::lose(&cluster, &Hierarchies::read()?, cluster.node(number)?)
}

fn inside(number: u8, line: &[String]) -> Result<ExitCode> {
    let machine = Cluster::existing()?.node(number)?;
    let mut command = network::enter(machine);
    let status = command.args(line).status().context("cannot start nsenter")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
