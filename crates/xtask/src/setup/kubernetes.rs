//! The programs of Kubernetes and of what runs beside it, built from their Go modules. No root is
//! needed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::release::{Provisioner, Release};
use crate::{command, paths};

/// A program and the package that it is built from.
#[derive(Clone, Copy)]
struct Program {
    name: &'static str,
    package: &'static str,
}

/// What the tests without a cluster need.
const CONTROL: [Program; 3] = [
    Program { name: "etcd", package: "go.etcd.io/etcd/server/v3" },
    Program { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver" },
    Program { name: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl" },
];

/// What a cluster needs besides.
const CLUSTER: [Program; 9] = [
    Program { name: "kubelet", package: "k8s.io/kubernetes/cmd/kubelet" },
    Program {
        name: "kube-controller-manager",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    },
    Program { name: "kube-scheduler", package: "k8s.io/kubernetes/cmd/kube-scheduler" },
    Program { name: "kube-proxy", package: "k8s.io/kubernetes/cmd/kube-proxy" },
    Program {
        name: "csi-resizer",
        package: "github.com/kubernetes-csi/external-resizer/cmd/csi-resizer",
    },
    Program {
        name: "csi-snapshotter",
        package: "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
    },
    Program {
        name: "snapshot-controller",
        package: "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
    },
    Program { name: "coredns", package: "./coredns" },
    Program { name: "pause", package: "./pause" },
];

/// What a cluster needs besides, in a module of its own.
const PROVISIONER: Program = Program {
    name: "csi-provisioner",
    package: "github.com/kubernetes-csi/external-provisioner/v5/cmd/csi-provisioner",
};

/// Builds what the tests without a cluster need and is not there.
pub fn install(release: &Release) -> Result<()> {
    install_missing(release, &CONTROL)
}

/// Builds what a cluster needs and is not there.
pub fn install_cluster(release: &Release) -> Result<()> {
    install_missing(release, &[&CONTROL[..], &CLUSTER[..], &[PROVISIONER]].concat())
}

/// The directory of the kinds that snapshots of volumes need, in Go's cache of modules.
pub fn snapshot_kinds(release: &Release) -> Result<PathBuf> {
    let module = "github.com/kubernetes-csi/external-snapshotter/client/v8";
    let version = release.module(module).context("no client of snapshots is pinned")?;
    let mut download = go(&release.source());
    download.args(["mod", "download", "-json", &format!("{module}@{version}")]);
    let answer: serde_json::Value = serde_json::from_str(&command::run_quietly(&mut download)?)
        .context("`go mod download -json` answered no JSON")?;
    let directory = answer["Dir"].as_str().context("`go mod download` names no directory")?;
    Ok(Path::new(directory).join("config/crd"))
}

fn install_missing(release: &Release, programs: &[Program]) -> Result<()> {
    let directory = release.programs();
    let missing: Vec<Program> = programs
        .iter()
        .filter(|program| !directory.join(program.name).is_file())
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
    let names = names.join(", ");
    if !command::found("go") {
        bail!(
            "Go is missing: {names} are built from their Go modules. Install Go 1.24 or later and \
             put `go` in PATH"
        );
    }
    println!("setup: building {names} of Kubernetes {} (minutes)", release.version);
    let start = Instant::now();
    build(release, &missing)?;
    println!("setup: built in {} s", start.elapsed().as_secs());
    Ok(())
}

/// One module for all, so that what they share is compiled once: etcd in the version that this
/// Kubernetes is tested with.
fn build(release: &Release, programs: &[Program]) -> Result<()> {
    let source = release.source();
    prepare(release, &source)?;
    let (apart, together): (Vec<Program>, Vec<Program>) =
        programs.iter().partition(|program| program.name == PROVISIONER.name);
    if !together.is_empty() {
        compile(release, &source, &together)?;
    }
    if !apart.is_empty() {
        let beside = source.join("provisioner");
        let provisioner = release.provisioner.as_ref().context("no provisioner is pinned")?;
        prepare_provisioner(provisioner, &source, &beside)?;
        compile(release, &beside, &apart)?;
    }
    Ok(())
}

/// Compiles programs of one module, and puts them where they are looked for when all are made.
fn compile(release: &Release, source: &Path, programs: &[Program]) -> Result<()> {
    let version = release.version;
    let (major, minor) = release.minor.split_once('.').context("a version has two numbers")?;
    let package = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {package}.gitVersion=v{version} -X {package}.gitMajor={major} \
         -X {package}.gitMinor={minor}"
    );
    let making = source.join("bin");
    fs::create_dir_all(&making).with_context(|| format!("cannot make {}", making.display()))?;
    let mut build = go(source);
    // As Kubernetes' own `make DBG=1`: a quarter of the compiler's time goes to making them fast.
    build.args(["build", "-gcflags=all=-N -l", "-ldflags", &flags, "-o"]).arg(&making);
    command::run_quietly(build.args(programs.iter().map(|program| program.package)))?;
    let directory = release.programs();
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    for program in programs {
        let mut parts = program.package.rsplit('/').skip_while(|part| part.starts_with('v'));
        let made = making.join(parts.next().unwrap_or(program.name));
        let program = directory.join(program.name);
        fs::rename(&made, &program)
            .with_context(|| format!("cannot make {}", program.display()))?;
    }
    Ok(())
}

/// Writes the module: what it needs, and our own two small programs.
fn prepare(release: &Release, source: &Path) -> Result<()> {
    // What they import need not be there in the version of a release without a cluster.
    let ours: &[&str] = if release.provisioner.is_some() { &["coredns", "pause"] } else { &[] };
    for program in ours {
        let directory = source.join(program);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let ours = paths::workspace().join("crates/e2e/kubernetes").join(program).join("main.go");
        fs::copy(&ours, directory.join("main.go"))
            .with_context(|| format!("cannot copy {}", ours.display()))?;
    }
    fs::create_dir_all(source).with_context(|| format!("cannot make {}", source.display()))?;
    let module_file = source.join("go.mod");
    let write = |text: &str| {
        let shown = module_file.display();
        fs::write(&module_file, text).with_context(|| format!("cannot write {shown}"))
    };
    write("module matriarch.test/programs\n\ngo 1.24\n")?;
    let mut download = go(source);
    let kubernetes = format!("k8s.io/kubernetes@v{}", release.version);
    download.args(["mod", "download", "-json", &kubernetes]);
    let answer: serde_json::Value = serde_json::from_str(&command::run_quietly(&mut download)?)
        .context("`go mod download -json` answered no JSON")?;
    let upstream = answer["GoMod"].as_str().context("`go mod download` names no go.mod")?;
    let upstream = fs::read_to_string(upstream).context("cannot read go.mod of Kubernetes")?;
    write(&module_text(release, &upstream))?;
    command::run_quietly(go(source).args(["mod", "tidy"]))?;
    Ok(())
}

/// Writes the module of the provisioner: as that of the others, so that what is compiled for them
/// serves it as well, but for the modules of which it wants another version.
fn prepare_provisioner(provisioner: &Provisioner, source: &Path, beside: &Path) -> Result<()> {
    fs::create_dir_all(beside).with_context(|| format!("cannot make {}", beside.display()))?;
    let theirs = fs::read_to_string(source.join("go.mod")).context("cannot read go.mod")?;
    fs::write(beside.join("go.mod"), provisioner_text(provisioner, &theirs))
        .context("cannot write the provisioner's go.mod")?;
    fs::copy(source.join("go.sum"), beside.join("go.sum")).context("cannot copy go.sum")?;
    command::run_quietly(go(beside).args(["mod", "tidy"]))?;
    Ok(())
}

fn provisioner_text(provisioner: &Provisioner, others: &str) -> String {
    let (module, version) = provisioner.module;
    let replaced = |line: &str| {
        let mut wanted = provisioner.wants.iter();
        line.strip_prefix("replace ")
            .is_some_and(|rest| wanted.any(|(wanted, _)| rest.starts_with(wanted)))
    };
    let mut text = String::new();
    for line in others.lines().filter(|line| !line.starts_with("tool ") && !replaced(line)) {
        let _ = writeln!(text, "{line}");
    }
    for (wanted, version) in provisioner.wants {
        let _ = writeln!(text, "replace {wanted} => {wanted} {version}");
    }
    let _ = writeln!(text, "require {module} {version}\ntool {}", PROVISIONER.package);
    text
}

/// Kubernetes builds outside its own repository once each of its staging modules is replaced by
/// the twin that is published as v0.x.
fn module_text(release: &Release, upstream: &str) -> String {
    let version = release.version;
    let staging = version.split_once('.').map_or(version, |(_, rest)| rest);
    let mut text = String::from("module matriarch.test/programs\n\ngo 1.24\n\n");
    let mut inside = false;
    for line in upstream.lines() {
        inside = (inside || line.starts_with("replace")) && !line.starts_with(')');
        if let (true, Some((left, _))) = (inside, line.split_once("=>")) {
            let module = left.trim().trim_start_matches("replace").trim();
            let _ = writeln!(text, "replace {module} => {module} v0.{staging}");
        }
    }
    let _ = writeln!(text, "require k8s.io/kubernetes v{version}");
    for (module, version) in release.modules {
        let _ = writeln!(text, "require {module} {version}");
    }
    let beside = release.provisioner.iter().flat_map(|_| &CLUSTER);
    let packages = CONTROL.iter().chain(beside).map(|program| program.package);
    for package in packages.filter(|package| !package.starts_with('.')) {
        let _ = writeln!(text, "tool {package}");
    }
    text
}

/// `go` in this directory.
pub fn go(directory: &Path) -> Command {
    let mut command = Command::new("go");
    // Without C the standard library is the same for all of them, and they run in an empty image.
    command.current_dir(directory).env("CGO_ENABLED", "0");
    command
}

#[cfg(test)]
mod tests {
    use super::{module_text, provisioner_text};
    use crate::setup::release::{OLDEST, RELEASES};

    #[test]
    fn each_staging_module_is_replaced_by_its_published_twin() {
        let upstream = "require x v1\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        let text = module_text(&RELEASES[0], upstream);
        assert!(text.contains("replace k8s.io/api => k8s.io/api v0.34.4\n"), "{text}");
        assert!(text.contains("require k8s.io/kubernetes v1.34.4\n"), "{text}");
    }

    #[test]
    fn where_no_cluster_is_made_only_the_control_plane_is_compiled() {
        let text = module_text(&OLDEST, "");
        assert_eq!(text.matches("tool ").count(), 3, "{text}");
        assert!(text.contains("require k8s.io/kubernetes v1.30.14\n"), "{text}");
    }

    #[test]
    fn the_provisioner_has_its_own_versions_and_else_those_of_the_others() {
        let others = "replace k8s.io/api => k8s.io/api v0.34.4\n\
                      replace k8s.io/csi-translation-lib => k8s.io/csi-translation-lib v0.34.4\n\
                      require (\n\tx.test/y v1\n)\ntool k8s.io/kubernetes/cmd/kubelet\n";
        let text = provisioner_text(RELEASES[0].provisioner.as_ref().unwrap(), others);
        assert!(text.contains("replace k8s.io/api => k8s.io/api v0.34.4\n"), "{text}");
        assert!(text.contains("require (\n\tx.test/y v1\n)\n"), "{text}");
        assert_eq!(text.matches("replace k8s.io/csi-translation-lib ").count(), 1, "{text}");
        assert_eq!(text.matches("tool ").count(), 1, "{text}");
    }

    #[test]
    fn every_program_that_is_not_ours_is_a_tool_of_a_module_that_is_pinned() {
        let text = module_text(&RELEASES[0], "");
        for line in text.lines().filter_map(|line| line.strip_prefix("tool ")) {
            let pinned = text
                .lines()
                .filter_map(|line| line.strip_prefix("require "))
                .filter_map(|line| line.split_once(' '))
                .any(|(module, _)| line.starts_with(module));
            // Kubernetes itself says which etcd it is tested with.
            assert!(pinned || line.starts_with("go.etcd.io/"), "{line}");
        }
    }
}
