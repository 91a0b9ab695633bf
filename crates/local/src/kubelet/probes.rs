//! Probes: asking a container whether it has started, is ready, is alive.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::container::Surroundings;

/// Which of the three questions a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

/// What a probe has found after its thresholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Success,
    Failure(String),
}

/// Runs a probe until its verdict changes from `previous`, counting by its thresholds.
pub(super) struct Prober {
    probe: Probe,
    surroundings: Arc<Surroundings>,
    first: bool,
}

impl Prober {
    pub(super) fn new(probe: Probe, surroundings: Arc<Surroundings>) -> Self {
        Self { probe, surroundings, first: true }
    }

    /// Waits for the next change of verdict.
    pub(super) async fn next(&mut self, previous: Option<bool>) -> Verdict {
        let period = seconds(self.probe.period_seconds, 10);
        if self.first {
            self.first = false;
            sleep(seconds(self.probe.initial_delay_seconds, 0)).await;
        } else {
            sleep(period).await;
        }
        let needed_successes = self.probe.success_threshold.unwrap_or(1).max(1);
        let needed_failures = self.probe.failure_threshold.unwrap_or(3).max(1);
        let (mut successes, mut failures) = (0, 0);
        loop {
            match self.ask().await {
                Ok(()) => {
                    failures = 0;
                    successes += 1;
                    if successes >= needed_successes && previous != Some(true) {
                        return Verdict::Success;
                    }
                }
                Err(reason) => {
                    successes = 0;
                    failures += 1;
                    if failures >= needed_failures && previous != Some(false) {
                        return Verdict::Failure(reason);
                    }
                }
            }
            sleep(period).await;
        }
    }

    async fn ask(&self) -> Result<(), String> {
        let limit = seconds(self.probe.timeout_seconds, 1);
        let address = IpAddr::V4(self.surroundings.address);
        let container = &self.surroundings.container;
        let answer = async {
            if let Some(get) = &self.probe.http_get {
                let port = port(container, &get.port)?;
                http_get(SocketAddr::new(address, port), get).await
            } else if let Some(tcp) = &self.probe.tcp_socket {
                let port = port(container, &tcp.port)?;
                TcpStream::connect(SocketAddr::new(address, port))
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            } else if let Some(exec) = &self.probe.exec {
                self.surroundings.execute(exec.command.as_deref().unwrap_or_default()).await
            } else {
                Err("a kind of probe that one-machine mode does not have".to_owned())
            }
        };
        timeout(limit, answer).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default),
    )
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port),
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| "no such port".to_owned())
}

async fn http_get(address: SocketAddr, get: &HTTPGetAction) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    if get.scheme.as_deref() == Some("HTTPS") {
        let connector = tokio_rustls::TlsConnector::from(trusting_client()?);
        let name = ServerName::IpAddress(address.ip().into());
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        request(stream, address, get).await
    } else {
        request(stream, address, get).await
    }
}

async fn request<S>(stream: S, address: SocketAddr, get: &HTTPGetAction) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let mut builder = http::Request::get(get.path.as_deref().unwrap_or("/"))
        .header(http::header::HOST, get.host.clone().unwrap_or_else(|| address.to_string()))
        .header(http::header::USER_AGENT, "kube-probe/matriarch");
    for header in get.http_headers.iter().flatten() {
        builder = builder.header(&header.name, &header.value);
    }
    let request = builder.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string());
    let answer = match response {
        Ok(response) => {
            let status = response.status();
            let body = Limited::new(response.into_body(), 4096).collect().await;
            if status.as_u16() < 400 {
                Ok(())
            } else {
                let body = body.map(|body| body.to_bytes()).unwrap_or_default();
                Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()))
            }
        }
        Err(error) => Err(error),
    };
    connection.abort();
    answer
}

/// Like kubelet's, it encrypts and does not ask who answers: the address is the container's own.
fn trusting_client() -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = AnyCertificate(provider.clone());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
