//! Volumes: the project's own CSI driver, the file system on which it keeps them, and the programs
//! that stand between such a driver and the API.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::addons;
use super::cgroup::Hierarchies;
use super::cluster::{Cluster, Machine, run_directory};
use super::control::{self, inside};
use super::mounts::{KEEPER, Mounts};
use super::node::Node;
use super::program::Program;
use crate::{command, line, paths, setup};

/// The name by which StorageClasses call the driver.
const DRIVER: &str = "csi.matriarch.test";
/// On the machine of the control plane: the mounts, the driver, then what tells it of objects.
pub const CONTROL: [&str; 6] =
    [KEEPER, "csi", "csi-provisioner", "csi-resizer", "csi-snapshotter", "snapshot-controller"];
/// The driver on a node.
pub const NODE: &str = "csi";
/// What all volumes and snapshots may take; the file takes what is used of it.
const SIZE: u64 = 64 << 30;
const START: Duration = Duration::from_secs(60);

/// Builds the driver, and makes the file system of all volumes, mounted below every node.
pub fn make(cluster: &Cluster, hierarchies: &Hierarchies) -> Result<()> {
    let source = paths::workspace().join("crates/e2e/csi");
    let mut build = Command::new("go");
    build.current_dir(source).env("CGO_ENABLED", "0").args(["build", "-o"]).arg(driver(cluster));
    command::run_quietly(build.arg("."))?;
    let image = cluster.volumes_image();
    if !image.is_file() {
        let new = image.with_extension("new");
        let file = File::create(&new).with_context(|| format!("cannot write {}", new.display()))?;
        file.set_len(SIZE).with_context(|| format!("cannot enlarge {}", new.display()))?;
        let mut make = Command::new("mkfs.xfs");
        command::run_quietly(make.args(["-q", "-f", "-m", "reflink=1"]).arg(&new))?;
        fs::rename(&new, &image).with_context(|| format!("cannot make {}", image.display()))?;
    }
    Mounts::new(cluster, hierarchies, Machine::Control).make()
}

/// Removes the volumes that belong to a node.
pub fn lose(cluster: &Cluster, hierarchies: &Hierarchies, node: Machine) -> Result<()> {
    let volumes = cluster.volumes().join(node.name());
    let words = Mounts::new(cluster, hierarchies, Machine::Control).inside(line![
        "rm",
        "-rf",
        "--one-file-system",
        volumes
    ])?;
    command::run_quietly(Command::new(&words[0]).args(&words[1..]))?;
    Ok(())
}

/// Makes the kinds and classes known, and starts what runs beside the control plane.
pub fn start(cluster: &Cluster, hierarchies: &Hierarchies) -> Result<()> {
    define_snapshots(cluster)?;
    addons::apply(cluster, &addons::manifests().join("storage.yaml"))?;
    let socket = run_directory().join("csi.sock");
    let program = |name| Program::new(cluster, hierarchies, Machine::Control, name);
    // With mounts of its own: what it mounts for a moment must not stay if it is killed then.
    let mut line = line!["unshare", "--mount", driver(cluster), "controller"];
    line.extend(line!["--endpoint", &socket, "--directory", cluster.volumes()]);
    program("csi").start(&Mounts::new(cluster, hierarchies, Machine::Control).inside(line)?)?;
    program("csi").wait("it makes no socket", START, || socket.exists())?;
    for name in &CONTROL[2..] {
        let mut line = line![cluster.program(name), "--kubeconfig", cluster.kubeconfig()];
        if *name != "snapshot-controller" {
            line.extend(line!["--csi-address", &socket]);
        }
        if *name == "csi-provisioner" {
            let topology = ["--feature-gates=Topology=true", "--strict-topology=true"];
            line.extend(topology.map(OsString::from));
            line.push("--default-fstype=xfs".into());
        }
        program(name).start(&inside(line))?;
    }
    Ok(())
}

/// Starts the driver on a node.
pub fn start_node(cluster: &Cluster, node: &Node<'_>, machine: Machine) -> Result<()> {
    let mut line = line![driver(cluster), "node", "--node", machine.name()];
    line.extend(line!["--directory", cluster.volumes()]);
    let plugins = Path::new("/var/lib/kubelet");
    line.extend(line!["--endpoint", plugins.join("plugins").join(DRIVER).join("csi.sock")]);
    let socket = format!("{DRIVER}-reg.sock");
    line.extend(line!["--registration", plugins.join("plugins_registry").join(socket)]);
    node.program(NODE).start(&node.inside(line)?)
}

/// Waits until every kubelet knows the driver.
pub fn wait(cluster: &Cluster, hierarchies: &Hierarchies) -> Result<()> {
    for machine in cluster.nodes() {
        let name = machine.name();
        let words = ["get", "csinode", &name, "-o=jsonpath={.spec.drivers[*].name}"];
        let program = Program::new(cluster, hierarchies, machine, NODE);
        program.wait("kubelet does not know it", START, || {
            control::ask(cluster, &words).is_ok_and(|said| said.contains(DRIVER))
        })?;
    }
    Ok(())
}

fn define_snapshots(cluster: &Cluster) -> Result<()> {
    let directory = setup::snapshot_kinds(cluster.release)?;
    for kind in ["volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots"] {
        addons::apply(cluster, &directory.join(format!("snapshot.storage.k8s.io_{kind}.yaml")))?;
        let name = format!("crd/{kind}.snapshot.storage.k8s.io");
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", &name];
        control::ask(cluster, &wait)?;
    }
    Ok(())
}

fn driver(cluster: &Cluster) -> PathBuf {
    cluster.directory.join("programs/csi")
}
