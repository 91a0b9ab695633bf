//! The one EndpointSlice of Service `-rw`: swapped in one write (traps H1), because kube-proxy
//! waits a second between two changes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use matriarch_api::identity::Identity;
use matriarch_api::labels;

use crate::options::AgentOptions;

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

/// The EndpointSlice of this pod's cluster.
#[derive(Clone)]
pub struct ReadWriteEndpoint {
    api: Api<EndpointSlice>,
    name: String,
    service: String,
    namespace: String,
    managed_by: String,
    pod: ObjectReference,
}

impl ReadWriteEndpoint {
    /// That of this pod's cluster.
    #[must_use]
    pub fn new(client: Client, options: &AgentOptions, identity: Identity) -> Self {
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
        }
    }

    /// Swaps it to this address in one write; makes it if somebody deleted it.
    ///
    /// # Errors
    /// If the API does not take it.
    pub async fn point_to(&self, host: &str, port: u16) -> Result<(), Error> {
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

    /// Takes this address out if it is in it.
    ///
    /// # Errors
    /// If the API does not take it.
    pub async fn remove(&self, host: &str) -> Result<(), Error> {
        let Some(mut slice) = self.api.get_opt(&self.name).await.map_err(Error::Read)? else {
            return Ok(());
        };
        let before = slice.endpoints.len();
        slice.endpoints.retain(|endpoint| !endpoint.addresses.iter().any(|one| one == host));
        if slice.endpoints.len() == before {
            return Ok(());
        }
        // With its version: a new holder may have swapped it meanwhile.
        match self.api.replace(&self.name, &PostParams::default(), &slice).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            outcome => outcome.map(|_| ()).map_err(Error::Write),
        }
    }

    fn slice(&self, address: Option<(&str, u16)>) -> EndpointSlice {
        let family = match address {
            Some((host, _)) if host.contains(':') => "IPv6",
            Some(_) | None => "IPv4",
        };
        EndpointSlice {
            address_type: family.to_owned(),
            endpoints: address
                .map(|(host, _)| Endpoint {
                    addresses: vec![host.to_owned()],
                    conditions: Some(EndpointConditions {
                        ready: Some(true),
                        serving: Some(true),
                        terminating: Some(false),
                    }),
                    target_ref: Some(self.pod.clone()),
                    ..Endpoint::default()
                })
                .into_iter()
                .collect(),
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([
                    (labels::SERVICE_NAME.to_owned(), self.service.clone()),
                    (labels::ENDPOINT_SLICE_MANAGED_BY.to_owned(), self.managed_by.clone()),
                ])),
                ..ObjectMeta::default()
            },
            ports: address.map(|(_, port)| {
                vec![EndpointPort {
                    name: Some(PORT_NAME.to_owned()),
                    port: Some(i32::from(port)),
                    protocol: Some("TCP".to_owned()),
                    ..EndpointPort::default()
                }]
            }),
        }
    }
}
