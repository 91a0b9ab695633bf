//! Control groups: kubelets put pods into them, and they tell which processes belong to the
//! cluster, also those of containers, and after a crash of whatever started them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cluster::{self, Machine};

/// Everything of the cluster is below this one.
pub const TOP: &str = "matriarch-kube";

/// Where the machine's control groups are mounted.
pub struct Hierarchies {
    /// One for each controller in version 1, one for all in version 2.
    kubelet: Vec<PathBuf>,
    /// All, also those that kubelet does not use.
    all: Vec<PathBuf>,
    /// The one that tells which processes are ours.
    tracking: PathBuf,
}

impl Hierarchies {
    /// Reads what is mounted.
    pub fn read() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
        Self::parse(&mounts).context("this machine has no control groups for processes")
    }

    fn parse(mounts: &str) -> Option<Self> {
        let (mut first, mut second, mut tracking) = (Vec::new(), Vec::new(), None);
        for line in mounts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, place, kind, options, ..] = words[..] else { continue };
            match kind {
                "cgroup" => {
                    if options.split(',').any(|option| option == "pids") {
                        tracking = Some(PathBuf::from(place));
                    }
                    first.push(PathBuf::from(place));
                }
                "cgroup2" => second.push(PathBuf::from(place)),
                _ => {}
            }
        }
        let tracking = tracking.or_else(|| second.first().cloned())?;
        let all = first.iter().chain(&second).cloned().collect();
        Some(Self { kubelet: if first.is_empty() { second } else { first }, all, tracking })
    }

    /// The group below which a node's kubelet puts its pods, in all hierarchies.
    pub fn make_for_pods(&self, node: Machine) -> Result<()> {
        for hierarchy in &self.kubelet {
            let (top, group) = (hierarchy.join(TOP), hierarchy.join(TOP).join(node.name()));
            let mut above = hierarchy.clone();
            for directory in [top, group] {
                cluster::make(&directory)?;
                // A new group of this hierarchy has no processor and no memory.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let inherited = fs::read_to_string(above.join(file)).unwrap_or_default();
                    if !inherited.trim().is_empty() && directory.join(file).exists() {
                        let _ = fs::write(directory.join(file), inherited);
                    }
                }
                // Version 2 passes controllers on only if told so.
                let offered = above.join("cgroup.controllers");
                for controller in fs::read_to_string(offered).unwrap_or_default().split(' ') {
                    let passed = format!("+{}", controller.trim());
                    let _ = fs::write(above.join("cgroup.subtree_control"), passed);
                }
                above = directory;
            }
        }
        Ok(())
    }

    /// Makes the group of a program; returns the file that takes processes.
    pub fn make_for_program(&self, machine: Machine, program: &str) -> Result<PathBuf> {
        let group = self.of_program(machine, program);
        cluster::make(&group)?;
        Ok(group.join("cgroup.procs"))
    }

    /// The processes of a program and of what it started, but for those of pods.
    pub fn processes_of_program(&self, machine: Machine, program: &str) -> Vec<u32> {
        processes_below(&self.of_program(machine, program))
    }

    /// Kills a program and what it started, but for pods.
    pub fn kill_program(&self, machine: Machine, program: &str) -> Result<()> {
        kill_below(&self.of_program(machine, program))
    }

    /// Kills all pods of a node.
    pub fn kill_pods(&self, node: Machine) -> Result<()> {
        kill_below(&self.tracking.join(TOP).join(node.name()).join("kubepods"))
    }

    /// Kills everything on a machine, and removes its groups.
    pub fn kill_machine(&self, machine: Machine) -> Result<()> {
        kill_below(&self.tracking.join(TOP).join(machine.name()))?;
        self.remove(&format!("{TOP}/{}", machine.name()))
    }

    /// Kills everything of the cluster, and removes all its groups.
    pub fn kill_all(&self) -> Result<()> {
        kill_below(&self.tracking.join(TOP))?;
        self.remove(TOP)
    }

    /// All processes of the cluster.
    pub fn processes(&self) -> Vec<u32> {
        processes_below(&self.tracking.join(TOP))
    }

    /// The groups of the cluster that exist, in any hierarchy.
    pub fn groups(&self) -> Vec<PathBuf> {
        let tops = self.all.iter().map(|hierarchy| hierarchy.join(TOP));
        tops.filter(|top| top.exists()).flat_map(|top| directories_below(&top)).collect()
    }

    fn of_program(&self, machine: Machine, program: &str) -> PathBuf {
        self.tracking.join(TOP).join(machine.name()).join("programs").join(program)
    }

    fn remove(&self, group: &str) -> Result<()> {
        let limit = Instant::now() + Duration::from_secs(10);
        for hierarchy in &self.all {
            for directory in directories_below(&hierarchy.join(group)) {
                // A group is busy for a moment after its last process was killed.
                while let Err(error) = fs::remove_dir(&directory) {
                    if error.kind() == std::io::ErrorKind::NotFound {
                        break;
                    }
                    if Instant::now() > limit {
                        return Err(error)
                            .with_context(|| format!("cannot remove {}", directory.display()));
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        Ok(())
    }
}

/// A directory and all below it, the deepest first; none if it does not exist.
fn directories_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let inside = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut found: Vec<PathBuf> = inside.flat_map(|path| directories_below(&path)).collect();
    found.push(directory.to_path_buf());
    found
}

fn processes_below(group: &Path) -> Vec<u32> {
    let mut processes = Vec::new();
    for directory in directories_below(group) {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        processes.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    processes
}

/// Kills until nothing is left: what is killed may just have started something.
fn kill_below(group: &Path) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(15);
    loop {
        let processes = processes_below(group);
        if processes.is_empty() {
            return Ok(());
        }
        if Instant::now() > limit {
            bail!("processes survive kill -9 in {}: {processes:?}", group.display());
        }
        let numbers = processes.iter().map(ToString::to_string);
        // One of them may have ended meanwhile: then `kill` fails, and the next round sees.
        let _ = Command::new("kill").arg("-KILL").args(numbers).output();
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller_and_may_have_one_of_version_2_beside() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
                      cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found = Hierarchies::parse(mounts).unwrap();
        assert_eq!(found.tracking, Path::new("/sys/fs/cgroup/pids"));
        assert_eq!(found.kubelet.len(), 2);
        assert_eq!(found.all.len(), 3);
    }

    #[test]
    fn version_2_has_one_hierarchy_for_all() {
        let found = Hierarchies::parse("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n").unwrap();
        assert_eq!(found.tracking, Path::new("/sys/fs/cgroup"));
        assert_eq!(found.kubelet, found.all);
    }
}
