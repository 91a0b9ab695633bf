//! What kube-apiserver fills into built-in objects: first the defaults of their versions, then
//! what its admission and the rules of the kind add. Only the first belong to somebody in
//! managedFields.

use serde_json::{Value, json};

use crate::{builtin::Builtin, object};

/// Fills in the defaults of a kind; it may be done again without effect.
pub(crate) fn fill(kind: Builtin, object: &mut Value) {
    match kind {
        Builtin::Namespace => namespace(object),
        Builtin::Pod => pod(object),
        Builtin::PersistentVolumeClaim => {
            object::set_default(object, &["spec", "volumeMode"], "Filesystem".into());
            object::set_default(object, &["status", "phase"], "Pending".into());
        }
        Builtin::PersistentVolume => {
            object::set_default(object, &["spec", "volumeMode"], "Filesystem".into());
            let policy = "Retain".into();
            object::set_default(object, &["spec", "persistentVolumeReclaimPolicy"], policy);
            if object["spec"]["hostPath"].is_object() {
                object::set_default(object, &["spec", "hostPath", "type"], "".into());
            }
        }
        Builtin::Service => service(object),
        Builtin::Secret => secret(object),
        Builtin::EndpointSlice => endpoint_slice(object),
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => binding(object),
        Builtin::StorageClass => {
            object::set_default(object, &["reclaimPolicy"], "Delete".into());
            object::set_default(object, &["volumeBindingMode"], "Immediate".into());
        }
        Builtin::Event => event(object),
        Builtin::ConfigMap
        | Builtin::ServiceAccount
        | Builtin::Node
        | Builtin::Lease
        | Builtin::PodDisruptionBudget
        | Builtin::Role
        | Builtin::ClusterRole
        | Builtin::CustomResourceDefinition => {}
    }
}

/// What admission and the rules of the kind add on every write.
pub(crate) fn admit(kind: Builtin, object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    match kind {
        Builtin::Pod => {
            object::set_default(spec, &["priority"], 0.into());
            object::set_default(spec, &["preemptionPolicy"], "PreemptLowerPriority".into());
            tolerations(spec);
        }
        Builtin::Service => families(spec),
        Builtin::Namespace
        | Builtin::PersistentVolumeClaim
        | Builtin::PersistentVolume
        | Builtin::Secret
        | Builtin::ConfigMap
        | Builtin::ServiceAccount
        | Builtin::Event
        | Builtin::Node
        | Builtin::Lease
        | Builtin::EndpointSlice
        | Builtin::PodDisruptionBudget
        | Builtin::Role
        | Builtin::RoleBinding
        | Builtin::ClusterRole
        | Builtin::ClusterRoleBinding
        | Builtin::StorageClass
        | Builtin::CustomResourceDefinition => {}
    }
}

/// IP families of a cluster that has IPv4 alone.
fn families(spec: &mut Value) {
    if spec["type"] == "ExternalName" {
        return;
    }
    let headless = spec["clusterIP"] == "None";
    let selects = spec["selector"].as_object().is_some_and(|selector| !selector.is_empty());
    // Nothing gives addresses to such a service, so it may have those of both families.
    if headless && !selects {
        object::set_default(spec, &["ipFamilyPolicy"], "RequireDualStack".into());
        let both = spec["ipFamilyPolicy"] != "SingleStack";
        let families = if both { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) };
        object::set_default(spec, &["ipFamilies"], families);
    }
    object::set_default(spec, &["ipFamilyPolicy"], "SingleStack".into());
    object::set_default(spec, &["ipFamilies"], json!(["IPv4"]));
    if headless {
        object::set_default(spec, &["clusterIPs"], json!(["None"]));
    }
}

/// Fields that Go writes for an Event though nobody has set them.
fn event(object: &mut Value) {
    for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        object::members(object).entry(field).or_insert(Value::Null);
    }
    for field in ["involvedObject", "source"] {
        object::set_default(object, &[field], json!({}));
    }
    for field in ["reportingComponent", "reportingInstance"] {
        object::set_default(object, &[field], "".into());
    }
}

/// Protects an object in use from its deletion.
fn protect(object: &mut Value, finalizer: &str) {
    let finalizers = object::metadata(object).entry("finalizers").or_insert(json!([]));
    if let Value::Array(list) = finalizers
        && !list.iter().any(|one| one == finalizer)
    {
        list.push(finalizer.into());
    }
}

/// When a volume came into its phase: now where a write of its status changed it and does not say.
pub(crate) fn date_phase(volume: &mut Value, old: &Value, now: &str) {
    const TIME: &str = "lastPhaseTransitionTime";
    let (before, given) = (old["status"][TIME].clone(), volume["status"][TIME].clone());
    if old["status"]["phase"] == volume["status"]["phase"] {
        if given.is_null() && !before.is_null() {
            object::set(volume, &["status", TIME], before);
        }
    } else if given.is_null() || given == before {
        object::set(volume, &["status", TIME], now.into());
    }
}

/// What a new object begins with, whatever the request says.
pub(crate) fn begin(kind: Builtin, object: &mut Value, now: &str) {
    match kind {
        Builtin::Pod => {
            let class = quality_of_service(object);
            let status = json!({"phase": "Pending", "qosClass": class});
            object::set(object, &["status"], status);
        }
        Builtin::PersistentVolumeClaim => {
            object::set(object, &["status"], json!({"phase": "Pending"}));
            protect(object, "kubernetes.io/pvc-protection");
        }
        Builtin::PersistentVolume => {
            let status = json!({"phase": "Pending", "lastPhaseTransitionTime": now});
            object::set(object, &["status"], status);
            protect(object, "kubernetes.io/pv-protection");
        }
        Builtin::Service => object::set(object, &["status"], json!({"loadBalancer": {}})),
        Builtin::Namespace => {
            object::set(object, &["status"], json!({"phase": "Active"}));
            let finalizers = object::strings(&object["spec"]["finalizers"]);
            if !finalizers.iter().any(|one| one == "kubernetes") {
                object::set(object, &["spec", "finalizers"], json!(["kubernetes"]));
            }
        }
        Builtin::PodDisruptionBudget => {
            let status = json!({"disruptionsAllowed": 0, "currentHealthy": 0,
                "desiredHealthy": 0, "expectedPods": 0});
            object::set(object, &["status"], status);
        }
        Builtin::Secret
        | Builtin::ConfigMap
        | Builtin::ServiceAccount
        | Builtin::Event
        | Builtin::Node
        | Builtin::Lease
        | Builtin::EndpointSlice
        | Builtin::Role
        | Builtin::RoleBinding
        | Builtin::ClusterRole
        | Builtin::ClusterRoleBinding
        | Builtin::StorageClass
        | Builtin::CustomResourceDefinition => {}
    }
}

fn namespace(object: &mut Value) {
    let name = object::name(object).to_owned();
    if !name.is_empty() {
        object::set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name.into());
    }
    object::set_default(object, &["status", "phase"], "Active".into());
}

fn secret(object: &mut Value) {
    object::set_default(object, &["type"], "Opaque".into());
    let Some(Value::Object(texts)) = object::remove(object::members(object), "stringData") else {
        return;
    };
    for (key, text) in texts {
        let encoded = base64(text.as_str().unwrap_or_default().as_bytes());
        object::set(object, &["data", &key], encoded.into());
    }
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for index in 0..4 {
            if index <= chunk.len() {
                let sextet = (bits >> (18 - 6 * index)) & 0x3f;
                text.push(char::from(ALPHABET[sextet as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn service(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    object::set_default(spec, &["type"], "ClusterIP".into());
    object::set_default(spec, &["sessionAffinity"], "None".into());
    object::set_default(spec, &["internalTrafficPolicy"], "Cluster".into());
    if spec["sessionAffinity"] == "ClientIP" {
        let path = ["sessionAffinityConfig", "clientIP", "timeoutSeconds"];
        object::set_default(spec, &path, 10_800.into());
    }
    for port in object::items_mut(spec, &["ports"]) {
        object::set_default(port, &["protocol"], "TCP".into());
        let number = port["port"].clone();
        object::set_default(port, &["targetPort"], number);
    }
}

fn endpoint_slice(object: &mut Value) {
    for endpoint in object::items_mut(object, &["endpoints"]) {
        object::set_default(endpoint, &["conditions"], json!({}));
    }
    for port in object::items_mut(object, &["ports"]) {
        object::set_default(port, &["name"], "".into());
        object::set_default(port, &["protocol"], "TCP".into());
    }
}

fn binding(object: &mut Value) {
    object::set_default(object, &["roleRef", "apiGroup"], "rbac.authorization.k8s.io".into());
    for subject in object::items_mut(object, &["subjects"]) {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            object::set_default(subject, &["apiGroup"], "rbac.authorization.k8s.io".into());
        }
    }
}

fn pod(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
    ] {
        object::set_default(spec, &[field], value);
    }
    let account = spec["serviceAccountName"].clone();
    if account.is_string() {
        object::set(spec, &["serviceAccount"], account);
    }
    for list in ["initContainers", "containers"] {
        object::items_mut(spec, &[list]).for_each(container);
    }
    object::items_mut(spec, &["volumes"]).for_each(volume);
}

/// Admission lets a pod stay for five minutes on a node that does not answer.
fn tolerations(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let list = object::members(spec).entry("tolerations").or_insert(json!([]));
        let Value::Array(list) = list else { continue };
        let tolerated = list.iter().any(|one| {
            (one["key"] == key || one["key"].is_null())
                && matches!(one["effect"].as_str(), None | Some("NoExecute"))
        });
        if !tolerated {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300}));
        }
    }
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let latest = !name.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
    let policy = if latest { "Always" } else { "IfNotPresent" };
    for (field, value) in [
        ("imagePullPolicy", json!(policy)),
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("resources", json!({})),
    ] {
        object::set_default(container, &[field], value);
    }
    for port in object::items_mut(container, &["ports"]) {
        object::set_default(port, &["protocol"], "TCP".into());
    }
    for variable in object::items_mut(container, &["env"]) {
        if variable["valueFrom"]["fieldRef"].is_object() {
            object::set_default(variable, &["valueFrom", "fieldRef", "apiVersion"], "v1".into());
        }
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get_mut(field).filter(|found| found.is_object()) {
            probe(found);
        }
    }
    let limits = container["resources"]["limits"].as_object().cloned().unwrap_or_default();
    for (resource, limit) in limits {
        object::set_default(container, &["resources", "requests", &resource], limit);
    }
}

fn probe(probe: &mut Value) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        object::set_default(probe, &[field], value.into());
    }
    if probe["httpGet"].is_object() {
        object::set_default(probe, &["httpGet", "path"], "/".into());
        object::set_default(probe, &["httpGet", "scheme"], "HTTP".into());
    }
    if probe["grpc"].is_object() {
        object::set_default(probe, &["grpc", "service"], "".into());
    }
}

fn volume(volume: &mut Value) {
    for kind in ["secret", "configMap", "projected", "downwardAPI"] {
        if volume[kind].is_object() {
            object::set_default(volume, &[kind, "defaultMode"], 420.into());
        }
    }
    if volume["hostPath"].is_object() {
        object::set_default(volume, &["hostPath", "type"], "".into());
    }
    for source in object::items_mut(volume, &["projected", "sources"]) {
        if source["serviceAccountToken"].is_object() {
            let path = ["serviceAccountToken", "expirationSeconds"];
            object::set_default(source, &path, 3600.into());
        }
        for item in object::items_mut(source, &["downwardAPI", "items"]) {
            if item["fieldRef"].is_object() {
                object::set_default(item, &["fieldRef", "apiVersion"], "v1".into());
            }
        }
    }
    if object::at(volume, &["ephemeral", "volumeClaimTemplate"]).is_object() {
        let path = ["ephemeral", "volumeClaimTemplate", "spec", "volumeMode"];
        object::set_default(volume, &path, "Filesystem".into());
    }
}

fn quality_of_service(pod: &Value) -> &'static str {
    let containers: Vec<&Value> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten())
        .collect();
    let asks = |container: &Value, kind: &str| {
        container["resources"][kind].as_object().is_some_and(|list| {
            list.keys().any(|resource| matches!(resource.as_str(), "cpu" | "memory"))
        })
    };
    if containers.iter().all(|one| !asks(one, "requests") && !asks(one, "limits")) {
        return "BestEffort";
    }
    let guaranteed = containers.iter().all(|one| {
        ["cpu", "memory"].iter().all(|resource| {
            let limit = &one["resources"]["limits"][*resource];
            !limit.is_null() && one["resources"]["requests"][*resource] == *limit
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut object = json!({"stringData": {"a": "x", "b": "hello", "c": ""}});
        fill(Builtin::Secret, &mut object);
        assert_eq!(object["data"], json!({"a": "eA==", "b": "aGVsbG8=", "c": ""}));
        assert_eq!(object["type"], "Opaque");
        assert!(object.get("stringData").is_none());
    }
}
