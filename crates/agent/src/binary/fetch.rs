//! Fetching a binary from the operator: over TLS with the certificate that the directive names, to a
//! file, piece by piece, and never more than the directive says.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use matriarch_api::instance::AgentBinary;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::hexadecimal;

/// How long finding, connecting and the handshake may take in all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The operator may be silent for so long.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
/// The whole.
const LIMIT: Duration = Duration::from_secs(600);
/// A directive that names a longer file is refused: the volume is small, and full for PostgreSQL too.
const BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Most of the operator's answer that is in memory at once.
const BUFFER: usize = 64 * 1024;

/// Why the file did not come.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directive makes no sense.
    #[error("the operator's address {url:?} cannot be used: {why}")]
    Address {
        /// As written.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// No such name.
    #[error("cannot resolve {host}: {why}")]
    Resolve {
        /// The name.
        host: String,
        /// In the resolver's words.
        why: String,
    },
    /// No connection.
    #[error("cannot connect to {host}")]
    Connect {
        /// To whom.
        host: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It broke, or nothing comes.
    #[error("the connection to the operator was lost")]
    Lost(#[source] hyper::Error),
    /// It took too long.
    #[error("the operator did not answer within {0:?}")]
    Limit(Duration),
    /// It says no.
    #[error(
        "the operator that answered does not serve this binary (status {0}); another one may: it is \
         asked again"
    )]
    Status(u16),
    /// It is not what the directive names.
    #[error("what came is not the binary of the directive: {what}")]
    Content {
        /// In which way.
        what: String,
    },
    /// It cannot be written.
    #[error("cannot write {path}")]
    Store {
        /// Where.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Brings the file to `path`, executable and durable.
///
/// # Errors
/// If it does not come whole, or is another one; a part of it may be left at `path`.
pub async fn fetch(binary: &AgentBinary, path: &Path) -> Result<(), Error> {
    tokio::time::timeout(LIMIT, fetch_unlimited(binary, path))
        .await
        .map_err(|_| Error::Limit(LIMIT))?
}

async fn fetch_unlimited(binary: &AgentBinary, path: &Path) -> Result<(), Error> {
    let wrong = |why: &str| Error::Address { url: binary.url.clone(), why: why.to_owned() };
    if binary.bytes == 0 || binary.bytes > BYTES_MAX {
        let what = format!("it is said to have {} bytes", binary.bytes);
        return Err(Error::Content { what });
    }
    let uri: Uri = binary.url.parse().map_err(|_| wrong("it is no URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong("it does not begin with https"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
    let port = authority.port_u16().unwrap_or(443);
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let connecting = connect(&host, port, &binary.certificate_sha256);
    let mut connection = tokio::time::timeout(CONNECT_LIMIT, connecting)
        .await
        .map_err(|_| Error::Limit(CONNECT_LIMIT))??;
    let target = uri.path_and_query().map_or("/", |it| it.as_str());
    let request = Request::get(target)
        .header(http::header::HOST, authority.as_str())
        .body(Empty::new())
        .map_err(|error| wrong(&error.to_string()))?;
    let response = tokio::time::timeout(SILENCE_LIMIT, connection.send_request(request))
        .await
        .map_err(|_| Error::Limit(SILENCE_LIMIT))?
        .map_err(Error::Lost)?;
    if response.status() != http::StatusCode::OK {
        return Err(Error::Status(response.status().as_u16()));
    }
    store(response.into_body(), binary, path).await
}

async fn store(mut body: Incoming, binary: &AgentBinary, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Store { path: path.display().to_string(), source };
    let mut file = tokio::fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o755)
        .open(path)
        .await
        .map_err(failed)?;
    let (mut length, mut hash) = (0_u64, Sha256::new());
    loop {
        let frame = tokio::time::timeout(SILENCE_LIMIT, body.frame())
            .await
            .map_err(|_| Error::Limit(SILENCE_LIMIT))?;
        let Some(frame) = frame else { break };
        let Ok(piece) = frame.map_err(Error::Lost)?.into_data() else { continue };
        length += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if length > binary.bytes {
            let what = format!("it has more than {} bytes", binary.bytes);
            return Err(Error::Content { what });
        }
        hash.update(&piece);
        file.write_all(&piece).await.map_err(failed)?;
    }
    if length != binary.bytes {
        let what = format!("it has {length} bytes instead of {}", binary.bytes);
        return Err(Error::Content { what });
    }
    let sha256 = hexadecimal(&hash.finalize());
    if sha256 != binary.sha256 {
        let what = format!("its SHA-256 is {sha256} instead of {}", binary.sha256);
        return Err(Error::Content { what });
    }
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)?;
    // An older file of that name keeps its own mode, and the process's mask may take bits away.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    file.set_permissions(mode).await.map_err(failed)
}

async fn connect(
    host: &str,
    port: u16,
    certificate_sha256: &str,
) -> Result<SendRequest<Empty<Bytes>>, Error> {
    let failed = |source| Error::Connect { host: host.to_owned(), source };
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in resolve(host).await? {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return handshake(host, stream, certificate_sha256).await,
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// Addresses of a name, never by the C resolver (decision 0003).
async fn resolve(host: &str) -> Result<Vec<IpAddr>, Error> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let failed = |error: hickory_resolver::net::NetError| Error::Resolve {
        host: host.to_owned(),
        why: error.to_string(),
    };
    let resolver = hickory_resolver::TokioResolver::builder_tokio()
        .and_then(hickory_resolver::ResolverBuilder::build)
        .map_err(failed)?;
    Ok(resolver.lookup_ip(host).await.map_err(failed)?.iter().collect())
}

async fn handshake(
    host: &str,
    stream: TcpStream,
    certificate_sha256: &str,
) -> Result<SendRequest<Empty<Bytes>>, Error> {
    let failed = |source| Error::Connect { host: host.to_owned(), source };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| failed(std::io::Error::other(error)))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Pinned { sha256: certificate_sha256.to_owned(), provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(std::io::Error::other(error)))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(failed)?;
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Error::Lost)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the operator ended");
        }
    });
    Ok(sender)
}

/// Accepts the one certificate that the directive names, whatever names and times it bears: the
/// directive comes through the Kubernetes API, which is trusted anyway.
#[derive(Debug)]
struct Pinned {
    sha256: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if hexadecimal(&Sha256::digest(end_entity)) == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("its certificate is not the one of the directive".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
