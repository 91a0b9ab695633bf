//! Reads everything that a pass rests on, anew from the API: no cache that could be stale
//! (reliability.md §1.2). What cannot be read is unknown, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Secret};
use kube::api::{DynamicObject, ListParams};
use kube::core::Selector;
use kube::{Api, Client};
use matriarch_api::image_catalog::ImageCatalogSpec;
use matriarch_api::labels::{self, Label};
use matriarch_api::{ClusterImageCatalog, ImageCatalog, Instance, names};
use matriarch_plan::Seen;
use matriarch_plan::world::{Object, SecretFacts, SecretRole, ServicePart};
use matriarch_render::observe::ServiceObjects;
use matriarch_render::references::CatalogName;
use matriarch_render::setup::{Owner, object_name};
use matriarch_render::{Objects, References, Resolved, node_in_question, objects};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kinds;
use crate::pki;

/// Reads the objects that the spec names and that decide what it comes to.
pub async fn read_references(client: &Client, owner: &Owner<'_>) -> References {
    let catalog = match CatalogName::of(&owner.cluster.spec) {
        Some(name) => {
            let seen = read_catalog(client, owner, &name).await;
            Some((name, seen))
        }
        None => None,
    };
    References { catalog, pods: read_pod_addresses(client, owner).await }
}

/// Addresses of the pods that `spec.podSelectorRefs` select.
async fn read_pod_addresses(
    client: &Client,
    owner: &Owner<'_>,
) -> BTreeMap<String, Seen<Vec<IpAddr>>> {
    let api = &Api::<Pod>::namespaced(client.clone(), owner.cluster.namespace());
    let reads = owner.cluster.spec.pod_selector_refs.iter().filter_map(|entry| {
        let name = entry.name.clone()?;
        let selector = entry.selector.clone().unwrap_or_default();
        Some(async move {
            let seen = match Selector::try_from(selector) {
                Ok(selector) => list(api, &ListParams::default().labels_from(&selector)).await,
                Err(error) => Err(error.to_string()),
            };
            let seen = match seen {
                Ok(pods) => Seen::Known(pods.iter().flat_map(addresses).collect()),
                Err(why) => Seen::Unknown { why },
            };
            (name, seen)
        })
    });
    join_all(reads).await.into_iter().collect()
}

/// The addresses of a pod that has not ended: those of one that has may be another pod's.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let all = status.pod_ips.iter().flatten().map(|it| it.ip.as_str());
    all.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect()
}

async fn read_catalog(
    client: &Client,
    owner: &Owner<'_>,
    catalog: &CatalogName,
) -> Seen<ImageCatalogSpec> {
    let identity = owner.setup.identity;
    if catalog.cluster_wide {
        let api = Api::<ClusterImageCatalog>::all_with(client.clone(), &identity);
        return get(&api, &catalog.name).await.map(|found| found.spec);
    }
    let namespace = owner.cluster.namespace();
    let api = Api::<ImageCatalog>::namespaced_with(client.clone(), namespace, &identity);
    get(&api, &catalog.name).await.map(|found| found.spec)
}

/// Reads it all at once.
pub(crate) async fn read(
    client: &Client,
    owner: &Owner<'_>,
    resolved: &Resolved,
    references: References,
    now_ms: i64,
) -> Objects {
    let (objects, secrets) = futures::join!(
        read_without_secrets(client, owner, now_ms),
        read_secrets(client, owner, resolved, now_ms),
    );
    let node = match node_in_question(owner, &objects) {
        // Without the permission it is unknown, and proves nothing.
        Some(name) => Some((name.clone(), get(&Api::<Node>::all(client.clone()), &name).await)),
        None => None,
    };
    Objects { secrets, node, references, ..objects }
}

/// Reads all but the Secrets, at once.
pub async fn read_without_secrets(client: &Client, owner: &Owner<'_>, now_ms: i64) -> Objects {
    let namespace = owner.cluster.namespace();
    let selector = format!("{}={}", owner.label(Label::Cluster), owner.name());
    let params = ListParams::default().labels(&selector);
    let identity = owner.setup.identity;
    let instances = Api::<Instance>::namespaced_with(client.clone(), namespace, &identity);
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    let lease_name = names::lease(owner.name());
    let (instances, pods, claims, lease, stateless, services) = futures::join!(
        list(&instances, &params),
        list(&pods, &params),
        list(&claims, &params),
        get(&leases, &lease_name),
        read_stateless(client, owner),
        read_services(client, owner),
    );
    let (ended, secrets) = (BTreeSet::new(), BTreeMap::new());
    let (node, lease_unchanged_ms) = (None, 0);
    Objects {
        now_ms,
        instances,
        pods,
        claims,
        lease,
        lease_unchanged_ms,
        ended,
        node,
        stateless,
        services,
        secrets,
        references: References::default(),
    }
}

async fn list<K>(api: &Api<K>, params: &ListParams) -> Result<Vec<K>, String>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    api.list(params).await.map(|list| list.items).map_err(|error| error.to_string())
}

async fn get<K>(api: &Api<K>, name: &str) -> Seen<K>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.get_opt(name).await {
        Ok(Some(object)) => Seen::Known(object),
        Ok(None) => Seen::Absent,
        Err(error) => Seen::Unknown { why: error.to_string() },
    }
}

async fn read_stateless(client: &Client, owner: &Owner<'_>) -> BTreeMap<Object, Seen<Value>> {
    let reads = Object::ALL.map(|object| async move {
        let resource = kinds::resource(object);
        let api = kinds::api(client, owner.cluster.namespace(), &resource);
        let seen = match get::<DynamicObject>(&api, &object_name(owner.name(), object)).await {
            Seen::Known(found) => match serde_json::to_value(found) {
                Ok(value) => Seen::Known(value),
                Err(error) => Seen::Unknown { why: error.to_string() },
            },
            Seen::Stale(_) | Seen::Absent => Seen::Absent,
            Seen::Unknown { why } => Seen::Unknown { why },
        };
        (object, seen)
    });
    join_all(reads).await.into_iter().collect()
}

/// The Services of the user's that the spec asks for, by name, and those that were made, by label.
async fn read_services(client: &Client, owner: &Owner<'_>) -> BTreeMap<String, ServiceObjects> {
    let namespace = owner.cluster.namespace();
    let [services, endpoints] = [ServicePart::Service, ServicePart::Endpoints]
        .map(|part| kinds::api(client, namespace, &kinds::service_part(part)));
    let selector = format!(
        "{}={},{}={}",
        owner.label(Label::Cluster),
        owner.name(),
        owner.label(Label::IsManaged),
        labels::TRUE
    );
    let params = ListParams::default().labels(&selector);
    let (made, pointed) = futures::join!(services.list(&params), endpoints.list(&params));
    // What cannot be listed stays; what the spec asks for is read by name.
    let mut names: BTreeSet<String> = [made, pointed]
        .into_iter()
        .filter_map(Result::ok)
        .flatten()
        .filter_map(|object| object.metadata.name)
        .collect();
    names.extend(objects::managed_service_names(owner));
    let read = |name: String| {
        let (services, endpoints) = (&services, &endpoints);
        async move {
            let (service, endpoints) = futures::join!(get(services, &name), get(endpoints, &name));
            let json = |seen: Seen<DynamicObject>| seen.map(|found| serde_json::json!(found));
            (name, ServiceObjects { service: json(service), endpoints: json(endpoints) })
        }
    };
    join_all(names.into_iter().map(read)).await.into_iter().collect()
}

/// Secrets are read by name at each pass: no list and no watch, so that no permission is needed
/// that would show the Secrets of others (traps K4).
async fn read_secrets(
    client: &Client,
    owner: &Owner<'_>,
    resolved: &Resolved,
    now_ms: i64,
) -> BTreeMap<SecretRole, Seen<SecretFacts>> {
    let api = Api::<Secret>::namespaced(client.clone(), owner.cluster.namespace());
    let api = &api;
    let reads = resolved
        .secret_names
        .iter()
        .map(|(role, name)| async move { (*role, get(api, name).await) });
    let read: BTreeMap<SecretRole, Seen<Secret>> = join_all(reads).await.into_iter().collect();
    let judge = pki::Judge { owner, resolved, secrets: &read, now_ms };
    read.keys().map(|role| (*role, judge.facts(*role))).collect()
}
