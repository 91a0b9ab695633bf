//! The agent's port: probes without a client certificate, the protocol's questions only with that
//! of a member.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use matriarch_plan::protocol::{Answer, InstanceName, Question};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{INSTANCE_HEADER, MEMBER_COMMON_NAME, PeerSlots, QUESTION_PATH, SLOTS_PATH};
use crate::driver::context::Context;
use crate::health::Health;
use crate::postgres::slots;

/// A question is never longer.
const QUESTION_BYTES: usize = 64 * 1024;
/// Nobody waits longer for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a client may take to say what it wants.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// A question of a peer, and the way back.
#[derive(Debug)]
pub struct IncomingQuestion {
    /// The asker's instance name.
    pub from: InstanceName,
    /// What it asks.
    pub question: Question,
    /// For the answer.
    pub reply: oneshot::Sender<Answer>,
}

/// The certificates in use; none before the first were read.
#[derive(Clone, Default)]
pub struct ServerTls {
    config: Arc<Mutex<Option<Arc<ServerConfig>>>>,
}

impl ServerTls {
    /// New certificates: new connections use them.
    pub fn set(&self, config: Arc<ServerConfig>) {
        if let Ok(mut present) = self.config.lock() {
            *present = Some(config);
        }
    }

    fn get(&self) -> Option<Arc<ServerConfig>> {
        self.config.lock().ok().and_then(|present| present.clone())
    }
}

/// What the port serves.
#[derive(Clone)]
pub struct Server {
    /// Certificates.
    pub tls: ServerTls,
    /// Where questions go.
    pub questions: mpsc::Sender<IncomingQuestion>,
    /// How the instance is.
    pub health: watch::Receiver<Health>,
    /// The status document.
    pub status: watch::Receiver<Bytes>,
    /// The way to PostgreSQL.
    pub context: Context,
}

impl Server {
    /// Listens until the process ends.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn listen(self, address: SocketAddr) -> std::io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(self.clone().connection(stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(())
    }

    async fn connection(self, stream: tokio::net::TcpStream) {
        let Some(config) = self.tls.get() else { return };
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let accept = tokio_rustls::TlsAcceptor::from(config).accept(stream);
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_LIMIT, accept).await else { return };
        let member =
            stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).is_some_and(
                |certificate| common_name(certificate).as_deref() == Some(MEMBER_COMMON_NAME),
            );
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request, member).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_LIMIT)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::trace!(%error, "connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>, member: bool) -> Response<Full<Bytes>> {
        let health = self.health.borrow().clone();
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => health.liveness().into(),
            (&Method::GET, "/readyz") => health.readiness().into(),
            (&Method::GET, "/startupz") => health.startup().into(),
            (&Method::GET, "/status") if member => {
                json(StatusCode::OK, self.status.borrow().clone())
            }
            (&Method::POST, QUESTION_PATH) if member => self.question(request).await,
            (&Method::GET, SLOTS_PATH) if member => self.slots().await,
            (_, "/status" | QUESTION_PATH | SLOTS_PATH) if !member => {
                plain(StatusCode::UNAUTHORIZED, "")
            }
            _ => plain(StatusCode::NOT_FOUND, ""),
        }
    }

    /// In a session of its own: what decides about a failover waits for nobody else.
    async fn slots(&self) -> Response<Full<Bytes>> {
        let asking = async {
            let session = self.context.new_session().await?;
            slots::read(&session).await
        };
        let Ok(Ok((in_recovery, slots))) = tokio::time::timeout(ANSWER_LIMIT, asking).await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "");
        };
        let instance = self.context.options.instance.clone();
        match serde_json::to_vec(&PeerSlots { instance, in_recovery, slots }) {
            Ok(body) => json(StatusCode::OK, Bytes::from(body)),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, ""),
        }
    }

    async fn question(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let from = request
            .headers()
            .get(INSTANCE_HEADER)
            .and_then(|value| value.to_str().ok())
            .map(InstanceName::from);
        let body = Limited::new(request.into_body(), QUESTION_BYTES).collect().await;
        let question =
            body.ok().and_then(|body| serde_json::from_slice::<Question>(&body.to_bytes()).ok());
        let (Some(from), Some(question)) = (from, question) else {
            return plain(StatusCode::BAD_REQUEST, "");
        };
        let (reply, answer) = oneshot::channel();
        if self.questions.send(IncomingQuestion { from, question, reply }).await.is_err() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "");
        }
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(answer)) => match serde_json::to_vec(&answer) {
                Ok(body) => json(StatusCode::OK, Bytes::from(body)),
                Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, ""),
            },
            Ok(Err(_)) | Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, ""),
        }
    }
}

fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    Some(name)
}

fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// An answer in plain text.
#[must_use]
pub fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}
