//! What a change of the spec does to pods and Services, with the operator before a real
//! kube-apiserver; kubelet and agents are played by the test.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use matriarch_api::{Cluster, Identity, ImageCatalog, Instance, instance};
use matriarch_e2e::apiserver::{self, ApiServer};
use matriarch_e2e::turn;
use serde_json::{Value, json};

use crate::crd::{Kubectl, install};
use crate::operator::{PATIENCE, World, small};

const HEALTHY: &str = "Cluster in healthy state";

/// A client whose namespace is a new one that enforces `restricted`.
async fn namespace(server: &ApiServer, name: &str) -> Result<Client> {
    let namespaces: Api<Namespace> = Api::all(server.client().await?);
    let namespace = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig())?;
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    name.clone_into(&mut config.default_namespace);
    Ok(Client::try_from(config)?)
}

/// Pod → uid and image.
async fn pods(client: &Client) -> Result<BTreeMap<String, (String, String)>> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let all = api.list(&ListParams::default()).await?.items;
    let facts = |pod: &Pod| {
        let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
        (pod.name_any(), (pod.uid().unwrap_or_default(), image.unwrap_or_default()))
    };
    Ok(all.iter().map(facts).collect())
}

/// Waits until all pods have this image and all is well.
async fn rolled_to(world: &World, image: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let cluster = world.clusters().get("c").await?;
        let phase = cluster.status.and_then(|status| status.phase).unwrap_or_default();
        let found = pods(&world.client).await?;
        if phase == HEALTHY && found.len() == 3 && found.values().all(|(_, it)| it == image) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{image} does not come: {phase}, {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Names of pods in the order in which they were first seen to be new.
async fn watch_order(client: Client) -> Result<Vec<String>> {
    let before = pods(&client).await?;
    let mut order: Vec<String> = Vec::new();
    while order.len() < before.len() {
        for (name, (uid, _)) in pods(&client).await? {
            let new = before.get(&name).is_some_and(|(old, _)| *old != uid);
            if new && !order.contains(&name) {
                order.push(name);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(order)
}

async fn phase_says(world: &World, phase: &str, words: &str) -> Result<()> {
    world
        .wait(&format!("{phase}: {words}"), |cluster| {
            let status = cluster.status.clone().unwrap_or_default();
            status.phase.as_deref() == Some(phase)
                && status.phase_reason.is_some_and(|reason| reason.contains(words))
        })
        .await?;
    Ok(())
}

/// Parameters come and go without an error of the API (an emptied map is none for it).
async fn parameters_go(world: &World) -> Result<()> {
    let hashes = async || -> Result<Vec<String>> {
        let api: Api<Instance> =
            Api::default_namespaced_with(world.client.clone(), &Identity::Matriarch);
        let all = api.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().map(|instance| instance.spec.configuration_hash).collect())
    };
    let before = hashes().await?;
    for parameters in [json!({"work_mem": "8MB"}), json!(null)] {
        let last = hashes().await?;
        world.patch(json!({"spec": {"postgresql": {"parameters": parameters}}})).await?;
        let begun = Instant::now();
        while hashes().await?.iter().any(|hash| last.contains(hash)) {
            let status = world.clusters().get("c").await?.status.unwrap_or_default();
            ensure!(begun.elapsed() < PATIENCE, "{parameters}: {:?}", status.phase_reason);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    ensure!(hashes().await? == before);
    Ok(())
}

async fn images_roll(world: &World) -> Result<()> {
    let order = tokio::spawn(watch_order(world.client.clone()));
    let image = "ghcr.io/cloudnative-pg/postgresql:17.6";
    world.patch(json!({"spec": {"imageName": image}})).await?;
    rolled_to(world, image).await?;
    let order = tokio::time::timeout(PATIENCE, order).await???;
    ensure!(order == ["c-2", "c-3", "c-1"], "the primary is not the last: {order:?}");
    let cluster = world.clusters().get("c").await?;
    let primary = cluster.status.and_then(|status| status.current_primary);
    ensure!(primary.as_deref() != Some("c-1"), "the primary has not switched over");

    let before = pods(&world.client).await?;
    world.patch(json!({"spec": {"imageName": "ghcr.io/cloudnative-pg/postgresql:18.1"}})).await?;
    phase_says(world, "Invalid cluster definition", "the data is of PostgreSQL 17").await?;
    world.patch(json!({"spec": {"imageName": image}})).await?;
    rolled_to(world, image).await?;
    ensure!(pods(&world.client).await? == before, "a refused image restarted something");
    Ok(())
}

/// What Kubernetes refuses costs no pod, and status says what it said.
async fn refusals_cost_nothing(world: &World) -> Result<()> {
    let before = pods(&world.client).await?;
    for (spec, words) in [
        (json!({"affinity": {"nodeSelector": {"disk": "no label value"}}}), "nodeSelector"),
        (json!({"priorityClassName": "nobody-made-it"}), "no PriorityClass"),
        (json!({"securityContext": {"allowPrivilegeEscalation": true}}), "violates PodSecurity"),
    ] {
        world.patch(json!({"spec": spec})).await?;
        phase_says(world, "Unable to create required cluster objects", words).await?;
        let nothing: BTreeMap<&String, Value> =
            spec.as_object().into_iter().flatten().map(|(name, _)| (name, json!(null))).collect();
        world.patch(json!({"spec": nothing})).await?;
        world
            .wait("a mended spec", |cluster| {
                let phase = cluster.status.as_ref().and_then(|status| status.phase.as_deref());
                phase == Some(HEALTHY)
            })
            .await?;
    }
    ensure!(pods(&world.client).await? == before, "a refused spec cost a pod");
    Ok(())
}

async fn catalogs_roll(world: &World) -> Result<()> {
    let api: Api<ImageCatalog> =
        Api::default_namespaced_with(world.client.clone(), &Identity::Matriarch);
    let catalog = |image: &str| -> Result<ImageCatalog> {
        let spec = serde_json::from_value(json!({"images": [{"major": 17, "image": image}]}))?;
        Ok(ImageCatalog::new(Identity::Matriarch, "i", spec))
    };
    let reference = json!({"kind": "ImageCatalog", "name": "i", "major": 17});
    world.patch(json!({"spec": {"imageName": null, "imageCatalogRef": reference}})).await?;
    let missing = "Cluster has incomplete or invalid image catalog";
    phase_says(world, missing, "ImageCatalog/i is not there").await?;
    for image in ["registry.example/a:17", "registry.example/b:17"] {
        match api.get_opt("i").await? {
            None => {
                api.create(&PostParams::default(), &catalog(image)?).await?;
            }
            Some(_) => {
                let patch = Patch::Merge(json!({"spec": catalog(image)?.spec}));
                api.patch("i", &PatchParams::default(), &patch).await?;
            }
        }
        rolled_to(world, image).await.context("the catalog has changed")?;
    }
    let before = pods(&world.client).await?;
    api.delete("i", &DeleteParams::default()).await?;
    phase_says(world, missing, "registry.example/b:17 goes on").await?;
    ensure!(pods(&world.client).await? == before, "a lost catalog restarted something");
    world
        .patch(json!({"spec": {"imageCatalogRef": null, "imageName": "registry.example/b:17"}}))
        .await?;
    rolled_to(world, "registry.example/b:17").await
}

/// What the agents are told of tablespaces, one entry for each instance.
async fn told(world: &World) -> Result<Vec<Vec<instance::Tablespace>>> {
    let api: Api<Instance> =
        Api::default_namespaced_with(world.client.clone(), &Identity::Matriarch);
    let all = api.list(&ListParams::default()).await?.items;
    Ok(all.into_iter().map(|instance| instance.spec.tablespaces).collect())
}

/// Waits until every agent is told that there is to be this tablespace, with this owner.
async fn owned_by(world: &World, owner: &str) -> Result<()> {
    let name = "fast_idx".to_owned();
    let wanted = instance::Tablespace { name, owner: owner.to_owned(), create: true };
    let begun = Instant::now();
    while told(world).await? != vec![vec![wanted.clone()]; 3] {
        ensure!(begun.elapsed() < PATIENCE, "{owner}: {:?}", told(world).await?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world
        .wait("the tablespace in the status", |cluster| {
            let status = cluster.status.clone().unwrap_or_default();
            status.phase.as_deref() == Some(HEALTHY)
                && status.tablespaces_status.iter().any(|it| {
                    it.state.as_deref() == Some("reconciled") && it.owner.as_deref() == Some(owner)
                })
        })
        .await?;
    Ok(())
}

/// One is added: its volumes first, then new pods, the primary's last, and then the tablespace. Its
/// owner is no matter of pods, and it stays.
async fn tablespaces_roll(world: &World) -> Result<()> {
    let primary = |cluster: Cluster| cluster.status.and_then(|status| status.current_primary);
    let last = primary(world.clusters().get("c").await?);
    let order = tokio::spawn(watch_order(world.client.clone()));
    let mut fast = json!({"name": "fast_idx", "storage": {"size": "1Gi"}});
    world.patch(json!({"spec": {"tablespaces": [fast]}})).await?;
    let order = tokio::time::timeout(PATIENCE, order).await???;
    ensure!(order.last() == last.as_ref(), "the primary {last:?} is not the last: {order:?}");
    owned_by(world, "app").await?;
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(world.client.clone());
    let params = ListParams::default().labels("matriarch.dev/tablespaceName=fast_idx");
    let mut names: Vec<String> =
        claims.list(&params).await?.iter().map(ResourceExt::name_any).collect();
    names.sort();
    ensure!(names == ["c-1-tbs-fast-idx", "c-2-tbs-fast-idx", "c-3-tbs-fast-idx"], "{names:?}");

    let before = pods(&world.client).await?;
    fast["owner"] = json!({"name": "ann"});
    world.patch(json!({"spec": {"tablespaces": [fast]}})).await?;
    owned_by(world, "ann").await?;
    let refused = world.patch(json!({"spec": {"tablespaces": null}})).await;
    let words = format!("{:#}", refused.err().context("a tablespace was taken away")?);
    ensure!(words.contains("tablespaces cannot be removed"), "{words}");
    ensure!(pods(&world.client).await? == before, "an owner restarted something");
    Ok(())
}

async fn services(client: &Client) -> Result<BTreeMap<String, Service>> {
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let all = api.list(&ListParams::default()).await?.items;
    Ok(all.into_iter().map(|service| (service.name_any(), service)).collect())
}

/// Waits until the Services are as they should be.
async fn until(
    world: &World,
    what: &str,
    holds: impl Fn(&BTreeMap<String, Service>) -> bool,
) -> Result<BTreeMap<String, Service>> {
    let begun = Instant::now();
    loop {
        let found = services(&world.client).await?;
        if holds(&found) {
            return Ok(found);
        }
        ensure!(begun.elapsed() < PATIENCE, "{what}: {found:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn services_follow(world: &World) -> Result<()> {
    let before = pods(&world.client).await?;
    let additional = |strategy: &str, annotation: &str| {
        let of = |kind: &str, name: &str| {
            json!({"selectorType": kind, "updateStrategy": strategy, "serviceTemplate": {
                "metadata": {"name": name, "annotations": {"mine": annotation}},
                "spec": {"type": "NodePort"},
            }})
        };
        json!({"spec": {"managed": {"services": {
            "disabledDefaultServices": ["r"],
            "additional": [of("rw", "lb"), of("ro", "readers")],
        }}}})
    };
    world.patch(additional("patch", "1")).await?;
    let has = |found: &BTreeMap<String, Service>, annotation: &str| {
        ["lb", "readers"].into_iter().all(|name| {
            let service = found.get(name);
            service.and_then(|it| it.annotations().get("mine")).is_some_and(|it| it == annotation)
        })
    };
    let made = until(world, "made", |it| has(it, "1") && !it.contains_key("c-r")).await?;
    let selector = |name: &str| made[name].spec.as_ref().and_then(|spec| spec.selector.clone());
    ensure!(selector("lb").is_none() && selector("readers").is_some_and(|it| it.len() == 3));
    let slices: Api<EndpointSlice> = Api::default_namespaced(world.client.clone());
    let slice = slices.get("lb").await?;
    ensure!(slice.labels().get("kubernetes.io/service-name").is_some_and(|it| it == "lb"));
    ensure!(slices.get_opt("readers").await?.is_none(), "a selector has its own EndpointSlices");

    world.patch(additional("patch", "2")).await?;
    let patched = until(world, "patched", |it| has(it, "2")).await?;
    ensure!(patched["lb"].uid() == made["lb"].uid(), "a patch made a new Service");
    world.patch(additional("replace", "3")).await?;
    let replaced = until(world, "replaced", |it| has(it, "3")).await?;
    ensure!(replaced["lb"].uid() != made["lb"].uid(), "no new Service");
    world.patch(json!({"spec": {"managed": null}})).await?;
    until(world, "removed", |it| {
        !it.contains_key("lb") && !it.contains_key("readers") && it.contains_key("c-r")
    })
    .await?;
    let begun = Instant::now();
    while slices.get_opt("lb").await?.is_some() {
        ensure!(begun.elapsed() < PATIENCE, "the EndpointSlice stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(pods(&world.client).await? == before, "a Service restarted something");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_spec_does_what_it_must_and_no_more() -> Result<()> {
    let turn = turn::wait()?;
    let Some(server) = apiserver::shared()? else { return Ok(()) };
    install(&Kubectl(server))?;
    let client = namespace(server, "rollout").await?;
    let world = World::beside(client, turn);
    world.create(small(3)).await?;
    world.healthy(3, "c-1").await?;
    Box::pin(parameters_go(&world)).await.context("parameters")?;
    Box::pin(images_roll(&world)).await.context("imageName")?;
    Box::pin(refusals_cost_nothing(&world)).await.context("what Kubernetes refuses")?;
    Box::pin(services_follow(&world)).await.context("managed.services")?;
    Box::pin(catalogs_roll(&world)).await.context("imageCatalogRef")?;
    Box::pin(tablespaces_roll(&world)).await.context("tablespaces")?;
    world.end().await
}
