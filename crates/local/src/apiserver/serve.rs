//! HTTPS.

use std::{io, sync::Arc, time::Duration};

use http::{Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use matriarch_store::{Refusal, object};
use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{ApiServer, Caller, answer};

/// How often owners and finalizers are looked after even if nothing changed.
const COLLECT: Duration = Duration::from_secs(30);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No connection can be accepted any more.
    #[error("cannot accept connections")]
    Accept(#[source] io::Error),
}

impl ApiServer {
    /// Serves HTTPS and collects garbage until `shutdown` completes.
    ///
    /// # Errors
    /// [`ServeError`] where the listener fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        config: ServerConfig,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let mut config = config;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut tasks = JoinSet::new();
        let collector = self.clone();
        tasks.spawn(async move { collector.collect_forever().await });
        tokio::pin!(shutdown);
        let ended = loop {
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (server, acceptor) = (self.clone(), acceptor.clone());
                        tasks.spawn(async move {
                            server.wait_while_paused().await;
                            match tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream)).await {
                                Ok(Ok(stream)) => server.connection(TokioIo::new(stream)).await,
                                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                                Err(_) => tracing::debug!("TLS handshake took too long"),
                            }
                        });
                    }
                    // Out of file descriptors, or a connection that was gone already: neither is
                    // a reason to stop.
                    Err(error) if error.raw_os_error().is_some() => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(error) => break Err(ServeError::Accept(error)),
                },
                Some(_) = tasks.join_next(), if tasks.len() > 1 => {}
            }
        };
        tasks.shutdown().await;
        ended
    }

    async fn connection<I>(&self, stream: TokioIo<I>)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let server = self.clone();
            async move { Ok::<_, std::convert::Infallible>(server.identified(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(stream, service)
            .with_upgrades();
        let mut paused = self.inner.paused.subscribe();
        let ended = tokio::select! {
            ended = connection => ended,
            // An error means that the server is gone.
            _ = paused.wait_for(|paused| *paused) => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// Plays dead, or answers again: connections break, new ones are accepted and never answered,
    /// as by a server whose machine hangs. Nothing that it holds changes meanwhile.
    pub fn pause(&self, paused: bool) {
        self.inner.paused.send_replace(paused);
    }

    /// Waits until it answers.
    pub(super) async fn wait_while_paused(&self) {
        // The sender lives as long as this server.
        let _ = self.inner.paused.subscribe().wait_for(|paused| !*paused).await;
    }

    async fn identified(&self, request: Request<Incoming>) -> http::Response<axum::body::Body> {
        let open = matches!(request.uri().path(), "/healthz" | "/readyz" | "/livez" | "/version");
        match self.caller_of(&request) {
            Some(caller) => self.handle(request, caller).await,
            None if open => {
                let nobody =
                    Caller::ServiceAccount { namespace: String::new(), name: String::new() };
                self.handle(request, nobody).await
            }
            None => answer::refusal(&Refusal::Unauthorized),
        }
    }

    /// The caller of a bearer token; a service account must exist.
    fn caller_of<B>(&self, request: &Request<B>) -> Option<Caller> {
        let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        let caller = self.inner.key.caller(header.strip_prefix("Bearer ")?.trim())?;
        match &caller {
            Caller::Admin => Some(caller),
            Caller::ServiceAccount { namespace, name } => self
                .store()
                .peek("", "serviceaccounts", namespace, name)
                .is_some_and(|account| !object::is_deleting(account))
                .then_some(caller),
        }
    }

    /// The garbage collector: after every change, and now and then.
    pub async fn collect_forever(&self) {
        let mut written: watch::Receiver<u64> = self.inner.written.subscribe();
        loop {
            written.borrow_and_update();
            match self.collect().await {
                // What was removed may have owned something.
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "garbage collection failed"),
            }
            tokio::select! {
                changed = written.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(COLLECT) => {}
            }
        }
    }
}
