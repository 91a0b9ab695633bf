//! `cargo xtask setup`: installs what build, tests and demo need. Silent when all is there.

pub mod debian;
mod helm;
mod kubernetes;
pub mod postgresql;
pub mod release;

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;
use crate::paths;
use release::{OLDEST, RELEASES, Release};

/// What the set-up is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// `cargo xtask local`: one PostgreSQL.
    Demo,
    /// Every test without a cluster: all majors, and the API server of Kubernetes.
    Tests,
    /// `cargo xtask kube`: a whole Kubernetes.
    Cluster(&'static Release),
}

/// Installs what is missing.
///
/// # Errors
/// Says which program is missing and what to do where it may not install it by itself.
pub fn run(purpose: For) -> Result<()> {
    require_compiler()?;
    match purpose {
        For::Demo => postgresql::install(&[postgresql::any_native()])?,
        For::Tests => {
            postgresql::install(&postgresql::TESTED)?;
            kubernetes::install(&RELEASES[0])?;
            kubernetes::install(&OLDEST)?;
            helm::install(&RELEASES[0])?;
        }
        For::Cluster(release) => {
            install_programs(&CLUSTER)?;
            if !busybox().is_file() {
                debian::unpack("busybox-static", &paths::cache().join("tools/busybox"))?;
            }
            kubernetes::install_cluster(release)?;
        }
    }
    Ok(())
}

/// A shell and its tools in one static program: what tests run in pods that are not databases.
pub fn busybox() -> std::path::PathBuf {
    paths::cache().join("tools/busybox/bin/busybox")
}

/// The directory of the kinds that snapshots of volumes need.
pub fn snapshot_kinds(release: &Release) -> Result<std::path::PathBuf> {
    kubernetes::snapshot_kinds(release)
}

/// The environment that tests and demo need to find what was installed.
pub fn environment() -> Vec<(&'static str, std::ffi::OsString)> {
    vec![
        ("MATRIARCH_TOOLS", RELEASES[0].programs().into_os_string()),
        ("MATRIARCH_HELM", paths::helm().into_os_string()),
        ("MATRIARCH_POSTGRESQL", paths::postgresql_cache().into_os_string()),
    ]
}

/// Programs of Debian that a cluster needs, each with its package. Programs of /usr/sbin are not in
/// everybody's `PATH`.
const CLUSTER: [(&str, &str); 9] = [
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/bin/ip", "iproute2"),
    ("/usr/sbin/sysctl", "procps"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/sbin/mkfs.xfs", "xfsprogs"),
    ("/usr/bin/nsenter", "util-linux"),
];

fn install_programs(wanted: &[(&str, &str)]) -> Result<()> {
    let missing = wanted.iter().filter(|(file, _)| !std::path::Path::new(file).exists());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() { Ok(()) } else { debian::install(&packages) }
}

fn require_compiler() -> Result<()> {
    if command::found("cc") {
        return Ok(());
    }
    debian::install(&["build-essential"])
}

/// Runs `git --version` and the like only to know whether a program can be run at all.
fn runs(program: &std::path::Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn need_root(what: &str, command: &str) -> Result<()> {
    bail!("{what} is missing, and only root can install it. Run as root: {command}")
}
