//! The metrics port: plain HTTP, text format of Prometheus.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use matriarch_api::identity::Identity;
use matriarch_api::metrics::Metric;
use matriarch_plan::protocol::{PostgresState, View};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::driver::observe::Seen;
use crate::peers::server::plain;

/// What is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    up: bool,
    fenced: bool,
    failsafe: bool,
    term: u64,
    elections: u32,
    handovers: u32,
    renewals: u64,
    synchronous: u32,
    streaming: usize,
}

/// What is measured, at this instant.
#[must_use]
pub fn figures(view: &View, seen: &Seen, fenced: bool, renewals: u64) -> Figures {
    let observation = &seen.observation;
    Figures {
        up: matches!(observation.state, PostgresState::Primary | PostgresState::Standby),
        fenced,
        failsafe: view.failsafe_since.is_some(),
        term: view.term.0,
        elections: view.counts.elections,
        handovers: view.counts.handovers,
        renewals,
        synchronous: view.names.as_ref().map_or(0, |names| names.need),
        streaming: observation.walsenders.iter().filter(|sender| sender.streaming).count(),
    }
}

impl Figures {
    fn render(&self, identity: Identity, cluster: &str, version: Option<&str>) -> String {
        let mut text = String::new();
        let mut gauge = |metric: Metric, kind: &str, labels: &str, value: f64| {
            let name = metric.name(identity);
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "# TYPE {name} {kind}\n{name}{labels} {value}");
        };
        let flag = |flag: bool| if flag { 1.0 } else { 0.0 };
        let labels = format!("{{cluster=\"{cluster}\"}}");
        gauge(Metric::CollectorUp, "gauge", &labels, flag(self.up));
        gauge(Metric::CollectorFencingOn, "gauge", "", flag(self.fenced));
        if let Some(version) = version {
            let labels = format!("{{cluster=\"{cluster}\",full=\"{version}\"}}");
            let major = version.split('.').next().and_then(|major| major.parse().ok());
            gauge(Metric::CollectorPostgresVersion, "gauge", &labels, major.unwrap_or(0.0));
        }
        let streaming = u32::try_from(self.streaming).unwrap_or(u32::MAX);
        gauge(
            Metric::CollectorSyncReplicas,
            "gauge",
            "{value=\"expected\"}",
            f64::from(self.synchronous),
        );
        let name = Metric::CollectorSyncReplicas.name(identity);
        let observed = streaming.min(self.synchronous);
        gauge(Metric::Failsafe, "gauge", "", flag(self.failsafe));
        gauge(Metric::Term, "gauge", "", precise(self.term));
        gauge(Metric::ElectionsTotal, "counter", "", f64::from(self.elections));
        gauge(Metric::HandoversTotal, "counter", "", f64::from(self.handovers));
        gauge(Metric::LeaseRenewalsTotal, "counter", "", precise(self.renewals));
        let _infallible = writeln!(text, "{name}{{value=\"observed\"}} {observed}");
        text
    }
}

/// Counters stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counters stay far below 2^53")]
fn precise(value: u64) -> f64 {
    value as f64
}

/// Listens until the process ends.
///
/// # Errors
/// If the port is taken.
pub async fn listen(
    address: SocketAddr,
    identity: Identity,
    cluster: String,
    figures: watch::Receiver<Figures>,
    version: impl Fn() -> Option<String> + Clone + Send + Sync + 'static,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (figures, cluster, version) = (figures.clone(), cluster.clone(), version.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let response = if request.uri().path() == "/metrics" {
                    let text = figures.borrow().render(identity, &cluster, version().as_deref());
                    plain(StatusCode::OK, &text)
                } else {
                    plain(StatusCode::NOT_FOUND, "")
                };
                async move { Ok::<Response<Full<Bytes>>, Infallible>(response) }
            });
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(5))
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::trace!(%error, "connection ended");
                }
            });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_identity() {
        let figures =
            Figures { up: true, term: 7, synchronous: 1, streaming: 2, ..Default::default() };
        let text = figures.render(Identity::Cnpg, "c", Some("15.18"));
        assert!(text.contains("cnpg_collector_up{cluster=\"c\"} 1\n"), "{text}");
        assert!(text.contains("cnpg_agent_term 7\n"), "{text}");
        assert!(text.contains("{value=\"observed\"} 1\n"), "{text}");
    }
}
