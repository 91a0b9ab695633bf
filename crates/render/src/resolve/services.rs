//! `spec.managed.services`: which of the Services that every cluster has are not made, and which
//! more are.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use matriarch_api::cluster::{
    ClusterSpec, ManagedService, ManagedServices, ServiceSelectorType, ServiceUpdateStrategy,
};
use matriarch_api::instance::{AdditionalEndpoints, EndpointPort};
use matriarch_api::names;
use matriarch_plan::spec::{ServiceUpdate, ServiceWish};
use matriarch_plan::world::Object;

use super::Findings;
use crate::setup::Owner;

/// Names of the ports of a pod, as a Service may name them.
const PORTS: [(&str, u16); 3] = [
    (POSTGRES_PORT_NAME, names::POSTGRES_PORT),
    ("status", names::AGENT_PORT),
    ("metrics", names::METRICS_PORT),
];

/// Name of PostgreSQL's port of a pod.
const POSTGRES_PORT_NAME: &str = "postgresql";

fn written(user: &ClusterSpec) -> ManagedServices {
    user.managed.as_ref().and_then(|managed| managed.services.clone()).unwrap_or_default()
}

/// The Services of the user's, by name.
pub(crate) fn additional(user: &ClusterSpec) -> BTreeMap<String, ManagedService> {
    let named = |service: ManagedService| {
        let template = service.service_template.as_ref()?;
        Some((template.metadata.as_ref()?.name.clone()?, service))
    };
    written(user).additional.into_iter().filter_map(named).collect()
}

/// What the planner is to keep.
pub(super) fn wishes(user: &ClusterSpec) -> BTreeMap<String, ServiceWish> {
    let wish = |service: ManagedService| ServiceWish {
        read_write: leads_to_holder(&service),
        update: match service.update_strategy {
            Some(ServiceUpdateStrategy::Replace) => ServiceUpdate::Replace,
            Some(ServiceUpdateStrategy::Patch) | None => ServiceUpdate::Patch,
        },
    };
    additional(user).into_iter().map(|(name, service)| (name, wish(service))).collect()
}

/// It has no selector but an EndpointSlice that the holder of the Lease writes.
pub(crate) fn leads_to_holder(service: &ManagedService) -> bool {
    match service.selector_type {
        Some(ServiceSelectorType::Rw) | None => true,
        Some(ServiceSelectorType::R | ServiceSelectorType::Ro) => false,
    }
}

/// Services of every cluster that this one is not to have.
pub(super) fn disabled(user: &ClusterSpec) -> Vec<Object> {
    let object = |disabled: ServiceSelectorType| match disabled {
        ServiceSelectorType::R => Some(Object::ServiceRead),
        ServiceSelectorType::Ro => Some(Object::ServiceReadOnly),
        ServiceSelectorType::Rw => None,
    };
    written(user).disabled_default_services.into_iter().filter_map(object).collect()
}

/// EndpointSlices that the holder points to itself, beside that of `-rw`.
pub(super) fn endpoints(user: &ClusterSpec) -> Vec<AdditionalEndpoints> {
    let of = |(name, service): (String, ManagedService)| {
        leads_to_holder(&service).then(|| AdditionalEndpoints {
            name,
            ports: ports(&service)
                .iter()
                .filter_map(|port| {
                    let name = port.name.clone().unwrap_or_default();
                    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                    Some(EndpointPort { name, port: target(port)?, protocol })
                })
                .collect(),
        })
    };
    additional(user).into_iter().filter_map(of).collect()
}

/// The ports of a Service of the user's: PostgreSQL's beside those that are written, unless one of
/// them leads there.
pub(crate) fn ports(service: &ManagedService) -> Vec<ServicePort> {
    let spec = service.service_template.as_ref().and_then(|template| template.spec.as_ref());
    let mut ports = spec.and_then(|spec| spec.ports.clone()).unwrap_or_default();
    if !ports.iter().any(|port| target(port) == Some(names::POSTGRES_PORT)) {
        ports.push(ServicePort {
            name: Some("postgres".to_owned()),
            port: i32::from(names::POSTGRES_PORT),
            target_port: Some(IntOrString::Int(i32::from(names::POSTGRES_PORT))),
            protocol: Some("TCP".to_owned()),
            ..ServicePort::default()
        });
    }
    ports
}

/// Where a port of a Service leads to in a pod.
fn target(port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(0)) => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => {
            PORTS.iter().find(|(known, _)| known == name).map(|(_, port)| *port)
        }
    }
}

/// Every Service of the user's has a name of its own, no selector, and ports that pods have.
pub(super) fn check(owner: &Owner<'_>, findings: &mut Findings) {
    let services = written(&owner.cluster.spec);
    if services.disabled_default_services.contains(&ServiceSelectorType::Rw) {
        findings.add(
            "spec.managed.services.disabledDefaultServices",
            "the Service -rw is how clients find the primary; r and ro can be disabled",
        );
    }
    let mut taken: BTreeSet<String> =
        names::Service::ALL.into_iter().map(|service| service.of(owner.name())).collect();
    for (index, service) in services.additional.iter().enumerate() {
        let path = format!("spec.managed.services.additional[{index}].serviceTemplate");
        let template = service.service_template.clone().unwrap_or_default();
        match template.metadata.and_then(|metadata| metadata.name).filter(|name| !name.is_empty()) {
            None => findings.add(&format!("{path}.metadata.name"), "a Service needs a name"),
            Some(name) if !taken.insert(name.clone()) => findings.add(
                &format!("{path}.metadata.name"),
                format!("{name} is another Service of this cluster; choose another name"),
            ),
            Some(_) => {}
        }
        let spec = template.spec.unwrap_or_default();
        if spec.selector.is_some_and(|selector| !selector.is_empty()) {
            findings.add(
                &format!("{path}.spec.selector"),
                "selectorType says which instances it leads to; remove the selector",
            );
        }
        for port in spec.ports.iter().flatten().filter(|port| target(port).is_none()) {
            findings.add(
                &format!("{path}.spec.ports"),
                format!(
                    "no port of a pod is called {:?}; there are {POSTGRES_PORT_NAME}, status and metrics",
                    port.target_port
                ),
            );
        }
    }
}
