//! Everything that a Cluster owns is deleted once while a client writes: all of it comes back, and
//! no row is lost (traps K11).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::DeleteParams;
use kube::{Api, Client, ResourceExt};
use matriarch_e2e::local::{Machine, Writer, example};
use matriarch_e2e::owned;
use tokio::time::sleep;

const NAME: &str = "cluster-example";
const NAMESPACE: &str = "default";
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    machine: Machine,
    client: Client,
}

impl World {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn a_standby(&self) -> Result<String> {
        let primary = self.machine.primary().await?.name;
        let pods = self.machine.pods()?;
        pods.keys().find(|name| **name != primary).cloned().context("a standby")
    }
}

async fn start(name: &str, port: u16) -> Result<World> {
    let mut machine = Machine::new(name, port)?;
    machine.up(&[&example("cluster.yaml")])?;
    machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
    let client = machine.client().await?;
    let world = World { machine, client };
    world.machine.healed(PATIENCE).await?;
    Ok(world)
}

#[tokio::test]
async fn every_object_that_is_deleted_comes_back() -> Result<()> {
    let world = start("repairs", 17632).await?;
    let writer = Writer::start(&world.machine.connection_string()?).await?;
    for kind in &owned::KINDS {
        owned::delete_each(&world.client, NAMESPACE, NAME, kind, async || Ok(())).await?;
    }
    world.machine.healed(PATIENCE).await?;
    let primary = world.machine.primary().await?.name;

    // The password of the application is a new one, and PostgreSQL has it.
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), NAMESPACE);
    let secret = secrets.get(&format!("{NAME}-app")).await?;
    let password =
        secret.data.and_then(|data| data.get("password").cloned()).context("password")?;
    let password = String::from_utf8(password.0)?;
    let begun = Instant::now();
    loop {
        let string = world.machine.connection_string()?;
        let (string, _) = string.split_once(" passfile").context("passfile is last")?;
        let output = tokio::process::Command::new("psql")
            .args([&format!("{string} password={password}"), "-XAtqc", "select current_user"])
            .output()
            .await?;
        if output.stdout == b"app\n" {
            break;
        }
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(begun.elapsed() < PATIENCE, "the new password is never good: {error}");
        sleep(Duration::from_millis(200)).await;
    }
    let tally = writer.finish().await?;
    println!("{tally:?}, primary {primary}");
    ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}

#[tokio::test]
async fn pods_and_volumes_that_are_taken_away_come_back() -> Result<()> {
    let world = start("volumes", 17732).await?;
    let writer = Writer::start(&world.machine.connection_string()?).await?;

    // A volume of a standby: a new instance is cloned.
    let standby = world.a_standby().await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.client.clone(), NAMESPACE);
    let before = world.machine.pods()?.keys().cloned().collect::<BTreeSet<_>>();
    let uid = claims.get(&standby).await?.uid();
    claims.delete(&standby, &DeleteParams::default()).await?;
    world.pods().delete(&standby, &DeleteParams::default()).await?;
    let begun = Instant::now();
    loop {
        let gone = claims.get_opt(&standby).await?.is_none_or(|claim| claim.uid() != uid);
        if gone && world.machine.pods()?.len() == before.len() {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "the volume of {standby} is not replaced");
        sleep(Duration::from_millis(100)).await;
    }
    world.machine.healed(PATIENCE).await?;
    println!("volume of {standby} replaced after {:.1} s", begun.elapsed().as_secs_f64());

    // Force-deleted, as people do when they lose patience.
    let primary = world.machine.primary().await?.name;
    let uid = world.pods().get(&primary).await?.uid();
    world.pods().delete(&primary, &DeleteParams::default().grace_period(0)).await?;
    let begun = Instant::now();
    while world.pods().get_opt(&primary).await?.is_none_or(|pod| pod.uid() == uid) {
        ensure!(begun.elapsed() < PATIENCE, "{primary} is not made anew");
        sleep(Duration::from_millis(100)).await;
    }
    world.machine.healed(PATIENCE).await?;
    let tally = writer.finish().await?;
    println!("{tally:?}");
    ensure!(tally.acknowledged > 20, "hardly anything was written: {tally:?}");
    ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}
