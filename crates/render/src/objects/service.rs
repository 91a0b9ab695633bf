//! Services and the EndpointSlice of `-rw`.

use matriarch_api::annotations::Annotation;
use matriarch_api::cluster::{ManagedService, ServiceSelectorType};
use matriarch_api::labels::{self, Label};
use matriarch_api::names;
use serde_json::{Map, Value, json};

use crate::conform::conforms;
use crate::resolve::services;
use crate::setup::Owner;

fn service(owner: &Owner<'_>, name: &str, selector: Option<Map<String, Value>>) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(name),
        "spec": {
            "type": "ClusterIP",
            "ports": [{
                "name": "postgres",
                "port": names::POSTGRES_PORT,
                "targetPort": names::POSTGRES_PORT,
                "protocol": "TCP",
            }],
        },
    });
    if let Some(selector) = selector {
        service["spec"]["selector"] = Value::Object(selector);
    }
    service
}

/// `-rw`: no selector. Its one EndpointSlice belongs to the holder of the Lease, because a single
/// write reaches clients in 30 ms where two label changes cost 1.2 s (traps H1).
pub fn read_write(owner: &Owner<'_>) -> Value {
    service(owner, &names::service_rw(owner.name()), None)
}

/// `-ro`: standbys.
pub fn read_only(owner: &Owner<'_>) -> Value {
    service(owner, &names::service_ro(owner.name()), Some(standbys(owner)))
}

fn standbys(owner: &Owner<'_>) -> Map<String, Value> {
    let mut selector = owner.pod_selector();
    selector.insert(owner.label(Label::InstanceRole), json!(labels::ROLE_REPLICA));
    selector
}

/// `-r`: every instance.
pub fn read(owner: &Owner<'_>) -> Value {
    service(owner, &names::service_r(owner.name()), Some(owner.pod_selector()))
}

/// `-primary`: the primary by label, for `kubectl port-forward` and people.
pub fn primary(owner: &Owner<'_>) -> Value {
    let mut selector = owner.pod_selector();
    selector.insert(owner.label(Label::InstanceRole), json!(labels::ROLE_PRIMARY));
    service(owner, &names::service_primary(owner.name()), Some(selector))
}

/// The EndpointSlice of `-rw`, made empty: endpoints and ports are the holder's and never in here.
pub fn endpoints(owner: &Owner<'_>) -> Value {
    slice(owner, &names::endpoint_slice_rw(owner.name()), &names::service_rw(owner.name()))
}

fn slice(owner: &Owner<'_>, name: &str, service: &str) -> Value {
    let mut metadata = owner.metadata(name);
    metadata["labels"][labels::SERVICE_NAME] = json!(service);
    metadata["labels"][labels::ENDPOINT_SLICE_MANAGED_BY] =
        json!(owner.setup.identity.managed_by());
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
    })
}

/// A Service of the user's. The hash over it tells whether the template has changed: what others
/// add or fill in (load balancers do) is theirs.
pub fn managed(owner: &Owner<'_>, name: &str, wished: &ManagedService) -> Value {
    let template = wished.service_template.clone().unwrap_or_default();
    let mut spec = json!(template.spec.unwrap_or_default());
    if spec.get("type").is_none() {
        spec["type"] = json!("ClusterIP");
    }
    spec["ports"] = json!(services::ports(wished));
    match wished.selector_type {
        Some(ServiceSelectorType::R) => spec["selector"] = json!(owner.pod_selector()),
        Some(ServiceSelectorType::Ro) => spec["selector"] = json!(standbys(owner)),
        Some(ServiceSelectorType::Rw) | None => {}
    }
    let written = template.metadata.unwrap_or_default();
    let mut metadata = owner.metadata(name);
    for (kind, entries) in [("labels", written.labels), ("annotations", written.annotations)] {
        for (key, value) in entries {
            // By our labels the operator finds what it has made.
            if metadata[kind][&key].is_null() {
                metadata[kind][key] = json!(value);
            }
        }
    }
    metadata["labels"][owner.label(Label::IsManaged)] = json!(labels::TRUE);
    let hash = crate::stamp::hash(&json!([metadata, spec]).to_string());
    metadata["annotations"][owner.annotation(Annotation::Hash)] = json!(hash);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// Is a Service of the user's as the template says, as far as it decides who is reached.
pub fn managed_conforms(wanted: &Value, live: &Value) -> bool {
    let mut spec = json!({"ports": wanted["spec"]["ports"]});
    // One that somebody has added to a Service without cannot be taken away by an apply.
    if let Some(selector) = wanted["spec"].get("selector") {
        spec["selector"] = selector.clone();
    }
    conforms(&json!({"metadata": wanted["metadata"], "spec": spec}), live)
}

/// The EndpointSlice of a Service of the user's that leads to the holder, made empty.
pub fn managed_endpoints(owner: &Owner<'_>, name: &str) -> Value {
    let mut slice = slice(owner, name, name);
    slice["metadata"]["labels"][owner.label(Label::IsManaged)] = json!(labels::TRUE);
    slice
}
