//! The agent's way to the Kubernetes API: its own objects by name, nothing else.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tower::ServiceBuilder;
use tower::retry::RetryLayer;

use crate::options::AgentOptions;

/// How long the other end of a connection may acknowledge nothing.
const SILENCE: Duration = Duration::from_secs(12);
/// How long an answer may take to begin: kube-apiserver ends what takes a minute
/// (`--request-timeout`), and a proxy that stands still acknowledges all the same.
const ANSWER: Duration = Duration::from_secs(65);

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

/// A new client, which opens connections of its own. `limit` is that of connecting.
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
    config.default_retry = false;
    client(&config).map_err(Error::Client)
}

/// A client whose connections end when the other end has fallen silent. Without that a request into
/// a connection whose API server is gone, and whose end nobody announced, waits for as long as TCP
/// tries, a quarter of an hour (tcp(7), `tcp_retries2`; kubernetes/kubernetes#48638 took whole nodes
/// out), and a watch waits for nothing.
///
/// # Errors
/// If certificates or credentials cannot be used.
pub fn client(config: &Config) -> kube::Result<Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(config.connect_timeout);
    tcp.set_tcp_user_timeout(Some(SILENCE));
    tcp.set_keepalive(Some(SILENCE / 2));
    tcp.set_keepalive_interval(Some(SILENCE / 6));
    tcp.set_keepalive_retries(Some(3));
    let https = config.rustls_https_connector_with_connector(tcp)?;
    let http: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https);
    let retry = config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry)
        .option_layer(config.auth_layer()?)
        .timeout(ANSWER)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// The timer that the kernel runs for the connection of this local port (proc(5), `/proc/net/tcp`):
    /// 2 is that of an idle one whose other end is to be asked.
    fn timer(port: u16) -> Option<String> {
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("the table");
        let local = format!("0100007F:{port:04X}");
        let line = table.lines().map(|it| it.split_whitespace().collect::<Vec<_>>());
        let mut found = line.filter(|fields| fields.get(1) == Some(&local.as_str()));
        found.next()?.get(5).and_then(|it| it.split(':').next()).map(str::to_owned)
    }

    /// A watch on a connection whose other end had gone without a word waited for ever.
    #[tokio::test]
    async fn an_idle_connection_is_asked_whether_the_other_end_is_there() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let config = Config::new(format!("http://{address}").parse().expect("an address"));
        let client = client(&config).expect("a client");
        let request = http::Request::get("/version").body(Vec::new()).expect("a request");
        let asked = tokio::spawn(async move {
            let answer = client.request_text(request).await;
            (answer, client)
        });
        let (mut stream, peer) = listener.accept().await.expect("a connection");
        let mut head = [0; 1024];
        let _read = stream.read(&mut head).await.expect("a request");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .expect("an answer");
        let (answer, _client) = asked.await.expect("an end");
        assert_eq!(answer.expect("an answer"), "ok");
        assert_eq!(timer(peer.port()).as_deref(), Some("02"));
    }
}
