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
use super::{network, storage};
use crate::command;

/// What goes from the directory of the cluster. All else stays: images take time to make, logs are
/// read afterwards, and what is not ours is not ours to remove.
const REMOVED: [&str; 7] =
    ["machines", "pki", "processes", "volumes", "volumes.img", "covered", "cluster.json"];

/// Ends the cluster of a directory, whatever is left of it, and checks that nothing stays.
pub fn down(directory: &Path, hierarchies: &Hierarchies) -> Result<()> {
    let namespaces = namespaces_of_machines()?;
    end_processes(directory, hierarchies)?;
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
        detach(&loops_of(directory)?);
        std::thread::sleep(Duration::from_millis(200));
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

/// What is mounted below a directory on this machine itself: the cluster mounts nothing there.
fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let places = text.lines().filter_map(|line| line.split(' ').nth(1));
    // The kernel writes blanks in octal digits.
    let places = places.map(|place| PathBuf::from(place.replace("\\040", " ")));
    Ok(places.filter(|place| place.starts_with(directory)).collect())
}

/// Frees loop devices. Those in use go by themselves with their last mount, a moment after the last
/// process that saw it; what a crash left before it was mounted must be told.
fn detach(loops: &[Loop]) {
    for device in loops {
        // It may just have gone by itself.
        let _ = Command::new("losetup").arg("--detach").arg(&device.name).output();
    }
}

/// A loop device of the cluster.
#[derive(Clone, Debug)]
struct Loop {
    name: String,
    number: String,
    /// The device of the file system that its file lies on.
    below: String,
    file: String,
}

/// The loop devices whose files are below a directory, or on a file system on one of those: their
/// names no longer begin with the directory when the mount that they were opened by has ended.
fn loops_of(directory: &Path) -> Result<Vec<Loop>> {
    let mut list = Command::new("losetup");
    list.args(["--list", "--noheadings", "--raw"]);
    list.args(["--output", "NAME,MAJ:MIN,BACK-MAJ:MIN,BACK-FILE"]);
    Ok(loops_among(&command::run_quietly(&mut list)?, directory))
}

fn loops_among(listed: &str, directory: &Path) -> Vec<Loop> {
    let all = listed.lines().filter_map(|line| {
        let mut words = line.splitn(4, ' ').map(str::to_owned);
        let (name, number, below) = (words.next()?, words.next()?, words.next()?);
        Some(Loop { name, number, below, file: words.next().unwrap_or_default() })
    });
    let all: Vec<Loop> = all.collect();
    let outer = |device: &&Loop| Path::new(&device.file).starts_with(directory);
    let numbers: BTreeSet<&str> =
        all.iter().filter(outer).map(|device| device.number.as_str()).collect();
    let ours = all
        .iter()
        .filter(|device| outer(device) || numbers.contains(device.below.as_str()))
        .cloned();
    ours.collect()
}

/// What a cluster must not leave on the machine; empty if it is clean.
fn leftovers(
    directory: &Path,
    hierarchies: &Hierarchies,
    namespaces: &BTreeSet<u64>,
) -> Result<Vec<String>> {
    let mut left = Vec::new();
    left.extend(hierarchies.processes().iter().map(|it| format!("process {it} in a group")));
    left.extend(processes_in(namespaces).iter().map(|it| format!("process {it} in a network")));
    left.extend(hierarchies.groups().iter().map(|it| format!("control group {}", it.display())));
    left.extend(mounts_below(directory)?.iter().map(|it| format!("mount {}", it.display())));
    let loops = loops_of(directory)?;
    left.extend(loops.iter().map(|it| format!("{} with {}", it.name, it.file)));
    left.extend(network::our_namespaces()?.iter().map(|it| format!("network namespace {it}")));
    left.extend(network::links()?.iter().map(|it| format!("network link {it}")));
    left.extend(network::routes()?.iter().map(|it| format!("route {it}")));
    Ok(left)
}

/// The numbers by which the kernel knows the network namespaces of the machines.
fn namespaces_of_machines() -> Result<BTreeSet<u64>> {
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
    REMOVED.iter().try_for_each(|name| cluster::remove(&directory.join(name)))
}

/// Ends a node as fire would: its processes, its network, its files.
pub fn lose(cluster: &Cluster, hierarchies: &Hierarchies, node: Machine) -> Result<()> {
    // The network first: a machine that burns says nothing to anybody.
    network::connect(node, false)?;
    hierarchies.kill_machine(node)?;
    network::remove_machine(node)?;
    let limit = Instant::now() + Duration::from_secs(20);
    let marked = format!("/{}/", node.name());
    loop {
        let mut loops = loops_of(&cluster.directory)?;
        loops.retain(|device| device.file.contains(&marked));
        if loops.is_empty() {
            break;
        }
        if Instant::now() > limit {
            bail!("its volumes are still in use: {loops:?}");
        }
        detach(&loops);
        std::thread::sleep(Duration::from_millis(200));
    }
    storage::lose(cluster, hierarchies, node)?;
    cluster::remove(&cluster.home(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_device_is_ours_by_its_file_or_by_what_its_file_lies_on() {
        let listed = "/dev/loop0 7:0 254:0 /k/volumes.img\n\
                      /dev/loop1 7:1 7:0 /node1/pvc-1.img\n\
                      /dev/loop2 7:2 254:0 /kept/other.img\n";
        let names: Vec<String> =
            loops_among(listed, Path::new("/k")).into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["/dev/loop0", "/dev/loop1"]);
    }
}
