//! Users' own physical slots: every standby has a copy, which outlives the primary.

use anyhow::{Result, ensure};
use matriarch_e2e::local::{Machine, Victim};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::operations::{PATIENCE, World};

/// Names of all slots but those of the cluster's own standbys.
const NAMES: &str = "select coalesce(string_agg(slot_name, ' ' order by slot_name), '') from \
    pg_replication_slots where not starts_with(slot_name, '_matriarch_')";

fn copies(enabled: bool) -> Value {
    json!({"spec": {"enableSuperuserAccess": true, "replicationSlots": {
        "updateInterval": 1,
        "synchronizeReplicas": {"enabled": enabled, "excludePatterns": ["^mine_"]},
    }}})
}

/// Moves a slot of the primary to the end of its WAL, as its user would by streaming; the copies
/// follow.
async fn moved(world: &World, primary: &str, others: &[&String]) -> Result<()> {
    world
        .sql_on(
            primary,
            "select pg_switch_wal(); \
             select pg_replication_slot_advance('kept', pg_current_wal_lsn())",
        )
        .await?;
    let position = "select restart_lsn from pg_replication_slots where slot_name = 'kept'";
    let wanted = world.sql_on(primary, position).await?;
    for instance in others {
        world.answer_on(instance, position, &wanted).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_users_slot_outlives_the_primary() -> Result<()> {
    let world = World::start("slots", 17732).await?;
    world.healthy(3).await?;
    world.change(copies(true)).await?;
    let former = world.primary().await?;
    let pods = world.machine.pods()?;
    let standbys: Vec<&String> = pods.keys().filter(|name| **name != former).collect();
    let [next, third] = standbys[..] else { anyhow::bail!("two standbys: {standbys:?}") };
    world.answer_on(&former, "select 1", "1").await?;
    let made = "select pg_create_physical_replication_slot('kept', true); \
        select pg_create_physical_replication_slot('never_used'); \
        select pg_create_physical_replication_slot('mine_one', true)";
    world.sql_on(&former, made).await?;
    let cascade = "select pg_create_physical_replication_slot('of_a_cascade', true)";
    world.sql_on(third, cascade).await?;
    world.answer_on(next, NAMES, "kept never_used").await?;
    world.answer_on(third, NAMES, "kept never_used of_a_cascade").await?;
    let unreserved = "select restart_lsn is null from pg_replication_slots \
        where slot_name = 'never_used'";
    ensure!(world.sql_on(next, unreserved).await? == "t", "a copy keeps WAL for nobody");
    moved(&world, &former, &[next, third]).await?;

    // The former primary's own slot, which it was using as one, is a copy from now on.
    world.switch_to(next).await?;
    world.healthy(3).await?;
    ensure!(world.sql_on(next, NAMES).await? == "kept never_used");
    moved(&world, next, &[&former, third]).await?;
    world.sql_on(next, "select pg_drop_replication_slot('never_used')").await?;
    world.answer_on(&former, NAMES, "kept mine_one").await?;
    world.answer_on(third, NAMES, "kept of_a_cascade").await?;

    // A primary that dies, and a standby that learns of a drop only afterwards.
    let primary = world.machine.primary().await?;
    Machine::signal(&primary, Victim::Both, Signal::KILL)?;
    world.answer("select count(*) from pg_replication_slots where slot_name = 'kept'", "1").await?;
    world.healthy(3).await?;
    let primary = world.primary().await?;
    world.sql_on(&primary, "select pg_drop_replication_slot('kept')").await?;
    for instance in [&former, next, third] {
        let gone = "select count(*) from pg_replication_slots where slot_name = 'kept'";
        world.answer_on(instance, gone, "0").await?;
    }
    ensure!(world.sql_on(third, NAMES).await? == "of_a_cascade", "a slot of somebody else");

    // Where copies are not wanted any more, none is left to keep WAL for ever.
    world.sql_on(&primary, "select pg_create_physical_replication_slot('late', true)").await?;
    let others: Vec<&String> = pods.keys().filter(|name| **name != primary).collect();
    let late = "select count(*) from pg_replication_slots where slot_name = 'late'";
    for instance in &others {
        world.answer_on(instance, late, "1").await?;
    }
    world.change(copies(false)).await?;
    for instance in &others {
        world.answer_on(instance, late, "0").await?;
    }
    ensure!(world.sql_on(&primary, late).await? == "1", "a primary's slot was dropped");
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}
