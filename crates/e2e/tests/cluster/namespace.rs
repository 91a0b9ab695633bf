//! A namespace for each test, and `kubectl` in it.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A namespace with Pod Security `restricted`, removed at the end of the test.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace whose name starts with that of the test.
    pub fn create(test: &str) -> Result<Self> {
        let this = Self { name: format!("{test}-{}", std::process::id()) };
        kubectl(&["create", "namespace", &this.name])?;
        let level = "pod-security.kubernetes.io/enforce=restricted";
        kubectl(&["label", "namespace", &this.name, level])?;
        Ok(this)
    }

    /// `kubectl` in this namespace; what it printed.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", &self.name];
        all.extend(words);
        kubectl(&all)
    }

    /// What DNS calls a Service of this namespace.
    pub fn name_of_service(&self, service: &str) -> String {
        format!("{service}.{}.svc.cluster.local", self.name)
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let file = std::env::temp_dir().join(format!("{}.yaml", self.name));
        std::fs::write(&file, manifest).context("cannot write a manifest")?;
        self.ask(&["apply", "-f", &file.display().to_string()])?;
        std::fs::remove_file(&file).context("cannot remove a manifest")
    }

    /// Runs a script of a shell in a pod.
    pub fn run(&self, pod: &str, script: &str) -> Result<String> {
        self.ask(&["exec", pod, "--", "sh", "-c", script])
    }

    /// A field of an object, `KIND/NAME`; empty if it is not set.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        self.ask(&["get", object, &format!("-o=jsonpath={{{path}}}")])
    }

    /// Waits until a pod is ready; on failure the error has its events.
    pub fn wait_for_pod(&self, pod: &str) -> Result<()> {
        let words = ["wait", "--for=condition=Ready", "--timeout=180s", &format!("pod/{pod}")];
        self.ask(&words).map(|_| ()).map_err(|error| {
            let events = self.ask(&["get", "events", "--sort-by=.lastTimestamp"]);
            error.context(events.unwrap_or_default())
        })
    }

    /// The volumes that belong to claims of this namespace.
    pub fn volumes(&self) -> Result<Vec<String>> {
        let path =
            "-o=jsonpath={range .items[*]}{.spec.claimRef.namespace} {.metadata.name}\n{end}";
        let said = kubectl(&["get", "pv", path])?;
        let pairs = said.lines().filter_map(|line| line.split_once(' '));
        let ours = pairs.filter(|(namespace, _)| *namespace == self.name);
        Ok(ours.map(|(_, volume)| volume.to_owned()).collect())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let words = ["delete", "namespace", &self.name, "--timeout=120s"];
        if let Err(error) = kubectl(&words) {
            eprintln!("cannot remove a namespace: {error:#}");
        }
    }
}

/// `kubectl` of the cluster's own version, as its administrator.
pub fn kubectl(words: &[&str]) -> Result<String> {
    let tools = std::env::var_os("MATRIARCH_TOOLS").context("MATRIARCH_TOOLS is not set")?;
    std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set: run `cargo xtask e2e`")?;
    said(Command::new(PathBuf::from(tools).join("kubectl")).args(words))
}

/// `cargo xtask kube` with these words.
pub fn kube(words: &[&str]) -> Result<String> {
    let xtask = std::env::var_os("MATRIARCH_XTASK")
        .context("MATRIARCH_XTASK is not set: run `cargo xtask e2e`")?;
    said(Command::new(xtask).arg("kube").args(words))
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{out}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(out)
}

/// Waits until `done`; the time it took.
pub fn wait(what: &str, limit: Duration, done: impl Fn() -> Result<bool>) -> Result<Duration> {
    let begin = Instant::now();
    while !done().with_context(|| format!("while waiting for: {what}"))? {
        if begin.elapsed() > limit {
            bail!("not within {} s: {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(begin.elapsed())
}
