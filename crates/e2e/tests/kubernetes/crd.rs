//! The definitions on a real kube-apiserver: installed by plain `kubectl apply`, twice; then a table
//! of manifests that it must accept, or refuse in words that help.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use matriarch_api::{Identity, Kind, crd};
use matriarch_e2e::apiserver::{self, ApiServer};
use matriarch_e2e::turn;
use serde_json::{Value, json};

pub(crate) struct Kubectl<'a>(pub(crate) &'a ApiServer);

impl Kubectl<'_> {
    fn run(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut child = self
            .0
            .kubectl()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        child.stdin.take().context("kubectl has no input")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    }

    pub(crate) fn ok(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.run(arguments, input)?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "kubectl {arguments:?}: {told}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(arguments, "")?)?)
    }
}

fn definitions(identity: Identity) -> Result<String> {
    let mut items = Vec::new();
    for kind in Kind::ALL {
        items.push(crd::json(kind, identity)?);
    }
    Ok(json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string())
}

fn manifests(folder: &str) -> Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        found.push((path.display().to_string(), std::fs::read_to_string(&path)?));
    }
    found.sort();
    ensure!(found.len() > 5, "the table in {} is not there", folder.display());
    Ok(found)
}

pub(crate) fn install(kubectl: &Kubectl<'_>) -> Result<()> {
    for identity in Identity::ALL {
        let list = definitions(identity)?;
        // The second one reads back what the first wrote into an annotation (traps K1).
        for _ in 0..2 {
            kubectl.ok(&["apply", "-f", "-"], &list)?;
        }
    }
    kubectl.ok(&["wait", "crd", "--all", "--for=condition=Established", "--timeout=60s"], "")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while kubectl.ok(&["get", "clusters.matriarch.dev"], "").is_err() {
        ensure!(Instant::now() < deadline, "clusters are not served within 30 s");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn accepted(kubectl: &Kubectl<'_>) -> Result<()> {
    for (path, text) in manifests("accepted")? {
        kubectl.ok(&["apply", "-f", "-"], &text).with_context(|| path.clone())?;
        let again = kubectl.ok(&["apply", "-f", "-"], &text).with_context(|| path.clone())?;
        ensure!(again.trim_end().ends_with("unchanged"), "{path}: {again}");
    }
    Ok(())
}

fn refused(kubectl: &Kubectl<'_>) -> Result<()> {
    for (path, text) in manifests("refused")? {
        let expected = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# refused: "))
            .with_context(|| format!("{path} does not say what it is refused with"))?;
        let output = kubectl.run(&["apply", "-f", "-"], &text)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{path} was accepted");
        ensure!(told.contains(expected), "{path}: expected {expected:?}, told {told}");
    }
    Ok(())
}

fn defaults_and_pruning(kubectl: &Kubectl<'_>) -> Result<()> {
    let cluster = kubectl.json(&["get", "clusters.matriarch.dev", "one-instance", "-o", "json"])?;
    ensure!(cluster["spec"]["instances"] == 1, "instances has no default: {cluster}");
    ensure!(cluster["spec"]["logLevel"] == "info", "logLevel has no default: {cluster}");
    for without in ["stopDelay", "smartShutdownTimeout", "primaryUpdateMethod", "primaryLease"] {
        ensure!(cluster["spec"].get(without).is_none(), "{without} has a default: {cluster}");
    }
    let unknown = json!({
        "apiVersion": "matriarch.dev/v1", "kind": "Cluster", "metadata": { "name": "pruned" },
        "spec": { "storage": { "size": "1Gi", "colour": "red" } },
    });
    kubectl.ok(&["apply", "--validate=false", "-f", "-"], &unknown.to_string())?;
    let pruned = kubectl.json(&["get", "clusters.matriarch.dev", "pruned", "-o", "json"])?;
    ensure!(pruned["spec"]["storage"].get("colour").is_none(), "not pruned: {pruned}");
    Ok(())
}

fn changes(kubectl: &Kubectl<'_>) -> Result<()> {
    let patch = |spec: Value| json!({ "spec": spec }).to_string();
    for (spec, expected) in [
        (json!({ "storage": { "size": "1Mi" } }), "size cannot shrink"),
        (json!({ "walStorage": null }), "walStorage cannot be removed"),
        (json!({ "postgresUID": 26 }), "postgresUID cannot be changed"),
    ] {
        let patch = patch(spec);
        let arguments =
            ["patch", "clusters.matriarch.dev", "parameters", "--type=merge", "-p", &patch];
        let output = kubectl.run(&arguments, "")?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && told.contains(expected), "{patch}: {told}");
    }
    kubectl.ok(&["scale", "clusters.matriarch.dev", "parameters", "--replicas=5"], "")?;
    let cluster = kubectl.json(&["get", "clusters.matriarch.dev", "parameters", "-o", "json"])?;
    ensure!(cluster["spec"]["instances"] == 5, "scale did not reach spec.instances");
    Ok(())
}

/// Lists with keys merge: each applier keeps its own items (traps K8).
fn two_appliers(kubectl: &Kubectl<'_>) -> Result<()> {
    for (manager, variable) in [("first", "A"), ("second", "B")] {
        let part = json!({
            "apiVersion": "matriarch.dev/v1", "kind": "Cluster", "metadata": { "name": "shared" },
            "spec": { "storage": { "size": "1Gi" }, "env": [{ "name": variable, "value": "x" }] },
        });
        let manager = format!("--field-manager={manager}");
        kubectl.ok(&["apply", "--server-side", &manager, "-f", "-"], &part.to_string())?;
    }
    let cluster = kubectl.json(&["get", "clusters.matriarch.dev", "shared", "-o", "json"])?;
    let names: Vec<_> =
        cluster["spec"]["env"].as_array().context("no env")?.iter().map(|v| &v["name"]).collect();
    ensure!(names == ["A", "B"], "one applier lost its variable: {names:?}");
    Ok(())
}

#[test]
fn a_real_api_server_takes_the_definitions_and_keeps_their_rules() -> Result<()> {
    let _turn = turn::wait()?;
    let Some(server) = apiserver::shared()? else { return Ok(()) };
    let kubectl = Kubectl(server);
    install(&kubectl)?;
    accepted(&kubectl)?;
    refused(&kubectl)?;
    defaults_and_pruning(&kubectl)?;
    changes(&kubectl)?;
    two_appliers(&kubectl)
}
