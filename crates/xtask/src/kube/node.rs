//! A node: a network namespace and a mount namespace with a containerd, a kubelet and a kube-proxy.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::cgroup::{Hierarchies, TOP};
use super::cluster::{self, Cluster, DNS, Machine};
use super::network;
use super::program::Program;
use super::storage;
use crate::{command, line};

/// The program that keeps the mount namespace; it does nothing else.
const KEEPER: &str = "mounts";
/// The programs of a node, in the order of their start.
pub const PROGRAMS: [&str; 5] = [KEEPER, "containerd", "kubelet", "kube-proxy", storage::NODE];
/// How long a program may take to start on two cores that others use as well.
const START: Duration = Duration::from_secs(60);
/// Directories that belong to each node, although programs name them the same everywhere.
const OWN: [(&str, &str); 4] = [
    ("kubelet", "/var/lib/kubelet"),
    ("cni", "/var/lib/cni"),
    ("pods", "/var/log/pods"),
    ("containers", "/var/log/containers"),
];
/// The image that holds a pod's namespaces.
pub const PAUSE: &str = "localhost/pause:1";

/// A node of a cluster.
pub struct Node<'a> {
    cluster: &'a Cluster,
    hierarchies: &'a Hierarchies,
    machine: Machine,
}

impl<'a> Node<'a> {
    /// The node on that machine.
    pub fn new(cluster: &'a Cluster, hierarchies: &'a Hierarchies, machine: Machine) -> Self {
        Self { cluster, hierarchies, machine }
    }

    /// Starts containerd, without a kubelet that would want images at once.
    pub fn start_containers(&self) -> Result<()> {
        let home = self.cluster.home(self.machine);
        cluster::make(&home)?;
        self.hierarchies.make_for_pods(self.machine)?;
        self.start_keeper()?;
        cluster::write(&home.join("containerd.toml"), &self.containerd_configuration())?;
        let networks = self.network_configuration().to_string();
        cluster::write(&home.join("net.d/10-pods.conflist"), &networks)?;
        let containerd = self.program("containerd");
        let configuration = home.join("containerd.toml");
        containerd.start(&self.inside(line!["containerd", "--config", configuration])?)?;
        containerd.wait("it does not answer", START, || {
            self.ctr().is_ok_and(|mut ctr| {
                ctr.arg("version").output().is_ok_and(|output| output.status.success())
            })
        })
    }

    /// Starts kubelet and kube-proxy.
    pub fn start_kubelet(&self) -> Result<()> {
        let home = self.cluster.home(self.machine);
        let name = self.machine.name();
        cluster::write(&home.join("kubelet.json"), &self.kubelet_configuration().to_string())?;
        // Pods that ask the node's own resolver get no answer: there is no world outside.
        cluster::write(&home.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        let mut line = line![self.cluster.program("kubelet"), "--v=2"];
        line.push(flag("config", home.join("kubelet.json")));
        line.push(flag("kubeconfig", self.cluster.pki(&format!("{name}.conf"))));
        line.push(format!("--hostname-override={name}").into());
        line.push(format!("--node-ip={}", self.machine.address()).into());
        self.program("kubelet").start(&self.inside(line)?)?;
        cluster::write(&home.join("proxy.json"), &self.proxy_configuration().to_string())?;
        let mut line = line![self.cluster.program("kube-proxy")];
        line.push(flag("config", home.join("proxy.json")));
        self.program("kube-proxy").start(&self.inside(line)?)
    }

    /// Makes images of an archive known to the node.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let mut ctr = self.ctr()?;
        command::run_quietly(ctr.args(["images", "import"]).arg(archive))?;
        Ok(())
    }

    /// The programs of the node that do not run.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = |name: &&str| self.program(name).process().is_none();
        PROGRAMS.into_iter().filter(missing).collect()
    }

    /// What runs `line` on the node: in its network, with its mounts.
    pub fn inside(&self, line: Vec<OsString>) -> Result<Vec<OsString>> {
        let keeper = self.program(KEEPER).process();
        let keeper = keeper.with_context(|| format!("{} is not running", self.machine.name()))?;
        let mut words = line!["nsenter", format!("--target={keeper}"), "--net", "--mount", "--"];
        words.extend(line);
        Ok(words)
    }

    /// A program on this node.
    pub fn program<'b>(&'b self, name: &'b str) -> Program<'b> {
        Program::new(self.cluster, self.hierarchies, self.machine, name)
    }

    /// What is mounted on the node, volumes of pods above all, is in a namespace that ends with its
    /// processes: nothing of it reaches this machine, and nothing of it stays.
    fn start_keeper(&self) -> Result<()> {
        let home = self.cluster.home(self.machine);
        let keeper = self.program(KEEPER);
        if keeper.process().is_some() {
            return Ok(());
        }
        let mut script = String::from("set -e\nmount --make-rprivate /\n");
        for (own, place) in OWN {
            cluster::make(&home.join(own))?;
            let own = home.join(own).display().to_string();
            script += &format!("mount --bind '{own}' {place}\n");
        }
        script += "mount -t tmpfs -o mode=755 tmpfs /run\nmkdir -p /run/lock /run/netns\n";
        // What containers mount "bidirectionally" goes to the node, and from it to others.
        script += "mount --make-rshared /\nexec sleep infinity\n";
        cluster::write(&home.join("mounts.sh"), &script)?;
        let enter = network::enter(self.machine);
        let mut line = line![enter.get_program().to_owned()];
        line.extend(enter.get_args().map(ToOwned::to_owned));
        line.extend(line!["unshare", "--mount", "--propagation=unchanged", "sh"]);
        line.push(home.join("mounts.sh").into());
        keeper.start(&line)?;
        keeper.wait("it cannot mount", START, || {
            let process = keeper.process().map(|process| format!("/proc/{process}/comm"));
            let name = process.and_then(|file| fs::read_to_string(file).ok());
            name.is_some_and(|name| name.trim() == "sleep")
        })
    }

    fn ctr(&self) -> Result<Command> {
        let words = self.inside(line!["ctr", "--namespace", "k8s.io"])?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        Ok(command)
    }

    fn containerd_configuration(&self) -> String {
        let home = self.cluster.home(self.machine);
        let shown = |part: &str| format!("{:?}", home.join(part).display().to_string());
        format!(
            "version = 2\n\
             root = {root}\n\
             state = \"/run/containerd\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n\
             path = {opt}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             sandbox_image = \"{PAUSE}\"\n\
             # Where CAP_SYS_RESOURCE is missing, runc cannot lower the score of a pod.\n\
             restrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             bin_dir = \"/usr/lib/cni\"\n\
             conf_dir = {networks}\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
             snapshotter = \"overlayfs\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n",
            root = shown("containerd"),
            opt = shown("opt"),
            networks = shown("net.d"),
        )
    }

    /// Each pod has a cable of its own to the node and no bridge to others, so that all its traffic
    /// passes iptables, also to a Service whose pod is on the same node.
    fn network_configuration(&self) -> serde_json::Value {
        let pods = self.machine.pods();
        json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": false,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{ "subnet": pods }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        })
    }

    fn kubelet_configuration(&self) -> serde_json::Value {
        let name = self.machine.name();
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": self.cluster.pki("ca.crt") },
            },
            "authorization": { "mode": "Webhook" },
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{TOP}/{name}"),
            "failCgroupV1": false,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "failSwapOn": false,
            "tlsCertFile": self.cluster.pki(&format!("{name}.crt")),
            "tlsPrivateKeyFile": self.cluster.pki(&format!("{name}.key")),
            "resolvConf": self.cluster.home(self.machine).join("resolv.conf"),
            // The disk is the developer's, and images cannot be pulled a second time.
            "evictionHard": {
                "imagefs.available": "1%",
                "nodefs.available": "1%",
                "memory.available": "100Mi",
            },
            "imageGCHighThresholdPercent": 100,
        })
    }

    /// With nftables, kube-proxy writes chains without endpoints on Debian 12. The limits of
    /// connection tracking are the whole machine's, and stay as they are.
    fn proxy_configuration(&self) -> serde_json::Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": { "kubeconfig": self.cluster.pki("proxy.conf") },
            "mode": "iptables",
            "clusterCIDR": pods_of_all(),
            "hostnameOverride": self.machine.name(),
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        })
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

fn pods_of_all() -> String {
    let [a, b] = cluster::PODS;
    format!("{a}.{b}.0.0/16")
}

fn flag(name: &str, path: PathBuf) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(path);
    flag
}
