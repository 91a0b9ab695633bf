//! A node: a machine with a containerd, a kubelet and a kube-proxy.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::cgroup::{Hierarchies, TOP};
use super::cluster::{self, Cluster, DNS, Machine};
use super::mounts::{KEEPER, Mounts};
use super::program::Program;
use super::storage;
use crate::{command, line};

/// The programs of a node, in the order of their start.
pub const PROGRAMS: [&str; 5] = [KEEPER, "containerd", "kubelet", "kube-proxy", storage::NODE];
/// How long a program may take to start on two cores that others use as well.
const START: Duration = Duration::from_secs(60);
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
        self.mounts().make()?;
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

    /// What runs `line` on the node.
    pub fn inside(&self, line: Vec<OsString>) -> Result<Vec<OsString>> {
        self.mounts().inside(line)
    }

    /// A program on this node.
    pub fn program<'b>(&'b self, name: &'b str) -> Program<'b> {
        Program::new(self.cluster, self.hierarchies, self.machine, name)
    }

    fn mounts(&self) -> Mounts<'a> {
        Mounts::new(self.cluster, self.hierarchies, self.machine)
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

fn pods_of_all() -> String {
    let [a, b] = cluster::PODS;
    format!("{a}.{b}.0.0/16")
}

fn flag(name: &str, path: PathBuf) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(path);
    flag
}
