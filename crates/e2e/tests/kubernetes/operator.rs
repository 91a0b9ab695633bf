//! The operator against an API server in this process; the agents are played by the test.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use matriarch_api::{Cluster, Identity};
use matriarch_e2e::agents;
use matriarch_e2e::turn::{self, Turn};
use matriarch_local::apiserver::{ApiServer, Options as ServerOptions};
use matriarch_operator::Options;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The namespace of a client that names none.
const NAMESPACE: &str = "default";

pub(crate) struct World {
    pub(crate) client: Client,
    stop: Option<oneshot::Sender<()>>,
    operator: JoinHandle<Result<(), matriarch_operator::Error>>,
    agents: JoinHandle<()>,
    directory: Option<PathBuf>,
    _turn: Turn,
}

impl World {
    pub(crate) fn start(name: &str) -> Result<Self> {
        let turn = turn::wait()?;
        let directory =
            std::env::temp_dir().join(format!("matriarch-operator-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let mut options = ServerOptions::new(&directory);
        options.definitions = matriarch_api::crd::all(&Identity::Matriarch)?
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?;
        let server = ApiServer::open(options)?;
        let client = server.client();
        let mut world = Self::of(client.clone(), Options::default(), turn);
        world.agents = tokio::spawn(play_agents(Some(server), client));
        world.directory = Some(directory);
        Ok(world)
    }

    /// With an API server that is there; the definitions are installed, and the client's namespace
    /// is made for this test.
    pub(crate) fn beside(client: Client, turn: Turn) -> Self {
        let namespace = Some(client.default_namespace().to_owned());
        let mut world = Self::of(
            client.clone(),
            Options { namespaces: namespace.into_iter().collect(), ..Options::default() },
            turn,
        );
        world.agents = tokio::spawn(play_agents(None, client));
        world
    }

    fn of(client: Client, options: Options, turn: Turn) -> Self {
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            stopped.await.ok();
        };
        let operator = tokio::spawn(matriarch_operator::run(client.clone(), options, shutdown));
        let agents = tokio::spawn(std::future::ready(()));
        Self { client, stop: Some(stop), operator, agents, directory: None, _turn: turn }
    }

    pub(crate) async fn end(mut self) -> Result<()> {
        self.agents.abort();
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        tokio::time::timeout(PATIENCE, &mut self.operator)
            .await
            .context("a graceful stop")???;
        if let Some(directory) = &self.directory {
            std::fs::remove_dir_all(directory)?;
        }
        Ok(())
    }

    pub(crate) fn clusters(&self) -> Api<Cluster> {
        Api::default_namespaced_with(self.client.clone(), &Identity::Matriarch)
    }

    pub(crate) async fn create(&self, spec: serde_json::Value) -> Result<()> {
        let cluster: Cluster = serde_json::from_value(json!({
            "apiVersion": "matriarch.dev/v1",
            "kind": "Cluster",
            "metadata": {"name": "c"},
            "spec": spec,
        }))?;
        self.clusters().create(&PostParams::default(), &cluster).await?;
        Ok(())
    }

    pub(crate) async fn patch(&self, patch: serde_json::Value) -> Result<()> {
        let params = PatchParams::default();
        self.clusters().patch("c", &params, &Patch::Merge(&patch)).await?;
        Ok(())
    }

    pub(crate) async fn wait(
        &self,
        what: &str,
        holds: impl Fn(&Cluster) -> bool,
    ) -> Result<Cluster> {
        let begun = std::time::Instant::now();
        loop {
            let cluster = self.clusters().get("c").await?;
            if holds(&cluster) {
                return Ok(cluster);
            }
            if begun.elapsed() > PATIENCE {
                bail!("{what}: {:#?}", cluster.status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn healthy(&self, ready: i32, primary: &str) -> Result<Cluster> {
        self.wait(&format!("{ready} ready, primary {primary}"), |cluster| {
            let current = cluster.status.as_ref().and_then(|it| it.current_primary.as_deref());
            is_healthy(cluster, ready) && current == Some(primary)
        })
        .await
    }
}

fn is_healthy(cluster: &Cluster, instances: i32) -> bool {
    let Some(status) = &cluster.status else { return false };
    status.phase.as_deref() == Some("Cluster in healthy state")
        && status.ready_instances == Some(instances)
        && Ok(status.instance_names.len()) == usize::try_from(instances)
}

/// Plays the agents of the client's namespace.
async fn play_agents(server: Option<ApiServer>, client: Client) {
    loop {
        let namespace = client.default_namespace();
        if let Err(error) = agents::play_once(&client, Identity::Matriarch, namespace).await {
            eprintln!("agents: {error:#}");
        }
        if let Some(server) = &server {
            server.collect().await.ok();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The Lease of the cluster `c`, with this holder.
pub async fn write_lease(
    client: &Client,
    namespace: &str,
    holder: &str,
    members: &[String],
) -> Result<()> {
    agents::write_lease(client, Identity::Matriarch, namespace, "c", holder, members).await
}

async fn uid<K>(api: &Api<K>, name: &str) -> Result<Option<String>>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    Ok(api.get_opt(name).await?.and_then(|object| object.uid()))
}

/// Deletes an object and waits until there is another one of its name.
pub async fn comes_back<K>(client: &Client, namespace: &str, name: &str) -> Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let before = uid(&api, name).await?.with_context(|| format!("{name} is not there"))?;
    api.delete(name, &DeleteParams::default()).await?;
    let begun = std::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        if uid(&api, name).await?.is_some_and(|now| now != before) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("{} {name} does not come back", std::any::type_name::<K>())
}

/// A spec without what a test does not need.
pub fn small(instances: i32) -> serde_json::Value {
    json!({
        "instances": instances,
        "imageName": "ghcr.io/cloudnative-pg/postgresql:17",
        "storage": {"size": "1Gi"},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_lives_its_life() -> Result<()> {
    let world = World::start("life")?;
    world.create(small(3)).await?;
    world.healthy(3, "c-1").await?;

    let pods: Api<Pod> = Api::default_namespaced(world.client.clone());
    let role = |pod: &Pod| pod.labels().get("matriarch.dev/instanceRole").cloned();
    // Labels are written after the status that tells of the same pass.
    for (pod, wanted) in [("c-1", "primary"), ("c-2", "replica")] {
        let begun = std::time::Instant::now();
        while role(&pods.get(pod).await?).as_deref() != Some(wanted) {
            ensure!(begun.elapsed() < PATIENCE, "{pod} is never labelled as {wanted}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    let client = &world.client;
    for service in ["c-rw", "c-ro", "c-r", "c-primary"] {
        comes_back::<Service>(client, NAMESPACE, service).await?;
    }
    comes_back::<EndpointSlice>(client, NAMESPACE, "c-rw").await?;
    comes_back::<ConfigMap>(client, NAMESPACE, "c-passwd").await?;
    comes_back::<PodDisruptionBudget>(client, NAMESPACE, "c").await?;
    comes_back::<Role>(client, NAMESPACE, "c").await?;
    comes_back::<RoleBinding>(client, NAMESPACE, "c").await?;
    comes_back::<Pod>(client, NAMESPACE, "c-2").await?;
    comes_back::<PersistentVolumeClaim>(client, NAMESPACE, "c-3").await?;
    world.healthy(3, "c-1").await?;

    world.patch(json!({"spec": {"instances": 2}})).await?;
    world.healthy(2, "c-1").await?;
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    assert!(claims.get_opt("c-3").await?.is_none(), "the volume of a retired instance stays");

    let wish = json!({"status": {"targetPrimary": "c-2"}});
    let params = PatchParams::default();
    world.clusters().patch_status("c", &params, &Patch::Merge(&wish)).await?;
    world.healthy(2, "c-2").await?;

    let old = pods.get("c-2").await?.uid();
    world.patch(json!({"spec": {"priorityClassName": "high"}})).await?;
    world
        .wait("a rollout", |cluster| {
            let status = cluster.status.clone().unwrap_or_default();
            status.current_primary.as_deref() == Some("c-1")
                && status.phase.as_deref() == Some("Cluster in healthy state")
        })
        .await?;
    assert_ne!(pods.get("c-2").await?.uid(), old, "the pod was not replaced");

    // The API takes no token any more of those who ran as the ServiceAccount before. Kubernetes
    // notes when objects were made in whole seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let old = [pods.get("c-1").await?.uid(), pods.get("c-2").await?.uid()];
    comes_back::<ServiceAccount>(client, NAMESPACE, "c").await?;
    let begun = std::time::Instant::now();
    for (pod, old) in ["c-1", "c-2"].into_iter().zip(old) {
        while uid(&pods, pod).await?.is_none_or(|now| Some(now) == old) {
            ensure!(begun.elapsed() < PATIENCE, "{pod} stays locked out");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    world.wait("all pods are back", |cluster| is_healthy(cluster, 2)).await?;

    world.clusters().delete("c", &DeleteParams::background()).await?;
    let begun = std::time::Instant::now();
    while !pods.list(&ListParams::default()).await?.items.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "pods are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_have_all_keys_and_come_back_new() -> Result<()> {
    let world = World::start("secrets")?;
    world.create(small(1)).await?;
    world.healthy(1, "c-1").await?;
    let secrets: Api<Secret> = Api::default_namespaced(world.client.clone());
    let app = secrets.get("c-app").await?;
    let data = app.data.clone().unwrap_or_default();
    for key in matriarch_api::secret::connection::ALL {
        assert!(data.contains_key(key), "{key}");
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    secrets.delete("c-app", &DeleteParams::default()).await?;
    // No watch tells of Secrets; a pass for any other reason sees it.
    world.patch(json!({"metadata": {"annotations": {"touch": "1"}}})).await?;
    let fresh = loop {
        if let Some(found) = secrets.get_opt("c-app").await? {
            break found;
        }
        assert!(std::time::Instant::now() < deadline, "-app does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_ne!(fresh.data.unwrap_or_default()["password"], data["password"]);

    let old = secrets.get("c-ca").await?.data.unwrap_or_default()["ca.crt"].clone();
    secrets.delete("c-ca", &DeleteParams::default()).await?;
    world.patch(json!({"metadata": {"annotations": {"touch": "2"}}})).await?;
    loop {
        let authority = secrets.get_opt("c-ca").await?.and_then(|found| found.data);
        let server = secrets.get("c-server").await?.data.unwrap_or_default();
        if let Some(authority) = authority
            && authority["ca.crt"] != old
            && server["ca.crt"] == authority["ca.crt"]
        {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the new authority is not alone in the end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_that_decides_about_data_and_has_no_effect_makes_nothing() -> Result<()> {
    let world = World::start("blocked")?;
    let mut spec = small(3);
    spec["bootstrap"] = json!({"recovery": {"source": "x"}});
    spec["externalClusters"] = json!([{"name": "x", "connectionParameters": {"host": "y"}}]);
    world.create(spec).await?;
    let cluster = world
        .wait("a phase", |cluster| {
            cluster.status.as_ref().is_some_and(|status| status.phase.is_some())
        })
        .await?;
    let status = cluster.status.unwrap_or_default();
    assert_eq!(status.phase.as_deref(), Some("Invalid cluster definition"));
    assert!(status.phase_reason.unwrap_or_default().contains("spec.bootstrap.recovery"));
    let pods: Api<Pod> = Api::default_namespaced(world.client.clone());
    assert!(pods.list(&ListParams::default()).await?.items.is_empty());
    world.end().await
}

/// Rule 20 by the Node: gone only with an expired Lease, out of service at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_frees_the_lease() -> Result<()> {
    let world = World::start("node")?;
    world.create(small(3)).await?;
    world.healthy(3, "c-1").await?;
    world.agents.abort();
    let pods: Api<Pod> = Api::default_namespaced(world.client.clone());
    bind(&pods, "c-1", "n1").await?;
    let members = ["c-1", "c-2", "c-3"].map(str::to_owned);
    write_lease(&world.client, NAMESPACE, "c-1", &members).await?;
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let params = PatchParams::default();
    pods.patch_status("c-1", &params, &Patch::Merge(&unready)).await?;
    world
        .wait("the node is noted", |cluster| {
            let status = cluster.status.as_ref().and_then(|it| serde_json::to_string(it).ok());
            status.is_some_and(|text| text.contains("holderNode"))
        })
        .await?;
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("c-1", &now).await?;
    let begun = std::time::Instant::now();
    freed(&world.client, NAMESPACE).await?;
    let seconds = begun.elapsed().as_secs();
    ensure!(seconds >= 5, "a Node without an object proves nothing: freed after {seconds} s");

    let nodes: Api<Node> = Api::all(world.client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n2"},
        "spec": {"taints": [{
            "key": "node.kubernetes.io/out-of-service", "value": "off", "effect": "NoExecute",
        }]},
    }))?;
    nodes.create(&PostParams::default(), &node).await?;
    bind(&pods, "c-2", "n2").await?;
    write_lease(&world.client, NAMESPACE, "c-2", &members).await?;
    pods.patch_status("c-2", &params, &Patch::Merge(&unready)).await?;
    freed(&world.client, NAMESPACE).await?;
    world.end().await
}

/// Puts a pod on a node, as the scheduler does.
pub async fn bind(pods: &Api<Pod>, pod: &str, node: &str) -> Result<()> {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let _bound: serde_json::Value =
        pods.create_subresource("binding", pod, &PostParams::default(), &binding).await?;
    Ok(())
}

/// Waits until the operator has written the Lease free.
pub async fn freed(client: &Client, namespace: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let begun = std::time::Instant::now();
    loop {
        let lease = leases.get("c").await?;
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        let release = lease.annotations().get(&Identity::Matriarch.key("release"));
        if holder.is_none_or(str::is_empty) {
            ensure!(release.is_some_and(|it| it.contains("Operator")), "freed by {release:?}");
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "the Lease of {holder:?} is never freed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
