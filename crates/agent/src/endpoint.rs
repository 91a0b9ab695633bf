//! The one EndpointSlice of Service `-rw`: swapped in one write (traps H1), because kube-proxy
//! waits a second between two changes. Services of the user's that lead to the primary have one
//! each as well; they follow, and what goes wrong with them holds nothing up.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use matriarch_api::causes::chain;
use matriarch_api::identity::Identity;
use matriarch_api::instance::{self, AdditionalEndpoints};
use matriarch_api::labels;
use tokio::sync::watch;

use crate::options::AgentOptions;
use crate::settings::Known;

/// Name of the port in the Service.
const PORT_NAME: &str = "postgres";

/// Why the EndpointSlice is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading.
    #[error("cannot read the EndpointSlice")]
    Read(#[source] kube::Error),
    /// Writing.
    #[error("cannot write the EndpointSlice")]
    Write(#[source] kube::Error),
}

/// The EndpointSlices of this pod's cluster that lead to the primary.
#[derive(Clone)]
pub struct ReadWriteEndpoint {
    api: Api<EndpointSlice>,
    name: String,
    service: String,
    namespace: String,
    managed_by: String,
    pod: ObjectReference,
    known: watch::Receiver<Option<Arc<Known>>>,
}

impl ReadWriteEndpoint {
    /// Those of this pod's cluster; the directive names the user's.
    #[must_use]
    pub fn new(
        client: Client,
        options: &AgentOptions,
        identity: Identity,
        known: watch::Receiver<Option<Arc<Known>>>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, &options.namespace),
            name: matriarch_api::names::endpoint_slice_rw(&options.cluster),
            service: matriarch_api::names::service_rw(&options.cluster),
            namespace: options.namespace.clone(),
            managed_by: identity.managed_by().to_owned(),
            pod: ObjectReference {
                kind: Some("Pod".to_owned()),
                name: Some(options.instance.clone()),
                namespace: Some(options.namespace.clone()),
                uid: Some(options.pod_uid.clone()),
                ..ObjectReference::default()
            },
            known,
        }
    }

    /// Swaps that of `-rw` to this address in one write; makes it if somebody deleted it. Those of
    /// the user's Services follow by themselves.
    ///
    /// # Errors
    /// If the API does not take that of `-rw`.
    pub async fn point_to(&self, host: &str, port: u16) -> Result<(), Error> {
        let outcome = self.swap(host, port).await;
        let (own, host) = (self.clone(), host.to_owned());
        tokio::spawn(async move {
            for additional in own.additional() {
                let slice = own.slice_of(&additional.name, &additional.name, Some(&host), || {
                    additional.ports.iter().map(endpoint_port).collect()
                });
                own.told(&additional.name, own.write_additional(&slice).await);
            }
        });
        outcome
    }

    async fn swap(&self, host: &str, port: u16) -> Result<(), Error> {
        let slice = self.slice(Some((host, port)));
        let patch = serde_json::json!({
            "endpoints": slice.endpoints, "ports": slice.ports,
            "metadata": {"labels": slice.metadata.labels},
        });
        let parameters = PatchParams::default();
        match self.api.patch(&self.name, &parameters, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => self
                .api
                .create(&PostParams::default(), &slice)
                .await
                .map(|_| ())
                .map_err(Error::Write),
            outcome => outcome.map(|_| ()).map_err(Error::Write),
        }
    }

    /// The user's Services that lead to the primary.
    fn additional(&self) -> Vec<AdditionalEndpoints> {
        let known = self.known.borrow();
        known.as_ref().map(|known| known.spec.additional_endpoints.clone()).unwrap_or_default()
    }

    /// The operator makes them: where one is not there, its Service is not yet.
    async fn write_additional(&self, slice: &EndpointSlice) -> Result<(), Error> {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let patch = serde_json::json!({ "endpoints": slice.endpoints, "ports": slice.ports });
        match self.api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            outcome => outcome.map(|_| ()).map_err(Error::Write),
        }
    }

    /// The next renewal tries again.
    fn told(&self, name: &str, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            tracing::warn!(endpoint_slice = name, error = chain(&error), "not written");
        }
    }

    /// Takes this address out where it is in.
    ///
    /// # Errors
    /// If the API does not take that of `-rw`.
    pub async fn remove(&self, host: &str) -> Result<(), Error> {
        let outcome = self.remove_from(&self.name, host).await;
        let (own, host) = (self.clone(), host.to_owned());
        tokio::spawn(async move {
            for additional in own.additional() {
                own.told(&additional.name, own.remove_from(&additional.name, &host).await);
            }
        });
        outcome
    }

    async fn remove_from(&self, name: &str, host: &str) -> Result<(), Error> {
        let Some(mut slice) = self.api.get_opt(name).await.map_err(Error::Read)? else {
            return Ok(());
        };
        let before = slice.endpoints.len();
        slice.endpoints.retain(|endpoint| !endpoint.addresses.iter().any(|one| one == host));
        if slice.endpoints.len() == before {
            return Ok(());
        }
        // With its version: a new holder may have swapped it meanwhile.
        match self.api.replace(name, &PostParams::default(), &slice).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            outcome => outcome.map(|_| ()).map_err(Error::Write),
        }
    }

    fn slice(&self, address: Option<(&str, u16)>) -> EndpointSlice {
        let host = address.map(|(host, _)| host);
        self.slice_of(&self.name, &self.service, host, || {
            let port = address.map(|(_, port)| i32::from(port));
            vec![port_of(PORT_NAME, port, "TCP")]
        })
    }

    /// The EndpointSlice of a Service; without ports where there is no address.
    fn slice_of(
        &self,
        name: &str,
        service: &str,
        host: Option<&str>,
        ports: impl FnOnce() -> Vec<EndpointPort>,
    ) -> EndpointSlice {
        let family = match host {
            Some(host) if host.contains(':') => "IPv6",
            Some(_) | None => "IPv4",
        };
        let endpoint = |host: &str| Endpoint {
            addresses: vec![host.to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            target_ref: Some(self.pod.clone()),
            ..Endpoint::default()
        };
        EndpointSlice {
            address_type: family.to_owned(),
            endpoints: host.map(endpoint).into_iter().collect(),
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([
                    (labels::SERVICE_NAME.to_owned(), service.to_owned()),
                    (labels::ENDPOINT_SLICE_MANAGED_BY.to_owned(), self.managed_by.clone()),
                ])),
                ..ObjectMeta::default()
            },
            ports: host.map(|_| ports()),
        }
    }
}

fn endpoint_port(port: &instance::EndpointPort) -> EndpointPort {
    port_of(&port.name, Some(i32::from(port.port)), &port.protocol)
}

/// A Service's port without a name has one in its EndpointSlice, of no letters.
fn port_of(name: &str, port: Option<i32>, protocol: &str) -> EndpointPort {
    EndpointPort {
        name: Some(name.to_owned()),
        port,
        protocol: Some(protocol.to_owned()),
        ..EndpointPort::default()
    }
}
