//! A cluster under `matriarch local` is changed in the ways of a working day while a client
//! writes: nothing of these may lose a row, because nothing of these is a crash.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use matriarch_api::{Cluster, Identity};
use matriarch_e2e::local::{Machine, Writer, example};
use matriarch_local::processes::{self, Process};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

pub(crate) const NAME: &str = "cluster-example";
pub(crate) const NAMESPACE: &str = "default";
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster of three and a client of its API server.
pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) client: Client,
}

impl World {
    pub(crate) async fn start(name: &str, port: u16) -> Result<Self> {
        Self::start_from(name, port, &example("cluster.yaml")).await
    }

    /// The same from another manifest of a cluster of that name.
    pub(crate) async fn start_from(name: &str, port: u16, manifest: &str) -> Result<Self> {
        let mut machine = Machine::new(name, port)?;
        machine.up(&[manifest])?;
        machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
        let client = machine.client().await?;
        Ok(Self { machine, client })
    }

    pub(crate) fn clusters(&self) -> Api<Cluster> {
        Api::namespaced_with(self.client.clone(), NAMESPACE, &Identity::Matriarch)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(crate) async fn change(&self, patch: Value) -> Result<()> {
        self.clusters().patch(NAME, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    pub(crate) async fn parameters(&self, parameters: Value) -> Result<()> {
        self.change(json!({"spec": {"postgresql": {"parameters": parameters}}})).await
    }

    /// Waits until the status of the Cluster is as it should be.
    pub(crate) async fn status(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let cluster = self.clusters().get(NAME).await?;
            let status = serde_json::to_value(&cluster.status)?;
            let generation = cluster.metadata.generation;
            let fresh = status["observedGeneration"].as_i64() == generation;
            if fresh && holds(&status) {
                return Ok(status);
            }
            if begun.elapsed() > PATIENCE {
                bail!("never: {what}\n{status:#}\n{}", self.machine.printed());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn healthy(&self, instances: usize) -> Result<Value> {
        self.status(&format!("{instances} healthy instances"), |status| {
            status["phase"] == "Cluster in healthy state"
                && status["readyInstances"] == instances
                && status["instanceNames"].as_array().map(Vec::len) == Some(instances)
        })
        .await
    }

    /// Waits until SQL through `-rw` gives this answer.
    pub(crate) async fn answer(&self, sql: &str, wanted: &str) -> Result<()> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            match self.machine.sql(sql).await {
                Ok(answer) if answer == wanted => return Ok(()),
                Ok(answer) => last = answer,
                Err(error) => last = error.to_string(),
            }
            sleep(Duration::from_millis(200)).await;
        }
        bail!("{sql}: {last:?}, not {wanted:?}\n{}", self.machine.printed())
    }

    pub(crate) async fn primary(&self) -> Result<String> {
        Ok(self.machine.primary().await?.name)
    }

    pub(crate) async fn a_standby(&self) -> Result<String> {
        let primary = self.primary().await?;
        let pods = self.machine.pods()?;
        pods.into_keys().find(|name| *name != primary).context("a standby")
    }

    /// A switchover, as `promote` asks for it.
    pub(crate) async fn switch_to(&self, instance: &str) -> Result<()> {
        let wish = json!({"status": {"targetPrimary": instance}});
        let params = PatchParams::default();
        self.clusters().patch_status(NAME, &params, &Patch::Merge(&wish)).await?;
        self.status("a switchover", |status| status["currentPrimary"] == instance).await?;
        Ok(())
    }

    /// Runs SQL as superuser on one instance; `enableSuperuserAccess` is wanted for it.
    pub(crate) async fn sql_on(&self, instance: &str, sql: &str) -> Result<String> {
        let pods = self.machine.pods()?;
        let address = &pods.get(instance).with_context(|| format!("no pod {instance}"))?.address;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let secret = secrets.get(&format!("{NAME}-superuser")).await?;
        let password =
            secret.data.and_then(|data| data.get("password").cloned()).context("password")?;
        let string = format!(
            "host={address} port=5432 user=postgres dbname=app sslmode=require connect_timeout=5"
        );
        let output = tokio::process::Command::new("psql")
            .args([&string, "-XAtqc", sql])
            .env("PGPASSWORD", String::from_utf8(password.0)?)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(30), output).await??;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{instance}: {sql}: {error}");
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// Waits until SQL as superuser on one instance gives this answer.
    pub(crate) async fn answer_on(&self, instance: &str, sql: &str, wanted: &str) -> Result<()> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            match self.sql_on(instance, sql).await {
                Ok(answer) if answer == wanted => return Ok(()),
                Ok(answer) => last = answer,
                Err(error) => last = error.to_string(),
            }
            sleep(Duration::from_millis(200)).await;
        }
        bail!("{instance}: {sql}: {last:?}, not {wanted:?}\n{}", self.machine.printed())
    }
}

#[tokio::test]
async fn parameters_are_reloaded_restarted_refused_and_taken_back() -> Result<()> {
    let world = World::start("parameters", 17432).await?;
    let writer = Writer::start(&world.machine.connection_string()?).await?;
    world.parameters(json!({"work_mem": "7MB"})).await?;
    world.answer("show work_mem", "7MB").await?;

    // PostgreSQL's own words are where a user looks, and the old value goes on.
    world.parameters(json!({"work_mem": "plenty"})).await?;
    let refused = world
        .status("PostgreSQL's words", |status| {
            status.to_string().contains("invalid value for parameter \\\"work_mem\\\"")
        })
        .await?;
    println!("a value that PostgreSQL refuses: {}", refused["phaseReason"]);
    assert_eq!(world.machine.sql("show work_mem").await?, "7MB");
    world.parameters(json!({"work_mem": "8MB"})).await?;
    world.answer("show work_mem", "8MB").await?;
    world.healthy(3).await?;

    // What standbys depend on goes up on them first, and down on them last.
    for connections in ["150", "120"] {
        world.parameters(json!({"max_connections": connections})).await?;
        world.answer("show max_connections", connections).await?;
        let status = world.healthy(3).await?;
        ensure!(!status.to_string().contains("still waits for a restart"), "{status:#}");
    }
    // A look that began before a restart does not start PostgreSQL once more.
    let printed = world.machine.printed();
    ensure!(!printed.contains("already runs"), "{printed}");
    let tally = writer.finish().await?;
    println!("{tally:?}");
    ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}

#[tokio::test]
async fn a_cluster_grows_shrinks_is_fenced_and_deleted() -> Result<()> {
    let world = World::start("scale", 17532).await?;
    let writer = Writer::start(&world.machine.connection_string()?).await?;
    for instances in [5, 2, 3] {
        world.change(json!({"spec": {"instances": instances}})).await?;
        world.healthy(instances).await?;
        assert_eq!(world.machine.pods()?.len(), instances);
    }

    // A fenced standby has no PostgreSQL and stays; the others go on.
    let primary = world.primary().await?;
    let pods = world.machine.pods()?;
    let standby = pods.keys().find(|name| **name != primary).context("a standby")?.clone();
    let fenced = json!([standby]).to_string();
    world
        .change(json!({"metadata": {"annotations": {"matriarch.dev/fencedInstances": fenced}}}))
        .await?;
    let begun = Instant::now();
    while world.machine.pods()?.get(&standby).is_none_or(|pod| pod.postmaster.is_some()) {
        ensure!(begun.elapsed() < PATIENCE, "it is not fenced: {}", world.machine.printed());
        sleep(Duration::from_millis(100)).await;
    }
    world
        .change(json!({"metadata": {"annotations": {"matriarch.dev/fencedInstances": null}}}))
        .await?;
    world.healthy(3).await?;

    // A deleted pod is made anew; the primary's hands over first.
    for _ in 0..2 {
        let primary = world.primary().await?;
        let uid = world.pods().get(&primary).await?.uid();
        world.pods().delete(&primary, &DeleteParams::default()).await?;
        let begun = Instant::now();
        while world.pods().get_opt(&primary).await?.is_none_or(|pod| pod.uid() == uid) {
            ensure!(begun.elapsed() < PATIENCE, "{primary} is not made anew");
            sleep(Duration::from_millis(100)).await;
        }
        world.healthy(3).await?;
    }
    let tally = writer.finish().await?;
    println!("{tally:?}");
    ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);

    // Nothing is left of a deleted Cluster.
    world.clusters().delete(NAME, &DeleteParams::background()).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.client.clone(), NAMESPACE);
    let begun = Instant::now();
    loop {
        let pods = world.pods().list(&ListParams::default()).await?.items.len();
        let claims = claims.list(&ListParams::default()).await?.items.len();
        let volumes = std::fs::read_dir(world.machine.state().join("volumes"))?.count();
        let processes = world.machine.pods()?.len();
        if (pods, claims, volumes, processes) == (0, 0, 0, 0) {
            break;
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "left: {pods} pods, {claims} claims, {volumes} volumes, {processes} processes"
        );
        sleep(Duration::from_millis(100)).await;
    }
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}

/// pg_hba.conf of every instance.
fn rules(world: &World) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for volume in std::fs::read_dir(world.machine.state().join("volumes"))? {
        let file = volume?.path().join("pgdata/pg_hba.conf");
        found.extend(std::fs::read_to_string(file));
    }
    Ok(found)
}

/// Where the EndpointSlice of a Service of the user's leads to: address, port's name and number.
async fn leads_to(world: &World, service: &str) -> Result<Option<(String, String, i32)>> {
    let slices: Api<EndpointSlice> = Api::namespaced(world.client.clone(), NAMESPACE);
    let Some(slice) = slices.get_opt(service).await? else { return Ok(None) };
    let address = slice.endpoints.first().and_then(|it| it.addresses.first().cloned());
    let port = slice.ports.iter().flatten().next();
    let port = port.and_then(|port| Some((port.name.clone()?, port.port?)));
    Ok(address.zip(port).map(|(address, (name, port))| (address, name, port)))
}

/// A Service of the user's leads to the primary, whoever that is.
async fn follows(world: &World, service: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let primary = world.machine.primary().await.map(|pod| pod.address);
        let led = leads_to(world, service).await?;
        let wanted = primary.ok().map(|address| (address, "sql".to_owned(), 5432));
        if led.is_some() && led == wanted {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{service} leads to {led:?}, not {wanted:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Services, pods in pg_hba and LDAP.
fn services_and_rules() -> Value {
    let search = json!({
        "baseDN": "dc=example", "bindDN": "cn=pg,dc=example", "searchAttribute": "uid",
        "bindPassword": {"name": "ldap", "key": "password"},
    });
    let template = json!({
        "metadata": {"name": "lb"},
        "spec": {"ports": [{"name": "sql", "port": 6432, "targetPort": 5432}]},
    });
    let selector = json!({"matchLabels": {"matriarch.dev/cluster": NAME}});
    json!({
        "podSelectorRefs": [{"name": "own", "selector": selector}],
        "postgresql": {
            "pg_hba": [
                "hostssl app app all scram-sha-256",
                "hostssl all reader ${podselector:own} scram-sha-256",
            ],
            "ldap": {"server": "127.0.0.1", "bindSearchAuth": search},
        },
        "managed": {"services": {
            "additional": [{"selectorType": "rw", "serviceTemplate": template}],
        }},
    })
}

/// Waits until every instance has the rules; PostgreSQL has judged them before they stay.
async fn rules_arrive(world: &World) -> Result<()> {
    let addresses: Vec<String> =
        world.machine.pods()?.into_values().map(|pod| pod.address).collect();
    let ldap = r#"ldap ldapserver="127.0.0.1" ldapbasedn="dc=example" ldapbinddn="cn=pg,dc=example" ldapbindpasswd="s#1" ldapsearchattribute="uid""#;
    let complete = |text: &String| {
        let own = |address: &String| {
            text.contains(&format!("hostssl all reader {address}/32 scram-sha-256"))
        };
        text.contains(ldap) && addresses.iter().all(own)
    };
    let begun = Instant::now();
    while rules(world)?.iter().filter(|text| complete(text)).count() != 3 {
        ensure!(begun.elapsed() < PATIENCE, "{:?}\n{}", rules(world)?, world.machine.printed());
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn services_rules_and_images_follow_the_manifest() -> Result<()> {
    let world = World::start("manifest", 17632).await?;
    world.healthy(3).await?;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), NAMESPACE);
    let secret = serde_json::from_value(json!({
        "metadata": {"name": "ldap"}, "stringData": {"password": "s#1\n"},
    }))?;
    secrets.create(&PostParams::default(), &secret).await?;
    world.change(json!({"spec": services_and_rules()})).await?;
    rules_arrive(&world).await?;
    let status = world.healthy(3).await?;
    ensure!(!status.to_string().contains("ConfigurationRejected"), "{status:#}");

    follows(&world, "lb").await?;
    let writer = Writer::start(&world.machine.connection_string()?).await?;
    let standby = world.a_standby().await?;
    world.switch_to(&standby).await?;
    follows(&world, "lb").await?;
    world.healthy(3).await?;

    let image = "ghcr.io/cloudnative-pg/postgresql:15.99";
    world.change(json!({"spec": {"imageName": image}})).await?;
    world.status("the new image", |status| status["image"] == image).await?;
    world.healthy(3).await?;
    for pod in world.pods().list(&ListParams::default()).await?.items {
        let spec = pod.spec.clone().context("a pod has a spec")?;
        ensure!(spec.containers[0].image.as_deref() == Some(image), "{}", pod.name_any());
    }
    ensure!(world.primary().await? != standby, "the primary was not the last");
    follows(&world, "lb").await?;
    let tally = writer.finish().await?;
    println!("{tally:?}");
    ensure!(tally.lost.is_empty(), "rows are lost: {:?}", tally.lost);
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}

/// The process that sends a base backup, by its title, and its instance.
fn backup_sender(world: &World) -> Result<Option<Process>> {
    for pod in world.machine.pods()?.into_values() {
        let Some(postmaster) = pod.postmaster else { continue };
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let title = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let process =
                pid.filter(|_| title.contains("sending backup")).and_then(processes::read);
            if let Some(process) = process.filter(|it| it.parent == postmaster.pid) {
                return Ok(Some(process));
            }
        }
    }
    Ok(None)
}

/// Its source stands still, so that the copy is not over by itself; the pod has half an hour to end.
#[tokio::test]
async fn a_pod_that_copies_ends_when_it_is_deleted() -> Result<()> {
    let world = World::start("copies", 17832).await?;
    world.healthy(3).await?;
    // A base backup that takes a moment.
    let ballast = "create table ballast as select repeat(md5(i::text), 30) as text \
                   from generate_series(1, 100000) i";
    world.machine.sql(ballast).await?;
    world.change(json!({"spec": {"instances": 4}})).await?;
    let begun = Instant::now();
    let sender = loop {
        if let Some(sender) = backup_sender(&world)? {
            break sender;
        }
        ensure!(begun.elapsed() < PATIENCE, "no base backup is sent: {}", world.machine.status()?);
    };
    processes::signal(&sender, Signal::STOP);
    let name = format!("{NAME}-4");
    let pod = world.pods().get(&name).await?;
    let still = backup_sender(&world)?;
    world.pods().delete(&name, &DeleteParams::default()).await?;
    let begun = Instant::now();
    while world.pods().get_opt(&name).await?.is_some_and(|it| it.uid() == pod.uid()) {
        ensure!(begun.elapsed() < Duration::from_secs(20), "{}", world.machine.printed());
        sleep(Duration::from_millis(100)).await;
    }
    println!("gone after {:?}", begun.elapsed());
    ensure!(still.is_some(), "the base backup was over before the pod was deleted");
    processes::signal(&sender, Signal::CONT);
    world.healthy(4).await?;
    let mut machine = world.machine;
    machine.stop(PATIENCE).await
}
