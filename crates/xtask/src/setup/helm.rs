//! Helm, built from its Go module: the chart is linted and rendered by the real one.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail};

use super::kubernetes::go;
use super::release::Release;
use crate::{command, paths};

const MODULE: &str = "helm.sh/helm/v3";
const PACKAGE: &str = "helm.sh/helm/v3/cmd/helm";

/// Modules of Kubernetes that Helm uses, raised to the version of the other programs: what they
/// share is compiled once.
const SHARED: [&str; 8] = [
    "k8s.io/api",
    "k8s.io/apiextensions-apiserver",
    "k8s.io/apimachinery",
    "k8s.io/apiserver",
    "k8s.io/cli-runtime",
    "k8s.io/client-go",
    "k8s.io/component-base",
    "k8s.io/kubectl",
];

/// Builds it if it is not there.
pub fn install(release: &Release) -> Result<()> {
    let program = paths::helm();
    if program.is_file() {
        return Ok(());
    }
    if !command::found("go") {
        bail!(
            "Go is missing: Helm is built from its Go module. Install Go 1.24 or later and put \
             `go` in PATH"
        );
    }
    println!("setup: building helm {} (minutes)", paths::HELM);
    let directory = program.parent().context("a program is in a directory")?;
    let source = directory.join("src");
    fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
    fs::write(source.join("go.mod"), module_text(paths::HELM, release.version))
        .context("cannot write Helm's go.mod")?;
    command::run_quietly(go(&source).args(["mod", "tidy"]))?;
    let made = source.join("helm");
    let mut build = go(&source);
    // The flags of the other programs, else nothing would be shared with them.
    let flags = link_flags(paths::HELM, release.version);
    build.args(["build", "-gcflags=all=-N -l", "-ldflags", &flags, "-o"]).arg(&made);
    command::run_quietly(build.arg(PACKAGE))?;
    fs::rename(&made, &program).with_context(|| format!("cannot make {}", program.display()))
}

fn module_text(helm: &str, kubernetes: &str) -> String {
    let staging = kubernetes.split_once('.').map_or(kubernetes, |(_, rest)| rest);
    let mut text = format!("module matriarch.test/helm\n\ngo 1.24\n\nrequire {MODULE} v{helm}\n");
    for module in SHARED {
        let _ = writeln!(text, "require {module} v0.{staging}");
    }
    let _ = writeln!(text, "tool {PACKAGE}");
    text
}

/// Rendering needs a Kubernetes to suit; without one Helm takes itself for very old.
fn link_flags(helm: &str, kubernetes: &str) -> String {
    let mut parts = kubernetes.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let rendering = format!("{MODULE}/pkg/chartutil.k8sVersion");
    format!(
        "-s -w -X {MODULE}/internal/version.version=v{helm} -X {rendering}Major={major} \
         -X {rendering}Minor={minor}"
    )
}

#[cfg(test)]
mod tests {
    use super::{link_flags, module_text};

    #[test]
    fn modules_of_kubernetes_have_the_version_of_its_programs() {
        let text = module_text("3.19.5", "1.34.4");
        assert!(text.contains("require helm.sh/helm/v3 v3.19.5\n"), "{text}");
        assert!(text.contains("require k8s.io/client-go v0.34.4\n"), "{text}");
        let flags = link_flags("3.19.5", "1.34.4");
        assert!(flags.contains("chartutil.k8sVersionMinor=34"), "{flags}");
    }
}
