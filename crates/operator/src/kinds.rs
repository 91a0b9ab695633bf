//! The kinds that a pass touches, and how one object of them is written and read as JSON.

use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use matriarch_plan::world::{Object, ServicePart};

/// The API's name of the kind of an object without state.
pub fn resource(object: Object) -> ApiResource {
    let (group, version, kind, plural) = match object {
        Object::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
        Object::Role => ("rbac.authorization.k8s.io", "v1", "Role", "roles"),
        Object::RoleBinding => ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
        Object::Passwd => ("", "v1", "ConfigMap", "configmaps"),
        Object::ServiceReadWrite
        | Object::ServiceReadOnly
        | Object::ServiceRead
        | Object::ServicePrimary => ("", "v1", "Service", "services"),
        Object::EndpointsReadWrite => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        Object::DisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// The kind of a part of a Service of the user's.
pub fn service_part(part: ServicePart) -> ApiResource {
    resource(match part {
        ServicePart::Service => Object::ServiceReadWrite,
        ServicePart::Endpoints => Object::EndpointsReadWrite,
    })
}

/// Objects of a kind in a namespace, as JSON.
pub fn api(client: &Client, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, resource)
}

/// The resource of kinds that Kubernetes has of itself.
pub fn builtin(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}
