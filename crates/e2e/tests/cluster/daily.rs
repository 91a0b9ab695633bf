//! What is done to a cluster on a working day, while a client on another node writes: none of it is
//! a crash, and none of it may lose a row.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use matriarch_e2e::kubernetes::{Database, Namespace, PATIENCE, until};
use matriarch_e2e::local::Machine;
use matriarch_e2e::writer::Writer;
use serde_json::json;

/// Ends the client: nothing that it was told is gone.
pub async fn nothing_lost(writer: Writer) -> Result<()> {
    writer.goes_on(PATIENCE).await?;
    let tally = writer.finish().await?;
    println!(
        "{} writes acknowledged in {:.0} s, {} lost, longest gap {:.2} s",
        tally.acknowledged,
        tally.lasted.as_secs_f64(),
        tally.lost.len(),
        tally.longest_gap.as_secs_f64()
    );
    ensure!(tally.acknowledged > 0, "nothing was written");
    ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
    Ok(())
}

/// Runs a verb of the plugin on the namespace of a database.
pub async fn plugin(database: &Database<'_>, words: &[&str]) -> Result<String> {
    let mut all = words.to_vec();
    all.extend(["-n", database.namespace().name()]);
    database.namespace().kubernetes().run(&Machine::binary()?, &all).await
}

/// Promotes a standby as a user does, and waits until it is primary. A former primary's pod counts
/// as ready until the kubelet has asked again, so the verb may have to be repeated.
pub async fn promote(database: &Database<'_>, standby: &str) -> Result<()> {
    until("the standby may be promoted", PATIENCE, async || {
        plugin(database, &["promote", database.name(), standby]).await?;
        Ok(true)
    })
    .await?;
    until("the standby is primary", PATIENCE, async || Ok(database.primary().await? == standby))
        .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_a_pod_connects_with_the_secret_of_the_application() -> Result<()> {
    Namespace::with("connect", async |namespace| {
        let database = namespace.healthy("db", json!({"instances": 2})).await?;
        let script = "exec psql -XAtc \"select current_user, ssl, version from pg_stat_ssl \
                      where pid = pg_backend_pid()\"";
        let from =
            |key: &str| json!({"valueFrom": {"secretKeyRef": {"name": "db-app", "key": key}}});
        let variable = |name: &str, key: &str| {
            let mut variable = from(key);
            variable["name"] = json!(name);
            variable
        };
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "client"},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 26,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "psql", "image": "localhost/matriarch/postgresql:17",
                    "command": ["sh", "-c", script],
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    },
                    "env": [
                        variable("PGHOST", "host"), variable("PGPORT", "port"),
                        variable("PGDATABASE", "dbname"), variable("PGUSER", "username"),
                        variable("PGPASSWORD", "password"),
                        {"name": "PGSSLMODE", "value": "verify-full"},
                        {"name": "PGSSLROOTCERT", "value": "/app/ca.crt"},
                    ],
                    "volumeMounts": [{"name": "app", "mountPath": "/app"}],
                }],
                "volumes": [{"name": "app", "secret": {"secretName": "db-app"}}],
            },
        }))?;
        database.pods().create(&PostParams::default(), &pod).await?;
        until("the client has ended", PATIENCE, async || {
            let status = database.pods().get("client").await?.status.unwrap_or_default();
            Ok(matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")))
        })
        .await?;
        let said = database.pods().logs("client", &LogParams::default()).await?;
        ensure!(said.trim() == "app|t|TLSv1.3", "psql said: {said}");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_scale_reload_restart_and_promote() -> Result<()> {
    Namespace::with("daily", async |namespace| {
        let database = namespace.healthy("db", json!({"instances": 3})).await?;
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
        promote(&database, &standby).await?;
        database.healthy(3).await?;
        nothing_lost(writer).await?;
        database.api().delete(database.name(), &DeleteParams::background()).await?;
        until("no pod is left", PATIENCE, async || {
            Ok(database.pods().list(&ListParams::default()).await?.items.is_empty())
        })
        .await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_fenced_and_hibernated() -> Result<()> {
    Namespace::with("rest", async |namespace| {
        let database = namespace.healthy("db", json!({"instances": 3})).await?;
        let writer = database.writer().await?;
        let standby = database.standby().await?;
        plugin(&database, &["fencing", "on", "db", &standby]).await?;
        database
            .status("two are ready", |status| status["readyInstances"] == 2)
            .await
            .context("fenced")?;
        plugin(&database, &["fencing", "off", "db", &standby]).await?;
        database.healthy(3).await?;
        plugin(&database, &["hibernate", "on", "db"]).await?;
        until("it hibernates", PATIENCE, async || {
            let said = plugin(&database, &["hibernate", "status", "db"]).await?;
            let pods = database.pods().list(&ListParams::default()).await?.items;
            Ok(said.contains("has been hibernated") && pods.is_empty())
        })
        .await?;
        plugin(&database, &["hibernate", "off", "db"]).await?;
        database.healthy(3).await?;
        nothing_lost(writer).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_full_volume_grows() -> Result<()> {
    Namespace::with("full", async |namespace| {
        namespace.expect_warnings(&[
            "No space left on device",
            "cannot connect to PostgreSQL's local socket",
            "the old data directory is kept",
        ]);
        let database = namespace.healthy("db", json!({"instances": 2})).await?;
        let writer = database.writer().await?;
        // Not compressed: it has to take place.
        database.sql("create table filler (content text storage external)").await?;
        let fill = "insert into filler select repeat(md5(i::text), 300) \
                    from generate_series(1, 5000) i";
        let mut rounds = 0;
        while database.sql(fill).await.is_ok() {
            rounds += 1;
            ensure!(rounds < 200, "the volume is never full");
        }
        let told = database
            .status("the full volume is told of", |status| {
                status["phase"].as_str().is_some_and(|phase| phase.contains("disk space"))
            })
            .await?;
        println!("full after {rounds} rounds: {}", told["phaseReason"]);
        database.change(json!({"spec": {"storage": {"size": "1Gi"}}})).await?;
        database.healthy(2).await?;
        database.sql("drop table filler").await?;
        nothing_lost(writer).await
    })
    .await
}
