//! The primary, its node, the operator or the API server is lost while a client on another node
//! writes.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use matriarch_e2e::kubernetes::{Database, Namespace, PATIENCE, until};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::daily::nothing_lost;
use crate::operators::operators;

/// Three instances whose commits are acknowledged by two: what is acknowledged is not lost.
fn synchronous() -> Value {
    let synchronous = json!({"method": "any", "number": 1, "dataDurability": "required"});
    json!({"instances": 3, "postgresql": {"synchronous": synchronous}})
}

async fn another_is_primary(database: &Database<'_>, former: &str) -> Result<()> {
    until("another one is primary", PATIENCE, async || Ok(database.primary().await? != former))
        .await
}

/// What the agent and the keeper of a primary say that cannot reach the API, nor all of its cohort.
const NO_API: [&str; 3] = [
    "the API server does not answer",
    "the right to accept writes runs out",
    "the right to accept writes has run out",
];

/// The number of a node.
fn number(node: &str) -> &str {
    node.trim_start_matches("node")
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_pod_of_the_primary_is_force_deleted() -> Result<()> {
    Namespace::with("force-deleted", async |namespace| {
        let database = namespace.healthy("db", synchronous()).await?;
        let writer = database.writer().await?;
        sleep(Duration::from_secs(2)).await;
        let primary = database.primary().await?;
        let former = database.pods().get(&primary).await?.uid();
        let now = DeleteParams::default().grace_period(0);
        database.pods().delete(&primary, &now).await?;
        // Another instance is primary at once, or this one again where its pod is made anew sooner.
        writer.goes_on(PATIENCE).await?;
        until("the pod is made anew", PATIENCE, async || {
            let pod = database.pods().get_opt(&primary).await?;
            Ok(pod.is_some_and(|pod| pod.uid() != former))
        })
        .await?;
        database.healthy(3).await?;
        nothing_lost(writer).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn alone_smoke_node_of_the_primary_is_cut_and_healed() -> Result<()> {
    Namespace::with("cut", async |namespace| {
        namespace.expect_warnings(&NO_API);
        let database = namespace.healthy("db", synchronous()).await?;
        let writer = database.writer().await?;
        sleep(Duration::from_secs(2)).await;
        let primary = database.primary().await?;
        let node = database.node_of(&primary).await?;
        namespace.kubernetes().verb(&["cut", number(&node)]).await?;
        let moved = another_is_primary(&database, &primary).await;
        sleep(Duration::from_secs(5)).await;
        namespace.kubernetes().verb(&["heal", number(&node)]).await?;
        moved?;
        database.healthy(3).await?;
        nothing_lost(writer).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn alone_each_node_is_drained() -> Result<()> {
    Namespace::with("drained", async |namespace| {
        let database = namespace.healthy("db", json!({"instances": 3})).await?;
        let single = namespace.healthy("single", json!({"instances": 1})).await?;
        let writer = database.writer().await?;
        let kubernetes = namespace.kubernetes();
        let kubectl = kubernetes.tool("kubectl")?;
        for node in kubernetes.nodes().await? {
            let drain = ["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data"];
            let drained =
                kubernetes.run(&kubectl, &[&drain[..], &["--timeout=180s"]].concat()).await;
            kubernetes.run(&kubectl, &["uncordon", &node]).await?;
            drained?;
            database.healthy(3).await?;
            single.healthy(1).await?;
        }
        nothing_lost(writer).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn alone_smoke_primary_is_killed_while_no_operator_runs() -> Result<()> {
    Namespace::with("no-operator", async |namespace| {
        let database = namespace.healthy("db", synchronous()).await?;
        let writer = database.writer().await?;
        let primary = database.primary().await?;
        let holder = database.sql("select pg_backend_pid()").await;
        ensure!(holder.is_ok(), "{holder:?}");
        operators(namespace.kubernetes(), 0).await?;
        let now = DeleteParams::default().grace_period(0);
        database.pods().delete(&primary, &now).await?;
        let written = until("a write goes through without an operator", PATIENCE, async || {
            let there = database.lease_holder().await?;
            Ok(there.is_some_and(|holder| holder != primary))
        })
        .await;
        operators(namespace.kubernetes(), 2).await?;
        written?;
        database.healthy(3).await?;
        nothing_lost(writer).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn alone_api_server_is_away_for_two_minutes() -> Result<()> {
    Namespace::with("no-api", async |namespace| {
        namespace.expect_warnings(&NO_API);
        let database = namespace.healthy("db", synchronous()).await?;
        let writer = database.writer().await?;
        let kubernetes = namespace.kubernetes();
        kubernetes.verb(&["stop-api"]).await?;
        sleep(Duration::from_secs(120)).await;
        kubernetes.verb(&["start-api"]).await?;
        database.healthy(3).await?;
        let tally = writer.finish().await?;
        println!("{tally:?}");
        ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
        ensure!(tally.longest_gap < Duration::from_secs(5), "writes stopped: {tally:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn alone_node_of_the_primary_is_lost_for_good() -> Result<()> {
    Namespace::with("lost", async |namespace| {
        namespace.expect_warnings(&NO_API);
        let database = namespace.healthy("db", synchronous()).await?;
        let writer = database.writer().await?;
        let primary = database.primary().await?;
        let node = database.node_of(&primary).await?;
        let kubernetes = namespace.kubernetes();
        kubernetes.verb(&["lose", number(&node)]).await?;
        let moved = another_is_primary(&database, &primary).await;
        // What an administrator does: the node never comes back, nor does its volume.
        let nodes: Api<Node> = Api::all(kubernetes.client().clone());
        nodes.delete(&node, &DeleteParams::default()).await?;
        let done = async {
            moved?;
            plugin_destroy(&database, &primary).await?;
            database.healthy(3).await?;
            nothing_lost(writer).await
        }
        .await;
        // The others need the node again.
        kubernetes.verb(&["up"]).await?;
        done
    })
    .await
}

/// The volume of an instance that nobody will see again is given up.
async fn plugin_destroy(database: &Database<'_>, instance: &str) -> Result<()> {
    let kubernetes = database.namespace().kubernetes();
    let kubectl = kubernetes.tool("kubectl")?;
    let words = ["delete", "pvc", instance, "-n", database.namespace().name(), "--wait=false"];
    kubernetes.run(&kubectl, &words).await?;
    let words = ["delete", "pod", instance, "-n", database.namespace().name(), "--force"];
    // The garbage collector may have removed it with its node.
    let _gone = kubernetes.run(&kubectl, &words).await;
    Ok(())
}
