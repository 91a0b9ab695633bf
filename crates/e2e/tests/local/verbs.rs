//! The plugin's verbs as a user gives them, while a client writes: what each says, and that it is
//! so afterwards.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use matriarch_e2e::local::{Machine, Writer, example};
use serde_json::Value;
use tokio::time::sleep;

const CLUSTER: &str = "cluster-example";
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_verbs_do_what_they_say() -> Result<()> {
    let mut machine = Machine::new("verbs", 17632)?;
    machine.up(&[&example("cluster.yaml")])?;
    machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
    let writer = Writer::start(&machine.connection_string()?).await?;
    shows(&machine)?;
    plans(&machine)?;
    fences(&machine).await?;
    promotes(&machine).await?;
    restarts(&machine).await?;
    hibernates(&machine).await?;
    let tally = writer.finish().await?;
    println!("{tally:?}");
    ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
    machine.stop(PATIENCE).await
}

/// All pods go while a client writes, the volumes stay, and nothing is lost when it wakes up.
async fn hibernates(machine: &Machine) -> Result<()> {
    has(&machine.plugin(&["hibernate", "status", CLUSTER])?, &["does not hibernate"])?;
    has(&machine.plugin(&["hibernate", "on", CLUSTER])?, &["will hibernate", "hibernate off"])?;
    let begun = Instant::now();
    while !machine.plugin(&["hibernate", "status", CLUSTER])?.contains("has been hibernated") {
        ensure!(begun.elapsed() < PATIENCE, "it does not hibernate:\n{}", machine.printed());
        sleep(Duration::from_millis(200)).await;
    }
    ensure!(machine.pods()?.is_empty(), "pods are left: {:?}", machine.pods()?);
    let volumes = std::fs::read_dir(machine.state().join("volumes"))?.count();
    ensure!(volumes == 3, "{volumes} volumes");
    has(&machine.plugin(&["hibernate", "off", CLUSTER])?, &["wakes up"])?;
    machine.healed(PATIENCE).await
}

fn has(text: &str, wanted: &[&str]) -> Result<()> {
    for words in wanted {
        ensure!(text.contains(words), "no {words:?} in:\n{text}");
    }
    Ok(())
}

/// The words of a refusal.
fn refused(machine: &Machine, words: &[&str]) -> Result<String> {
    match machine.plugin(words) {
        Ok(text) => bail!("{words:?} is not refused:\n{text}"),
        Err(error) => Ok(error.to_string()),
    }
}

fn document(machine: &Machine) -> Result<Value> {
    Ok(serde_json::from_str(&machine.plugin(&["status", CLUSTER, "-o", "json"])?)?)
}

fn status(machine: &Machine) -> Result<Value> {
    Ok(document(machine)?["cluster"]["status"].take())
}

fn primary(machine: &Machine) -> Result<String> {
    let status = status(machine)?;
    Ok(status["currentPrimary"].as_str().context("no primary")?.to_owned())
}

fn standby(machine: &Machine) -> Result<String> {
    let primary = primary(machine)?;
    let names = (1..=3).map(|serial| format!("{CLUSTER}-{serial}"));
    names.into_iter().find(|name| *name != primary).context("no standby")
}

async fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < PATIENCE, "never: {what}");
        sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

async fn healthy(machine: &Machine) -> Result<()> {
    until("three healthy instances", || {
        let status = status(machine)?;
        Ok(status["phase"] == "Cluster in healthy state" && status["readyInstances"] == 3)
    })
    .await
}

fn shows(machine: &Machine) -> Result<()> {
    let primary = primary(machine)?;
    let text = machine.plugin(&["status", CLUSTER, "-vv"])?;
    has(&text, &["Cluster in healthy state", &primary, "Ready instances:         3", "streaming"])?;
    // What no object shows comes from the agents.
    has(&text, &["Size: ", "Current Write LSN: ", "Replay LSN", "No unmanaged replication slots"])?;
    ensure!(!text.contains("Error(s) extracting status"), "{text}");
    let text = machine.plugin(&["explain", CLUSTER])?;
    has(&text, &["Cluster in healthy state", &format!("{primary} is the primary")])?;
    let text = machine.plugin(&["logs", CLUSTER])?;
    has(&text, &["database system is ready to accept connections"])?;

    // Who mistypes is told what there is.
    let said = refused(machine, &["status", "clster"])?;
    has(&said, &["there is no cluster clster", CLUSTER])?;
    let said = refused(machine, &["promote", CLUSTER, "cluster-example-9"])?;
    has(&said, &["has no instance cluster-example-9", &primary])?;

    let mut psql = Command::new(Machine::binary()?);
    psql.args(["local", "psql", CLUSTER, "--state"]).arg(machine.state());
    let output = psql.args(["--", "-XAtqc", "select pg_is_in_recovery()"]).output()?;
    ensure!(String::from_utf8(output.stdout)?.trim() == "f", "psql is not on the primary");
    Ok(())
}

fn plans(machine: &Machine) -> Result<()> {
    let manifest = std::fs::read_to_string(example("cluster.yaml"))?;
    let changed = manifest.replace("instances: 3", "instances: 5");
    ensure!(changed != manifest, "the example has no three instances");
    let path = machine.state().join("changed.yaml");
    std::fs::write(&path, changed)?;
    let before = document(machine)?["cluster"]["metadata"]["generation"].take();
    let text = machine.plugin(&["plan", "-f", path.to_str().context("a path")?])?;
    has(&text, &["create pod cluster-example-4", "Nothing was written"])?;
    let after = document(machine)?["cluster"]["metadata"]["generation"].take();
    ensure!(before == after, "a plan was carried out");
    Ok(())
}

async fn fences(machine: &Machine) -> Result<()> {
    let standby = standby(machine)?;
    has(&machine.plugin(&["fencing", "on", CLUSTER, &standby])?, &[&standby])?;
    until("it has no PostgreSQL", || {
        Ok(machine.pods()?.get(&standby).is_some_and(|pod| pod.postmaster.is_none()))
    })
    .await?;
    until("the status says so", || {
        let text = machine.plugin(&["status", CLUSTER])?;
        Ok(text.contains(&format!("Fenced instances:        {standby}")))
    })
    .await?;
    has(&machine.plugin(&["explain", CLUSTER])?, &["Fenced by the user", "fencing off"])?;
    has(&refused(machine, &["promote", CLUSTER, &standby])?, &["is fenced", "fencing off"])?;
    machine.plugin(&["fencing", "off", CLUSTER, &standby])?;
    healthy(machine).await
}

async fn promotes(machine: &Machine) -> Result<()> {
    let (before, to) = (primary(machine)?, standby(machine)?);
    has(&machine.plugin(&["promote", CLUSTER, &to])?, &["will be promoted"])?;
    until("it is the primary", || Ok(primary(machine)? == to)).await?;
    healthy(machine).await?;
    ensure!(machine.primary().await?.name == to, "writes do not go to {to}");
    has(&machine.plugin(&["promote", CLUSTER, &to])?, &["is already the primary"])?;
    has(&machine.plugin(&["explain", CLUSTER])?, &[&before, &format!("{to} is the primary")])
}

fn postmasters(machine: &Machine) -> Result<Vec<Option<i32>>> {
    Ok(machine.pods()?.values().map(|pod| pod.postmaster.as_ref().map(|it| it.pid)).collect())
}

async fn restarts(machine: &Machine) -> Result<()> {
    let (primary, standby) = (primary(machine)?, standby(machine)?);
    has(&refused(machine, &["restart", CLUSTER, &primary])?, &["is the primary", "promote"])?;
    let before = machine.pods()?[&standby].keeper.pid;
    machine.plugin(&["restart", CLUSTER, &standby])?;
    until("the pod is another one", || {
        Ok(machine.pods()?.get(&standby).is_some_and(|pod| pod.keeper.pid != before))
    })
    .await?;
    healthy(machine).await?;

    let before = postmasters(machine)?;
    has(&machine.plugin(&["restart", CLUSTER])?, &["one after the other"])?;
    until("every postmaster is another one", || {
        let now = postmasters(machine)?;
        Ok(now.len() == 3 && now.iter().all(|pid| pid.is_some() && !before.contains(pid)))
    })
    .await?;
    healthy(machine).await?;
    has(&machine.plugin(&["reload", CLUSTER])?, &["will be reloaded"])?;
    healthy(machine).await
}
