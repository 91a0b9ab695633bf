//! etcd, kube-apiserver and kubectl, built from their Go modules. No root is needed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{command, paths};

/// Builds the programs that are missing.
pub fn install() -> Result<()> {
    let tools = paths::kubernetes_tools();
    let programs = tools.join("bin");
    let missing = |name: &str| !programs.join(name).is_file();
    if !["etcd", "kube-apiserver", "kubectl"].into_iter().any(missing) {
        return Ok(());
    }
    if !command::found("go") {
        bail!(
            "Go is missing: the tests build etcd, kube-apiserver and kubectl from their Go \
             modules. Install Go 1.24 or later and put `go` in PATH"
        );
    }
    fs::create_dir_all(&programs).with_context(|| format!("cannot make {}", programs.display()))?;
    if missing("kube-apiserver") || missing("kubectl") {
        println!("setup: building kube-apiserver and kubectl {} (minutes)", paths::KUBERNETES);
        build_kubernetes(&tools.join("src/kubernetes"), &programs)?;
    }
    if missing("etcd") {
        println!("setup: building etcd {}", paths::ETCD);
        build_etcd(&tools.join("src/etcd"), &programs)?;
    }
    Ok(())
}

fn build_kubernetes(source: &Path, programs: &Path) -> Result<()> {
    let version = paths::KUBERNETES;
    fs::create_dir_all(source).with_context(|| format!("cannot make {}", source.display()))?;
    let module_file = source.join("go.mod");
    fs::write(&module_file, "module matriarch.test/kubernetes\n\ngo 1.24\n")?;
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
    let mut build = go(source);
    build.arg("build").arg("-o").arg(programs).arg("-ldflags").arg(flags);
    build.args(["k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kubectl"]);
    command::run_quietly(&mut build)?;
    Ok(())
}

/// Kubernetes builds outside its own repository once each of its staging modules is replaced by
/// the twin that is published as v0.x.
fn module_text(version: &str, upstream: &str) -> String {
    let staging = version.split_once('.').map_or(version, |(_, rest)| rest);
    let mut text = String::from("module matriarch.test/kubernetes\n\ngo 1.24\n\n");
    let mut inside = false;
    for line in upstream.lines() {
        inside = (inside || line.starts_with("replace")) && !line.starts_with(')');
        if let (true, Some((left, _))) = (inside, line.split_once("=>")) {
            let module = left.trim().trim_start_matches("replace").trim();
            let _ = writeln!(text, "replace {module} => {module} v0.{staging}");
        }
    }
    let _ = writeln!(text, "require k8s.io/kubernetes v{version}");
    for program in ["kube-apiserver", "kubectl"] {
        let _ = writeln!(text, "tool k8s.io/kubernetes/cmd/{program}");
    }
    text
}

fn build_etcd(source: &Path, programs: &Path) -> Result<()> {
    fs::create_dir_all(source).with_context(|| format!("cannot make {}", source.display()))?;
    fs::write(source.join("go.mod"), "module matriarch.test/etcd\n\ngo 1.24\n")?;
    let package = "go.etcd.io/etcd/server/v3";
    let mut get = go(source);
    get.args(["get", "-tool", &format!("{package}@v{}", paths::ETCD)]);
    command::run_quietly(&mut get)?;
    let mut build = go(source);
    build.env("CGO_ENABLED", "0").args(["build", "-ldflags", "-s -w", "-o"]);
    build.arg(programs.join("etcd")).arg(package);
    command::run_quietly(&mut build)?;
    Ok(())
}

fn go(directory: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(directory);
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
