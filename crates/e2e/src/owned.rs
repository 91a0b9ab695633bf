//! What a Cluster owns beside its pods and volumes, and what is to happen when somebody deletes it:
//! it comes back (traps K11).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(120);

/// A kind of objects.
pub struct Kind {
    group: &'static str,
    kind: &'static str,
    /// As it stands in addresses and roles.
    pub plural: &'static str,
}

const fn kind(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group, kind, plural }
}

/// Every kind that the operator makes or that agents make for it, pods and volumes apart.
pub const KINDS: [Kind; 10] = [
    kind("", "Service", "services"),
    kind("", "ServiceAccount", "serviceaccounts"),
    kind("", "ConfigMap", "configmaps"),
    kind("", "Secret", "secrets"),
    kind("rbac.authorization.k8s.io", "Role", "roles"),
    kind("rbac.authorization.k8s.io", "RoleBinding", "rolebindings"),
    kind("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
    kind("discovery.k8s.io", "EndpointSlice", "endpointslices"),
    kind("coordination.k8s.io", "Lease", "leases"),
    kind("matriarch.dev", "Instance", "instances"),
];

/// Deletes each object of a kind that the Cluster of this name owns, one after the other: calls
/// `deleted`, and waits until another one has its name.
///
/// # Errors
/// If one does not come back, or there is none.
pub async fn delete_each(
    client: &Client,
    namespace: &str,
    cluster: &str,
    kind: &Kind,
    deleted: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    let Kind { group, kind, plural } = kind;
    let kind = GroupVersionKind::gvk(group, "v1", kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let mut all = api.list(&ListParams::default()).await?.items;
    // The EndpointSlices of Services with a selector are Kubernetes' own, under names by chance.
    let foreign = |it: &DynamicObject| {
        let by = it.labels().get("endpointslice.kubernetes.io/managed-by");
        by.is_some_and(|by| by == "endpointslice-controller.k8s.io")
    };
    all.retain(|it| it.name_any().starts_with(cluster) && !foreign(it));
    ensure!(!all.is_empty(), "the cluster has no {plural}");
    for object in all {
        let name = object.name_any();
        api.delete(&name, &DeleteParams::default())
            .await
            .with_context(|| format!("{plural} {name}"))?;
        deleted().await?;
        let begun = Instant::now();
        while api.get_opt(&name).await?.is_none_or(|now| now.uid() == object.uid()) {
            ensure!(begun.elapsed() < PATIENCE, "{plural} {name} does not come back");
            sleep(Duration::from_millis(50)).await;
        }
        println!("{plural} {name}: back after {:.1} s", begun.elapsed().as_secs_f64());
    }
    Ok(())
}
