//! Pods as they are made, before a real kube-apiserver: a namespace that enforces the Pod Security
//! Standard `restricted` takes all of them, and what Kubernetes refuses it refuses by name.

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use matriarch_api::Cluster;
use matriarch_e2e::{apiserver, turn};
use matriarch_render::setup::{Owner, Setup};
use matriarch_render::{References, objects, resolve};
use serde_json::{Value, json};

const NAMESPACE: &str = "restricted";

/// Makes the pod of a cluster with these fields, as a trial.
async fn try_pod(client: &Client, fields: Value) -> Result<()> {
    let mut spec = json!({
        "instances": 3,
        "imageName": "ghcr.io/cloudnative-pg/postgresql:17.6",
        "storage": {"size": "1Gi"},
        "walStorage": {"size": "1Gi"},
    });
    for (name, value) in fields.as_object().context("fields are an object")? {
        spec[name] = value.clone();
    }
    let cluster: Cluster = serde_json::from_value(json!({
        "apiVersion": "matriarch.dev/v1", "kind": "Cluster",
        "metadata": {"name": "c", "namespace": NAMESPACE, "uid": "u"},
        "spec": spec,
    }))?;
    let setup = Setup::default();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    ensure!(resolved.spec().is_some(), "{fields}: {:?}", resolved.wanted);
    let pod: Pod = serde_json::from_value(objects::pod::new(
        &owner,
        &resolved,
        "c-1",
        true,
        &resolved.tablespaces,
    ))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await?;
    Ok(())
}

async fn enforce_restricted(client: &Client) -> Result<()> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/enforce-version": "latest",
        }},
    });
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.patch(NAMESPACE, &PatchParams::apply("test"), &Patch::Apply(&namespace)).await?;
    Ok(())
}

fn taken() -> Vec<Value> {
    let must = "requiredDuringSchedulingIgnoredDuringExecution";
    let term = json!({"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "rack"});
    vec![
        json!({}),
        json!({"imageName": "postgres:17", "imagePullPolicy": "Never"}),
        json!({"postgresUID": 1000, "postgresGID": 1001}),
        json!({"tablespaces": [{"name": "Fast_idx", "storage": {"size": "1Gi"}}]}),
        json!({"podSecurityContext": {"fsGroup": 7}, "securityContext": {"runAsUser": 7}}),
        json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}}),
        json!({"securityContext": {"readOnlyRootFilesystem": false}}),
        json!({"imagePullSecrets": [{"name": "s"}], "schedulerName": "mine"}),
        json!({"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}}),
        json!({"ephemeralVolumesSizeLimit": {"shm": "64Mi", "temporaryData": "1Gi"}}),
        json!({"ephemeralVolumeSource": {"volumeClaimTemplate": {"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}}),
        json!({"projectedVolumeTemplate": {"sources": [{"secret": {"name": "s"}}]}}),
        json!({"affinity": {
            "podAntiAffinityType": "required", "topologyKey": "zone",
            "nodeSelector": {"disk": "fast"},
            "nodeAffinity": {must: {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "arch", "operator": "In", "values": ["arm64"]}]}]}},
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
            "additionalPodAntiAffinity": {must: [term]},
            "additionalPodAffinity": {must: [term]},
        }}),
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"matriarch.dev/cluster": "c"}}}]}),
    ]
}

/// Fields, and what Kubernetes says to them.
fn refused() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"securityContext": {"allowPrivilegeEscalation": true}}), "violates PodSecurity"),
        (
            json!({"podSecurityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "violates PodSecurity",
        ),
        (
            json!({"priorityClassName": "nobody-made-it"}),
            "no PriorityClass with name nobody-made-it",
        ),
        (json!({"affinity": {"topologyKey": "no label/key/"}}), "topologyKey"),
        (json!({"affinity": {"nodeSelector": {"disk": "not a label value"}}}), "nodeSelector"),
        (json!({"imagePullPolicy": "Sometimes"}), "imagePullPolicy"),
    ]
}

#[test]
fn a_namespace_that_enforces_restricted_takes_every_pod() -> Result<()> {
    let _turn = turn::wait()?;
    let Some(server) = apiserver::shared()? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = server.client().await?;
        enforce_restricted(&client).await?;
        for fields in taken() {
            try_pod(&client, fields.clone()).await.with_context(|| fields.to_string())?;
        }
        for (fields, words) in refused() {
            match try_pod(&client, fields.clone()).await {
                Ok(()) => bail!("{fields} was taken"),
                Err(error) => {
                    let told = format!("{error:#}");
                    ensure!(told.contains(words), "{fields}: expected {words:?}, told {told}");
                }
            }
        }
        Ok(())
    })
}
