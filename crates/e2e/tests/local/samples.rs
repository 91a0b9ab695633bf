//! Manifests as users of CloudNativePG have them, under its names and with real PostgreSQL: they
//! come up, and what they ask for is so. The whole table is in `kubernetes/samples.rs`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use matriarch_api::{Cluster, Identity};
use matriarch_e2e::local::Machine;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(180);
const NAMESPACE: &str = "default";

/// The manifest with the PostgreSQL that this machine has.
fn sample(name: &str, directory: &Path) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/samples");
    let text = std::fs::read_to_string(folder.join(name).with_extension("yaml"))?;
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    for document in documents.iter_mut().filter(|document| document["kind"] == "Cluster") {
        document["spec"]["imageName"] = "ghcr.io/cloudnative-pg/postgresql:15".into();
    }
    let path = directory.join(name).with_extension("yaml");
    let texts: Vec<String> = documents.iter().map(Value::to_string).collect();
    std::fs::write(&path, texts.join("\n---\n"))?;
    Ok(path.to_string_lossy().into_owned())
}

/// A machine on which these samples came up.
async fn up(name: &str, port: u16, samples: &[&str]) -> Result<Machine> {
    let mut machine = Machine::new(name, port)?;
    let directory = std::env::temp_dir().join(format!("m-{name}-{}-files", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let files: Vec<String> =
        samples.iter().map(|name| sample(name, &directory)).collect::<Result<_>>()?;
    let mut arguments = vec!["--api-identity", "cnpg"];
    arguments.extend(files.iter().map(String::as_str));
    machine.up(&arguments)?;
    for name in samples {
        machine.wait_for(&format!("cluster {name} is ready"), PATIENCE).await?;
    }
    std::fs::remove_dir_all(&directory)?;
    let client = machine.client().await?;
    let clusters: Api<Cluster> = Api::namespaced_with(client.clone(), NAMESPACE, &Identity::Cnpg);
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    for name in samples {
        let status = clusters.get(name).await?.status.unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        ensure!(phase == "Cluster in healthy state", "{name}: {phase}");
        let primary = status.current_primary.context("no primary")?;
        let pod = pods.get(&primary).await?;
        let role = pod.labels().get("cnpg.io/instanceRole");
        ensure!(role.is_some_and(|role| role == "primary"), "{primary} is labelled {role:?}");
        ensure!(pod.labels().get("cnpg.io/cluster").is_some_and(|it| it == name), "{primary}");
    }
    Ok(machine)
}

/// What psql says to the application's owner, in its database.
fn ask(machine: &Machine, cluster: &str, sql: &str) -> Result<String> {
    let output = std::process::Command::new(Machine::binary()?)
        .args(["local", "psql", cluster, "--api-identity", "cnpg", "--state"])
        .arg(machine.state())
        .args(["--", "--no-psqlrc", "-Atc", sql])
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{cluster}: {sql}: {error}");
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn answers(machine: &Machine, table: &[(&str, &str, &str)]) -> Result<()> {
    for (cluster, sql, answer) in table {
        let said = ask(machine, cluster, sql)?;
        ensure!(said == *answer, "{cluster}: {sql}: {said}, not {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn three_instances_under_cnpg_s_names_do_what_their_manifest_says() -> Result<()> {
    let mut machine = up("samples", 16932, &["parameters"]).await?;
    let slots = "select count(*) from pg_replication_slots where slot_name like '\\_cnpg\\_%'";
    answers(
        &machine,
        &[
            ("parameters", "show work_mem", "6MB"),
            ("parameters", "show max_worker_processes", "24"),
            ("parameters", slots, "2"),
        ],
    )?;
    // What it says to go on with works.
    let printed = machine.printed();
    let words =
        format!("local psql parameters --state {} --api-identity cnpg", machine.state().display());
    ensure!(printed.contains(&words), "{printed}");
    machine.stop(PATIENCE).await
}

#[tokio::test]
async fn what_initdb_is_told_is_there() -> Result<()> {
    let samples = ["initdb-statements", "initdb-references", "given-passwords"];
    let mut machine = up("initdb", 16732, &samples).await?;
    let extensions = "select count(*) from pg_extension where extname = 'citext'";
    answers(
        &machine,
        &[
            ("initdb-statements", "select current_database()", "library"),
            ("initdb-statements", "select title from books", "a first one"),
            ("initdb-statements", extensions, "1"),
            ("initdb-statements", "show data_checksums", "on"),
            ("initdb-references", "select sum(price) from goods", "160"),
            ("initdb-references", "select count(*) from buyers", "0"),
            (
                "given-passwords",
                "select current_user || ' of ' || current_database()",
                "teller of bank",
            ),
        ],
    )?;
    // With a Secret of the user's the plugin finds the way as well.
    let words = ["psql", "given-passwords", "--api-identity", "cnpg", "--", "-Atc", "select 1"];
    let said = machine.plugin(&words)?;
    ensure!(said.trim() == "1", "{said}");
    machine.stop(PATIENCE).await
}
