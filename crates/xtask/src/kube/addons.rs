//! What every cluster has inside: DNS and the rights of kube-proxy; and the images of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cgroup::Hierarchies;
use super::cluster::{self, Cluster};
use super::control;
use super::node::{Node, PAUSE};
use crate::{command, image, paths, setup};

/// How long DNS may take to be ready.
const READY: Duration = Duration::from_secs(180);

/// An image of one static program.
struct Image {
    name: &'static str,
    tag: &'static str,
    program: fn(&Cluster) -> PathBuf,
}

const IMAGES: [Image; 3] = [
    Image { name: "pause", tag: PAUSE, program: |cluster| cluster.program("pause") },
    Image {
        name: "coredns",
        tag: "localhost/coredns:1",
        program: |cluster| cluster.program("coredns"),
    },
    Image { name: "busybox", tag: "localhost/busybox:1", program: |_| setup::busybox() },
];

/// Makes the archives of the cluster's own images, where the programs are newer.
pub fn make_images(cluster: &Cluster) -> Result<()> {
    cluster::make(&cluster.images())?;
    for Image { name, tag, program } in IMAGES {
        let (program, out) = (program(cluster), archive_of(cluster, name));
        if is_newer(&out, &program) {
            continue;
        }
        let root = cluster.images().join(format!("{name}.root"));
        let programs = root.join("bin");
        cluster::make(&programs)?;
        cluster::make(&root.join("tmp"))?;
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))
            .with_context(|| format!("cannot open {} to all", root.display()))?;
        fs::copy(&program, programs.join(name))
            .with_context(|| format!("cannot copy {}", program.display()))?;
        if name == "busybox" {
            link_applets(&program, &programs)?;
        }
        let entrypoint = vec![format!("/bin/{name}")];
        let config = image::Config { entrypoint, ..image::Config::default() };
        image::archive(&root, tag, &out, &config)?;
        cluster::remove(&root)?;
    }
    Ok(())
}

/// Busybox does what the name by which it was started says.
fn link_applets(program: &Path, directory: &Path) -> Result<()> {
    let names = command::run_quietly(Command::new(program).arg("--list"))?;
    for name in names.lines().filter(|name| *name != "busybox") {
        let link = directory.join(name);
        cluster::remove(&link)?;
        std::os::unix::fs::symlink("busybox", &link)
            .with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(())
}

/// Gives a node the cluster's own images.
pub fn load_images(cluster: &Cluster, node: &Node<'_>) -> Result<()> {
    for image in IMAGES {
        node.load(&archive_of(cluster, image.name))?;
    }
    Ok(())
}

/// Applies a manifest of ours.
pub fn apply(cluster: &Cluster, manifest: &Path) -> Result<()> {
    let manifest = manifest.display().to_string();
    control::ask(cluster, &["apply", "--server-side", "--force-conflicts", "-f", &manifest])?;
    Ok(())
}

/// The manifests of the project's test cluster.
pub fn manifests() -> std::path::PathBuf {
    paths::workspace().join("crates/e2e/kubernetes")
}

/// Waits until all nodes are ready.
pub fn wait_for_nodes(cluster: &Cluster, hierarchies: &Hierarchies) -> Result<()> {
    let wanted = usize::from(cluster.nodes);
    for machine in cluster.nodes() {
        let node = Node::new(cluster, hierarchies, machine);
        let name = machine.name();
        let path = "-o=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        node.program("kubelet").wait("its node does not become Ready", READY, || {
            let ask = ["get", "node", &name, "--ignore-not-found", path];
            control::ask(cluster, &ask).is_ok_and(|said| said.trim() == "True")
        })?;
    }
    let said = control::ask(cluster, &["get", "nodes", "-o=name"])?;
    if said.lines().count() < wanted {
        bail!("of {wanted} nodes there are: {said}");
    }
    Ok(())
}

/// Waits until DNS answers, and says what is the matter with its pods if it does not.
pub fn wait_for_dns(cluster: &Cluster) -> Result<()> {
    let limit = format!("--timeout={}s", READY.as_secs());
    let words = ["-n", "kube-system", "rollout", "status", "deployment/coredns", &limit];
    control::ask(cluster, &words).map(|_| ()).map_err(|error| {
        let pods = control::ask(cluster, &["-n", "kube-system", "get", "pods", "-o=wide"]);
        let events = control::ask(
            cluster,
            &["-n", "kube-system", "get", "events", "--sort-by=.lastTimestamp"],
        );
        let events = events.unwrap_or_default();
        let lines: Vec<&str> = events.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        error.context(format!("DNS does not start:\n{}{last}", pods.unwrap_or_default()))
    })
}

fn archive_of(cluster: &Cluster, name: &str) -> std::path::PathBuf {
    cluster.images().join(format!("{name}.tar"))
}

fn is_newer(made: &Path, from: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    matches!((time(made), time(from)), (Some(made), Some(from)) if made >= from)
}
