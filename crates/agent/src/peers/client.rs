//! Asking another agent. Connections are kept: a handshake every half second would cost more than
//! everything else that the agent does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use matriarch_plan::protocol::{Address, Answer, InstanceName, Question};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::{INSTANCE_HEADER, PeerSlots, QUESTION_PATH, SLOTS_PATH};

/// An answer is never longer.
const ANSWER_BYTES: usize = 256 * 1024;

/// Why a peer has not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no certificates yet.
    #[error("no certificates yet")]
    NoCertificates,
    /// Its address or name is none.
    #[error("{0:?} is no address")]
    Address(String),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Limit(Duration),
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The connection broke.
    #[error("connection lost")]
    Lost(#[source] hyper::Error),
    /// It refused.
    #[error("refused with status {0}")]
    Status(u16),
    /// Something else answered.
    #[error("the answer cannot be read: {0}")]
    Content(String),
    /// Another instance answered under this address.
    #[error("{0} answered instead")]
    Somebody(InstanceName),
}

type Key = (InstanceName, String, u16);
type Connection = SendRequest<Full<Bytes>>;

/// Connections to the other agents.
#[derive(Clone)]
pub struct Peers {
    own: InstanceName,
    tls: Arc<Mutex<Option<Arc<ClientConfig>>>>,
    idle: Arc<Mutex<BTreeMap<Key, Connection>>>,
}

impl Peers {
    /// No connection yet.
    #[must_use]
    pub fn new(own: InstanceName) -> Self {
        Self { own, tls: Arc::default(), idle: Arc::default() }
    }

    /// New certificates: new connections use them.
    pub fn set_tls(&self, config: Arc<ClientConfig>) {
        if let Ok(mut tls) = self.tls.lock() {
            *tls = Some(config);
        }
        if let Ok(mut idle) = self.idle.lock() {
            idle.clear();
        }
    }

    /// Asks one question within `limit`, connecting included.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn ask(
        &self,
        to: &InstanceName,
        address: &Address,
        question: &Question,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let answer = tokio::time::timeout(limit, self.try_ask(to, address, question))
            .await
            .map_err(|_| Error::Limit(limit))??;
        if answer.status.member.name != *to {
            return Err(Error::Somebody(answer.status.member.name));
        }
        Ok(answer)
    }

    /// Asks for the replication slots within `limit`, connecting included.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn slots(
        &self,
        to: &InstanceName,
        address: &Address,
        limit: Duration,
    ) -> Result<PeerSlots, Error> {
        let sending = self.send(to, address, Request::get(SLOTS_PATH), Bytes::new());
        let answer: PeerSlots =
            tokio::time::timeout(limit, sending).await.map_err(|_| Error::Limit(limit))??;
        if answer.instance != to.as_str() {
            return Err(Error::Somebody(answer.instance.as_str().into()));
        }
        Ok(answer)
    }

    async fn try_ask(
        &self,
        to: &InstanceName,
        address: &Address,
        question: &Question,
    ) -> Result<Answer, Error> {
        let body =
            serde_json::to_vec(question).map_err(|error| Error::Content(error.to_string()))?;
        let request =
            Request::post(QUESTION_PATH).header(http::header::CONTENT_TYPE, "application/json");
        self.send(to, address, request, Bytes::from(body)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        to: &InstanceName,
        address: &Address,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<T, Error> {
        let key = (to.clone(), address.host.clone(), address.agent_port);
        // Taken out while in use: what fails is not put back.
        let kept = self.idle.lock().ok().and_then(|mut idle| idle.remove(&key));
        let mut connection = match kept {
            Some(connection) if !connection.is_closed() => connection,
            Some(_) | None => self.connect(to, address).await?,
        };
        let request = request
            .header(http::header::HOST, to.as_str())
            .header(INSTANCE_HEADER, self.own.as_str())
            .body(Full::new(body))
            .map_err(|error| Error::Content(error.to_string()))?;
        let response = connection.send_request(request).await.map_err(Error::Lost)?;
        if !response.status().is_success() {
            return Err(Error::Status(response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| Error::Content(error.to_string()))?
            .to_bytes();
        let answer =
            serde_json::from_slice(&body).map_err(|error| Error::Content(error.to_string()))?;
        if let Ok(mut idle) = self.idle.lock() {
            idle.insert(key, connection);
        }
        Ok(answer)
    }

    async fn connect(&self, to: &InstanceName, address: &Address) -> Result<Connection, Error> {
        let config = self.tls.lock().ok().and_then(|tls| tls.clone());
        let config = config.ok_or(Error::NoCertificates)?;
        let ip: IpAddr = address.host.parse().map_err(|_| Error::Address(address.host.clone()))?;
        let name = ServerName::try_from(to.as_str().to_owned())
            .map_err(|_| Error::Address(to.to_string()))?;
        let stream = TcpStream::connect(SocketAddr::new(ip, address.agent_port))
            .await
            .map_err(Error::Connect)?;
        stream.set_nodelay(true).map_err(Error::Connect)?;
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(Error::Connect)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Lost)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a peer ended");
            }
        });
        Ok(sender)
    }
}
