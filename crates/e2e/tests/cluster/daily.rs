//! What is done to a cluster on a working day, while a client on another node writes: none of it is
//! a crash, and none of it may lose a row.

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use matriarch_e2e::kubernetes::{Namespace, PATIENCE, until};
use serde_json::json;

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_scale_reload_restart_and_promote() -> Result<()> {
    Namespace::with("daily", async |namespace| {
        let database = namespace.cluster("db", json!({"instances": 3})).await?;
        database.healthy(3).await?;
        let writer = database.writer().await?;
        for instances in [5, 2, 3] {
            database.change(json!({"spec": {"instances": instances}})).await?;
            database.healthy(instances).await?;
        }
        for (parameter, value) in [("work_mem", "7MB"), ("max_connections", "150")] {
            let parameters = json!({"postgresql": {"parameters": {parameter: value}}});
            database.change(json!({"spec": parameters})).await?;
            database.answer(&format!("show {parameter}"), value).await?;
            database.healthy(3).await?;
        }
        let standby = database.standby().await?;
        let plugin = matriarch_e2e::local::Machine::binary()?;
        let words = ["promote", "db", standby.as_str(), "-n", namespace.name()];
        namespace.kubernetes().run(&plugin, &words).await?;
        until(
            "the standby is primary",
            PATIENCE,
            async || Ok(database.primary().await? == standby),
        )
        .await?;
        database.healthy(3).await?;
        let tally = writer.finish().await?;
        println!("{tally:?}");
        ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
        database.api().delete(database.name(), &DeleteParams::background()).await?;
        until("no pod is left", PATIENCE, async || {
            Ok(database.pods().list(&Default::default()).await?.items.is_empty())
        })
        .await
    })
    .await
}
