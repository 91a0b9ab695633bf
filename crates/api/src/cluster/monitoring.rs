//! `spec.monitoring` and `spec.nodeMaintenanceWindow`.

use super::KeySelector;
use crate::record::record;

record! {
    /// Metrics.
    pub struct Monitoring {
        /// Leave the default queries out.
        disable_default_queries: Option<bool>,
        /// Queries in ConfigMaps.
        custom_queries_config_map: Vec<KeySelector>,
        /// Queries in Secrets.
        custom_queries_secret: Vec<KeySelector>,
        /// How long a result is used again: a duration such as 30s.
        #[serde(rename = "metricsQueriesTTL")]
        metrics_queries_ttl: Option<String>,
        /// TLS of the metrics port.
        tls: Option<MonitoringTls>,
        /// Make a PodMonitor. Deprecated.
        enable_pod_monitor: Option<bool>,
        /// Relabelings of the PodMonitor's metrics. Deprecated.
        pod_monitor_metric_relabelings: Vec<RelabelConfig>,
        /// Relabelings of the PodMonitor's targets. Deprecated.
        pod_monitor_relabelings: Vec<RelabelConfig>,
    }

    /// TLS of the metrics port.
    pub struct MonitoringTls {
        /// Is it used.
        enabled: Option<bool>,
    }

    /// A relabeling of Prometheus.
    pub struct RelabelConfig {
        /// What is done.
        action: Option<String>,
        /// Modulus of the hash.
        modulus: Option<i64>,
        /// Regular expression.
        regex: Option<String>,
        /// What a match becomes.
        replacement: Option<String>,
        /// Between the source labels' values.
        separator: Option<String>,
        /// Labels that are read.
        source_labels: Vec<String>,
        /// Label that is written.
        target_label: Option<String>,
    }

    /// A node is in maintenance.
    pub struct NodeMaintenanceWindow {
        /// Is it so now.
        in_progress: Option<bool>,
        /// Wait for the volumes on the node.
        #[serde(rename = "reusePVC")]
        reuse_pvc: Option<bool>,
    }
}
