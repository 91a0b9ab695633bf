//! The control plane, on a machine of its own: etcd, API server, controllers, scheduler.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::cgroup::Hierarchies;
use super::cluster::{self, Cluster, Machine, SERVICES};
use super::network;
use super::program::Program;
use crate::{command, line};

/// The programs, in the order of their start.
pub const PROGRAMS: [&str; 4] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// How long the API server may take on two cores that others use as well.
const START: Duration = Duration::from_secs(180);

/// Starts what does not run, and waits until the API server answers.
pub fn start(cluster: &Cluster, hierarchies: &Hierarchies) -> Result<()> {
    let etcd = program(cluster, hierarchies, "etcd");
    cluster::make(&cluster.home(Machine::Control))?;
    etcd.start(&inside(etcd_line(cluster)))?;
    start_api(cluster, hierarchies)?;
    for (name, line) in [
        ("kube-controller-manager", controllers_line(cluster)),
        ("kube-scheduler", scheduler_line(cluster)),
    ] {
        program(cluster, hierarchies, name).start(&inside(line))?;
    }
    Ok(())
}

/// Starts the API server if it does not run, and waits until it is ready.
pub fn start_api(cluster: &Cluster, hierarchies: &Hierarchies) -> Result<()> {
    let api = program(cluster, hierarchies, "kube-apiserver");
    api.start(&inside(api_line(cluster)))?;
    api.wait("it does not become ready", START, || answers(cluster))
}

/// Ends the API server; all else runs on.
pub fn stop_api(cluster: &Cluster, hierarchies: &Hierarchies) -> Result<()> {
    program(cluster, hierarchies, "kube-apiserver").kill()
}

/// True if the API server says that it is ready.
pub fn answers(cluster: &Cluster) -> bool {
    let mut ask = kubectl(cluster);
    ask.args(["get", "--raw", "/readyz", "--request-timeout=5s"]);
    ask.output().is_ok_and(|output| output.status.success())
}

/// `kubectl` as the administrator.
pub fn kubectl(cluster: &Cluster) -> Command {
    let mut command = Command::new(cluster.program("kubectl"));
    command.arg("--kubeconfig").arg(cluster.kubeconfig());
    command
}

/// Runs `kubectl` with these words; its output.
pub fn ask(cluster: &Cluster, words: &[&str]) -> Result<String> {
    command::run_quietly(kubectl(cluster).args(words))
}

fn program<'a>(cluster: &'a Cluster, hierarchies: &'a Hierarchies, name: &'a str) -> Program<'a> {
    Program::new(cluster, hierarchies, Machine::Control, name)
}

/// What runs `line` on the machine of the control plane.
pub fn inside(line: Vec<OsString>) -> Vec<OsString> {
    let enter = network::enter(Machine::Control);
    let mut words = vec![enter.get_program().to_owned()];
    words.extend(enter.get_args().map(ToOwned::to_owned));
    words.extend(line);
    words
}

/// `--name=path`.
fn flag(name: &str, path: impl AsRef<std::path::Path>) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(path.as_ref());
    flag
}

fn etcd_line(cluster: &Cluster) -> Vec<OsString> {
    line![
        cluster.program("etcd"),
        flag("data-dir", cluster.home(Machine::Control).join("etcd")),
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        // The cluster ends with this machine; databases' own syncs are real.
        "--unsafe-no-fsync",
    ]
}

fn api_line(cluster: &Cluster) -> Vec<OsString> {
    line![
        cluster.program("kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        format!("--advertise-address={}", Machine::Control.address()),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        flag("client-ca-file", cluster.pki("ca.crt")),
        flag("tls-cert-file", cluster.pki("apiserver.crt")),
        flag("tls-private-key-file", cluster.pki("apiserver.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        flag("service-account-key-file", cluster.pki("accounts.pub")),
        flag("service-account-signing-key-file", cluster.pki("accounts.key")),
        flag("kubelet-certificate-authority", cluster.pki("ca.crt")),
        flag("kubelet-client-certificate", cluster.pki("admin.crt")),
        flag("kubelet-client-key", cluster.pki("admin.key")),
        "--kubelet-preferred-address-types=InternalIP",
        flag("requestheader-client-ca-file", cluster.pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        flag("proxy-client-cert-file", cluster.pki("front-proxy.crt")),
        flag("proxy-client-key-file", cluster.pki("front-proxy.key")),
        // No kube-proxy runs on this machine, so Services' pods are reached directly.
        "--enable-aggregator-routing=true",
    ]
}

fn controllers_line(cluster: &Cluster) -> Vec<OsString> {
    let kubeconfig = cluster.pki("controller-manager.conf");
    line![
        cluster.program("kube-controller-manager"),
        flag("kubeconfig", &kubeconfig),
        flag("authentication-kubeconfig", &kubeconfig),
        flag("authorization-kubeconfig", &kubeconfig),
        flag("service-account-private-key-file", cluster.pki("accounts.key")),
        flag("root-ca-file", cluster.pki("ca.crt")),
        flag("cluster-signing-cert-file", cluster.pki("ca.crt")),
        flag("cluster-signing-key-file", cluster.pki("ca.key")),
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--node-monitor-grace-period=20s",
    ]
}

fn scheduler_line(cluster: &Cluster) -> Vec<OsString> {
    let kubeconfig = cluster.pki("scheduler.conf");
    line![
        cluster.program("kube-scheduler"),
        flag("kubeconfig", &kubeconfig),
        flag("authentication-kubeconfig", &kubeconfig),
        flag("authorization-kubeconfig", &kubeconfig),
        "--leader-elect=false",
    ]
}
