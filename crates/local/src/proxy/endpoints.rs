//! EndpointSlices of Services with a selector, as kube-controller-manager makes them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use matriarch_api::causes::chain;
use serde_json::{Value, json};

use crate::kubelet::NODE_NAME;
use crate::mirror::Mirror;

const MANAGER: &str = "endpointslice-controller.k8s.io";

/// Keeps the slices true until it is aborted.
pub async fn run(client: kube::Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let services: Api<Service> = Api::all(client.clone());
    let mut pod_events = watcher::watcher(pods, watcher::Config::default()).boxed();
    let mut service_events = watcher::watcher(services, watcher::Config::default()).boxed();
    let mut again = tokio::time::interval(Duration::from_secs(30));
    let (mut pods, mut services) = (Mirror::default(), Mirror::default());
    let mut written: BTreeMap<String, Value> = BTreeMap::new();
    loop {
        let failed = tokio::select! {
            event = pod_events.next() => match event {
                Some(Ok(event)) => { pods.take(event); None }
                Some(Err(error)) => Some(error),
                None => return,
            },
            event = service_events.next() => match event {
                Some(Ok(event)) => { services.take(event); None }
                Some(Err(error)) => Some(error),
                None => return,
            },
            // A slice that somebody deleted comes back.
            _ = again.tick() => { written.clear(); None }
        };
        if let Some(error) = failed {
            tracing::warn!(error = chain(&error), "watching failed");
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        let (Some(pods), Some(services)) = (pods.objects(), services.objects()) else { continue };
        for (key, service) in services {
            let Some(slice) = slice_of(service, pods) else { continue };
            if written.get(key) != Some(&slice) && write(&client, service, &slice).await {
                written.insert(key.clone(), slice);
            }
        }
        written.retain(|key, _| services.contains_key(key));
    }
}

async fn write(client: &kube::Client, service: &Service, slice: &Value) -> bool {
    let namespace = service.namespace().unwrap_or_default();
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace);
    let name = slice_name(service);
    let parameters = PatchParams::apply(MANAGER).force();
    match api.patch(&name, &parameters, &Patch::Apply(slice)).await {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(slice = name, error = chain(&error), "cannot write");
            false
        }
    }
}

fn slice_name(service: &Service) -> String {
    format!("{}-local", service.name_any())
}

fn slice_of(service: &Service, pods: &BTreeMap<String, Pod>) -> Option<Value> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    if service.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    let chosen: Vec<&Pod> = pods
        .values()
        .filter(|pod| {
            pod.namespace() == service.namespace()
                && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
        })
        .collect();
    let endpoints: Vec<Value> =
        chosen.iter().filter_map(|pod| endpoint(pod, publish_all)).collect();
    let ports: Vec<Value> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let number = match &port.target_port {
                Some(IntOrString::Int(number)) => *number,
                Some(IntOrString::String(name)) => named_port(&chosen, name)?,
                None => port.port,
            };
            Some(json!({"name": port.name.as_deref().unwrap_or_default(), "port": number, "protocol": "TCP"}))
        })
        .collect();
    Some(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(service),
            "namespace": service.namespace(),
            "labels": {
                "kubernetes.io/service-name": service.name_any(),
                "endpointslice.kubernetes.io/managed-by": MANAGER,
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": service.name_any(),
                "uid": service.uid(), "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    }))
}

fn named_port(pods: &[&Pod], name: &str) -> Option<i32> {
    pods.iter()
        .filter_map(|pod| pod.spec.as_ref())
        .flat_map(|spec| &spec.containers)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(name))
        .map(|port| port.container_port)
}

fn endpoint(pod: &Pod, publish_all: bool) -> Option<Value> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let address = status.pod_ip.as_deref()?;
    let is_ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Some(json!({
        "addresses": [address],
        "conditions": {
            "ready": publish_all || (is_ready && !terminating),
            "serving": is_ready,
            "terminating": terminating,
        },
        "nodeName": NODE_NAME,
        "targetRef": {
            "kind": "Pod", "name": pod.name_any(), "namespace": pod.namespace(), "uid": pod.uid(),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, role: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"role": role}},
            "status": {
                "podIP": "127.9.1.1",
                "conditions": [{"type": "Ready", "status": ready}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn selected_pods_are_endpoints_and_only_ready_ones_are_ready() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "c-ro", "namespace": "default"},
            "spec": {"selector": {"role": "replica"}, "ports": [{"port": 5432}]},
        }))
        .unwrap();
        let pods: BTreeMap<String, Pod> = [
            ("a", pod("a", "replica", "True")),
            ("b", pod("b", "replica", "False")),
            ("c", pod("c", "primary", "True")),
        ]
        .into_iter()
        .map(|(key, pod)| (key.to_owned(), pod))
        .collect();
        let slice = slice_of(&service, &pods).unwrap();
        let ready: Vec<_> = slice["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["targetRef"]["name"].clone(), e["conditions"]["ready"].clone()))
            .collect();
        assert_eq!(ready, [(json!("a"), json!(true)), (json!("b"), json!(false))]);
        assert_eq!(slice["ports"][0]["port"], 5432);
        let mut without = service;
        without.spec.as_mut().unwrap().selector = None;
        assert!(slice_of(&without, &pods).is_none());
    }
}
