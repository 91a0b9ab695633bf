//! What the test cluster consists of, and where its parts are.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::paths;
use crate::setup::release::{RELEASES, Release};

/// The network of the machines, a /24: the first address is this machine's own.
pub const MACHINES: [u8; 3] = [10, 89, 0];
/// The network of the pods, a /16: each node has a /24.
pub const PODS: [u8; 2] = [10, 244];
/// The addresses of Services.
pub const SERVICES: &str = "10.96.0.0/16";
/// The API server's own Service.
pub const API_SERVICE: &str = "10.96.0.1";
/// The DNS server.
pub const DNS: &str = "10.96.0.10";
/// What there is of the cluster outside of its directory, but for namespaces, links and cgroups.
const RUN: &str = "/run/matriarch-kube";

/// A machine that the cluster believes to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The machine of the control plane, so that any node can be cut or lost.
    Control,
    /// A node, from 1.
    Node(u8),
}

impl Machine {
    /// Its name; for a node, that in the API.
    pub fn name(self) -> String {
        match self {
            Self::Control => "control".to_owned(),
            Self::Node(number) => format!("node{number}"),
        }
    }

    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        let [a, b, c] = MACHINES;
        match self {
            Self::Control => Ipv4Addr::new(a, b, c, 10),
            Self::Node(number) => Ipv4Addr::new(a, b, c, 10 + number),
        }
    }

    /// The name of its network namespace.
    pub fn namespace(self) -> String {
        format!("matriarch-{}", self.name())
    }

    /// Its end of the cable on this machine: an interface has at most 15 letters.
    pub fn link(self) -> String {
        format!("mk-{}", self.name())
    }

    /// The network of its pods; none on the control plane's machine.
    pub fn pods(self) -> Option<String> {
        let [a, b] = PODS;
        match self {
            Self::Control => None,
            Self::Node(number) => Some(format!("{a}.{b}.{number}.0/24")),
        }
    }
}

/// The cluster of this directory.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// All that it keeps.
    pub directory: PathBuf,
    /// How many nodes it has.
    pub nodes: u8,
    /// Its version.
    pub release: &'static Release,
}

impl Cluster {
    /// A cluster that may not be there yet.
    pub fn new(nodes: u8, release: &'static Release) -> Self {
        Self { directory: paths::kube(), nodes, release }
    }

    /// The cluster that `up` has recorded in this directory.
    pub fn recorded() -> Result<Option<Self>> {
        let directory = paths::kube();
        let file = directory.join("cluster.json");
        let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
        let shown = file.display();
        let value: Value = serde_json::from_str(&text).with_context(|| format!("in {shown}"))?;
        let nodes = value["nodes"].as_u64().and_then(|nodes| u8::try_from(nodes).ok());
        let minor = value["kubernetes"].as_str();
        let release = RELEASES.iter().find(|release| Some(release.minor) == minor);
        match (nodes, release) {
            (Some(nodes), Some(release)) => Ok(Some(Self { directory, nodes, release })),
            _ => bail!("{shown} does not name nodes and a known version of Kubernetes"),
        }
    }

    /// As `recorded`, for verbs that need one.
    pub fn existing() -> Result<Self> {
        let found = Self::recorded()?;
        found.with_context(|| {
            let directory = paths::kube();
            format!("there is no cluster in {}: cargo xtask kube up", directory.display())
        })
    }

    /// Remembers it for the other verbs.
    pub fn record(&self) -> Result<()> {
        let value = json!({ "nodes": self.nodes, "kubernetes": self.release.minor });
        write(&self.directory.join("cluster.json"), &value.to_string())
    }

    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Machine> + use<> {
        (1..=self.nodes).map(Machine::Node)
    }

    /// All its machines.
    pub fn machines(&self) -> impl Iterator<Item = Machine> + use<> {
        std::iter::once(Machine::Control).chain(self.nodes())
    }

    /// The node of a number that a user gave.
    pub fn node(&self, number: u8) -> Result<Machine> {
        if (1..=self.nodes).contains(&number) {
            return Ok(Machine::Node(number));
        }
        bail!("there is no node {number}: the nodes are 1 to {}", self.nodes)
    }

    /// What a machine keeps.
    pub fn home(&self, machine: Machine) -> PathBuf {
        self.directory.join("machines").join(machine.name())
    }

    /// The log of a program.
    pub fn log(&self, machine: Machine, program: &str) -> PathBuf {
        self.directory.join("log").join(format!("{}-{program}.log", machine.name()))
    }

    /// Where the programs of its version are.
    pub fn program(&self, name: &str) -> PathBuf {
        self.release.programs().join(name)
    }

    /// A certificate, a key or a kubeconfig.
    pub fn pki(&self, name: &str) -> PathBuf {
        self.directory.join("pki").join(name)
    }

    /// The kubeconfig of its administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki("admin.conf")
    }

    /// Archives of images.
    pub fn images(&self) -> PathBuf {
        self.directory.join("images")
    }

    /// Where the file system of all volumes is mounted.
    pub fn volumes(&self) -> PathBuf {
        self.directory.join("volumes")
    }

    /// The file that holds the file system of all volumes.
    pub fn volumes_image(&self) -> PathBuf {
        self.directory.join("volumes.img")
    }
}

/// The directory of sockets, whose paths must be short.
pub fn run_directory() -> &'static Path {
    Path::new(RUN)
}

/// Makes a directory and all above it.
pub fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// Writes a small file.
pub fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(directory) = file.parent() {
        make(directory)?;
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Removes a file or a directory with all below it, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
