//! What kube-controller-manager and a provisioner of volumes do on a real cluster, as far as
//! Matriarch needs it. EndpointSlices are made beside the proxy; owner deletion is the store's.

mod disruption;
mod namespaces;
mod volumes;

use std::sync::Arc;

use tokio::task::JoinSet;

pub use self::namespaces::make_first as make_first_namespaces;
use crate::kubelet::Shared;

/// Runs all of them until the set is dropped.
#[must_use]
pub fn start(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut controllers = JoinSet::new();
    controllers.spawn(crate::proxy::endpoints::run(shared.client.clone()));
    controllers.spawn(namespaces::run(shared.client.clone(), shared.ca_certificate.clone()));
    controllers.spawn(volumes::run(shared.clone()));
    controllers.spawn(disruption::run(shared.client.clone()));
    controllers
}
