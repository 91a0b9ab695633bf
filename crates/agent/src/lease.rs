//! The cluster's Lease in the API, by a [`Line`] of its own: one second for each request in all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use matriarch_api::causes::chain;
use matriarch_api::identity::Identity;
use matriarch_plan::protocol::lease::ANNOTATIONS;
use matriarch_plan::protocol::{
    ApiRefusal, Base, LeaseReading, LeaseRecord, LeaseWriting, Version,
};

use crate::kubernetes::{Failure, Line};
use crate::options::AgentOptions;

/// For each request, connecting included.
pub const LIMIT: Duration = Duration::from_secs(1);
/// So many requests without an answer, one after the other, are told of: a single one is late now and
/// then on a busy machine.
const SILENCE: u32 = 3;

/// The Lease, one request at a time.
#[derive(Clone)]
pub struct LeaseClient {
    options: AgentOptions,
    identity: Identity,
    line: Line,
    /// The object as last read or written: what else is on it must survive our writes.
    last: Option<Lease>,
    /// Requests without an answer since the last answer.
    unanswered: Arc<AtomicU32>,
}

/// What the protocol is told of a refusal; none if the answer says nothing of the Lease.
fn refusal(failure: &Failure) -> Option<ApiRefusal> {
    match failure.code()? {
        401 => Some(ApiRefusal::Unauthorized),
        403 => Some(ApiRefusal::Forbidden),
        404 => Some(ApiRefusal::NotFound),
        400 | 422 => Some(ApiRefusal::Invalid),
        _ => None,
    }
}

impl LeaseClient {
    /// The Lease of this pod's cluster. Connects at the first request.
    #[must_use]
    pub fn new(options: &AgentOptions, identity: Identity) -> Self {
        let unanswered = Arc::default();
        let line = Line::new(options, LIMIT);
        Self { options: options.clone(), identity, line, last: None, unanswered }
    }

    /// Reads it, from the API and not from a cache.
    pub async fn read(&mut self) -> LeaseReading {
        let outcome = self.try_read().await;
        self.note(outcome.as_ref().err());
        match outcome {
            Ok(lease) => self.found(lease),
            Err(failure) if failure.code() == Some(404) => LeaseReading::Absent,
            Err(failure) => refusal(&failure).map_or(LeaseReading::NoAnswer, LeaseReading::Refused),
        }
    }

    async fn try_read(&self) -> Result<Lease, Failure> {
        let name = matriarch_api::names::lease(&self.options.cluster);
        let namespace = &self.options.namespace;
        self.line.ask(async |client| Api::namespaced(client, namespace).get(&name).await).await
    }

    /// A Lease that a watch brought, which may lag behind a read.
    pub fn seen(&mut self, lease: Lease) -> LeaseReading {
        let Some(version) = version_of(&lease) else { return LeaseReading::NoAnswer };
        let record = record_of(&lease, self.identity);
        if self.last.as_ref().and_then(version_of) <= Some(version) {
            self.last = Some(lease);
        }
        LeaseReading::Found { version, record }
    }

    /// A Lease that a read brought: it stands, also where its version is a lower one.
    fn found(&mut self, lease: Lease) -> LeaseReading {
        self.last = None;
        self.seen(lease)
    }

    /// Writes it if it is still as `base` says. Never retried.
    pub async fn write(&mut self, base: Base, record: &LeaseRecord) -> LeaseWriting {
        let outcome = self.try_write(base, record).await;
        self.note(outcome.as_ref().err());
        match outcome {
            Ok(lease) => {
                let version = version_of(&lease);
                self.last = Some(lease);
                version.map_or(LeaseWriting::Unknown, LeaseWriting::Written)
            }
            Err(failure) if failure.code() == Some(409) => LeaseWriting::Conflict,
            // A client that could not be built has sent nothing, but says nothing either.
            Err(failure) => refusal(&failure).map_or(LeaseWriting::Unknown, LeaseWriting::Refused),
        }
    }

    async fn try_write(&self, base: Base, record: &LeaseRecord) -> Result<Lease, Failure> {
        let name = matriarch_api::names::lease(&self.options.cluster);
        let lease = self.object(&name, base, record);
        let parameters = PostParams::default();
        let request = async |client| {
            let api: Api<Lease> = Api::namespaced(client, &self.options.namespace);
            match base {
                Base::Version(_) => api.replace(&name, &parameters, &lease).await,
                Base::Absent => api.create(&parameters, &lease).await,
            }
        };
        self.line.ask(request).await
    }

    /// Tells once that the API is away, and once that it is back.
    fn note(&self, failure: Option<&Failure>) {
        let unanswered = match failure {
            None | Some(Failure::Refused(_)) => {
                let before = self.unanswered.swap(0, Ordering::Relaxed);
                if before >= SILENCE {
                    tracing::info!(unanswered = before, "the API server answers again");
                }
                return;
            }
            Some(Failure::Silent | Failure::Client(_)) => {
                self.unanswered.fetch_add(1, Ordering::Relaxed).saturating_add(1)
            }
        };
        if let Some(Failure::Client(error)) = failure {
            tracing::warn!(error = chain(error), "no client");
        }
        if unanswered == SILENCE {
            tracing::warn!("the API server does not answer: the Lease cannot be read or written");
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

/// What the protocol reads of the object.
pub fn record_of(lease: &Lease, identity: Identity) -> LeaseRecord {
    let spec = lease.spec.as_ref();
    LeaseRecord::of_object(
        spec.and_then(|spec| spec.holder_identity.as_deref()),
        spec.and_then(|spec| spec.lease_transitions),
        spec.and_then(|spec| spec.lease_duration_seconds),
        lease.metadata.annotations.iter().flatten(),
        &identity.key(""),
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::options::TablespacePlace;
    use crate::root::Root;

    const LEASE: &str = r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease",
        "metadata":{"name":"c","namespace":"default","resourceVersion":"7"},"spec":{}}"#;

    /// An API server that answers every request with the Lease; counts connections.
    async fn serve(root: &Root) -> (u16, Arc<AtomicUsize>) {
        let authority = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&authority).expect("a certificate").pem();
        let issuer = Issuer::new(params, authority);
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
        let directory = root.service_account();
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join("ca.crt"), ca).expect("a file");
        std::fs::write(directory.join("token"), "token").expect("a file");

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private)
            .expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = Vec::new();
                    while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                        if request.ends_with(b"\r\n\r\n") {
                            request.clear();
                            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
                            let answer =
                                format!("{head}\r\nContent-Length: {}\r\n\r\n{LEASE}", LEASE.len());
                            if stream.write_all(answer.as_bytes()).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        (port, connections)
    }

    /// A connection that was cut for idleness made every renewal a new TLS session, and failed the
    /// request that came just then: three to ten failures a minute under `local`.
    #[tokio::test]
    async fn a_connection_outlives_the_time_between_two_renewals() {
        let base = std::env::temp_dir().join(format!("lease-{}", std::process::id()));
        let root = Root::new(&base);
        let (port, connections) = serve(&root).await;
        let options = AgentOptions {
            instance: "c-1".to_owned(),
            namespace: "default".to_owned(),
            pod_uid: "u".to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
            cluster: "c".to_owned(),
            identity: "matriarch".to_owned(),
            api_server: ("127.0.0.1".to_owned(), port),
            root,
            path: std::ffi::OsString::new(),
            own_address_only: true,
            tablespaces: TablespacePlace::DataDirectory,
        };
        let mut client = LeaseClient::new(&options, Identity::Matriarch);
        for wait in [LIMIT.mul_f32(0.9), LIMIT.mul_f32(1.5), Duration::ZERO] {
            let reading = client.read().await;
            assert!(matches!(reading, LeaseReading::Found { .. }), "{reading:?}");
            tokio::time::sleep(wait).await;
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);
        std::fs::remove_dir_all(&base).expect("it is ours");
    }
}
