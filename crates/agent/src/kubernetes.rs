//! The agent's way to the Kubernetes API: its own objects by name, nothing else.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::{Client, Config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::options::AgentOptions;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service account is not mounted.
    #[error("cannot read the service account's {file}")]
    ServiceAccount {
        /// Which file.
        file: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The CA's certificate cannot be read.
    #[error("the service account's ca.crt holds no certificate")]
    Authority,
    /// The address of the API is none.
    #[error("the Kubernetes API's address is no address")]
    Address(#[source] http::uri::InvalidUri),
    /// The client cannot be built.
    #[error("cannot build a client of the Kubernetes API")]
    Client(#[source] kube::Error),
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No answer in time, or a connection that broke: it may have been carried out all the same.
    #[error("the API server does not answer")]
    Silent,
    /// It answered that it did not do it.
    #[error("the API server refuses")]
    Refused(#[source] Box<kube::core::Status>),
    /// There is no client: nothing was sent.
    #[error("there is no way to the API server")]
    Client(#[source] Error),
}

impl Failure {
    fn of(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            other => {
                tracing::debug!(error = %other, "no answer from the API server");
                Self::Silent
            }
        }
    }

    /// The status of HTTP, where the API server gave one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status.code),
            Self::Silent | Self::Client(_) => None,
        }
    }
}

/// A way to the API of its own for requests that must be answered soon (traps H8): so much time for
/// each in all, and a new connection after every failure, because a connection into a cut network
/// never answers.
#[derive(Clone)]
pub struct Line {
    options: AgentOptions,
    limit: Duration,
    client: Arc<Mutex<Option<Client>>>,
}

impl Line {
    /// Connects at the first request.
    #[must_use]
    pub fn new(options: &AgentOptions, limit: Duration) -> Self {
        Self { options: options.clone(), limit, client: Arc::default() }
    }

    /// One request, never repeated.
    ///
    /// # Errors
    /// If the API server refuses it, or does not answer within the limit.
    pub async fn ask<T, F>(&self, request: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let client = self.client().map_err(Failure::Client)?;
        let failure = match tokio::time::timeout(self.limit, request(client)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Failure::of(error),
            Err(_) => Failure::Silent,
        };
        match failure.code() {
            // An answer: the connection is whole.
            Some(403 | 404 | 409 | 422) => {}
            Some(_) | None => *self.kept() = None,
        }
        Err(failure)
    }

    fn client(&self) -> Result<Client, Error> {
        let mut kept = self.kept();
        match &*kept {
            Some(client) => Ok(client.clone()),
            None => Ok(kept.insert(connect(&self.options, self.limit)?).clone()),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new client, which opens connections of its own. `limit` is that of connecting and of writing.
///
/// Nothing limits reading: in a pooled connection that clock also runs while nothing is asked, so
/// it would cut every connection that has been idle for so long, and the request that comes just
/// then would fail. Who needs an answer in time limits the whole request.
///
/// The API server is given by its IP address, so the C resolver is never asked (traps P2).
///
/// # Errors
/// If the service account is not mounted or makes no sense.
pub fn connect(options: &AgentOptions, limit: Duration) -> Result<Client, Error> {
    let (host, port) = &options.api_server;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let uri = format!("https://{host}:{port}").parse().map_err(Error::Address)?;
    let directory = options.root.service_account();
    let mut config = Config::new(uri);
    config.default_namespace.clone_from(&options.namespace);
    config.root_cert = Some(authorities(&directory.join("ca.crt"))?);
    config.auth_info.token_file = Some(directory.join("token").to_string_lossy().into_owned());
    config.connect_timeout = Some(limit);
    config.read_timeout = None;
    config.write_timeout = Some(limit);
    config.default_retry = false;
    Client::try_from(config).map_err(Error::Client)
}

fn authorities(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let pem =
        std::fs::read(path).map_err(|source| Error::ServiceAccount { file: "ca.crt", source })?;
    let found: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&pem)
        .filter_map(Result::ok)
        .map(|certificate| certificate.to_vec())
        .collect();
    if found.is_empty() { Err(Error::Authority) } else { Ok(found) }
}
