//! Images of other layouts and other users, and a change of the image.

use anyhow::{Context, Result, ensure};
use matriarch_e2e::kubernetes::Namespace;
use serde_json::json;

use crate::daily::nothing_lost;

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_every_layout_runs() -> Result<()> {
    Namespace::with("layouts", async |namespace| {
        let layouts = [
            ("other-major", json!({"imageName": "localhost/matriarch/postgresql:18"})),
            ("official", json!({"imageName": "localhost/library/postgres:17"})),
            ("foreign-nss", json!({"imageName": "localhost/matriarch/postgresql-nss:17"})),
            ("any-user", json!({"postgresUID": 12_345, "postgresGID": 12_346})),
        ];
        for (name, mut spec) in layouts {
            spec["instances"] = json!(1);
            let database = namespace.healthy(name, spec).await?;
            let user = database.sql("select current_user").await.context(name)?;
            ensure!(user == "app", "{name}: {user}");
            database.api().delete(name, &Default::default()).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_image_changes_one_pod_at_a_time() -> Result<()> {
    Namespace::with("image", async |namespace| {
        let database = namespace.healthy("db", json!({"instances": 3})).await?;
        let writer = database.writer().await?;
        let image = "localhost/matriarch/postgresql:17-next";
        database.change(json!({"spec": {"imageName": image}})).await?;
        database.healthy(3).await?;
        for name in ["db-1", "db-2", "db-3"] {
            let pod = database.pods().get(name).await?;
            let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
            ensure!(containers.iter().any(|it| it.image.as_deref() == Some(image)), "{name}");
        }
        nothing_lost(writer).await
    })
    .await
}
