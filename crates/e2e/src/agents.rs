//! kubelet and agents in little: what they write for pods that nobody runs, so that the operator
//! sees instances that are well.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use matriarch_api::instance::{
    Address, AgentReport, InstanceRole, InstanceState, InstanceStatus, RequestOutcome, Tablespace,
    TablespaceReport,
};
use matriarch_api::{Identity, Instance, names};
use matriarch_plan::protocol::lease::ANNOTATIONS;
use matriarch_plan::protocol::{
    self, ContainerId, History, Holder, Incarnation, InstanceName, LeaseRecord, Member, PodUid,
    Position, Span, SystemId, Term,
};
use serde_json::{Value, json};

/// The database system of every cluster that is played.
const SYSTEM: u64 = 7;

/// What kubelet says of a pod that runs and is ready.
#[must_use]
pub fn pod_status(address: &str) -> Value {
    json!({"status": {
        "phase": "Running",
        "podIP": address,
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": "postgres", "ready": true, "restartCount": 0, "image": "x", "imageID": "x",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }],
    }})
}

/// What an agent reports that has done all that it was told.
#[must_use]
pub fn report(instance: &Instance, pod: &str, primary: bool) -> InstanceStatus {
    let spec = &instance.spec;
    InstanceStatus {
        observed_generation: instance.metadata.generation.unwrap_or_default(),
        incarnation: Some(instance.name().to_owned()),
        pod_uid: Some(pod.to_owned()),
        address: Some(Address {
            host: "127.0.0.1".to_owned(),
            postgres_port: 5432,
            agent_port: 8000,
        }),
        postgres_version: Some("17.6".to_owned()),
        system_id: Some(SYSTEM.to_string()),
        timeline: Some(1),
        term: Some(1),
        role: if primary { InstanceRole::Primary } else { InstanceRole::Standby },
        state: InstanceState::Running,
        streaming: !primary,
        loaded_configuration_hash: Some(spec.configuration_hash.clone()),
        secret_versions: spec.access.secret_versions.clone(),
        restart: spec.restart.as_ref().map(|wish| RequestOutcome {
            id: wish.id.clone(),
            done: true,
            message: String::new(),
        }),
        agent_version: matriarch_api::VERSION.to_owned(),
        agent: AgentReport {
            sha256: spec.agent.as_ref().map(|told| told.sha256.clone()),
            ..AgentReport::default()
        },
        ..InstanceStatus::default()
    }
}

fn tablespace(wanted: &Tablespace, pod: &Pod, primary: bool) -> TablespaceReport {
    let place = names::tablespace_mount(&wanted.name);
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut mounts = containers.flat_map(|container| container.volume_mounts.iter().flatten());
    TablespaceReport {
        name: wanted.name.clone(),
        ready: mounts.any(|mount| mount.mount_path == place),
        reconciled: primary && wanted.create,
        owner: Some(wanted.owner.clone()),
        error: None,
    }
}

/// A merge patch of a cluster's Lease as its holder would write it: the members run on data
/// directories called like themselves.
#[must_use]
pub fn lease_patch(
    identity: Identity,
    lease: &Lease,
    holder: &str,
    pod: String,
    members: &[String],
) -> Value {
    let record = lease_record(lease, holder, pod, members);
    let annotations: BTreeMap<_, _> = ANNOTATIONS
        .iter()
        .map(|suffix| (identity.key(suffix), record.annotations.get(*suffix)))
        .collect();
    json!({
        "metadata": {"annotations": annotations},
        "spec": {"holderIdentity": holder, "leaseTransitions": record.transitions},
    })
}

fn lease_record(lease: &Lease, holder: &str, pod: String, members: &[String]) -> LeaseRecord {
    let spec = lease.spec.as_ref();
    let changes = spec.and_then(|spec| spec.holder_identity.as_deref()) != Some(holder);
    let before = spec.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    let term = Term(u64::from(before.unsigned_abs()) + u64::from(changes));
    let first = names::instance(&lease.name_any(), 1);
    let member = |name: &String| Member {
        name: InstanceName(name.clone()),
        incarnation: Incarnation(name.clone()),
        address: protocol::Address::default(),
    };
    LeaseRecord::encode(&protocol::Lease {
        holder: Some(Holder {
            name: InstanceName(holder.to_owned()),
            incarnation: Incarnation(holder.to_owned()),
            pod_uid: PodUid(pod),
            container_id: ContainerId(format!("container of {holder}")),
        }),
        term,
        duration: Span::seconds(15),
        system_id: SystemId(SYSTEM),
        history: History::root(Term(1), Incarnation(first)),
        history_published: true,
        position: Position::default(),
        cohort: members.iter().map(member).collect(),
        stragglers: Vec::new(),
        quorum: None,
        release: None,
        quorum_until: None,
        reassertions: 0,
        edition: term.0,
    })
}

/// Writes a cluster's Lease as its holder would.
///
/// # Errors
/// If the API refuses, or the holder has no pod.
pub async fn write_lease(
    client: &Client,
    identity: Identity,
    namespace: &str,
    name: &str,
    holder: &str,
    members: &[String],
) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods.get(holder).await?.uid().unwrap_or_default();
    let patch = lease_patch(identity, &leases.get(name).await?, holder, pod, members);
    leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// Who holds the Lease of a cluster with these members: who held it, unless a switchover is asked
/// for or it is no member any more.
#[must_use]
pub fn next_holder(
    held_by: Option<&str>,
    instances: &[&Instance],
    members: &[String],
) -> Option<String> {
    let is_member = |name: &String| members.contains(name);
    let mut holder = held_by.map(str::to_owned);
    let of_holder = instances.iter().find(|instance| holder.as_deref() == Some(instance.name()));
    if let Some(wish) = of_holder.and_then(|instance| instance.spec.switchover.as_ref()) {
        let other = members.iter().find(|name| holder.as_ref() != Some(name));
        holder = wish.to.as_ref().or(other).cloned();
    }
    // Until the first one has its pod, nobody leads.
    let first = instances.iter().find(|instance| instance.spec.bootstrap_primary);
    let first = first.map(|instance| instance.name().to_owned()).or(members.first().cloned());
    holder.filter(is_member).or(first.filter(is_member))
}

/// One look at the clusters of a namespace: pods become ready, reports follow directives, the Lease
/// changes hands as directives ask.
///
/// # Errors
/// If the API refuses; objects change under its hands, and the next look is a new one.
pub async fn play_once(client: &Client, identity: Identity, namespace: &str) -> Result<()> {
    let instances: Api<Instance> = Api::namespaced_with(client.clone(), namespace, &identity);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods.list(&ListParams::default()).await?.items {
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            pods.delete(&pod.name_any(), &now).await?;
        }
    }
    let all = instances.list(&ListParams::default()).await?.items;
    let clusters: BTreeSet<&str> = all.iter().map(|it| it.spec.cluster_name.as_str()).collect();
    for cluster in clusters {
        let own: Vec<&Instance> =
            all.iter().filter(|instance| instance.spec.cluster_name == cluster).collect();
        play_cluster(client, identity, namespace, cluster, &own).await?;
    }
    Ok(())
}

async fn play_cluster(
    client: &Client,
    identity: Identity,
    namespace: &str,
    cluster: &str,
    all: &[&Instance],
) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let Some(lease) = leases.get_opt(cluster).await? else { return Ok(()) };
    let mut members = Vec::new();
    for instance in all {
        if !instance.spec.leaving && pods.get_opt(instance.name()).await?.is_some() {
            members.push(instance.name().to_owned());
        }
    }
    let held_by = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
    let Some(holder) = next_holder(held_by, all, &members) else { return Ok(()) };
    write_lease(client, identity, namespace, cluster, &holder, &members).await?;
    for instance in all {
        play_instance(client, identity, instance, instance.name() == holder).await?;
    }
    Ok(())
}

async fn play_instance(
    client: &Client,
    identity: Identity,
    instance: &Instance,
    primary: bool,
) -> Result<()> {
    let namespace = instance.namespace();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Some(pod) = pods.get_opt(instance.name()).await? else { return Ok(()) };
    let parameters = PatchParams::default();
    let running = Patch::Merge(pod_status("127.0.0.1"));
    pods.patch_status(instance.name(), &parameters, &running).await?;
    let mut status = report(instance, &pod.uid().unwrap_or_default(), primary);
    let wanted = instance.spec.tablespaces.iter();
    status.tablespaces = wanted.map(|wanted| tablespace(wanted, &pod, primary)).collect();
    let instances: Api<Instance> = Api::namespaced_with(client.clone(), namespace, &identity);
    let told = Patch::Merge(json!({ "status": status }));
    instances.patch_status(instance.name(), &parameters, &told).await?;
    Ok(())
}
