//! etcd, kube-apiserver and kubectl, built from their Go modules. No root is needed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{command, paths};

/// The programs and the packages that they are built from.
const PROGRAMS: [(&str, &str); 3] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
];

/// Builds the programs if one is missing.
pub fn install() -> Result<()> {
    let tools = paths::kubernetes_tools();
    let programs = tools.join("bin");
    if PROGRAMS.iter().all(|(name, _)| programs.join(name).is_file()) {
        return Ok(());
    }
    if !command::found("go") {
        bail!(
            "Go is missing: the tests build etcd, kube-apiserver and kubectl from their Go \
             modules. Install Go 1.24 or later and put `go` in PATH"
        );
    }
    println!("setup: building etcd, kube-apiserver and kubectl {} (minutes)", paths::KUBERNETES);
    build(&tools.join("src"), &programs)
}

/// One module for all, so that what they share is compiled once: etcd in the version that this
/// Kubernetes is tested with.
fn build(source: &Path, programs: &Path) -> Result<()> {
    let version = paths::KUBERNETES;
    fs::create_dir_all(source).with_context(|| format!("cannot make {}", source.display()))?;
    let module_file = source.join("go.mod");
    fs::write(&module_file, "module matriarch.test/programs\n\ngo 1.24\n")?;
    let mut download = go(source);
    download.args(["mod", "download", "-json", &format!("k8s.io/kubernetes@v{version}")]);
    let answer: serde_json::Value = serde_json::from_str(&command::run_quietly(&mut download)?)
        .context("`go mod download -json` answered no JSON")?;
    let upstream = answer["GoMod"].as_str().context("`go mod download` names no go.mod")?;
    let upstream = fs::read_to_string(upstream).context("cannot read go.mod of Kubernetes")?;
    fs::write(&module_file, module_text(version, &upstream))?;
    command::run_quietly(go(source).args(["mod", "tidy"]))?;
    let (major, minor) = version
        .split_once('.')
        .map(|(major, rest)| (major, rest.split('.').next().unwrap_or_default()))
        .context("a version has a major and a minor number")?;
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
    command::run_quietly(build.args(PROGRAMS.map(|(_, package)| package)))?;
    fs::create_dir_all(programs).with_context(|| format!("cannot make {}", programs.display()))?;
    for (name, package) in PROGRAMS {
        let mut parts = package.rsplit('/').skip_while(|part| part.starts_with('v'));
        let made = making.join(parts.next().unwrap_or(name));
        let program = programs.join(name);
        fs::rename(&made, &program)
            .with_context(|| format!("cannot make {}", program.display()))?;
    }
    Ok(())
}

/// Kubernetes builds outside its own repository once each of its staging modules is replaced by
/// the twin that is published as v0.x.
fn module_text(version: &str, upstream: &str) -> String {
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
    for (_, package) in PROGRAMS {
        let _ = writeln!(text, "tool {package}");
    }
    text
}

fn go(directory: &Path) -> Command {
    let mut command = Command::new("go");
    // Without C the standard library is the same for all of them.
    command.current_dir(directory).env("CGO_ENABLED", "0");
    command
}

#[cfg(test)]
mod tests {
    use super::module_text;

    #[test]
    fn each_staging_module_is_replaced_by_its_published_twin() {
        let upstream = "require x v1\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        let text = module_text("1.34.4", upstream);
        assert!(text.contains("replace k8s.io/api => k8s.io/api v0.34.4\n"), "{text}");
        assert!(text.contains("require k8s.io/kubernetes v1.34.4\n"), "{text}");
    }
}
