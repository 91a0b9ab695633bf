//! Operators come and go while a client writes: the leader of two dies in the middle of a rollout,
//! a new version takes over and is taken back, and Helm installs one of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use matriarch_api::instance::AgentReport;
use matriarch_api::{Identity, Instance};
use matriarch_e2e::kubernetes::{
    Database, Kubernetes, Namespace, OPERATOR_NAMESPACE, PATIENCE, until,
};
use matriarch_e2e::local::Machine;
use matriarch_e2e::owned;
use serde_json::json;
use tokio::time::sleep;

use crate::daily::{nothing_lost, plugin};

const OPERATOR: &str = "matriarch-operator";
const IMAGE: &str = "localhost/matriarch/operator";
/// The version that `cargo xtask e2e` makes beside the one under test.
const NEXT: &str = "next";
/// Far below what any change of the primary takes, and above the pauses of a busy machine.
const GAP_MAX: Duration = Duration::from_secs(3);

/// An agent is told of a new operator's program before kube-proxy leads to that operator.
const NOT_YET: &str = "BinaryNotFetched";

/// Sets the number of operators, and waits for them.
pub async fn operators(kubernetes: &Kubernetes, replicas: u32) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(kubernetes.client().clone(), OPERATOR_NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    api.patch(OPERATOR, &PatchParams::default(), &patch).await?;
    until("the operators are as many", PATIENCE, async || {
        let status = api.get(OPERATOR).await?.status.unwrap_or_default();
        let wanted = i32::try_from(replicas)?;
        Ok(status.ready_replicas.unwrap_or_default() == wanted
            && status.replicas.unwrap_or_default() == wanted)
    })
    .await
}

/// The pods of a database's instances by name: which pod it is, and how often its container began.
async fn pods(database: &Database<'_>) -> Result<BTreeMap<String, (Option<String>, i32)>> {
    let all = database.pods().list(&ListParams::default()).await?.items;
    let begun = |pod: &Pod| {
        let containers = pod.status.as_ref().and_then(|it| it.container_statuses.as_ref());
        containers.into_iter().flatten().map(|it| it.restart_count).sum()
    };
    Ok(all.into_iter().map(|pod| (pod.name_any(), (pod.uid(), begun(&pod)))).collect())
}

async fn agents(database: &Database<'_>) -> Result<Vec<AgentReport>> {
    let client = database.namespace().kubernetes().client().clone();
    let api: Api<Instance> =
        Api::namespaced_with(client, database.namespace().name(), &Identity::Matriarch);
    let found = api.list(&ListParams::default()).await?.items;
    Ok(found.into_iter().map(|it| it.status.unwrap_or_default().agent).collect())
}

/// The one program that all agents run from for good, if that is so.
async fn program(database: &Database<'_>) -> Result<Option<String>> {
    let agents = agents(database).await?;
    let first = agents.first().and_then(|it| it.sha256.clone());
    let same = |it: &AgentReport| it.sha256 == first && !it.trial && it.failure.is_none();
    Ok(first.clone().filter(|_| agents.iter().all(same)))
}

/// Waits until all agents run from one program, for good, and that is not `former`.
async fn replaced(database: &Database<'_>, former: &str) -> Result<String> {
    until("all agents are replaced", PATIENCE, async || {
        Ok(program(database).await?.is_some_and(|it| it != former))
    })
    .await?;
    program(database).await?.context("replaced once more")
}

/// Installs the operator of this version, as a user does.
async fn install(kubernetes: &Kubernetes, version: &str) -> Result<()> {
    let image = format!("{IMAGE}:{version}");
    let words = ["install", "generate", "--image", &image, "--replicas", "2"];
    let postgres = ["--postgres-image", "localhost/matriarch/postgresql:17"];
    let objects = kubernetes.run(&Machine::binary()?, &[&words[..], &postgres].concat()).await?;
    let file = kubernetes.directory().join("clients").join("install.yaml");
    std::fs::write(&file, objects)?;
    let kubectl = kubernetes.tool("kubectl")?;
    let file = file.to_str().context("a path in UTF-8")?;
    kubernetes.run(&kubectl, &["apply", "-f", file]).await?;
    let deployment = format!("deployment/{OPERATOR}");
    let words = ["rollout", "status", &deployment, "-n", OPERATOR_NAMESPACE, "--timeout=120s"];
    kubernetes.run(&kubectl, &words).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn smoke_every_object_that_is_deleted_comes_back() -> Result<()> {
    Namespace::with("deleted", async |namespace| {
        // A primary that is locked out, or whose Lease is gone, stops when its right ends (rule 5).
        namespace.expect_warnings(&["the right to accept writes run"]);
        let database = namespace.healthy("db", json!({"instances": 3})).await?;
        let writer = database.writer().await?;
        let client = namespace.kubernetes().client();
        for kind in &owned::KINDS {
            owned::delete_each(client, namespace.name(), "db", kind, async || {
                // Who serves all namespaces may not watch Secrets, and looks at them in each pass.
                if kind.plural == "secrets" {
                    plugin(&database, &["reload", "db"]).await?;
                }
                Ok(())
            })
            .await?;
            // The client learns the new address, password and authority.
            database.connection_string().await?;
        }
        database.healthy(3).await?;
        nothing_lost(writer).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn alone_leader_of_two_operators_dies_in_a_rollout() -> Result<()> {
    Namespace::with("two-operators", async |namespace| {
        let database = namespace.healthy("db", json!({"instances": 3})).await?;
        let writer = database.writer().await?;
        let client = namespace.kubernetes().client().clone();
        let leases: Api<Lease> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
        let operators: Api<Pod> = Api::namespaced(client, OPERATOR_NAMESPACE);
        let leader = async || {
            let spec = leases.get(OPERATOR).await?.spec.unwrap_or_default();
            spec.holder_identity.context("no operator leads")
        };
        let before = pods(&database).await?;
        database.change(json!({"spec": {"resources": {"requests": {"memory": "96Mi"}}}})).await?;
        until("the first pod is replaced", PATIENCE, async || {
            let now = pods(&database).await?;
            Ok(before.iter().any(|(name, pod)| now.get(name).is_some_and(|it| it.0 != pod.0)))
        })
        .await?;
        let first = leader().await?;
        operators.delete(&first, &DeleteParams::default().grace_period(0)).await?;
        until("the other one leads", PATIENCE, async || Ok(leader().await? != first)).await?;
        until("all pods are replaced", PATIENCE, async || {
            let now = pods(&database).await?;
            Ok(before.iter().all(|(name, pod)| now.get(name).is_some_and(|it| it.0 != pod.0)))
        })
        .await?;
        database.healthy(3).await?;
        nothing_lost(writer).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn alone_smoke_operator_is_upgraded_and_taken_back() -> Result<()> {
    Namespace::with("upgraded", async |namespace| {
        namespace.expect_warnings(&[NOT_YET]);
        let kubernetes = namespace.kubernetes();
        let database = namespace.healthy("db", json!({"instances": 3})).await?;
        let first = replaced(&database, "").await?;
        let writer = database.writer().await?;
        let (before, primary) = (pods(&database).await?, database.primary().await?);
        let begun = database.sql("select pg_postmaster_start_time()").await?;
        let done = async {
            install(kubernetes, NEXT).await?;
            let second = replaced(&database, &first).await?;
            database.healthy(3).await?;
            // A cluster that this version makes is of this version from the start.
            let young = namespace.healthy("young", json!({"instances": 1})).await?;
            install(kubernetes, env!("CARGO_PKG_VERSION")).await?;
            let third = replaced(&database, &second).await?;
            ensure!(third == first, "the agents are neither of the versions: {third}");
            young.healthy(1).await?;
            database.healthy(3).await
        }
        .await;
        if done.is_err() {
            install(kubernetes, env!("CARGO_PKG_VERSION")).await?;
        }
        done?;
        let now: BTreeMap<_, _> = pods(&database)
            .await?
            .into_iter()
            .filter(|(name, _)| before.contains_key(name))
            .collect();
        ensure!(now == before, "pods were replaced or began anew: {before:?}, {now:?}");
        ensure!(database.primary().await? == primary, "another instance is primary");
        let since = database.sql("select pg_postmaster_start_time()").await?;
        ensure!(since == begun, "PostgreSQL began anew: {begun}, {since}");
        let tally = writer.finish().await?;
        println!("{} acknowledged, longest gap {:?}", tally.acknowledged, tally.longest_gap);
        ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
        ensure!(tally.longest_gap < GAP_MAX, "writes paused for {:?}", tally.longest_gap);
        Ok(())
    })
    .await
}

/// Where the release of Helm lives: in the place of an own operator (`Namespace::places`).
const RELEASE: &str = "e2e-helm-operator";

async fn helm(kubernetes: &Kubernetes, words: &[&str]) -> Result<String> {
    let helm = std::env::var_os("MATRIARCH_HELM").context("MATRIARCH_HELM is not set")?;
    kubernetes.run(&PathBuf::from(helm), &[words, &["--namespace", RELEASE]].concat()).await
}

async fn chart(kubernetes: &Kubernetes, verb: &[&str], version: &str, served: &str) -> Result<()> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/matriarch");
    let sets = [
        format!("image.repository={IMAGE}"),
        format!("image.tag={version}"),
        format!("watchNamespaces={{{served}}}"),
        "postgresImage=localhost/matriarch/postgresql:17".to_owned(),
        "crds.create=false".to_owned(),
        "userRoles.create=false".to_owned(),
        "flowSchema.create=false".to_owned(),
        "replicas=1".to_owned(),
    ];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let words: Vec<&str> = verb
        .iter()
        .copied()
        .chain(["matriarch", chart, "--wait", "--timeout", "120s"])
        .chain(sets)
        .collect();
    helm(kubernetes, &words).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a Kubernetes: cargo xtask e2e"]
async fn alone_smoke_helm_installs_upgrades_and_removes() -> Result<()> {
    Namespace::with("helm", async |namespace| {
        namespace.expect_warnings(&[NOT_YET]);
        let kubernetes = namespace.kubernetes();
        // Two operators of one identity must not serve one namespace.
        operators(kubernetes, 0).await?;
        let done = helm_serves(namespace).await;
        let spaces: Api<NamespaceObject> = Api::all(kubernetes.client().clone());
        let removed = helm(kubernetes, &["uninstall", "matriarch", "--wait"]).await;
        spaces.delete(RELEASE, &DeleteParams::default()).await?;
        operators(kubernetes, 2).await?;
        done?;
        removed?;
        // The other operator takes the cluster over as it is.
        let database = namespace.existing("db");
        database.healthy(2).await?;
        nothing_lost(database.writer().await?).await
    })
    .await
}

async fn helm_serves(namespace: &Namespace) -> Result<()> {
    let kubernetes = namespace.kubernetes();
    let verb = ["install", "--create-namespace"];
    chart(kubernetes, &verb, env!("CARGO_PKG_VERSION"), namespace.name()).await?;
    let database = namespace.healthy("db", json!({"instances": 2})).await?;
    let (first, writer) = (replaced(&database, "").await?, database.writer().await?);
    let before = pods(&database).await?;
    chart(kubernetes, &["upgrade"], NEXT, namespace.name()).await?;
    replaced(&database, &first).await?;
    database.healthy(2).await?;
    ensure!(pods(&database).await? == before, "pods were replaced");
    sleep(Duration::from_secs(1)).await;
    nothing_lost(writer).await
}
