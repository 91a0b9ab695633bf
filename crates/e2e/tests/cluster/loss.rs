//! The primary is lost in every way while a client on another node writes.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use matriarch_e2e::kubernetes::{Database, Namespace, PATIENCE, until};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Three instances whose commits are acknowledged by two: what is acknowledged is not lost.
fn synchronous() -> Value {
    let synchronous = json!({"method": "any", "number": 1, "dataDurability": "required"});
    json!({"instances": 3, "postgresql": {"synchronous": synchronous}})
}

async fn another_is_primary(database: &Database<'_>, former: &str) -> Result<()> {
    until("another one is primary", PATIENCE, async || Ok(database.primary().await? != former))
        .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_pod_of_the_primary_is_force_deleted() -> Result<()> {
    Namespace::with("force-deleted", async |namespace| {
        let database = namespace.cluster("db", synchronous()).await?;
        database.healthy(3).await?;
        let writer = database.writer().await?;
        sleep(Duration::from_secs(2)).await;
        let primary = database.primary().await?;
        let now = DeleteParams::default().grace_period(0);
        database.pods().delete(&primary, &now).await?;
        another_is_primary(&database, &primary).await?;
        database.healthy(3).await?;
        let tally = writer.finish().await?;
        println!("{tally:?}");
        ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn alone_smoke_node_of_the_primary_is_cut_and_healed() -> Result<()> {
    Namespace::with("cut", async |namespace| {
        let database = namespace.cluster("db", synchronous()).await?;
        database.healthy(3).await?;
        let writer = database.writer().await?;
        sleep(Duration::from_secs(2)).await;
        let primary = database.primary().await?;
        let node = database.node_of(&primary).await?;
        let number = node.trim_start_matches("node");
        namespace.kubernetes().verb(&["cut", number]).await?;
        let moved = another_is_primary(&database, &primary).await;
        sleep(Duration::from_secs(5)).await;
        namespace.kubernetes().verb(&["heal", number]).await?;
        moved?;
        database.healthy(3).await?;
        let tally = writer.finish().await?;
        println!("{tally:?}");
        ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
        Ok(())
    })
    .await
}
