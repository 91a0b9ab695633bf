//! Persistent volumes: a claim is bound to a directory, which goes when the claim is gone.
//!
//! The PersistentVolume object is the record that a directory was made for a claim. A directory
//! is removed only when that record exists, names the claim's uid, and a complete list of claims
//! does not have it: an unreadable or empty store alone removes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use matriarch_api::causes::chain;
use serde_json::json;

use crate::kubelet::{NODE_NAME, Shared};
use crate::layout::make_directory;
use crate::mirror::Mirror;

const MANAGER: &str = "local-provisioner";
const CLASS: &str = "local";
const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// Why a volume cannot be provided.
#[derive(Debug, thiserror::Error)]
enum ProvisionError {
    #[error("the API server refused")]
    Api(#[from] kube::Error),
    #[error("cannot make or remove the directory of a volume")]
    Directory(#[source] std::io::Error),
}

struct Provisioner {
    shared: Arc<Shared>,
    claims: Mirror<PersistentVolumeClaim>,
    volumes: Mirror<PersistentVolume>,
    pods: Mirror<Pod>,
}

pub(super) async fn run(shared: Arc<Shared>) {
    let claims: Api<PersistentVolumeClaim> = Api::all(shared.client.clone());
    let volumes: Api<PersistentVolume> = Api::all(shared.client.clone());
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let mut claim_events = watcher::watcher(claims, watcher::Config::default()).boxed();
    let mut volume_events = watcher::watcher(volumes, watcher::Config::default()).boxed();
    let mut pod_events = watcher::watcher(pods, watcher::Config::default()).boxed();
    let mut again = tokio::time::interval(Duration::from_secs(5));
    let mut provisioner = Provisioner {
        shared,
        claims: Mirror::default(),
        volumes: Mirror::default(),
        pods: Mirror::default(),
    };
    provisioner.make_class().await;
    loop {
        let failed = tokio::select! {
            event = claim_events.next() => match event {
                Some(event) => event.map(|event| provisioner.claims.take(event)).err(),
                None => return,
            },
            event = volume_events.next() => match event {
                Some(event) => event.map(|event| provisioner.volumes.take(event)).err(),
                None => return,
            },
            event = pod_events.next() => match event {
                Some(event) => event.map(|event| provisioner.pods.take(event)).err(),
                None => return,
            },
            _ = again.tick() => None,
        };
        if let Some(error) = failed {
            tracing::warn!(error = chain(&error), "watching failed");
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        provisioner.pass().await;
    }
}

impl Provisioner {
    async fn make_class(&self) {
        let api: Api<StorageClass> = Api::all(self.shared.client.clone());
        let class = json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "matriarch.dev/local",
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        });
        let parameters = PatchParams::apply(MANAGER).force();
        if let Err(error) = api.patch(CLASS, &parameters, &Patch::Apply(&class)).await {
            tracing::debug!(error = chain(&error), "cannot write the storage class");
        }
    }

    async fn pass(&self) {
        let (Some(claims), Some(volumes), Some(pods)) =
            (self.claims.objects(), self.volumes.objects(), self.pods.objects())
        else {
            return;
        };
        for claim in claims.values() {
            let result = if claim.metadata.deletion_timestamp.is_some() {
                self.release(claim, pods).await
            } else if is_bound(claim) {
                Ok(())
            } else {
                self.bind(claim).await
            };
            if let Err(error) = result {
                tracing::warn!(claim = claim.name_any(), error = chain(&error), "volume");
            }
        }
        for volume in volumes.values() {
            if let Err(error) = self.reclaim(volume, claims).await {
                tracing::warn!(volume = volume.name_any(), error = chain(&error), "volume");
            }
        }
    }

    async fn bind(&self, claim: &PersistentVolumeClaim) -> Result<(), ProvisionError> {
        let (Some(uid), Some(spec)) = (claim.uid(), claim.spec.as_ref()) else { return Ok(()) };
        let class = spec.storage_class_name.as_deref();
        if class.is_some_and(|class| !class.is_empty() && class != CLASS) {
            tracing::debug!(claim = claim.name_any(), class, "any storage class is this directory");
        }
        let name = format!("pvc-{uid}");
        let directory = self.shared.layout.volumes().join(&name);
        make_directory(&directory, 0o700)
            .and_then(|()| self.shared.run_as.give(&directory))
            .map_err(ProvisionError::Directory)?;
        let capacity = spec.resources.as_ref().and_then(|resources| resources.requests.clone());
        let capacity = capacity.unwrap_or_default();
        let modes = spec.access_modes.clone().unwrap_or_else(|| vec!["ReadWriteOnce".to_owned()]);
        let class = class.filter(|class| !class.is_empty()).unwrap_or(CLASS);
        let volume = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": capacity,
                "accessModes": modes,
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": class,
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": uid,
                    "name": claim.name_any(), "namespace": claim.namespace(),
                },
                "hostPath": {"path": directory},
            },
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let volumes: Api<PersistentVolume> = Api::all(self.shared.client.clone());
        volumes.patch(&name, &parameters, &Patch::Apply(&volume)).await?;
        let status = json!({"metadata": {"uid": uid}, "status": {"phase": "Bound"}});
        volumes
            .patch_status(
                &name,
                &PatchParams::default(),
                &Patch::Merge(&json!({"status": {"phase": "Bound"}})),
            )
            .await?;
        let mut finalizers = claim.finalizers().to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == PROTECTION) {
            finalizers.push(PROTECTION.to_owned());
        }
        let patch = json!({
            "metadata": {"uid": uid, "finalizers": finalizers},
            "spec": {"volumeName": name, "storageClassName": class},
        });
        let api = self.claims_of(claim);
        api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        let mut status = status;
        status["status"]["capacity"] = json!(capacity);
        status["status"]["accessModes"] = json!(modes);
        api.patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    fn claims_of(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.shared.client.clone(), &claim.namespace().unwrap_or_default())
    }

    /// A claim that is being deleted goes once no pod uses it.
    async fn release(
        &self,
        claim: &PersistentVolumeClaim,
        pods: &BTreeMap<String, Pod>,
    ) -> Result<(), ProvisionError> {
        let name = claim.name_any();
        let used = pods.values().any(|pod| {
            pod.namespace() == claim.namespace()
                && pod
                    .spec
                    .iter()
                    .flat_map(|spec| spec.volumes.iter().flatten())
                    .filter_map(|volume| volume.persistent_volume_claim.as_ref())
                    .any(|source| source.claim_name == name)
        });
        if used || !claim.finalizers().iter().any(|finalizer| finalizer == PROTECTION) {
            return Ok(());
        }
        let rest: Vec<&String> =
            claim.finalizers().iter().filter(|finalizer| *finalizer != PROTECTION).collect();
        let patch = json!({"metadata": {"uid": claim.uid(), "finalizers": rest}});
        let answer = self
            .claims_of(claim)
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        match answer {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Removes a directory whose claim is gone, after the pod that worked in it has ended.
    async fn reclaim(
        &self,
        volume: &PersistentVolume,
        claims: &BTreeMap<String, PersistentVolumeClaim>,
    ) -> Result<(), ProvisionError> {
        let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
            return Ok(());
        };
        let Some(uid) = reference.uid.as_deref() else { return Ok(()) };
        if claims.values().any(|claim| claim.metadata.uid.as_deref() == Some(uid)) {
            return Ok(());
        }
        // The list in hand may be older than the volume: ask once more.
        let namespace = reference.namespace.clone().unwrap_or_default();
        let name = reference.name.clone().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.shared.client.clone(), &namespace);
        if api.get_opt(&name).await?.is_some_and(|claim| claim.metadata.uid.as_deref() == Some(uid))
        {
            return Ok(());
        }
        let Ok(_unused) = self.shared.claim(&format!("{namespace}/{name}")).try_lock_owned() else {
            return Ok(());
        };
        let keep =
            volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref())
                != Some("Delete");
        if keep {
            return Ok(());
        }
        let directory = self.shared.layout.volumes().join(volume.name_any());
        match std::fs::remove_dir_all(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(ProvisionError::Directory(error)),
        }
        let volumes: Api<PersistentVolume> = Api::all(self.shared.client.clone());
        match volumes.delete(&volume.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Ok(_) => {
                tracing::info!(node = NODE_NAME, volume = volume.name_any(), "volume removed");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_some())
        && claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}
