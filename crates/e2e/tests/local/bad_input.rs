//! The table of what people get wrong: the input, where they look first, and the words there.
//! Nothing is lost by any of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::PostParams;
use kube::{Api, Client};
use matriarch_api::{Cluster, Identity};
use matriarch_e2e::local::{Machine, example};
use serde_json::{Value, json};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "default";

/// A directory of this test's own.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("m-bad-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn manifest(&self, name: &str, text: &str) -> Result<String> {
        let path = self.0.join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn cluster(name: &str, spec: &Value) -> Value {
    let mut whole = json!({
        "instances": 1, "storage": {"size": "1Gi"}, "imageName": "postgres:15",
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({
        "apiVersion": "matriarch.dev/v1", "kind": "Cluster",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": whole,
    })
}

/// Runs `matriarch local up`, which has to fail, and returns what it says.
fn refused(state: &Path, arguments: &[&str], path: Option<&str>) -> Result<String> {
    let mut command = Command::new(Machine::binary()?);
    command.args(["local", "up", "--state"]).arg(state).args(arguments).stdin(Stdio::null());
    if let Some(path) = path {
        command.env("PATH", path).env("MATRIARCH_POSTGRESQL", "/nonexistent");
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it starts: {said}");
    let (_, words) = said.split_once("matriarch: ").context("it says who speaks")?;
    Ok(words.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What `matriarch local up` refuses before anything runs.
#[test]
fn a_start_that_cannot_work_is_refused() -> Result<()> {
    let directory = Directory::new("start")?;
    let state = directory.0.join("state");
    let yaml = directory.manifest("yaml.yaml", "kind: Cluster\n  spec: [")?;
    let nameless = directory.manifest("nameless.yaml", "apiVersion: v1\nkind: Secret\n")?;
    let old = cluster("old", &json!({"imageName": "postgres:9.6"})).to_string();
    let old = directory.manifest("old.yaml", &old)?;
    let table: [(&str, &[&str], &str); 6] = [
        ("no such file", &["nowhere.yaml"], "cannot read nowhere.yaml: No such file"),
        ("not YAML", &[&yaml], "yaml.yaml is not valid YAML"),
        ("no name", &[&nameless], "document 1 of"),
        ("a PostgreSQL that is not installed", &[&old], "PostgreSQL 9 is not installed"),
        ("no such user", &["--user", "nobody-at-all"], "there is no user nobody-at-all"),
        ("root as the user", &["--user", "root"], "PostgreSQL refuses to run as root"),
    ];
    for (input, arguments, text) in table {
        let said = refused(&state, arguments, None)?;
        println!("| {input} | matriarch local up | {said} |");
        ensure!(said.contains(text), "{input}: not {text:?} but {said}");
    }
    Ok(())
}

/// What the API server or the status of the Cluster says.
#[tokio::test]
async fn a_wrong_cluster_is_told_what_is_wrong() -> Result<()> {
    let mut machine = Machine::new("bad", 19432)?;
    machine.up(&[&example("cluster-single.yaml")])?;
    machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
    let client = machine.client().await?;
    let long = "a".repeat(51);
    let required = json!({"method": "any", "number": 3});
    let table = [
        ("wrong type", cluster("t", &json!({"instances": "three"})), "spec.instances"),
        ("no instance", cluster("t", &json!({"instances": 0})), "spec.instances"),
        ("too long a name", cluster(&long, &json!({})), "50 characters"),
        (
            "impossible quorum",
            cluster("t", &json!({"instances": 3, "postgresql": {"synchronous": required}})),
            "synchronous",
        ),
        ("no size", cluster("t", &json!({"storage": {}})), "size"),
    ];
    for (input, object, text) in table {
        let said = refused_by_api(&client, &object).await?;
        println!("| {input} | kubectl apply | {said} |");
        ensure!(said.contains(text), "{input}: not {text:?} but {said}");
    }
    let table = [
        (
            "a PostgreSQL that is not installed",
            cluster("absent", &json!({"imageName": "postgres:14"})),
            "PostgreSQL 14 is not installed",
        ),
        (
            "a PostgreSQL that there is not",
            cluster("future", &json!({"imageName": "postgres:99"})),
            "PostgreSQL 99 of \"postgres:99\" is not known",
        ),
        (
            "a parameter that is ours",
            cluster("fixed", &json!({"postgresql": {"parameters": {"port": "6000"}}})),
            "spec.postgresql.parameters",
        ),
        (
            "an unknown parameter",
            cluster("unknown", &json!({"postgresql": {"parameters": {"no_such_thing": "1"}}})),
            "unrecognized configuration parameter \"no_such_thing\"",
        ),
        (
            "missing Secret",
            cluster("secret", &json!({"bootstrap": {"initdb": {"secret": {"name": "nowhere"}}}})),
            "nowhere",
        ),
        (
            "a field that would protect data and has no effect yet",
            cluster(
                "backup",
                &json!({"backup": {"barmanObjectStore": {"destinationPath": "s3://b"}}}),
            ),
            "spec.backup",
        ),
    ];
    let clusters: Api<Cluster> =
        Api::namespaced_with(client.clone(), NAMESPACE, &Identity::Matriarch);
    for (input, object, text) in table {
        let object: Cluster = serde_json::from_value(object)?;
        let name = object.metadata.name.clone().context("a name")?;
        clusters.create(&PostParams::default(), &object).await?;
        let said = told(&clusters, &name, text).await.with_context(|| input.to_owned())?;
        println!("| {input} | status of the Cluster | {said} |");
        clusters.delete(&name, &kube::api::DeleteParams::default()).await?;
    }
    // The good one beside them has noticed nothing.
    assert_eq!(machine.sql("select 1").await?, "1");
    machine.stop(PATIENCE).await
}

async fn refused_by_api(client: &Client, object: &Value) -> Result<String> {
    let resource = kube::api::ApiResource::from_gvk_with_plural(
        &kube::core::GroupVersionKind::gvk("matriarch.dev", "v1", "Cluster"),
        "clusters",
    );
    let api: Api<kube::api::DynamicObject> =
        Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let object = serde_json::from_value(object.clone())?;
    match api.create(&PostParams::default(), &object).await {
        Ok(made) => anyhow::bail!("it is accepted: {}", serde_json::to_string(&made)?),
        // What kubectl prints.
        Err(kube::Error::Api(status)) => Ok(status.message),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the reason in the status has this text.
async fn told(clusters: &Api<Cluster>, name: &str, text: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        let status = clusters.get(name).await?.status.unwrap_or_default();
        let reason = status.phase_reason.clone().unwrap_or_default();
        if reason.contains(text) {
            return Ok(format!("{}: {reason}", status.phase.unwrap_or_default()));
        }
        ensure!(begun.elapsed() < PATIENCE, "never {text:?}: {:#}", serde_json::to_value(&status)?);
        sleep(Duration::from_millis(200)).await;
    }
}

/// The directory that holds the data of the only instance.
fn data(machine: &Machine) -> Result<PathBuf> {
    for volume in std::fs::read_dir(machine.state().join("volumes"))? {
        let path = volume?.path();
        for candidate in [path.join("pgdata"), path.join("data/pgdata")] {
            if candidate.join("PG_VERSION").exists() {
                return Ok(candidate);
            }
        }
    }
    anyhow::bail!("no data directory in {}", machine.state().display())
}

/// The data directory is that of another major version: nothing is started on it, and nothing
/// of it is touched.
#[tokio::test]
async fn data_of_another_major_is_left_alone() -> Result<()> {
    let mut machine = Machine::new("major", 19532)?;
    machine.up(&[&example("cluster-single.yaml")])?;
    machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
    machine.sql("create table kept (value int); insert into kept values (42)").await?;
    machine.stop(PATIENCE).await?;
    let version = data(&machine)?.join("PG_VERSION");
    let right = std::fs::read_to_string(&version)?;
    std::fs::write(&version, "14\n")?;
    machine.up(&[])?;
    machine.wait_for("the data directory is of PostgreSQL 14", PATIENCE).await?;
    let told = machine.printed();
    let line = told.lines().find(|line| line.contains("is of PostgreSQL 14")).context("a line")?;
    println!("| data of another major | matriarch local up | {} |", line.trim());
    machine.stop(PATIENCE).await?;
    std::fs::write(&version, right)?;
    machine.up(&[])?;
    machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
    assert_eq!(machine.sql("select value from kept").await?, "42");
    machine.stop(PATIENCE).await
}
