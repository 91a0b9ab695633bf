//! Server-side printing: objects as rows.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{ResourceType, builtin::Builtin, jsonpath, object, registry::Version};

/// How much of each object goes with its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Metadata.
    #[default]
    Metadata,
    /// Everything.
    Object,
    /// Nothing.
    None,
}

/// The Table of some objects; `headings` are left out in all events of a watch but the first.
#[must_use]
pub fn table(
    resource: &ResourceType,
    version: &Version,
    items: &[Value],
    include: IncludeObject,
    headings: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .map(|item| {
            let mut row = json!({"cells": cells(resource, version, item, now)});
            match include {
                IncludeObject::Metadata => row["object"] = partial(item),
                IncludeObject::Object => row["object"] = item.clone(),
                IncludeObject::None => {}
            }
            row
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": if headings { definitions(resource, version) } else { Value::Null },
        "rows": rows,
    })
}

/// The metadata of an object alone.
#[must_use]
pub fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// Events alone show their name last, and only to who asks for more columns.
fn is_event(resource: &ResourceType) -> bool {
    resource.builtin == Some(Builtin::Event)
}

fn definitions(resource: &ResourceType, version: &Version) -> Value {
    let name = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
    let mut list = Vec::new();
    if !is_event(resource) {
        list.push(json!({"name": "Name", "type": "string", "format": "name", "description": name, "priority": 0}));
    }
    list.extend(version.columns.iter().map(|column| {
        let description = if column.description.is_empty() && !column.path.is_empty() {
            format!("Custom resource definition column (in JSONPath format): {}", column.path)
        } else {
            column.description.clone()
        };
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": description,
            "priority": column.priority,
        })
    }));
    list.into()
}

fn cells(resource: &ResourceType, version: &Version, item: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = Vec::new();
    if !is_event(resource) {
        cells.push(object::name(item).into());
    }
    match resource.builtin {
        Some(kind) => cells.extend(builtin(kind, item, now)),
        None => cells.extend(
            version.columns.iter().map(|column| custom(&column.kind, &column.path, item, now)),
        ),
    }
    cells
}

fn custom(kind: &str, path: &str, item: &Value, now: Timestamp) -> Value {
    let found = jsonpath::find(item, path);
    let Some(first) = found.first() else { return Value::Null };
    match (kind, first) {
        ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
        ("date", Value::String(text)) => since(text, now).into(),
        ("string", _) => {
            let texts: Vec<String> = found
                .iter()
                .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
                .collect();
            texts.join(",").into()
        }
        _ => Value::Null,
    }
}

/// How long ago, as kubectl writes it.
fn since(text: &str, now: Timestamp) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => duration(now.as_second() - at.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// Seconds for people: two units at most, fewer the longer it is.
#[must_use]
pub fn duration(seconds: i64) -> String {
    let pair = |large: i64, large_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{large}{large_unit}")
        } else {
            format!("{large}{large_unit}{small}{small_unit}")
        }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn age(item: &Value, now: Timestamp) -> Value {
    match item["metadata"]["creationTimestamp"].as_str() {
        Some(text) => since(text, now).into(),
        None => "<unknown>".into(),
    }
}

fn text_or<'a>(value: &'a Value, other: &'a str) -> &'a str {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or(other)
}

fn count(value: &Value) -> Value {
    let size = value.as_object().map(serde_json::Map::len);
    size.or(value.as_array().map(Vec::len)).unwrap_or(0).into()
}

fn builtin(kind: Builtin, item: &Value, now: Timestamp) -> Vec<Value> {
    let age = age(item, now);
    match kind {
        Builtin::Pod => pod(item, age, now),
        Builtin::PersistentVolumeClaim => claim(item, age),
        Builtin::PersistentVolume => volume(item, age),
        Builtin::Service => service(item, age),
        Builtin::Event => event(item, now),
        Builtin::Node => node(item, age),
        Builtin::EndpointSlice => endpoint_slice(item, age),
        Builtin::PodDisruptionBudget => disruption_budget(item, age),
        Builtin::Namespace => vec![item["status"]["phase"].clone(), age],
        Builtin::Secret => vec![item["type"].clone(), count(&item["data"]), age],
        Builtin::ConfigMap => {
            let text = count(&item["data"]).as_u64().unwrap_or(0);
            let binary = count(&item["binaryData"]).as_u64().unwrap_or(0);
            vec![(text + binary).into(), age]
        }
        Builtin::ServiceAccount => vec![count(&item["secrets"]), age],
        Builtin::Lease => vec![text_or(&item["spec"]["holderIdentity"], "").into(), age],
        Builtin::Role | Builtin::ClusterRole | Builtin::CustomResourceDefinition => {
            vec![item["metadata"]["creationTimestamp"].clone()]
        }
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => {
            let role = &item["roleRef"];
            vec![
                format!("{}/{}", text_or(&role["kind"], ""), text_or(&role["name"], "")).into(),
                age,
            ]
        }
        Builtin::StorageClass => vec![item["provisioner"].clone(), age],
    }
}

/// What a pod is about, in a word: the most telling of phase and container states.
fn pod_state(pod: &Value) -> String {
    let status = &pod["status"];
    let mut state = text_or(&status["reason"], text_or(&status["phase"], "Unknown")).to_owned();
    let of = |one: &Value| {
        let waiting = text_or(&one["state"]["waiting"]["reason"], "").to_owned();
        let ended = &one["state"]["terminated"];
        if !waiting.is_empty() {
            Some(waiting)
        } else if ended.is_object() {
            Some(match text_or(&ended["reason"], "") {
                "" => format!("ExitCode:{}", ended["exitCode"]),
                reason => reason.to_owned(),
            })
        } else {
            None
        }
    };
    let initial = status["initContainerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let total = pod["spec"]["initContainers"].as_array().map_or(0, Vec::len);
    let unfinished = initial
        .iter()
        .position(|one| one["state"]["terminated"]["exitCode"] != 0 && one["started"] != true);
    if let Some(at) = unfinished {
        state = match of(&initial[at]) {
            Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{at}/{total}"),
        };
    } else {
        let mut containers = status["containerStatuses"].as_array().into_iter().flatten();
        if let Some(reason) = containers.find_map(of) {
            state = reason;
        }
    }
    if object::is_deleting(pod) { "Terminating".into() } else { state }
}

fn pod(pod: &Value, age: Value, now: Timestamp) -> Vec<Value> {
    let statuses =
        pod["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let total = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = statuses.iter().filter(|one| one["ready"] == true).count();
    let restarts: i64 = statuses.iter().filter_map(|one| one["restartCount"].as_i64()).sum();
    let last = statuses
        .iter()
        .filter_map(|one| one["lastState"]["terminated"]["finishedAt"].as_str())
        .max();
    let restarts = match last.filter(|_| restarts > 0) {
        Some(at) => format!("{restarts} ({} ago)", since(at, now)),
        None => restarts.to_string(),
    };
    vec![
        format!("{ready}/{total}").into(),
        pod_state(pod).into(),
        restarts.into(),
        age,
        text_or(&pod["status"]["podIP"], "<none>").into(),
        text_or(&pod["spec"]["nodeName"], "<none>").into(),
        text_or(&pod["status"]["nominatedNodeName"], "<none>").into(),
        "<none>".into(),
    ]
}

/// Access modes as kubectl abbreviates them.
fn access_modes(modes: &Value) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    object_list(modes).iter().map(short).collect::<Vec<_>>().join(",")
}

fn volume(volume: &Value, age: Value) -> Vec<Value> {
    let (spec, status) = (&volume["spec"], &volume["status"]);
    let phase =
        if object::is_deleting(volume) { "Terminating" } else { text_or(&status["phase"], "") };
    let claim = &spec["claimRef"];
    let claim = match (claim["namespace"].as_str(), claim["name"].as_str()) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (_, _) => String::new(),
    };
    vec![
        text_or(&spec["capacity"]["storage"], "").into(),
        access_modes(&spec["accessModes"]).into(),
        text_or(&spec["persistentVolumeReclaimPolicy"], "").into(),
        phase.into(),
        claim.into(),
        text_or(&spec["storageClassName"], "").into(),
        text_or(&spec["volumeAttributesClassName"], "<unset>").into(),
        text_or(&status["reason"], "").into(),
        age,
        text_or(&spec["volumeMode"], "<unset>").into(),
    ]
}

fn claim(claim: &Value, age: Value) -> Vec<Value> {
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let bound = !text_or(&spec["volumeName"], "").is_empty();
    let phase =
        if object::is_deleting(claim) { "Terminating" } else { text_or(&status["phase"], "") };
    let modes = access_modes(&status["accessModes"]);
    vec![
        phase.into(),
        text_or(&spec["volumeName"], "").into(),
        if bound { text_or(&status["capacity"]["storage"], "") } else { "" }.into(),
        if bound { modes } else { String::new() }.into(),
        text_or(&spec["storageClassName"], "").into(),
        text_or(&spec["volumeAttributesClassName"], "<unset>").into(),
        age,
        text_or(&spec["volumeMode"], "<unset>").into(),
    ]
}

fn object_list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn service(service: &Value, age: Value) -> Vec<Value> {
    let spec = &service["spec"];
    let ports: Vec<String> = object_list(&spec["ports"])
        .iter()
        .map(|port| {
            let node = port["nodePort"].as_i64().filter(|node| *node > 0);
            let node = node.map(|node| format!(":{node}")).unwrap_or_default();
            format!("{}{node}/{}", port["port"], text_or(&port["protocol"], "TCP"))
        })
        .collect();
    let selector: Vec<String> = spec["selector"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let external = object_list(&service["status"]["loadBalancer"]["ingress"])
        .iter()
        .map(|ingress| text_or(&ingress["ip"], text_or(&ingress["hostname"], "")))
        .collect::<Vec<_>>()
        .join(",");
    let external = match spec["type"].as_str() {
        Some("LoadBalancer") if external.is_empty() => "<pending>".to_owned(),
        Some("ExternalName") => text_or(&spec["externalName"], "<none>").to_owned(),
        _ if external.is_empty() => "<none>".to_owned(),
        _ => external,
    };
    let or_none =
        |list: Vec<String>| if list.is_empty() { "<none>".into() } else { list.join(",") };
    vec![
        spec["type"].clone(),
        text_or(&spec["clusterIP"], "<none>").into(),
        external.into(),
        or_none(ports).into(),
        age,
        or_none(selector).into(),
    ]
}

/// In the form of core/v1 or of events.k8s.io/v1.
fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let either = |core: &str, new: &str| match &event[core] {
        Value::Null => event[new].clone(),
        found => found.clone(),
    };
    let ago = |at: &Value| at.as_str().map(|at| since(at, now));
    let occurred = ago(&event["eventTime"]);
    let first = ago(&either("firstTimestamp", "deprecatedFirstTimestamp")).or(occurred);
    let last = ago(&event["series"]["lastObservedTime"])
        .or_else(|| ago(&either("lastTimestamp", "deprecatedLastTimestamp")))
        .or_else(|| first.clone());
    let unknown = || "<unknown>".to_owned();
    let count = event["series"]["count"]
        .as_i64()
        .or_else(|| either("count", "deprecatedCount").as_i64().filter(|count| *count != 0))
        .unwrap_or(1);
    let about = either("involvedObject", "regarding");
    let mut object = text_or(&about["kind"], "").to_lowercase();
    match text_or(&about["name"], "") {
        "" => {}
        name => object = format!("{object}/{name}"),
    }
    let message = either("message", "note");
    vec![
        last.unwrap_or_else(unknown).into(),
        event["type"].clone(),
        event["reason"].clone(),
        object.into(),
        text_or(&about["fieldPath"], "").into(),
        event_source(event).into(),
        text_or(&message, "").trim().into(),
        first.unwrap_or_else(unknown).into(),
        count.into(),
        object::name(event).into(),
    ]
}

/// Who said it: component and instance.
fn event_source(event: &Value) -> String {
    let source = if event["source"].is_object() { "source" } else { "deprecatedSource" };
    let controller =
        text_or(&event["reportingComponent"], text_or(&event["reportingController"], ""));
    let component = text_or(&event[source]["component"], controller);
    let instance = text_or(&event["reportingInstance"], "");
    match text_or(&event[source]["host"], instance) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    }
}

fn node(node: &Value, age: Value) -> Vec<Value> {
    let ready = object_list(&node["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Ready")
        .map(|condition| if condition["status"] == "True" { "Ready" } else { "NotReady" });
    let mut state = ready.unwrap_or("Unknown").to_owned();
    if node["spec"]["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    let roles: Vec<&str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let address = object_list(&node["status"]["addresses"])
        .iter()
        .find(|address| address["type"] == "InternalIP")
        .map_or("<none>", |address| text_or(&address["address"], "<none>"));
    vec![
        state.into(),
        if roles.is_empty() { "<none>".into() } else { roles.join(",").into() },
        age,
        text_or(&node["status"]["nodeInfo"]["kubeletVersion"], "").into(),
        address.into(),
    ]
}

fn endpoint_slice(slice: &Value, age: Value) -> Vec<Value> {
    let short = |list: Vec<String>| match list.len() {
        0 => "<unset>".to_owned(),
        1..=3 => list.join(","),
        more => format!("{} + {} more...", list[..3].join(","), more - 3),
    };
    let ports = object_list(&slice["ports"])
        .iter()
        .map(|port| match &port["port"] {
            Value::Null => "*".to_owned(),
            number => number.to_string(),
        })
        .collect();
    let addresses = object_list(&slice["endpoints"])
        .iter()
        .flat_map(|endpoint| object::strings(&endpoint["addresses"]))
        .collect();
    vec![slice["addressType"].clone(), short(ports).into(), short(addresses).into(), age]
}

fn disruption_budget(budget: &Value, age: Value) -> Vec<Value> {
    let shown = |value: &Value| match value {
        Value::Null => "N/A".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    vec![
        shown(&budget["spec"]["minAvailable"]).into(),
        shown(&budget["spec"]["maxUnavailable"]).into(),
        budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0).into(),
        age,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_kubectl_does() {
        for (seconds, text) in [
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (3600, "60m"),
            (4 * 3600 + 60, "4h1m"),
            (10 * 3600, "10h"),
            (3 * 86_400, "3d"),
            (3 * 86_400 + 3600, "3d1h"),
            (100 * 86_400, "100d"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
