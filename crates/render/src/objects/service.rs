//! Services and the EndpointSlice of `-rw`.

use matriarch_api::labels::{self, Label};
use matriarch_api::names;
use serde_json::{Map, Value, json};

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
    let mut selector = owner.pod_selector();
    selector.insert(owner.label(Label::InstanceRole), json!(labels::ROLE_REPLICA));
    service(owner, &names::service_ro(owner.name()), Some(selector))
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
    let name = names::endpoint_slice_rw(owner.name());
    let mut metadata = owner.metadata(&name);
    metadata["labels"][labels::SERVICE_NAME] = json!(names::service_rw(owner.name()));
    metadata["labels"][labels::ENDPOINT_SLICE_MANAGED_BY] =
        json!(owner.setup.identity.managed_by());
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
    })
}
