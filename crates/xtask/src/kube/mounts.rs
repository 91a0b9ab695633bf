//! What is mounted for a machine of the cluster is in a mount namespace of its own, which ends with
//! the machine's processes: nothing of it reaches this machine, and nothing of it stays.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cgroup::Hierarchies;
use super::cluster::{self, Cluster, Machine};
use super::network;
use super::program::Program;
use crate::line;

/// The program that keeps the namespace; it does nothing else.
pub const KEEPER: &str = "mounts";
const START: Duration = Duration::from_secs(60);
/// Directories that belong to each node, although programs name them the same everywhere.
const OWN: [(&str, &str); 4] = [
    ("kubelet", "/var/lib/kubelet"),
    ("cni", "/var/lib/cni"),
    ("pods", "/var/log/pods"),
    ("containers", "/var/log/containers"),
];

/// The mount namespace of a machine.
pub struct Mounts<'a> {
    cluster: &'a Cluster,
    hierarchies: &'a Hierarchies,
    machine: Machine,
}

impl<'a> Mounts<'a> {
    /// That of the machine, whether it is there or not.
    pub fn new(cluster: &'a Cluster, hierarchies: &'a Hierarchies, machine: Machine) -> Self {
        Self { cluster, hierarchies, machine }
    }

    /// Makes the namespace, unless it is there.
    pub fn make(&self) -> Result<()> {
        let keeper = self.keeper();
        if keeper.process().is_some() {
            return Ok(());
        }
        let home = self.cluster.home(self.machine);
        let (mut line, mounts) = match self.machine {
            Machine::Control => {
                let enter = network::enter(self.machine);
                let mut line = line![enter.get_program()];
                line.extend(enter.get_args().map(ToOwned::to_owned));
                (line, self.volumes()?)
            }
            Machine::Node(_) => {
                // Below that of the control plane, where all volumes are.
                let above = Self { machine: Machine::Control, ..*self };
                let target = format!("--target={}", above.process()?);
                let net = format!("--net=/run/netns/{}", self.machine.namespace());
                (line!["nsenter", target, "--mount", net], self.own()?)
            }
        };
        let script = home.join("mounts.sh");
        let start = "set -e\nmount --make-rprivate /\n";
        // What containers mount "bidirectionally" goes to the machine, and from it to others.
        let end = "mount --make-rshared /\nexec sleep infinity\n";
        cluster::write(&script, &format!("{start}{mounts}{end}"))?;
        line.extend(line!["unshare", "--mount", "--propagation=unchanged", "sh", &script]);
        keeper.start_once(&line)?;
        keeper.wait("it cannot mount", START, || {
            let process = keeper.process().map(|process| format!("/proc/{process}/comm"));
            let name = process.and_then(|file| fs::read_to_string(file).ok());
            name.is_some_and(|name| name.trim() == "sleep")
        })
    }

    /// What runs `line` on the machine: in its network, with its mounts.
    pub fn inside(&self, line: Vec<OsString>) -> Result<Vec<OsString>> {
        let target = format!("--target={}", self.process()?);
        let mut words = line!["nsenter", target, "--net", "--mount", "--"];
        words.extend(line);
        Ok(words)
    }

    fn process(&self) -> Result<u32> {
        let process = self.keeper().process();
        process.with_context(|| format!("{} is not running", self.machine.name()))
    }

    fn keeper(&self) -> Program<'a> {
        Program::new(self.cluster, self.hierarchies, self.machine, KEEPER)
    }

    /// The file system of all volumes.
    fn volumes(&self) -> Result<String> {
        let (image, place) = (self.cluster.volumes_image(), self.cluster.volumes());
        cluster::make(&place)?;
        let (image, place) = (image.display(), place.display());
        Ok(format!("mount -t xfs -o loop,discard '{image}' '{place}'\n"))
    }

    /// A node's own directories, and a `/run` that nobody else has.
    fn own(&self) -> Result<String> {
        let home = self.cluster.home(self.machine);
        let mut script = String::new();
        for (own, place) in OWN {
            cluster::make(&home.join(own))?;
            let own = home.join(own).display().to_string();
            script += &format!("mount --bind '{own}' {place}\n");
        }
        script += "mount -t tmpfs -o mode=755 tmpfs /run\nmkdir -p /run/lock /run/netns\n";
        Ok(script)
    }
}

/// The directories of this machine that nodes cover with their own, made if they are not there;
/// returns those that were made.
pub fn make_covered() -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for (_, place) in OWN {
        let place = PathBuf::from(place);
        if !place.is_dir() {
            cluster::make(&place)?;
            made.push(place);
        }
    }
    Ok(made)
}
