//! Actions to objects: one file per kind. Every function returns the JSON that is applied; what is
//! not in it belongs to somebody else (the role label of pods, the endpoints of `-rw`).

use matriarch_plan::world::{Object, ServicePart};
use serde_json::Value;

use crate::resolve::{Resolved, services};
use crate::setup::Owner;

pub mod claim;
pub mod disruption_budget;
pub mod instance;
pub mod lease;
pub mod pod;
pub mod rbac;
pub mod secret;
pub mod service;

/// The object without state as it should be.
pub fn stateless(
    owner: &Owner<'_>,
    resolved: &Resolved,
    object: Object,
    members: &[String],
) -> Value {
    match object {
        Object::ServiceAccount => rbac::service_account(owner),
        Object::Role => rbac::role(owner, resolved, members),
        Object::RoleBinding => rbac::role_binding(owner, resolved),
        Object::Passwd => pod::passwd(owner, resolved),
        Object::ServiceReadWrite => service::read_write(owner),
        Object::ServiceReadOnly => service::read_only(owner),
        Object::ServiceRead => service::read(owner),
        Object::ServicePrimary => service::primary(owner),
        Object::EndpointsReadWrite => service::endpoints(owner),
        Object::DisruptionBudget => disruption_budget::all(owner),
    }
}

/// A part of a Service of the user's as it should be, if the spec asks for it.
pub fn managed_service(owner: &Owner<'_>, name: &str, part: ServicePart) -> Option<Value> {
    let wished = services::additional(&owner.cluster.spec).remove(name)?;
    match part {
        ServicePart::Service => Some(service::managed(owner, name, &wished)),
        ServicePart::Endpoints => {
            services::leads_to_holder(&wished).then(|| service::managed_endpoints(owner, name))
        }
    }
}

/// Names of the Services of the user's that the spec asks for.
pub fn managed_service_names(owner: &Owner<'_>) -> Vec<String> {
    services::additional(&owner.cluster.spec).into_keys().collect()
}
