//! Names of metrics, without the identity's prefix.

use crate::identity::Identity;

/// A metric of the operator or of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Operator: passes by outcome.
    ReconcileTotal,
    /// Operator: how long passes take.
    ReconcileSeconds,
    /// Operator: clusters by phase.
    Clusters,
    /// Operator: actions by kind and outcome.
    ActionsTotal,
    /// Operator: actions that the safety check held back.
    HeldBackTotal,
    /// Operator: is this process the leader.
    Leader,
    /// Agent: is PostgreSQL up.
    CollectorUp,
    /// Agent: is this instance fenced.
    CollectorFencingOn,
    /// Agent: PostgreSQL's version.
    CollectorPostgresVersion,
    /// Agent: synchronous standbys wanted and seen.
    CollectorSyncReplicas,
    /// Agent: elections won.
    ElectionsTotal,
    /// Agent: handovers done.
    HandoversTotal,
    /// Agent: renewals of the Lease by outcome.
    LeaseRenewalsTotal,
    /// Agent: is the primary in failsafe.
    Failsafe,
    /// Agent: the term last obeyed.
    Term,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 15] = [
        Self::ReconcileTotal,
        Self::ReconcileSeconds,
        Self::Clusters,
        Self::ActionsTotal,
        Self::HeldBackTotal,
        Self::Leader,
        Self::CollectorUp,
        Self::CollectorFencingOn,
        Self::CollectorPostgresVersion,
        Self::CollectorSyncReplicas,
        Self::ElectionsTotal,
        Self::HandoversTotal,
        Self::LeaseRenewalsTotal,
        Self::Failsafe,
        Self::Term,
    ];

    /// The name after the prefix.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::ReconcileTotal => "operator_reconcile_total",
            Self::ReconcileSeconds => "operator_reconcile_seconds",
            Self::Clusters => "operator_clusters",
            Self::ActionsTotal => "operator_actions_total",
            Self::HeldBackTotal => "operator_held_back_total",
            Self::Leader => "operator_leader",
            Self::CollectorUp => "collector_up",
            Self::CollectorFencingOn => "collector_fencing_on",
            Self::CollectorPostgresVersion => "collector_postgres_version",
            Self::CollectorSyncReplicas => "collector_sync_replicas",
            Self::ElectionsTotal => "agent_elections_total",
            Self::HandoversTotal => "agent_handovers_total",
            Self::LeaseRenewalsTotal => "agent_lease_renewals_total",
            Self::Failsafe => "agent_failsafe",
            Self::Term => "agent_term",
        }
    }

    /// The whole name.
    pub fn name(self, identity: Identity) -> String {
        format!("{}_{}", identity.metric_prefix(), self.suffix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_are_distinct_and_those_of_prometheus() {
        let names: std::collections::BTreeSet<_> =
            Metric::ALL.iter().map(|metric| metric.name(Identity::Cnpg)).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        assert!(names.contains("cnpg_collector_up"));
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
