//! The end of a cluster: everything that it started, mounted or made outside its directory goes,
//! and what did not go is named.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cgroup::Hierarchies;
use super::cluster::{self, Cluster, Machine, run_directory};
use super::network;
use crate::command;

/// What stays in the directory of the cluster: making it takes time.
const KEPT: [&str; 3] = ["images", "programs", "log"];

/// Ends the cluster of a directory, whatever is left of it, and checks that nothing stays.
pub fn down(directory: &Path, hierarchies: &Hierarchies) -> Result<()> {
    let namespaces = namespaces_of_machines()?;
    end_processes(directory, hierarchies)?;
    unmount(directory)?;
    detach_loops(directory)?;
    network::remove_all()?;
    remove_covered(directory)?;
    let limit = Instant::now() + Duration::from_secs(20);
    // The kernel takes a moment to take down namespaces and loop devices.
    loop {
        let left = leftovers(directory, hierarchies, &namespaces)?;
        if left.is_empty() {
            break;
        }
        if Instant::now() > limit {
            bail!("the cluster left behind:\n  {}", left.join("\n  "));
        }
        std::thread::sleep(Duration::from_millis(200));
        detach_loops(directory)?;
    }
    remove_files(directory)?;
    cluster::remove(run_directory())
}

/// Kubelets first, which would start containers again; then pods; then what runs on the nodes,
/// with the shims of containers; then the rest.
fn end_processes(directory: &Path, hierarchies: &Hierarchies) -> Result<()> {
    let nodes = machines_of(directory);
    for node in &nodes {
        hierarchies.kill_program(*node, "kubelet")?;
    }
    for node in &nodes {
        hierarchies.kill_pods(*node)?;
    }
    for node in &nodes {
        hierarchies.kill_machine(*node)?;
    }
    hierarchies.kill_all()
}

/// The nodes that have a directory.
fn machines_of(directory: &Path) -> Vec<Machine> {
    let entries = fs::read_dir(directory.join("machines")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).map(Machine::Node).collect()
}

/// Unmounts what is mounted below the directory, the last first.
fn unmount(directory: &Path) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(20);
    for place in mounts_below(directory)?.iter().rev() {
        let mut umount = Command::new("umount");
        umount.arg(place);
        while let Err(error) = command::run_quietly(&mut umount) {
            if Instant::now() > limit {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

/// What is mounted below a directory, in the order in which it was mounted.
fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let places = text.lines().filter_map(|line| line.split(' ').nth(1));
    // The kernel writes blanks in octal digits.
    let places = places.map(|place| PathBuf::from(place.replace("\\040", " ")));
    Ok(places.filter(|place| place.starts_with(directory)).collect())
}

/// Frees the loop devices whose files are below the directory.
pub fn detach_loops(directory: &Path) -> Result<()> {
    for (device, _) in loops_below(directory)? {
        command::run_quietly(Command::new("losetup").arg("--detach").arg(device))?;
    }
    Ok(())
}

/// Loop devices whose files are below a directory, with the file.
pub fn loops_below(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut list = Command::new("losetup");
    list.args(["--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"]);
    let said = command::run_quietly(&mut list)?;
    let pairs = said.lines().filter_map(|line| line.split_once(' '));
    let pairs = pairs.map(|(device, file)| (device.to_owned(), PathBuf::from(file.trim())));
    Ok(pairs.filter(|(_, file)| file.starts_with(directory)).collect())
}

/// What a cluster must not leave on the machine; empty if it is clean.
pub fn leftovers(
    directory: &Path,
    hierarchies: &Hierarchies,
    namespaces: &BTreeSet<u64>,
) -> Result<Vec<String>> {
    let mut left = Vec::new();
    left.extend(hierarchies.processes().iter().map(|it| format!("process {it} in a group")));
    left.extend(processes_in(namespaces).iter().map(|it| format!("process {it} in a network")));
    left.extend(hierarchies.groups().iter().map(|it| format!("control group {}", it.display())));
    left.extend(mounts_below(directory)?.iter().map(|it| format!("mount {}", it.display())));
    let loops = loops_below(directory)?;
    left.extend(loops.iter().map(|(device, it)| format!("{device} with {}", it.display())));
    left.extend(network::our_namespaces()?.iter().map(|it| format!("network namespace {it}")));
    left.extend(network::links()?.iter().map(|it| format!("network link {it}")));
    left.extend(network::routes()?.iter().map(|it| format!("route {it}")));
    Ok(left)
}

/// The numbers by which the kernel knows the network namespaces of the machines.
pub fn namespaces_of_machines() -> Result<BTreeSet<u64>> {
    let names = network::our_namespaces()?;
    let files = names.iter().map(|name| Path::new("/run/netns").join(name));
    Ok(files.filter_map(|file| fs::metadata(file).ok()).map(|data| data.ino()).collect())
}

/// Processes in these network namespaces. Those that only `kube in` started have no group.
fn processes_in(namespaces: &BTreeSet<u64>) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.map(|entry| entry.path()).filter(|path| {
        fs::metadata(path.join("ns/net")).is_ok_and(|data| namespaces.contains(&data.ino()))
    });
    let named = processes.filter_map(|path| {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        Some(format!("{} ({})", path.file_name()?.to_string_lossy(), name.trim()))
    });
    named.collect()
}

/// Removes the directories that were made on this machine for nodes to cover them.
fn remove_covered(directory: &Path) -> Result<()> {
    let text = fs::read_to_string(directory.join("covered")).unwrap_or_default();
    for place in text.lines() {
        match fs::remove_dir(place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {place}"));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn remove_files(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !KEPT.iter().any(|kept| entry.file_name() == *kept) {
            cluster::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Ends a node as fire would: its processes, its network, its files.
pub fn lose(cluster: &Cluster, hierarchies: &Hierarchies, node: Machine) -> Result<()> {
    // The network first: a machine that burns says nothing to anybody.
    network::connect(node, false)?;
    hierarchies.kill_machine(node)?;
    network::remove_machine(node)?;
    let volumes = cluster.volumes().join(node.name());
    let limit = Instant::now() + Duration::from_secs(20);
    // Its mounts end with its last process, a moment later.
    loop {
        match detach_loops(&volumes).and_then(|()| loops_below(&volumes)) {
            Ok(left) if left.is_empty() => break,
            Err(error) if Instant::now() > limit => return Err(error),
            Ok(left) if Instant::now() > limit => bail!("its volumes are still mounted: {left:?}"),
            Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    cluster::remove(&volumes)?;
    cluster::remove(&cluster.home(node))
}
