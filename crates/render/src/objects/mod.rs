//! Actions to objects: one file per kind. Every function returns the JSON that is applied; what is
//! not in it belongs to somebody else (the role label of pods, the endpoints of `-rw`).

use matriarch_plan::world::Object;
use serde_json::Value;

use crate::resolve::Resolved;
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
