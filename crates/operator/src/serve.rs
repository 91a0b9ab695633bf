//! Metrics and health over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Error;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::watch::Shutdown;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until shut down.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn start(
    address: SocketAddr,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<JoinHandle<()>, Error> {
    let listener = listen(address).await.map_err(|source| Error::Serve { address, source })?;
    let router = Router::new()
        .route(
            "/metrics",
            get(move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text()) }),
        )
        .route("/healthz", get(|| async { "ok" }))
        .route(
            "/readyz",
            get(move || async move {
                match readiness.obstacle() {
                    None => (StatusCode::OK, "ok".to_owned()),
                    Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, obstacle),
                }
            }),
        );
    Ok(tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { shutdown.wait().await })
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, "metrics are no longer served");
        }
    }))
}

/// `[::]` means every address: on a machine without IPv6 those of IPv4.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        outcome => outcome,
    }
}
