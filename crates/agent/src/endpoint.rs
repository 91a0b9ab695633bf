//! The one EndpointSlice of Service `-rw`: swapped in one write (traps H1), because kube-proxy
//! waits a second between two changes. Services of the user's that lead to the primary have one
//! each as well; they follow, and what goes wrong with them holds nothing up.
//!
//! Every write names the version that it is based on (rule 12a).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use matriarch_api::annotations::Annotation;
use matriarch_api::causes::chain;
use matriarch_api::identity::Identity;
use matriarch_api::instance::{self, AdditionalEndpoints};
use matriarch_api::labels;
use matriarch_plan::protocol::{
    EndpointReading, LeaseReading, PodUid, Pointing, Term, Version, endpoint,
};
use tokio::sync::watch;

use crate::kubernetes::{Failure, Line};
use crate::lease;
use crate::options::AgentOptions;
use crate::settings::Known;

/// Name of the port in the Service.
const PORT_NAME: &str = "postgres";
/// For each request, connecting included.
const LIMIT: Duration = Duration::from_secs(1);
/// So often a write that met a newer version begins anew.
const ATTEMPTS: u8 = 3;

/// Why the EndpointSlice is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading.
    #[error("cannot read the EndpointSlice")]
    Read(#[source] Failure),
    /// Writing.
    #[error("cannot write the EndpointSlice")]
    Write(#[source] Failure),
    /// Reading the Lease, where the EndpointSlice does not tell who wrote it, or names a later term.
    #[error("cannot read the Lease")]
    Lease(#[source] Failure),
    /// The operator makes it again.
    #[error("the EndpointSlice is not there")]
    Absent,
    /// By the Lease it is not this instance's to write.
    #[error("another has taken the Lease: the EndpointSlice stays as it is")]
    Superseded,
    /// Its version tells nothing.
    #[error("the EndpointSlice has no version")]
    Version,
    /// Newer versions came all the time.
    #[error("others write the EndpointSlice all the time")]
    Contended,
}

/// The EndpointSlices of this pod's cluster that lead to the primary.
#[derive(Clone)]
pub struct ReadWriteEndpoint {
    line: Line,
    options: AgentOptions,
    identity: Identity,
    name: String,
    service: String,
    known: watch::Receiver<Option<Arc<Known>>>,
    /// Each as it was last read or written here.
    remembered: Arc<Mutex<BTreeMap<String, EndpointReading>>>,
    /// Held while that of `-rw` is looked at.
    looking: Arc<tokio::sync::Mutex<()>>,
}

impl ReadWriteEndpoint {
    /// Those of this pod's cluster; the directive names the user's.
    #[must_use]
    pub fn new(
        options: &AgentOptions,
        identity: Identity,
        known: watch::Receiver<Option<Arc<Known>>>,
    ) -> Self {
        Self {
            line: Line::new(options, LIMIT),
            options: options.clone(),
            identity,
            name: matriarch_api::names::endpoint_slice_rw(&options.cluster),
            service: matriarch_api::names::service_rw(&options.cluster),
            known,
            remembered: Arc::default(),
            looking: Arc::default(),
        }
    }

    /// Reads that of `-rw`, so that a swap that comes soon needs one request only.
    pub async fn look(&self) {
        let _looking = self.looking.lock().await;
        if let Err(error) = self.read(&self.name).await {
            tracing::debug!(error = chain(&error), "the EndpointSlice is read when it is written");
        }
    }

    /// Swaps that of `-rw` to this address in one write, for the holder of this term. Those of the
    /// user's Services follow by themselves.
    ///
    /// # Errors
    /// If the API does not take that of `-rw`, or another holds the Lease.
    pub async fn point_to(&self, host: &str, port: u16, term: Term) -> Result<(), Error> {
        // A look that is under way is over sooner than one that begins now.
        drop(self.looking.lock().await);
        let outcome = self.point(&self.slice(host, port), term).await;
        let (own, host) = (self.clone(), host.to_owned());
        tokio::spawn(async move {
            for additional in own.additional() {
                let ports = additional.ports.iter().map(endpoint_port).collect();
                let slice = own.slice_of(&additional.name, &additional.name, &host, ports);
                match own.point(&slice, term).await {
                    // The operator makes them: where one is not there, its Service is not yet.
                    Ok(()) | Err(Error::Absent) => {}
                    Err(error) => told(&additional.name, &error),
                }
            }
        });
        outcome
    }

    async fn point(&self, slice: &EndpointSlice, term: Term) -> Result<(), Error> {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        for _ in 0..ATTEMPTS {
            let remembered = self.remembered().get(name).copied();
            let reading = match remembered {
                Some(reading) => reading,
                None => self.read(name).await?.ok_or(Error::Absent)?.0,
            };
            let base = match reading.pointing(term) {
                Pointing::Write(base) => base,
                Pointing::AskLease(base) => {
                    self.ask_lease(term).await?;
                    base
                }
            };
            let patch = serde_json::json!({
                "endpoints": slice.endpoints, "ports": slice.ports,
                "metadata": {
                    "resourceVersion": base.0.to_string(),
                    "labels": slice.metadata.labels,
                    "annotations": { Annotation::Term.key(self.identity): term.0.to_string() },
                },
            });
            let request = async |client| {
                let parameters = PatchParams::default();
                self.api(client).patch(name, &parameters, &Patch::Merge(&patch)).await
            };
            if self.written(name, self.line.ask(request).await)? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// What became of a write: true if it was applied, false if it met a newer version.
    fn written(&self, name: &str, answer: Result<EndpointSlice, Failure>) -> Result<bool, Error> {
        self.remembered().remove(name);
        match answer {
            Ok(slice) => self.remember(name, &slice).map(|_| true),
            Err(failure) if matches!(failure.code(), Some(404 | 409)) => Ok(false),
            Err(failure) => Err(Error::Write(failure)),
        }
    }

    async fn ask_lease(&self, term: Term) -> Result<(), Error> {
        let name = matriarch_api::names::lease(&self.options.cluster);
        let request = async |client| {
            Api::<Lease>::namespaced(client, &self.options.namespace).get(&name).await
        };
        let lease = self.line.ask(request).await.map_err(Error::Lease)?;
        let version = version_of(lease.metadata.resource_version.as_deref())?;
        let record = lease::record_of(&lease, self.identity);
        let pod = PodUid(self.options.pod_uid.clone());
        if endpoint::is_granted(&LeaseReading::Found { version, record }, &pod, term) {
            Ok(())
        } else {
            Err(Error::Superseded)
        }
    }

    async fn read(&self, name: &str) -> Result<Option<(EndpointReading, EndpointSlice)>, Error> {
        let request = async |client| self.api(client).get_opt(name).await;
        match self.line.ask(request).await.map_err(Error::Read)? {
            Some(slice) => Ok(Some((self.remember(name, &slice)?, slice))),
            None => {
                self.remembered().remove(name);
                Ok(None)
            }
        }
    }

    fn remember(&self, name: &str, slice: &EndpointSlice) -> Result<EndpointReading, Error> {
        let annotations = slice.metadata.annotations.as_ref();
        let term = annotations.and_then(|all| all.get(&Annotation::Term.key(self.identity)));
        let reading = EndpointReading {
            version: version_of(slice.metadata.resource_version.as_deref())?,
            term: term.and_then(|text| text.parse().ok()).map(Term),
        };
        self.remembered().insert(name.to_owned(), reading);
        Ok(reading)
    }

    fn remembered(&self) -> MutexGuard<'_, BTreeMap<String, EndpointReading>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, client: kube::Client) -> Api<EndpointSlice> {
        Api::namespaced(client, &self.options.namespace)
    }

    /// The user's Services that lead to the primary.
    fn additional(&self) -> Vec<AdditionalEndpoints> {
        let known = self.known.borrow();
        known.as_ref().map(|known| known.spec.additional_endpoints.clone()).unwrap_or_default()
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
                if let Err(error) = own.remove_from(&additional.name, &host).await {
                    told(&additional.name, &error);
                }
            }
        });
        outcome
    }

    async fn remove_from(&self, name: &str, host: &str) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let Some((_, mut slice)) = self.read(name).await? else { return Ok(()) };
            let before = slice.endpoints.len();
            slice.endpoints.retain(|endpoint| !endpoint.addresses.iter().any(|one| one == host));
            if slice.endpoints.len() == before {
                return Ok(());
            }
            // With its version: a new holder may have swapped it meanwhile.
            let request =
                async |client| self.api(client).replace(name, &PostParams::default(), &slice).await;
            if self.written(name, self.line.ask(request).await)? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    fn slice(&self, host: &str, port: u16) -> EndpointSlice {
        let ports = vec![port_of(PORT_NAME, Some(i32::from(port)), "TCP")];
        self.slice_of(&self.name, &self.service, host, ports)
    }

    /// The EndpointSlice of a Service.
    fn slice_of(
        &self,
        name: &str,
        service: &str,
        host: &str,
        ports: Vec<EndpointPort>,
    ) -> EndpointSlice {
        let family = if host.contains(':') { "IPv6" } else { "IPv4" };
        let endpoint = Endpoint {
            addresses: vec![host.to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            target_ref: Some(self.pod()),
            ..Endpoint::default()
        };
        let managed_by = self.identity.managed_by().to_owned();
        EndpointSlice {
            address_type: family.to_owned(),
            endpoints: vec![endpoint],
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.options.namespace.clone()),
                labels: Some(BTreeMap::from([
                    (labels::SERVICE_NAME.to_owned(), service.to_owned()),
                    (labels::ENDPOINT_SLICE_MANAGED_BY.to_owned(), managed_by),
                ])),
                ..ObjectMeta::default()
            },
            ports: Some(ports),
        }
    }

    fn pod(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(self.options.instance.clone()),
            namespace: Some(self.options.namespace.clone()),
            uid: Some(self.options.pod_uid.clone()),
            ..ObjectReference::default()
        }
    }
}

/// The next renewal tries again.
fn told(name: &str, error: &Error) {
    tracing::warn!(endpoint_slice = name, error = chain(error), "not written");
}

fn version_of(text: Option<&str>) -> Result<Version, Error> {
    text.and_then(|text| text.parse().ok()).map(Version).ok_or(Error::Version)
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
