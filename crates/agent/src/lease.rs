//! The cluster's Lease in the API, with a client of its own (traps H8): one second for each request
//! in all, and a new connection after every failure, because a connection into a cut network never
//! answers.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use matriarch_api::identity::Identity;
use matriarch_plan::protocol::lease::ANNOTATIONS;
use matriarch_plan::protocol::{
    ApiRefusal, Base, LeaseReading, LeaseRecord, LeaseWriting, Version,
};

use crate::kubernetes;
use crate::options::AgentOptions;

/// For each request, connecting included.
pub const LIMIT: Duration = Duration::from_secs(1);

/// The Lease, one request at a time.
#[derive(Clone)]
pub struct LeaseClient {
    options: AgentOptions,
    identity: Identity,
    client: Option<Client>,
    /// The object as last read or written: what else is on it must survive our writes.
    last: Option<Lease>,
}

enum Failure {
    Silent,
    Status(u16),
    Client(kubernetes::Error),
}

impl Failure {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Status(status.code),
            _ => Self::Silent,
        }
    }

    fn refusal(&self) -> Option<ApiRefusal> {
        match self {
            Self::Status(401) => Some(ApiRefusal::Unauthorized),
            Self::Status(403) => Some(ApiRefusal::Forbidden),
            Self::Status(404) => Some(ApiRefusal::NotFound),
            Self::Status(400 | 422) => Some(ApiRefusal::Invalid),
            Self::Status(_) | Self::Silent | Self::Client(_) => None,
        }
    }
}

impl LeaseClient {
    /// The Lease of this pod's cluster. Connects at the first request.
    #[must_use]
    pub fn new(options: &AgentOptions, identity: Identity) -> Self {
        Self { options: options.clone(), identity, client: None, last: None }
    }

    fn api(&mut self) -> Result<Api<Lease>, Failure> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let client =
                    kubernetes::connect(&self.options, Some(LIMIT)).map_err(Failure::Client)?;
                self.client.insert(client).clone()
            }
        };
        Ok(Api::namespaced(client, &self.options.namespace))
    }

    /// Reads it, from the API and not from a cache.
    pub async fn read(&mut self) -> LeaseReading {
        let outcome = self.try_read().await;
        if let Err(failure) = &outcome {
            self.after(failure);
        }
        match outcome {
            Ok(lease) => self.found(lease),
            Err(Failure::Status(404)) => LeaseReading::Absent,
            Err(failure) => failure.refusal().map_or(LeaseReading::NoAnswer, LeaseReading::Refused),
        }
    }

    async fn try_read(&mut self) -> Result<Lease, Failure> {
        let api = self.api()?;
        let name = matriarch_api::names::lease(&self.options.cluster);
        match tokio::time::timeout(LIMIT, api.get(&name)).await {
            Ok(outcome) => outcome.map_err(|error| Failure::of(&error)),
            Err(_) => Err(Failure::Silent),
        }
    }

    /// A Lease that a read or a watch brought.
    pub fn found(&mut self, lease: Lease) -> LeaseReading {
        let Some(version) = version_of(&lease) else { return LeaseReading::NoAnswer };
        let record = record_of(&lease, self.identity);
        self.last = Some(lease);
        LeaseReading::Found { version, record }
    }

    /// Writes it if it is still as `base` says. Never retried.
    pub async fn write(&mut self, base: Base, record: &LeaseRecord) -> LeaseWriting {
        let outcome = self.try_write(base, record).await;
        if let Err(failure) = &outcome {
            self.after(failure);
        }
        match outcome {
            Ok(lease) => {
                let version = version_of(&lease);
                self.last = Some(lease);
                version.map_or(LeaseWriting::Unknown, LeaseWriting::Written)
            }
            Err(Failure::Status(409)) => LeaseWriting::Conflict,
            // A client that could not be built has sent nothing, but says nothing either.
            Err(failure) => failure.refusal().map_or(LeaseWriting::Unknown, LeaseWriting::Refused),
        }
    }

    async fn try_write(&mut self, base: Base, record: &LeaseRecord) -> Result<Lease, Failure> {
        let api = self.api()?;
        let name = matriarch_api::names::lease(&self.options.cluster);
        let lease = self.object(&name, base, record);
        let parameters = PostParams::default();
        let request = async {
            match base {
                Base::Version(_) => api.replace(&name, &parameters, &lease).await,
                Base::Absent => api.create(&parameters, &lease).await,
            }
        };
        match tokio::time::timeout(LIMIT, request).await {
            Ok(outcome) => outcome.map_err(|error| Failure::of(&error)),
            Err(_) => Err(Failure::Silent),
        }
    }

    /// After a failure nothing of the old connection is used again.
    fn after(&mut self, failure: &Failure) {
        match failure {
            Failure::Silent => tracing::debug!("the API does not answer"),
            Failure::Status(code) => tracing::debug!(code, "the API refuses"),
            Failure::Client(error) => tracing::warn!(%error, "no client"),
        }
        match failure {
            // An answer: the connection is whole.
            Failure::Status(403 | 404 | 409 | 422) => {}
            Failure::Silent | Failure::Status(_) | Failure::Client(_) => self.client = None,
        }
    }

    fn object(&self, name: &str, base: Base, record: &LeaseRecord) -> Lease {
        let mut metadata = match (base, &self.last) {
            (Base::Version(_), Some(last)) => last.metadata.clone(),
            (Base::Version(_) | Base::Absent, _) => ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.options.namespace.clone()),
                ..ObjectMeta::default()
            },
        };
        metadata.managed_fields = None;
        metadata.resource_version = match base {
            Base::Version(version) => Some(version.0.to_string()),
            Base::Absent => None,
        };
        let annotations = metadata.annotations.get_or_insert_default();
        for suffix in ANNOTATIONS {
            annotations.remove(&self.identity.key(suffix));
        }
        for (suffix, value) in &record.annotations {
            annotations.insert(self.identity.key(suffix), value.clone());
        }
        let spec = LeaseSpec {
            holder_identity: Some(record.holder_identity.clone()),
            lease_transitions: Some(i32::try_from(record.transitions).unwrap_or(i32::MAX)),
            lease_duration_seconds: Some(
                i32::try_from(record.duration_seconds).unwrap_or(i32::MAX),
            ),
            // For people and other tools: no rule reads it.
            renew_time: Some(MicroTime(jiff::Timestamp::now())),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }
}

fn version_of(lease: &Lease) -> Option<Version> {
    lease.metadata.resource_version.as_ref()?.parse().ok().map(Version)
}

fn record_of(lease: &Lease, identity: Identity) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let present = lease.metadata.annotations.clone().unwrap_or_default();
    let annotations = ANNOTATIONS
        .iter()
        .filter_map(|suffix| {
            present.get(&identity.key(suffix)).map(|value| ((*suffix).to_owned(), value.clone()))
        })
        .collect();
    LeaseRecord {
        holder_identity: spec.holder_identity.unwrap_or_default(),
        transitions: u64::try_from(spec.lease_transitions.unwrap_or(0)).unwrap_or(0),
        duration_seconds: u32::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0),
        annotations,
    }
}
