//! This process's own program, served to the agents of running databases (traps P3): they fetch it
//! from here, and what they trust is the hash in their Instance.

use std::convert::Infallible;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use matriarch_api::Identity;
use matriarch_api::causes::chain;
use matriarch_api::secret::{TLS_CERTIFICATE, TLS_KEY};
use matriarch_plan::AgentBinary;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::pki;

/// Answers at once; who comes then is told to come again.
const AT_ONCE: usize = 8;
/// Connections at once.
const CONNECTIONS: usize = 64;
/// Bytes of the program that are in memory for each answer.
const PIECE: usize = 64 * 1024;
/// How long a handshake, or the head of a request, may take.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_LIMIT: Duration = Duration::from_secs(600);
/// How often the certificate is read again: somebody may have deleted its Secret.
const RENEWAL: Duration = Duration::from_secs(300);
/// How soon after a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// The operator waits so long for its certificate before it begins: an agent that is told of no
/// program for a moment would be told twice.
const FIRST_CERTIFICATE: Duration = Duration::from_secs(10);

/// How agents reach this operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// Of a Service that leads to every replica, without a path: `https://HOST:PORT`.
    pub url: String,
    /// Where this process listens.
    pub listen: SocketAddr,
    /// Where the certificate's Secret is; in the client's own namespace if absent.
    pub namespace: Option<String>,
}

/// The own program cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read this program's own file")]
    Program(#[source] std::io::Error),
    /// The port is taken.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error("cannot read or make Secret {name}")]
    Api {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot make a certificate")]
    Make(#[source] pki::Error),
    #[error("Secret {name} holds no certificate and key that can be used; delete it: {why}")]
    Content { name: String, why: String },
}

/// What this operator offers to agents, as it stands now.
#[derive(Clone)]
pub struct Offer {
    binary: watch::Receiver<Option<AgentBinary>>,
}

impl Offer {
    /// The program, and where it is served; none before there is a certificate to serve it with.
    #[must_use]
    pub fn binary(&self) -> Option<AgentBinary> {
        self.binary.borrow().clone()
    }
}

/// The program of this process: the very file, also after another took its name.
struct Program {
    file: File,
    sha256: String,
    bytes: u64,
}

impl Program {
    fn open() -> std::io::Result<Self> {
        let file = File::open("/proc/self/exe")?;
        let bytes = file.metadata()?.len();
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        loop {
            let length = file.read_at(&mut buffer, at)?;
            if length == 0 {
                break;
            }
            hash.update(&buffer[..length]);
            at += u64::try_from(length).unwrap_or(0);
        }
        let sha256 = pki::hexadecimal(hash.finish().as_ref());
        Ok(Self { file, sha256, bytes })
    }
}

/// A certificate with its key, ready for use.
#[derive(Clone)]
struct Served {
    config: Arc<ServerConfig>,
    sha256: String,
}

/// Serves this process's program until the process ends, as soon as there is the certificate, which
/// all replicas share through a Secret of the operator's namespace.
///
/// # Errors
/// If the program cannot be read or the port is taken.
pub async fn serve(
    client: Client,
    identity: Identity,
    options: AgentOptions,
) -> Result<Offer, Error> {
    let opened = tokio::task::spawn_blocking(Program::open).await;
    let program =
        opened.map_err(std::io::Error::other).and_then(|it| it).map_err(Error::Program)?;
    let program = Arc::new(program);
    let address = options.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let secret = CertificateSecret::new(client, identity, &options);
    let (sender, mut receiver) = watch::channel(None);
    tokio::spawn(async move {
        let served = secret.read_or_make_at_last().await;
        let binary = AgentBinary {
            version: matriarch_api::VERSION.to_owned(),
            sha256: program.sha256.clone(),
            bytes: program.bytes,
            architecture: std::env::consts::ARCH.to_owned(),
            url: format!("{}{}", options.url.trim_end_matches('/'), path(&program.sha256)),
            certificate_sha256: served.sha256.clone(),
        };
        tracing::info!(url = binary.url, bytes = binary.bytes, "serves its own program to agents");
        let present = Arc::new(Mutex::new(served));
        tokio::spawn(accept(listener, present.clone(), program));
        sender.send_replace(Some(binary));
        keep_certificate(secret, present, sender).await;
    });
    // Databases do not wait for the upgrade of their agents.
    let certified = receiver.wait_for(Option::is_some);
    let late = tokio::time::timeout(FIRST_CERTIFICATE, certified).await.is_err();
    if late {
        tracing::warn!("begins without a certificate for agents: none is upgraded yet");
    }
    Ok(Offer { binary: receiver })
}

/// Another version's program has another path: behind one Service two versions do no harm.
fn path(sha256: &str) -> String {
    format!("/agent/{sha256}")
}

/// Name of the Secret with the certificate, in the operator's namespace.
#[must_use]
pub fn secret_name(identity: Identity) -> String {
    format!("{}-agent-server", identity.operator_name())
}

struct CertificateSecret {
    api: Api<Secret>,
    name: String,
    host: String,
}

impl CertificateSecret {
    fn new(client: Client, identity: Identity, options: &AgentOptions) -> Self {
        let uri: Option<hyper::Uri> = options.url.parse().ok();
        let host = uri.as_ref().and_then(hyper::Uri::host).unwrap_or("localhost").to_owned();
        let api = match &options.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::default_namespaced(client),
        };
        Self { api, name: secret_name(identity), host }
    }

    async fn read_or_make_at_last(&self) -> Served {
        loop {
            match self.read_or_make().await {
                Ok(served) => return served,
                Err(error) => tracing::warn!(error = chain(&error), "no agent can be upgraded yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn read_or_make(&self) -> Result<Served, CertificateError> {
        let failed = |source| CertificateError::Api { name: self.name.clone(), source };
        if let Some(found) =
            self.api.get_opt(&self.name).await.map_err(|error| failed(Box::new(error)))?
        {
            return self.served(&found);
        }
        let pair = pki::make_server(&self.host, jiff::Timestamp::now().as_millisecond())
            .map_err(CertificateError::Make)?;
        let secret: Secret = serde_json::from_value(serde_json::json!({
            "metadata": {"name": self.name},
            "type": "kubernetes.io/tls",
            "stringData": {TLS_CERTIFICATE: pair.certificate, TLS_KEY: pair.key},
        }))
        .map_err(|error| self.content(&error))?;
        match self.api.create(&PostParams::default(), &secret).await {
            Ok(made) => self.served(&made),
            // Another replica was faster: its is the one.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = self.api.get(&self.name).await.map_err(|it| failed(Box::new(it)))?;
                self.served(&found)
            }
            Err(error) => Err(failed(Box::new(error))),
        }
    }

    fn content(&self, why: &dyn std::fmt::Display) -> CertificateError {
        CertificateError::Content { name: self.name.clone(), why: why.to_string() }
    }

    fn served(&self, secret: &Secret) -> Result<Served, CertificateError> {
        let text = |key: &str| pki::text(secret, key).ok_or_else(|| self.content(&key));
        let certificate = CertificateDer::from_pem_slice(text(TLS_CERTIFICATE)?.as_bytes())
            .map_err(|error| self.content(&error))?;
        let key = PrivateKeyDer::from_pem_slice(text(TLS_KEY)?.as_bytes())
            .map_err(|error| self.content(&error))?;
        let sha256 = pki::fingerprint(&certificate);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|it| it.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(|error| self.content(&error))?;
        Ok(Served { config: Arc::new(config), sha256 })
    }
}

/// Follows the Secret: what this replica presents is what the others present, and what directives
/// name.
async fn keep_certificate(
    secret: CertificateSecret,
    present: Arc<Mutex<Served>>,
    binary: watch::Sender<Option<AgentBinary>>,
) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        match secret.read_or_make().await {
            Ok(served) => {
                let sha256 = served.sha256.clone();
                *present.lock().unwrap_or_else(PoisonError::into_inner) = served;
                binary.send_if_modified(|it| {
                    let Some(it) = it else { return false };
                    std::mem::replace(&mut it.certificate_sha256, sha256.clone()) != sha256
                });
            }
            Err(error) => tracing::warn!(error = chain(&error), "the certificate for agents"),
        }
    }
}

async fn accept(listener: TcpListener, present: Arc<Mutex<Served>>, program: Arc<Program>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let answers = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let config = present.lock().unwrap_or_else(PoisonError::into_inner).config.clone();
        let (program, answers) = (program.clone(), answers.clone());
        tokio::spawn(async move {
            let served = serve_one(stream, config, program, answers);
            if tokio::time::timeout(CONNECTION_LIMIT, served).await.is_err() {
                tracing::debug!("an agent took too long to fetch this program");
            }
            drop(permit);
        });
    }
}

async fn serve_one(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    program: Arc<Program>,
    answers: Arc<Semaphore>,
) {
    let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    let Ok(Ok(stream)) = tokio::time::timeout(HEAD_LIMIT, handshake).await else { return };
    let service = service_fn(move |request| {
        let (program, answers) = (program.clone(), answers.clone());
        async move { Ok::<_, Infallible>(answer(&request, program, &answers)) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(PIECE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of an agent ended");
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

fn answer<B>(
    request: &Request<B>,
    program: Arc<Program>,
    answers: &Arc<Semaphore>,
) -> Response<Body> {
    let short = |status: StatusCode, text: &'static str| {
        let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
        let mut response = Response::new(body.boxed());
        *response.status_mut() = status;
        response
    };
    if request.method() != hyper::Method::GET {
        return short(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
    }
    if request.uri().path() != path(&program.sha256) {
        return short(StatusCode::NOT_FOUND, "this operator has another program\n");
    }
    let Ok(permit) = answers.clone().try_acquire_owned() else {
        return short(StatusCode::SERVICE_UNAVAILABLE, "too many agents at once\n");
    };
    let length = program.bytes;
    let pieces = stream::unfold((program, 0, permit), |(program, at, permit)| async move {
        let reading = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            let length = program.file.read_at(&mut piece, at)?;
            piece.truncate(length);
            Ok::<_, std::io::Error>((program, piece))
        });
        match reading.await.map_err(std::io::Error::other).and_then(|it| it) {
            Ok((_, piece)) if piece.is_empty() => None,
            Ok((program, piece)) => {
                let next = at + u64::try_from(piece.len()).unwrap_or(0);
                Some((Ok(Frame::data(Bytes::from(piece))), (program, next, permit)))
            }
            // Cut short: the agent sees that it is not whole.
            Err(error) => {
                tracing::warn!(%error, "cannot read this program's own file");
                None
            }
        }
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(pieces)));
    response.headers_mut().insert(hyper::header::CONTENT_LENGTH, length.into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_own_program_is_served_whole_under_its_hash_and_nothing_else_is() {
        let program = Arc::new(Program::open().unwrap());
        let answers = Arc::new(Semaphore::new(1));
        let ask = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            answer(&request, program.clone(), &answers)
        };
        let own = path(&program.sha256);
        assert_eq!(ask("GET", &path(&"0".repeat(64))).status(), StatusCode::NOT_FOUND);
        assert_eq!(ask("GET", "/").status(), StatusCode::NOT_FOUND);
        assert_eq!(ask("POST", &own).status(), StatusCode::METHOD_NOT_ALLOWED);
        let response = ask("GET", &own);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-length"], program.bytes.to_string());
        // Only so many at once; the place is free again when the answer has been read.
        assert_eq!(ask("GET", &own).status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(pki::fingerprint(&body), program.sha256);
        assert_eq!(ask("GET", &own).status(), StatusCode::OK);
    }
}
