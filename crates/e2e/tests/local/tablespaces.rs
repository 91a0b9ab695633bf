//! Tablespaces under `matriarch local`, where they lie in the data directory: from the beginning,
//! added later, with an owner that comes last, and through the changes of a cluster's life.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use matriarch_e2e::local::{Machine, Victim, Writer};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::operations::{NAME, NAMESPACE, PATIENCE, World};

const COUNT: &str = "select count(*) from kept";

fn fast(owner: Option<&str>) -> Value {
    let mut fast = json!({"name": "fast_idx", "storage": {"size": "1Gi"}});
    if let Some(owner) = owner {
        fast["owner"] = json!({"name": owner});
    }
    fast
}

/// The second one: for temporary files, and of a role that is not there yet.
fn scratch() -> Value {
    let owner = json!({"name": "ann"});
    json!({"name": "scratch", "storage": {"size": "1Gi"}, "owner": owner, "temporary": true})
}

async fn is(world: &World, name: &str, state: &str, owner: &str) -> Result<Value> {
    world
        .status(&format!("{name} is {state}"), |status| {
            let all = status["tablespacesStatus"].as_array();
            all.into_iter()
                .flatten()
                .any(|it| it["name"] == name && it["state"] == state && it["owner"] == owner)
        })
        .await
}

/// Names of the claims of tablespaces.
async fn claims(world: &World) -> Result<Vec<String>> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(world.client.clone(), NAMESPACE);
    let params = ListParams::default().labels("matriarch.dev/pvcRole=PG_TABLESPACE");
    let mut names: Vec<String> =
        api.list(&params).await?.iter().map(ResourceExt::name_any).collect();
    names.sort();
    Ok(names)
}

async fn started() -> Result<World> {
    let manifest = std::env::temp_dir().join(format!("m-tablespaces-{}.yaml", std::process::id()));
    let object = json!({
        "apiVersion": "matriarch.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": NAME},
        "spec": {
            "instances": 3,
            "imageName": "ghcr.io/cloudnative-pg/postgresql:15",
            "storage": {"size": "1Gi"},
            "enableSuperuserAccess": true,
            "tablespaces": [fast(None)],
        },
    });
    std::fs::write(&manifest, object.to_string())?;
    let path = manifest.to_str().context("a path in UTF-8")?;
    let world = World::start_from("tablespaces", 17832, path).await;
    std::fs::remove_file(&manifest)?;
    world
}

#[tokio::test]
async fn tablespaces_come_with_their_volumes_and_outlive_the_primary() -> Result<()> {
    let world = started().await?;
    world.healthy(3).await?;
    is(&world, "fast_idx", "reconciled", "app").await?;
    let all = [1, 2, 3].map(|serial| format!("{NAME}-{serial}-tbs-fast-idx"));
    ensure!(claims(&world).await? == all, "{:?}", claims(&world).await?);
    let writer = Writer::start(&world.machine.connection_string()?).await?;
    let fill = "create table kept tablespace fast_idx as select generate_series(1, 1000) as n";
    world.machine.sql(fill).await?;

    // One more: pods are made anew one after the other, then it waits for its owner.
    world.change(json!({"spec": {"tablespaces": [fast(None), scratch()]}})).await?;
    let waits = is(&world, "scratch", "pending", "ann").await?;
    ensure!(waits["tablespacesStatus"][0]["state"] == "reconciled", "{waits:#}");
    world
        .status("it says what it waits for", |status| {
            status["tablespacesStatus"][1]["error"] == "there is no role ann"
        })
        .await?;
    world.healthy(3).await?;
    world.answer("show temp_tablespaces", "\"scratch\"").await?;
    let primary = world.primary().await?;
    world.sql_on(&primary, "create role ann").await?;
    is(&world, "scratch", "reconciled", "ann").await?;
    world.change(json!({"spec": {"tablespaces": [fast(Some("ann")), scratch()]}})).await?;
    is(&world, "fast_idx", "reconciled", "ann").await?;
    let told = world.machine.plugin(&["status", NAME, "-v"])?;
    ensure!(told.contains("Tablespaces status") && told.contains("fast_idx"), "{told}");
    ensure!(claims(&world).await?.len() == 6, "{:?}", claims(&world).await?);

    // Another primary on request, and by force; a new standby, which copies them.
    let standby = world.a_standby().await?;
    world.switch_to(&standby).await?;
    world.healthy(3).await?;
    world.answer(COUNT, "1000").await?;
    let primary = world.machine.primary().await?;
    Machine::signal(&primary, Victim::Both, Signal::KILL)?;
    world.answer(COUNT, "1000").await?;
    world.healthy(3).await?;
    world.change(json!({"spec": {"instances": 4}})).await?;
    world.healthy(4).await?;
    for instance in world.machine.pods()?.keys() {
        world.answer_on(instance, COUNT, "1000").await?;
    }
    ensure!(claims(&world).await?.len() == 8, "{:?}", claims(&world).await?);
    let tally = writer.finish().await?;
    println!("{tally:?}");
    ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);

    // An instance that leaves takes its volumes with it.
    world.change(json!({"spec": {"instances": 3}})).await?;
    world.healthy(3).await?;
    world.status("three instances", |status| status["instances"] == 3).await?;
    ensure!(claims(&world).await?.len() == 6, "{:?}", claims(&world).await?);
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}
