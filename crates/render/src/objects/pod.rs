//! Pods and the passwd file that they mount.

use std::collections::BTreeSet;

use matriarch_api::annotations::{Annotation, RESTARTED_AT};
use matriarch_api::cluster::{PodAntiAffinityType, ProbeWithStrategy};
use matriarch_api::labels::{self, Label};
use matriarch_api::names;
use matriarch_api::secret;
use matriarch_plan::PodStamp;
use matriarch_plan::world::Identity;
use serde_json::{Map, Value, json};

use crate::resolve::Resolved;
use crate::setup::Owner;
use crate::stamp;

/// The name that stands for the instance's where the pods of all instances are compared.
const ANY_INSTANCE: &str = "INSTANCE";

/// What a pod made now would be made from, apart from its names. The init container is not in it: a
/// new operator must not restart the databases of a fleet (I14).
pub fn stamp(owner: &Owner<'_>, resolved: &Resolved) -> PodStamp {
    let tablespaces = &resolved.tablespaces;
    let mut spec = spec(owner, resolved, ANY_INSTANCE, resolved.wal_volume, tablespaces);
    spec["initContainers"] = Value::Null;
    // As it was given: applied to this, which is no whole pod, it may fail.
    if let Some(patch) = owner.given(Annotation::PodPatch) {
        spec["patch"] = json!(patch);
    }
    stamp::wanted(owner, resolved, &spec)
}

/// Labels, annotations and owner of a pod. The role label is never in here: it has one writer, and
/// an apply that named it would take it back (traps H2).
pub fn metadata(owner: &Owner<'_>, resolved: &Resolved, instance: &str) -> Value {
    let mut metadata = owner.metadata(instance);
    metadata["labels"][owner.label(Label::InstanceName)] = json!(instance);
    metadata["labels"][owner.label(Label::PodRole)] = json!(labels::POD_ROLE_INSTANCE);
    if let Some(major) = resolved.major {
        metadata["labels"][owner.label(Label::MajorVersion)] = json!(major.to_string());
    }
    metadata
}

/// The annotations that say what a pod was made from; kept over its life.
pub fn made_from(owner: &Owner<'_>, resolved: &Resolved) -> Map<String, Value> {
    let mut annotations = Map::new();
    let fields = stamp::fields(owner, resolved);
    let made = PodStamp { fields, ..stamp(owner, resolved) };
    let made = serde_json::to_string(&made).unwrap_or_default();
    annotations.insert(owner.annotation(Annotation::Hash), json!(made));
    let serial = owner.annotation(Annotation::OperatorVersion);
    annotations.insert(serial, json!(matriarch_api::VERSION));
    if let Some(at) = &resolved.restarted_at {
        annotations.insert(RESTARTED_AT.to_owned(), json!(at));
    }
    annotations
}

/// A pod to be made.
pub fn new(
    owner: &Owner<'_>,
    resolved: &Resolved,
    instance: &str,
    wal_volume: bool,
    tablespaces: &BTreeSet<String>,
) -> Value {
    let mut pod = unpatched(owner, resolved, instance, wal_volume, tablespaces);
    // One that cannot be applied was found when the spec was resolved, and no pod is made then.
    let _found = patch(owner, &mut pod);
    pod
}

fn unpatched(
    owner: &Owner<'_>,
    resolved: &Resolved,
    instance: &str,
    wal_volume: bool,
    tablespaces: &BTreeSet<String>,
) -> Value {
    let mut metadata = metadata(owner, resolved, instance);
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    for (key, value) in made_from(owner, resolved) {
        metadata["annotations"][key] = value;
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec(owner, resolved, instance, wal_volume, tablespaces),
    })
}

/// Applies the user's JSON Patch (annotation `podPatch`), whole or not at all.
fn patch(owner: &Owner<'_>, pod: &mut Value) -> Result<(), String> {
    let Some(text) = owner.given(Annotation::PodPatch) else { return Ok(()) };
    let patch: json_patch::Patch = serde_json::from_str(text)
        .map_err(|error| format!("it is no JSON Patch (RFC 6902): {error}"))?;
    json_patch::patch(pod, &patch).map_err(|error| format!("it cannot be applied: {error}"))
}

/// Whether the user's patch gives a pod that is still ours.
///
/// # Errors
/// What is wrong with it.
pub fn try_patch(owner: &Owner<'_>, resolved: &Resolved) -> Result<(), String> {
    let name = format!("{}-1", owner.name());
    let before = unpatched(owner, resolved, &name, resolved.wal_volume, &resolved.tablespaces);
    let mut pod = before.clone();
    patch(owner, &mut pod)?;
    for path in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
        if pod.pointer(path) != before.pointer(path) {
            return Err(format!("{path} is the operator's"));
        }
    }
    if !crate::conform::conforms(&before["metadata"], &pod["metadata"]) {
        return Err("labels, annotations and owner that the operator sets are its own".to_owned());
    }
    let named = |pod: &Value, list: &str, name: &str| {
        let containers = pod["spec"][list].as_array().cloned().unwrap_or_default();
        containers.iter().any(|container| container["name"] == name)
    };
    for (list, name) in
        [("containers", names::POSTGRES_CONTAINER), ("initContainers", names::BOOTSTRAP_CONTAINER)]
    {
        if !named(&pod, list, name) {
            return Err(format!("the pod needs its container {name}"));
        }
    }
    Ok(())
}

/// Labels, annotations and owner of a pod that is there.
pub fn adoption(owner: &Owner<'_>, resolved: &Resolved, instance: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(owner, resolved, instance),
    })
}

/// Strategic merge patch that has the init container of a pod that lives on bring the operator's own
/// binary: only when the pod's containers are made anew is it run again.
pub fn bootstrap_image(owner: &Owner<'_>, guard: &Identity) -> Value {
    json!({
        "metadata": {"uid": guard.uid, "resourceVersion": guard.resource_version},
        "spec": {"initContainers": [
            {"name": names::BOOTSTRAP_CONTAINER, "image": owner.setup.operator_image},
        ]},
    })
}

fn spec(
    owner: &Owner<'_>,
    resolved: &Resolved,
    instance: &str,
    wal_volume: bool,
    tablespaces: &BTreeSet<String>,
) -> Value {
    let user = &owner.cluster.spec;
    let mut spec = json!({
        "hostname": instance,
        "serviceAccountName": resolved.service_account,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": resolved.template.delays.stop_seconds,
        "securityContext": pod_security(owner, resolved),
        "affinity": affinity(owner),
        "initContainers": [bootstrap_container(owner)],
        "containers": [database_container(owner, resolved, wal_volume, tablespaces)],
        "volumes": volumes(owner, instance, wal_volume, tablespaces),
    });
    let optional = [
        ("schedulerName", json!(user.scheduler_name)),
        ("priorityClassName", json!(user.priority_class_name)),
        ("imagePullSecrets", json!(user.image_pull_secrets)),
        ("topologySpreadConstraints", json!(user.topology_spread_constraints)),
    ];
    for (name, value) in optional {
        let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !empty {
            spec[name] = value;
        }
    }
    if let Some(affinity) = &user.affinity {
        if !affinity.node_selector.is_empty() {
            spec["nodeSelector"] = json!(affinity.node_selector);
        }
        if !affinity.tolerations.is_empty() {
            spec["tolerations"] = json!(affinity.tolerations);
        }
    }
    spec
}

/// What the Pod Security Standard `restricted` asks for, with the user's fields over it.
fn pod_security(owner: &Owner<'_>, resolved: &Resolved) -> Value {
    let user = &owner.cluster.spec;
    let seccomp = user
        .seccomp_profile
        .as_ref()
        .map_or_else(|| json!({"type": "RuntimeDefault"}), |profile| json!(profile));
    let ours = json!({
        "runAsNonRoot": true,
        "runAsUser": resolved.uid,
        "runAsGroup": resolved.gid,
        "fsGroup": resolved.gid,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": seccomp,
    });
    user.pod_security_context.as_ref().map_or(ours.clone(), |given| overlaid(ours, &json!(given)))
}

/// The same for a container: also of the one that copies the binary.
fn container_security(owner: &Owner<'_>) -> Value {
    let ours = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
    });
    let given = owner.cluster.spec.security_context.as_ref();
    given.map_or(ours.clone(), |given| overlaid(ours, &json!(given)))
}

/// Ours with the user's fields instead of ours of the same name; what is added to capabilities
/// leaves what is dropped.
fn overlaid(mut ours: Value, given: &Value) -> Value {
    for (name, value) in given.as_object().into_iter().flatten() {
        match (name.as_str(), value.as_object()) {
            ("capabilities", Some(fields)) => {
                for (field, list) in fields {
                    ours[name][field] = list.clone();
                }
            }
            _ => ours[name] = value.clone(),
        }
    }
    ours
}

/// The same pull policy and resources as the database's container has: a pod's quality of service,
/// and quotas, count every container.
fn bootstrap_container(owner: &Owner<'_>) -> Value {
    let mut container = json!({
        "name": names::BOOTSTRAP_CONTAINER,
        "image": owner.setup.operator_image,
        "command": ["/matriarch", "bootstrap", names::BINARY],
        "securityContext": container_security(owner),
        "volumeMounts": [{"name": "scratch", "mountPath": "/controller", "subPath": "controller"}],
    });
    pull_and_resources(owner, &mut container);
    container
}

fn pull_and_resources(owner: &Owner<'_>, container: &mut Value) {
    let user = &owner.cluster.spec;
    if let Some(policy) = &user.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if let Some(resources) = &user.resources {
        container["resources"] = json!(resources);
    }
}

fn database_container(
    owner: &Owner<'_>,
    resolved: &Resolved,
    wal_volume: bool,
    tablespaces: &BTreeSet<String>,
) -> Value {
    let user = &owner.cluster.spec;
    let mut container = json!({
        "name": names::POSTGRES_CONTAINER,
        "image": resolved.image,
        "command": [names::BINARY, "keeper"],
        "env": environment(owner),
        "ports": [
            {"name": "postgresql", "containerPort": names::POSTGRES_PORT, "protocol": "TCP"},
            {"name": "status", "containerPort": names::AGENT_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": names::METRICS_PORT, "protocol": "TCP"},
        ],
        "securityContext": container_security(owner),
        "volumeMounts": mounts(owner, wal_volume, tablespaces),
    });
    for (name, probe) in probes(owner, resolved) {
        container[name] = probe;
    }
    if !user.env_from.is_empty() {
        container["envFrom"] = json!(user.env_from);
    }
    pull_and_resources(owner, &mut container);
    container
}

fn environment(owner: &Owner<'_>) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut environment = vec![
        field("POD_NAME", "metadata.name"),
        field("NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
        field("POD_IP", "status.podIP"),
        json!({"name": "CLUSTER_NAME", "value": owner.name()}),
        json!({"name": "MATRIARCH_API_IDENTITY", "value": owner.setup.identity.name()}),
    ];
    if let Some(filter) = owner.given(Annotation::CoredumpFilter) {
        environment.push(json!({"name": names::COREDUMP_FILTER_VARIABLE, "value": filter}));
    }
    environment.extend(owner.cluster.spec.env.iter().map(|variable| json!(variable)));
    environment
}

fn mounts(owner: &Owner<'_>, wal_volume: bool, tablespaces: &BTreeSet<String>) -> Vec<Value> {
    let mut mounts = vec![
        json!({"name": "pgdata", "mountPath": "/var/lib/postgresql/data"}),
        json!({"name": "scratch", "mountPath": "/controller", "subPath": "controller"}),
        json!({"name": "scratch", "mountPath": "/run", "subPath": "run"}),
        json!({"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"}),
        json!({"name": "shm", "mountPath": "/dev/shm"}),
        json!({"name": "passwd", "mountPath": "/etc/passwd", "subPath": secret::PASSWD, "readOnly": true}),
        json!({"name": "passwd", "mountPath": "/etc/group", "subPath": secret::GROUP, "readOnly": true}),
        json!({
            "name": "token",
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            "readOnly": true,
        }),
    ];
    if wal_volume {
        mounts.push(json!({"name": "pg-wal", "mountPath": "/var/lib/postgresql/wal"}));
    }
    mounts.extend(tablespaces.iter().map(|name| {
        json!({"name": names::tablespace_volume(name), "mountPath": names::tablespace_mount(name)})
    }));
    if owner.cluster.spec.projected_volume_template.is_some() {
        mounts.push(json!({"name": "projected", "mountPath": "/projected", "readOnly": true}));
    }
    mounts
}

fn volumes(
    owner: &Owner<'_>,
    instance: &str,
    wal_volume: bool,
    tablespaces: &BTreeSet<String>,
) -> Vec<Value> {
    let limits = owner.cluster.spec.ephemeral_volumes_size_limit.clone().unwrap_or_default();
    let mut shm = json!({"medium": "Memory"});
    if let Some(limit) = limits.shm {
        shm["sizeLimit"] = json!(limit);
    }
    let scratch = match &owner.cluster.spec.ephemeral_volume_source {
        Some(source) => json!({"name": "scratch", "ephemeral": source}),
        None => match limits.temporary_data {
            Some(limit) => json!({"name": "scratch", "emptyDir": {"sizeLimit": limit}}),
            None => json!({"name": "scratch", "emptyDir": {}}),
        },
    };
    let claim = |name: String| json!({"claimName": name});
    let mut volumes = vec![
        json!({"name": "pgdata", "persistentVolumeClaim": claim(names::data_claim(instance))}),
        scratch,
        json!({"name": "shm", "emptyDir": shm}),
        json!({
            "name": "passwd",
            "configMap": {"name": names::config_map_passwd(owner.name()), "defaultMode": 0o444},
        }),
        json!({"name": "token", "projected": {"defaultMode": 0o444, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
            ]}},
        ]}}),
    ];
    if wal_volume {
        volumes.push(
            json!({"name": "pg-wal", "persistentVolumeClaim": claim(names::wal_claim(instance))}),
        );
    }
    volumes.extend(tablespaces.iter().map(|name| {
        let claim = claim(names::tablespace_claim(instance, name));
        json!({"name": names::tablespace_volume(name), "persistentVolumeClaim": claim})
    }));
    if let Some(source) = &owner.cluster.spec.projected_volume_template {
        volumes.push(json!({"name": "projected", "projected": source}));
    }
    volumes
}

/// CloudNativePG's probes: a start may take `startDelay`, asked every second until it is over;
/// liveness never fails for a server in crash recovery or a long shutdown (I18), because the agent
/// answers it.
fn probes(owner: &Owner<'_>, resolved: &Resolved) -> Vec<(&'static str, Value)> {
    let user = owner.cluster.spec.probes.clone().unwrap_or_default();
    let start = resolved.template.delays.start_seconds.max(1);
    let liveness_failures =
        owner.cluster.spec.liveness_probe_timeout.map_or(3, |seconds| (seconds / 10).max(1));
    let mut startup = probe("/startupz", 1, 5, i64::try_from(start).unwrap_or(i64::MAX));
    overlay(&mut startup, user.startup.as_ref());
    let mut readiness = probe("/readyz", 2, 5, 3);
    overlay(&mut readiness, user.readiness.as_ref());
    let mut liveness = probe("/healthz", 10, 5, i64::from(liveness_failures));
    if let Some(given) = user.liveness.as_ref() {
        let fields = [
            ("initialDelaySeconds", given.initial_delay_seconds.map(i64::from)),
            ("timeoutSeconds", given.timeout_seconds.map(i64::from)),
            ("periodSeconds", given.period_seconds.map(i64::from)),
            ("successThreshold", given.success_threshold.map(i64::from)),
            ("failureThreshold", given.failure_threshold.map(i64::from)),
            ("terminationGracePeriodSeconds", given.termination_grace_period_seconds),
        ];
        set(&mut liveness, &fields);
    }
    vec![("startupProbe", startup), ("readinessProbe", readiness), ("livenessProbe", liveness)]
}

fn probe(path: &str, period: i64, timeout: i64, failures: i64) -> Value {
    json!({
        "httpGet": {"path": path, "port": names::AGENT_PORT, "scheme": "HTTPS"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "successThreshold": 1,
        "failureThreshold": failures,
    })
}

fn overlay(probe: &mut Value, given: Option<&ProbeWithStrategy>) {
    let Some(given) = given else { return };
    let fields = [
        ("initialDelaySeconds", given.initial_delay_seconds.map(i64::from)),
        ("timeoutSeconds", given.timeout_seconds.map(i64::from)),
        ("periodSeconds", given.period_seconds.map(i64::from)),
        ("successThreshold", given.success_threshold.map(i64::from)),
        ("failureThreshold", given.failure_threshold.map(i64::from)),
        ("terminationGracePeriodSeconds", given.termination_grace_period_seconds),
    ];
    set(probe, &fields);
    let mut query = Vec::new();
    if let Some(strategy) = given.strategy {
        query.push(format!("type={}", strategy.word()));
    }
    if let Some(lag) = &given.maximum_lag {
        query.push(format!("maximumLag={}", lag.0));
    }
    if !query.is_empty()
        && let Some(path) = probe["httpGet"]["path"].as_str()
    {
        probe["httpGet"]["path"] = json!(format!("{path}?{}", query.join("&")));
    }
}

fn set(probe: &mut Value, fields: &[(&str, Option<i64>)]) {
    for (name, value) in fields {
        if let Some(value) = value {
            probe[*name] = json!(value);
        }
    }
}

/// Instances keep apart where they can, unless the user says otherwise.
fn affinity(owner: &Owner<'_>) -> Value {
    let given = owner.cluster.spec.affinity.clone().unwrap_or_default();
    let mut anti = given
        .additional_pod_anti_affinity
        .as_ref()
        .and_then(|rules| serde_json::to_value(rules).ok())
        .unwrap_or_else(|| json!({}));
    if given.enable_pod_anti_affinity.unwrap_or(true) {
        let key = given.topology_key.as_deref().unwrap_or("kubernetes.io/hostname");
        let term = json!({
            "labelSelector": {"matchLabels": owner.pod_selector()},
            "topologyKey": key,
        });
        let (list, rule) = match given.pod_anti_affinity_type {
            Some(PodAntiAffinityType::Required) => {
                ("requiredDuringSchedulingIgnoredDuringExecution", term)
            }
            Some(PodAntiAffinityType::Preferred) | None => (
                "preferredDuringSchedulingIgnoredDuringExecution",
                json!({"weight": 100, "podAffinityTerm": term}),
            ),
        };
        match anti[list].as_array_mut() {
            Some(rules) => rules.push(rule),
            None => anti[list] = json!([rule]),
        }
    }
    let mut affinity = json!({});
    if anti.as_object().is_some_and(|rules| !rules.is_empty()) {
        affinity["podAntiAffinity"] = anti;
    }
    if let Some(rules) = &given.additional_pod_affinity {
        affinity["podAffinity"] = json!(rules);
    }
    if let Some(rules) = &given.node_affinity {
        affinity["nodeAffinity"] = json!(rules);
    }
    affinity
}

/// passwd and group files: PostgreSQL's programs look their user id up, and an image need not know
/// it (traps P4).
pub fn passwd(owner: &Owner<'_>, resolved: &Resolved) -> Value {
    let (uid, gid) = (resolved.uid, resolved.gid);
    let passwd = format!(
        "root:x:0:0:root:/root:/sbin/nologin\n\
         postgres:x:{uid}:{gid}:PostgreSQL:/var/lib/postgresql:/bin/sh\n"
    );
    let group = format!("root:x:0:\npostgres:x:{gid}:\n");
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(&names::config_map_passwd(owner.name())),
        "data": { secret::PASSWD: passwd, secret::GROUP: group },
    })
}
