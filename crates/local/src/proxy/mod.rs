//! Services: each has an address of 127.0.0.0/8 and listens there for its endpoints; the writers'
//! Service of every cluster also has a port of 127.0.0.1 that people can remember.
//!
//! It must not flatter (traps L4): one TCP connection is one endpoint, chosen when it is made and
//! closed when the endpoint leaves; nothing is buffered and nothing is tried again.

pub mod endpoints;
mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use matriarch_api::causes::chain;
use tokio::net::TcpListener;
use tokio::time::Instant;

use self::relay::{Endpoints, Relay};
use crate::layout::write_file;
use crate::mirror::Mirror;

/// Annotation of a Service with its address on 127.0.0.1.
pub const HOST_ADDRESS: &str = "local.matriarch.dev/address";

/// How changes of endpoints come into force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    #[default]
    Immediate,
    /// Like kube-proxy: a second passes after each change before the next (traps H1).
    KubeProxy,
}

const KUBE_PROXY_WAIT: Duration = Duration::from_secs(1);

/// What the proxy works with.
pub struct Options {
    /// The API server.
    pub client: kube::Client,
    /// File that remembers the ports of 127.0.0.1.
    pub ports_file: PathBuf,
    /// First port of 127.0.0.1 to try.
    pub first_port: u16,
    /// How changes come into force.
    pub pace: Pace,
}

struct Proxy {
    options: Options,
    services: Mirror<Service>,
    slices: Mirror<EndpointSlice>,
    relays: BTreeMap<(String, SocketAddr), Relay>,
    host_relays: BTreeMap<String, (u16, Relay)>,
    ports: BTreeMap<String, u16>,
}

/// Serves all Services until it is aborted.
pub async fn run(options: Options) {
    let slices: Api<EndpointSlice> = Api::all(options.client.clone());
    let services: Api<Service> = Api::all(options.client.clone());
    let mut service_events = watcher::watcher(services, watcher::Config::default()).boxed();
    let mut slice_events = watcher::watcher(slices, watcher::Config::default()).boxed();
    let ports = std::fs::read(&options.ports_file)
        .ok()
        .and_then(|content| serde_json::from_slice(&content).ok())
        .unwrap_or_default();
    let mut proxy = Proxy {
        options,
        services: Mirror::default(),
        slices: Mirror::default(),
        relays: BTreeMap::new(),
        host_relays: BTreeMap::new(),
        ports,
    };
    let mut next = Instant::now();
    let mut pending = false;
    loop {
        tokio::select! {
            event = service_events.next() => match event {
                Some(Ok(event)) => { proxy.services.take(event); pending = true; }
                Some(Err(error)) => complain("Services", &error).await,
                None => return,
            },
            event = slice_events.next() => match event {
                Some(Ok(event)) => { proxy.slices.take(event); pending = true; }
                Some(Err(error)) => complain("EndpointSlices", &error).await,
                None => return,
            },
            () = tokio::time::sleep_until(next), if pending => {
                pending = false;
                proxy.sync().await;
                next = match proxy.options.pace {
                    Pace::Immediate => Instant::now(),
                    Pace::KubeProxy => Instant::now() + KUBE_PROXY_WAIT,
                };
            }
        }
    }
}

async fn complain(what: &str, error: &watcher::Error) {
    // Existing connections and endpoints stay as they are: unknown is not absent.
    tracing::debug!(what, error = chain(error), "watching failed");
    tokio::time::sleep(Duration::from_millis(200)).await;
}

impl Proxy {
    async fn sync(&mut self) {
        let (Some(services), Some(slices)) = (self.services.objects(), self.slices.objects())
        else {
            return;
        };
        let mut wanted: BTreeMap<(String, SocketAddr), Endpoints> = BTreeMap::new();
        let mut host_wanted: BTreeMap<String, (Service, Endpoints)> = BTreeMap::new();
        for (key, service) in services {
            let Some(spec) = &service.spec else { continue };
            let ports = spec.ports.as_deref().unwrap_or_default();
            // A headless Service has no address: its clients ask for the endpoints.
            if let Some(Ok(address)) = spec.cluster_ip.as_deref().map(str::parse::<Ipv4Addr>) {
                for port in ports {
                    let Ok(number) = u16::try_from(port.port) else { continue };
                    let at = SocketAddr::new(IpAddr::V4(address), number);
                    wanted.insert((key.clone(), at), endpoints_of(service, port, slices));
                }
            }
            if let Some(port) = ports.first().filter(|_| is_writers_service(service)) {
                let endpoints = endpoints_of(service, port, slices);
                host_wanted.insert(key.clone(), (service.clone(), endpoints));
            }
        }
        self.relays.retain(|at, _| wanted.contains_key(at));
        for (at, endpoints) in wanted {
            let address = at.1;
            self.relays.entry(at).or_insert_with(|| Relay::listen(address)).set(&endpoints);
        }
        self.host_relays.retain(|key, _| host_wanted.contains_key(key));
        for (key, (service, endpoints)) in host_wanted {
            self.serve_host(&key, &service, &endpoints).await;
        }
    }

    async fn patch(&self, service: &Service, patch: &serde_json::Value) {
        let namespace = service.namespace().unwrap_or_default();
        let api: Api<Service> = Api::namespaced(self.options.client.clone(), &namespace);
        let name = service.name_any();
        if let Err(error) = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            tracing::warn!(service = name, error = chain(&error), "cannot write a Service");
        }
    }

    async fn serve_host(&mut self, key: &str, service: &Service, endpoints: &Endpoints) {
        if !self.host_relays.contains_key(key) {
            let Some((port, listener)) = self.free_port(key).await else { return };
            self.ports.insert(key.to_owned(), port);
            self.remember_ports();
            self.host_relays.insert(key.to_owned(), (port, Relay::serve(listener)));
        }
        let Some((port, relay)) = self.host_relays.get(key) else { return };
        relay.set(endpoints);
        let address = format!("127.0.0.1:{port}");
        if service.annotations().get(HOST_ADDRESS) != Some(&address) {
            let patch = serde_json::json!({
                "metadata": {"uid": service.metadata.uid, "annotations": {HOST_ADDRESS: address}},
            });
            self.patch(service, &patch).await;
        }
    }

    fn remember_ports(&self) {
        let content = serde_json::to_vec(&self.ports).map_err(std::io::Error::from);
        let written = content.and_then(|c| write_file(&self.options.ports_file, &c, 0o600));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot remember the ports of 127.0.0.1");
        }
    }

    /// The port that the Service had before, else the first free one.
    async fn free_port(&self, key: &str) -> Option<(u16, TcpListener)> {
        let before = self.ports.get(key).copied();
        let first = self.options.first_port;
        let others: BTreeSet<u16> =
            self.ports.iter().filter(|(other, _)| *other != key).map(|(_, port)| *port).collect();
        let candidates = (first..=u16::MAX).filter(|port| !others.contains(port)).take(200);
        for port in before.into_iter().chain(candidates) {
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                if before.is_some_and(|before| before != port) {
                    tracing::warn!(
                        service = key,
                        port,
                        "its port of before is taken; it has another"
                    );
                }
                return Some((port, listener));
            }
        }
        tracing::error!(service = key, first, "no port of 127.0.0.1 is free");
        None
    }
}

/// True for the Service through which a cluster's clients write: `NAME-rw` of cluster NAME.
pub(crate) fn is_writers_service(service: &Service) -> bool {
    let name = service.name_any();
    let Some(cluster) = name.strip_suffix("-rw") else { return false };
    service.labels().iter().any(|(key, value)| key.ends_with("/cluster") && value == cluster)
}

fn endpoints_of(
    service: &Service,
    port: &ServicePort,
    slices: &BTreeMap<String, EndpointSlice>,
) -> Endpoints {
    let name = service.name_any();
    let mut addresses = BTreeSet::new();
    for slice in slices.values() {
        let belongs = slice.namespace() == service.namespace()
            && slice.labels().get("kubernetes.io/service-name") == Some(&name);
        if !belongs {
            continue;
        }
        let wanted = port.name.as_deref().unwrap_or_default();
        let number = slice
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref().unwrap_or_default() == wanted)
            .and_then(|p| p.port)
            .and_then(|number| u16::try_from(number).ok());
        let Some(number) = number else { continue };
        for endpoint in &slice.endpoints {
            // Absent means unknown, which the API tells consumers to take as ready.
            if endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(false) {
                continue;
            }
            addresses.extend(
                endpoint
                    .addresses
                    .iter()
                    .filter_map(|text| text.parse().ok())
                    .map(|address| SocketAddr::new(address, number)),
            );
        }
    }
    Arc::new(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(address: &str, ready: Option<bool>) -> EndpointSlice {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "c-rw", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "c-rw"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
            "ports": [{"name": "postgres", "port": 5432}],
        }))
        .unwrap()
    }

    fn service() -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "c-rw", "namespace": "default", "labels": {"matriarch.dev/cluster": "c"},
            },
            "spec": {"ports": [{"name": "postgres", "port": 5432}]},
        }))
        .unwrap()
    }

    #[test]
    fn ready_endpoints_of_the_services_slices_are_served() {
        let service = service();
        let port = service.spec.clone().unwrap().ports.unwrap().remove(0);
        let at = |slice| {
            let slices = BTreeMap::from([("default/c-rw".to_owned(), slice)]);
            endpoints_of(&service, &port, &slices).iter().copied().collect::<Vec<_>>()
        };
        assert_eq!(at(slice("127.9.1.1", Some(true))), ["127.9.1.1:5432".parse().unwrap()]);
        assert_eq!(at(slice("127.9.1.1", None)).len(), 1);
        assert!(at(slice("127.9.1.1", Some(false))).is_empty());
        let mut foreign = slice("127.9.1.1", None);
        foreign.metadata.namespace = Some("other".to_owned());
        assert!(at(foreign).is_empty());
    }

    #[test]
    fn the_writers_service_of_a_cluster_is_known_by_its_label() {
        assert!(is_writers_service(&service()));
        let mut other = service();
        other.metadata.labels = None;
        assert!(!is_writers_service(&other));
    }
}
