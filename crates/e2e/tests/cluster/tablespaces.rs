//! Tablespaces on volumes of their own: added while a client writes, copied to new instances, and
//! larger when they are full.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use matriarch_e2e::kubernetes::{Database, Namespace, PATIENCE, until};
use serde_json::{Value, json};

use super::daily::{nothing_lost, promote};

const COUNT: &str = "select count(*) from kept";

fn tablespace(name: &str, size: &str) -> Value {
    json!({"name": name, "storage": {"size": size}})
}

async fn reconciled(database: &Database<'_>, names: &[&str]) -> Result<()> {
    let is = |status: &Value, name: &str| {
        let all = status["tablespacesStatus"].as_array();
        all.into_iter().flatten().any(|it| it["name"] == name && it["state"] == "reconciled")
    };
    let what = format!("{names:?} are there");
    database.status(&what, |status| names.iter().all(|name| is(status, name))).await?;
    Ok(())
}

/// Claims of tablespaces by name, and what each has.
async fn claims(namespace: &Namespace) -> Result<Vec<(String, String)>> {
    let api: Api<PersistentVolumeClaim> = namespace.objects();
    let params = ListParams::default().labels("matriarch.dev/pvcRole=PG_TABLESPACE");
    let capacity = |claim: &PersistentVolumeClaim| {
        let capacity = claim.status.as_ref()?.capacity.as_ref()?.get("storage")?;
        Some(capacity.0.clone())
    };
    let all = api.list(&params).await?.items;
    Ok(all.iter().map(|it| (it.name_any(), capacity(it).unwrap_or_default())).collect())
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_tablespaces_are_added_copied_and_grown() -> Result<()> {
    Namespace::with("tablespaces", async |namespace| {
        let spec = json!({"instances": 2, "tablespaces": [tablespace("fast_idx", "256Mi")]});
        let database = namespace.healthy("db", spec).await?;
        reconciled(&database, &["fast_idx"]).await?;
        let place = "select pg_tablespace_location(oid) from pg_tablespace \
                     where spcname = 'fast_idx'";
        database.answer(place, "/var/lib/postgresql/tablespaces/fast_idx/data").await?;
        let writer = database.writer().await?;
        let fill = "create table kept tablespace fast_idx as select generate_series(1, 1000) as n";
        database.sql(fill).await?;

        // One more, for temporary files: standbys first, then the primary.
        let mut scratch = tablespace("scratch", "256Mi");
        scratch["temporary"] = json!(true);
        let both = json!([tablespace("fast_idx", "256Mi"), scratch]);
        database.change(json!({"spec": {"tablespaces": both}})).await?;
        reconciled(&database, &["fast_idx", "scratch"]).await?;
        database.healthy(2).await?;
        database.answer("show temp_tablespaces", "\"scratch\"").await?;
        database.answer(COUNT, "1000").await?;

        // A new instance copies what is on the volumes, and becomes primary.
        database.change(json!({"spec": {"instances": 3}})).await?;
        database.healthy(3).await?;
        let volumes = claims(namespace).await?;
        ensure!(volumes.len() == 6, "{volumes:?}");
        for _ in 0..2 {
            let standby = database.standby().await?;
            promote(&database, &standby).await?;
            database.healthy(3).await?;
            database.answer(COUNT, "1000").await?;
        }

        // Larger, while it is used.
        let both = json!([tablespace("fast_idx", "512Mi"), scratch]);
        database.change(json!({"spec": {"tablespaces": both}})).await?;
        until("the volumes are larger", PATIENCE, async || {
            let volumes = claims(namespace).await?;
            let grown = volumes.iter().filter(|(_, capacity)| capacity == "512Mi");
            Ok(grown.count() == 3)
        })
        .await?;
        database.healthy(3).await?;

        // It leaves with its volumes.
        database.change(json!({"spec": {"instances": 2}})).await?;
        database.healthy(2).await?;
        until("its volumes are gone", PATIENCE, async || Ok(claims(namespace).await?.len() == 4))
            .await?;
        database.answer(COUNT, "1000").await?;
        nothing_lost(writer).await
    })
    .await
}
