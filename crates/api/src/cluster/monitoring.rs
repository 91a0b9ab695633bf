//! `spec.monitoring` and `spec.nodeMaintenanceWindow`.

use super::KeySelector;
use crate::record::record;

record! {
    /// Metrics.
    pub struct Monitoring {
        /// Leave the default queries out.
        disable_default_queries "disableDefaultQueries": Option<bool>,
        /// Queries in ConfigMaps.
        custom_queries_config_map "customQueriesConfigMap": Vec<KeySelector>,
        /// Queries in Secrets.
        custom_queries_secret "customQueriesSecret": Vec<KeySelector>,
        /// How long a result is used again: a duration such as 30s.
        metrics_queries_ttl "metricsQueriesTTL": Option<String>,
        /// TLS of the metrics port.
        tls "tls": Option<MonitoringTls>,
        /// Make a PodMonitor. Deprecated.
        enable_pod_monitor "enablePodMonitor": Option<bool>,
        /// Relabelings of the PodMonitor's metrics. Deprecated.
        pod_monitor_metric_relabelings "podMonitorMetricRelabelings": Vec<RelabelConfig>,
        /// Relabelings of the PodMonitor's targets. Deprecated.
        pod_monitor_relabelings "podMonitorRelabelings": Vec<RelabelConfig>,
    }

    /// TLS of the metrics port.
    pub struct MonitoringTls {
        /// Is it used.
        enabled "enabled": Option<bool>,
    }

    /// A relabeling of Prometheus.
    pub struct RelabelConfig {
        /// What is done.
        action "action": Option<String>,
        /// Modulus of the hash.
        modulus "modulus": Option<i64>,
        /// Regular expression.
        regex "regex": Option<String>,
        /// What a match becomes.
        replacement "replacement": Option<String>,
        /// Between the source labels' values.
        separator "separator": Option<String>,
        /// Labels that are read.
        source_labels "sourceLabels": Vec<String>,
        /// Label that is written.
        target_label "targetLabel": Option<String>,
    }

    /// A node is in maintenance.
    pub struct NodeMaintenanceWindow {
        /// Is it so now.
        in_progress "inProgress": Option<bool>,
        /// Wait for the volumes on the node.
        reuse_pvc "reusePVC": Option<bool>,
    }
}
