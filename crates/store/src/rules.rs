//! The rules of the built-in kinds that Matriarch relies on: required fields, and what may not
//! change once it is set.

use serde_json::Value;

use crate::{Cause, builtin::Builtin, object};

/// Every broken rule of an object of a kind.
pub(crate) fn check(kind: Builtin, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = match kind {
        Builtin::Pod => pod(object),
        Builtin::PersistentVolumeClaim => claim(object),
        Builtin::Service => service(object),
        Builtin::Secret => secret(object),
        Builtin::ConfigMap => data_keys(object),
        Builtin::Lease => lease(object),
        Builtin::EndpointSlice => endpoint_slice(object),
        Builtin::PodDisruptionBudget => disruption_budget(object),
        Builtin::Event => event(object),
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => binding(object),
        Builtin::CustomResourceDefinition => crate::definition::check(object),
        Builtin::Namespace
        | Builtin::ServiceAccount
        | Builtin::Node
        | Builtin::PersistentVolume
        | Builtin::Role
        | Builtin::ClusterRole
        | Builtin::StorageClass => Vec::new(),
    };
    if let Some(old) = old {
        causes.extend(check_change(kind, object, old));
    }
    causes
}

fn check_change(kind: Builtin, object: &Value, old: &Value) -> Vec<Cause> {
    match kind {
        Builtin::Pod => pod_change(object, old),
        Builtin::PersistentVolumeClaim => claim_change(object, old),
        Builtin::Secret => {
            let mut causes = immutable(object, old, "type");
            causes.extend(frozen_data(object, old));
            causes
        }
        Builtin::ConfigMap => frozen_data(object, old),
        Builtin::Service => service_change(object, old),
        Builtin::EndpointSlice => immutable(object, old, "addressType"),
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => {
            if object["roleRef"] == old["roleRef"] {
                return Vec::new();
            }
            vec![Cause::invalid("roleRef", &object["roleRef"].to_string(), "cannot change roleRef")]
        }
        Builtin::StorageClass => {
            ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"]
                .iter()
                .filter(|field| object.get(**field) != old.get(**field))
                .map(|field| {
                    Cause::forbidden(*field, &format!("updates to {field} are forbidden."))
                })
                .collect()
        }
        Builtin::Namespace
        | Builtin::ServiceAccount
        | Builtin::Event
        | Builtin::Node
        | Builtin::PersistentVolume
        | Builtin::Lease
        | Builtin::PodDisruptionBudget
        | Builtin::Role
        | Builtin::ClusterRole
        | Builtin::CustomResourceDefinition => Vec::new(),
    }
}

fn immutable(object: &Value, old: &Value, field: &str) -> Vec<Cause> {
    if object[field] == old[field] {
        return Vec::new();
    }
    vec![Cause::invalid(field, &object[field].to_string(), "field is immutable")]
}

/// `immutable: true` freezes Secrets and ConfigMaps.
fn frozen_data(object: &Value, old: &Value) -> Vec<Cause> {
    if old["immutable"] != true {
        return Vec::new();
    }
    let forbid =
        |field: &str| Cause::forbidden(field, "field is immutable when `immutable` is set");
    let mut causes = Vec::new();
    if object["immutable"] != true {
        causes.push(forbid("immutable"));
    }
    for field in ["data", "binaryData"] {
        if object.get(field) != old.get(field) {
            causes.push(forbid(field));
        }
    }
    causes
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn pod(pod: &Value) -> Vec<Cause> {
    let spec = &pod["spec"];
    let mut causes = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.containers", ""));
    }
    let volumes: Vec<&str> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["name"].as_str())
        .collect();
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("spec.{list}[{index}]");
            for field in ["name", "image"] {
                if !is_text(&container[field]) {
                    causes.push(Cause::required(format!("{path}.{field}"), ""));
                }
            }
            let name = container["name"].as_str().unwrap_or_default();
            if !name.is_empty() && names.contains(&name) {
                causes.push(Cause::duplicate(format!("{path}.name"), &format!("{name:?}")));
            }
            names.push(name);
            let mounts = container["volumeMounts"].as_array().into_iter().flatten();
            for (at, mount) in mounts.enumerate() {
                let volume = mount["name"].as_str().unwrap_or_default();
                if !volumes.contains(&volume) {
                    causes.push(Cause {
                        reason: "FieldValueNotFound",
                        field: format!("{path}.volumeMounts[{at}].name"),
                        message: format!("Not found: {volume:?}"),
                    });
                }
            }
        }
    }
    causes
}

/// A pod's spec with everything in it that may change taken out.
fn fixed_part(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for list in ["containers", "initContainers"] {
        for container in object::items_mut(&mut spec, &[list]) {
            object::remove(object::members(container), "image");
        }
    }
    let members = object::members(&mut spec);
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        object::remove(members, field);
    }
    spec
}

fn pod_change(pod: &Value, old: &Value) -> Vec<Cause> {
    if fixed_part(pod) == fixed_part(old) {
        return Vec::new();
    }
    vec![Cause::forbidden(
        "spec",
        "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
    )]
}

fn claim(claim: &Value) -> Vec<Cause> {
    let spec = &claim["spec"];
    let mut causes = Vec::new();
    if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
    }
    if spec["resources"]["requests"]["storage"].is_null() {
        causes.push(Cause::required("spec.resources[storage]", ""));
    }
    causes
}

fn claim_change(claim: &Value, old: &Value) -> Vec<Cause> {
    let fixed = |claim: &Value| {
        let mut spec = claim["spec"].clone();
        let members = object::members(&mut spec);
        for field in ["resources", "volumeAttributesClassName"] {
            object::remove(members, field);
        }
        // Binding names the volume once.
        if !is_text(&old["spec"]["volumeName"]) {
            object::remove(members, "volumeName");
        }
        // A class that was left open is filled in once (RetroactiveDefaultStorageClass).
        if old["spec"]["storageClassName"].is_null() {
            object::remove(members, "storageClassName");
        }
        spec
    };
    let resized = claim["spec"]["resources"] != old["spec"]["resources"];
    if fixed(claim) != fixed(old) || resized && old["status"]["phase"] != "Bound" {
        return vec![Cause::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        )];
    }
    Vec::new()
}

fn data_keys(object: &Value) -> Vec<Cause> {
    let keys = ["data", "binaryData"].into_iter().flat_map(|field| {
        object[field].as_object().into_iter().flatten().map(move |(key, _)| (field, key))
    });
    keys.filter(|(_, key)| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        key.is_empty() || key.len() > 253 || !key.chars().all(allowed) || matches!(key.as_str(), "." | "..")
    })
    .map(|(field, key)| {
        Cause::invalid(
            format!("{field}[{key}]"),
            &format!("{key:?}"),
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        )
    })
    .collect()
}

fn secret(secret: &Value) -> Vec<Cause> {
    let mut causes = data_keys(secret);
    let required: &[&str] = match secret["type"].as_str() {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        if secret["data"].get(*key).is_none() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
    if secret["type"] == "kubernetes.io/basic-auth"
        && secret["data"].get("username").is_none()
        && secret["data"].get("password").is_none()
    {
        causes.push(Cause::required("data[username]", ""));
        causes.push(Cause::required("data[password]", ""));
    }
    causes
}

fn service(service: &Value) -> Vec<Cause> {
    let spec = &service["spec"];
    let mut causes = Vec::new();
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let headless = spec["clusterIP"] == "None";
    if ports.is_empty() && !headless && spec["type"] != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        if ports.len() > 1 && !is_text(&port["name"]) {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65_535).contains(&number) {
            causes.push(Cause::invalid(
                format!("spec.ports[{index}].port"),
                &number.to_string(),
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let kind = spec["type"].as_str().unwrap_or_default();
    if !types.contains(&kind) {
        causes.push(Cause::unsupported(
            "spec.type",
            &format!("{kind:?}"),
            &types.map(str::to_owned),
        ));
    }
    causes
}

fn service_change(service: &Value, old: &Value) -> Vec<Cause> {
    let (new, before) = (&service["spec"], &old["spec"]);
    let external = new["type"] == "ExternalName" || before["type"] == "ExternalName";
    if external || !is_text(&before["clusterIP"]) || new["clusterIP"] == before["clusterIP"] {
        return Vec::new();
    }
    let shown = format!("[]string{{{:?}}}", new["clusterIP"].as_str().unwrap_or_default());
    vec![Cause::invalid("spec.clusterIPs[0]", &shown, "may not change once set")]
}

fn lease(lease: &Value) -> Vec<Cause> {
    let spec = &lease["spec"];
    let mut causes = Vec::new();
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64()
        && seconds <= 0
    {
        let detail = "must be greater than 0";
        causes.push(Cause::invalid("spec.leaseDurationSeconds", &seconds.to_string(), detail));
    }
    if let Some(transitions) = spec["leaseTransitions"].as_i64()
        && transitions < 0
    {
        let detail = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.leaseTransitions", &transitions.to_string(), detail));
    }
    causes
}

fn endpoint_slice(slice: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kinds = ["FQDN", "IPv4", "IPv6"];
    match slice["addressType"].as_str() {
        None | Some("") => causes.push(Cause::required("addressType", "")),
        Some(kind) if !kinds.contains(&kind) => {
            causes.push(Cause::unsupported(
                "addressType",
                &format!("{kind:?}"),
                &kinds.map(str::to_owned),
            ));
        }
        Some(_) => {}
    }
    for (index, endpoint) in slice["endpoints"].as_array().into_iter().flatten().enumerate() {
        if endpoint["addresses"].as_array().is_none_or(Vec::is_empty) {
            let detail = "must contain at least 1 address";
            causes.push(Cause::required(format!("endpoints[{index}].addresses"), detail));
        }
    }
    causes
}

fn disruption_budget(budget: &Value) -> Vec<Cause> {
    let spec = &budget["spec"];
    if spec["minAvailable"].is_null() || spec["maxUnavailable"].is_null() {
        return Vec::new();
    }
    vec![Cause::invalid(
        "spec",
        &spec.to_string(),
        "minAvailable and maxUnavailable cannot be both set",
    )]
}

fn event(event: &Value) -> Vec<Cause> {
    let involved = event["involvedObject"]["namespace"].as_str().unwrap_or_default();
    let own = object::namespace(event);
    let fits = involved == own || involved.is_empty() && own == "default";
    if fits {
        return Vec::new();
    }
    vec![Cause::invalid(
        "involvedObject.namespace",
        &format!("{involved:?}"),
        "does not match event.namespace",
    )]
}

fn binding(binding: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !is_text(&binding["roleRef"]["name"]) {
        causes.push(Cause::required("roleRef.name", ""));
    }
    let kinds = ["ClusterRole", "Role"];
    let kind = binding["roleRef"]["kind"].as_str().unwrap_or_default();
    if !kinds.contains(&kind) {
        causes.push(Cause::unsupported(
            "roleRef.kind",
            &format!("{kind:?}"),
            &kinds.map(str::to_owned),
        ));
    }
    causes
}
