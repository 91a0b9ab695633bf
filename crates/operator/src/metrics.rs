//! The operator's metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use matriarch_api::Identity;
use matriarch_api::metrics::Metric;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum PassOutcome {
    /// Nothing was to be done.
    Settled,
    /// Something was done.
    Acted,
    /// Somebody else was faster.
    Race,
    /// An action was refused.
    Failed,
    /// The second opinion said no.
    HeldBack,
    /// It could not be carried through.
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: PassOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    outcome: ActionOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum ActionOutcome {
    Done,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: String,
}

/// The operator's metrics; clones share their values.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    passes: Family<OutcomeLabels, Counter>,
    seconds: Histogram,
    actions: Family<ActionLabels, Counter>,
    held_back: Counter,
    leader: Gauge,
    clusters: Family<PhaseLabels, Gauge>,
    phases: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Metrics {
    /// All at zero.
    pub fn new(identity: Identity) -> Self {
        let mut registry = Registry::with_prefix(identity.metric_prefix());
        let passes = Family::default();
        let seconds =
            Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let actions = Family::default();
        let held_back = Counter::default();
        let leader = Gauge::default();
        let clusters = Family::default();
        // The registry adds `_total` to counters by itself.
        let name = |metric: Metric| metric.suffix().trim_end_matches("_total");
        registry.register(name(Metric::ReconcileTotal), "Passes by outcome", passes.clone());
        registry.register(name(Metric::ReconcileSeconds), "Time of passes", seconds.clone());
        registry.register(name(Metric::ActionsTotal), "Actions by outcome", actions.clone());
        registry.register(
            name(Metric::HeldBackTotal),
            "Plans that the second opinion held back",
            held_back.clone(),
        );
        registry.register(name(Metric::Leader), "Does this process lead", leader.clone());
        registry.register(name(Metric::Clusters), "Clusters by phase", clusters.clone());
        Self {
            registry: Arc::new(registry),
            passes,
            seconds,
            actions,
            held_back,
            leader,
            clusters,
            phases: Arc::default(),
        }
    }

    /// A pass has ended.
    pub fn pass(&self, outcome: PassOutcome, took: Duration) {
        self.passes.get_or_create(&OutcomeLabels { outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Actions were executed.
    pub fn actions(&self, done: usize, failed: usize) {
        let count = |outcome: ActionOutcome, number: usize| {
            let number = u64::try_from(number).unwrap_or(u64::MAX);
            self.actions.get_or_create(&ActionLabels { outcome }).inc_by(number);
        };
        count(ActionOutcome::Done, done);
        count(ActionOutcome::Failed, failed);
    }

    /// A plan was held back.
    pub fn held_back(&self) {
        self.held_back.inc();
    }

    /// Does this process lead.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A cluster is in this phase now.
    pub fn phase(&self, key: &str, phase: &str) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let before = phases.insert(key.to_owned(), phase.to_owned());
        if before.as_deref() != Some(phase) {
            self.count(before, -1);
            self.count(Some(phase.to_owned()), 1);
        }
    }

    /// A cluster is no more.
    pub fn forget(&self, key: &str) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let before = phases.remove(key);
        self.count(before, -1);
    }

    fn count(&self, phase: Option<String>, by: i64) {
        if let Some(phase) = phase {
            self.clusters.get_or_create(&PhaseLabels { phase }).inc_by(by);
        }
    }

    /// All values in OpenMetrics' text form.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::warn!(%error, "metrics cannot be written");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_counts_in_one_phase_at_a_time() {
        let metrics = Metrics::new(Identity::Matriarch);
        metrics.phase("a/b", "Setting up primary");
        metrics.phase("a/b", "Cluster in healthy state");
        let text = metrics.text();
        assert!(
            text.contains("matriarch_operator_clusters{phase=\"Setting up primary\"} 0"),
            "{text}"
        );
        assert!(text.contains("{phase=\"Cluster in healthy state\"} 1"), "{text}");
        metrics.forget("a/b");
        assert!(metrics.text().contains("{phase=\"Cluster in healthy state\"} 0"));
    }
}
