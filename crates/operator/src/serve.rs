//! Metrics and health over HTTP.

use std::net::SocketAddr;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Error;
use crate::metrics::Metrics;
use crate::watch::Shutdown;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until shut down.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn start(
    address: SocketAddr,
    metrics: Metrics,
    shutdown: Shutdown,
) -> Result<JoinHandle<()>, Error> {
    let listener =
        TcpListener::bind(address).await.map_err(|source| Error::Serve { address, source })?;
    let router = Router::new()
        .route(
            "/metrics",
            get(move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text()) }),
        )
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|| async { "ok" }));
    Ok(tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { shutdown.wait().await })
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, "metrics are no longer served");
        }
    }))
}
