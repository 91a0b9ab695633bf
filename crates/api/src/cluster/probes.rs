//! `spec.probes`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::record::{record, words};

record! {
    /// Probes of the database container.
    pub struct Probes {
        /// Has PostgreSQL started.
        startup "startup": Option<ProbeWithStrategy>,
        /// Is the container to be restarted.
        liveness "liveness": Option<LivenessProbe>,
        /// May clients connect.
        readiness "readiness": Option<ProbeWithStrategy>,
    }

    /// A probe with a choice of what it asks.
    pub struct ProbeWithStrategy {
        /// Seconds before the first probe.
        initial_delay_seconds "initialDelaySeconds": Option<i32>,
        /// Seconds that a probe may take.
        timeout_seconds "timeoutSeconds": Option<i32>,
        /// Seconds between probes.
        period_seconds "periodSeconds": Option<i32>,
        /// Successes in a row until it counts as good.
        success_threshold "successThreshold": Option<i32>,
        /// Failures in a row until it counts as bad.
        failure_threshold "failureThreshold": Option<i32>,
        /// Seconds that the pod is given to end after the probe failed.
        termination_grace_period_seconds "terminationGracePeriodSeconds": Option<i64>,
        /// What is asked.
        strategy "type": Option<ProbeStrategy>,
        /// With type streaming: how far a standby may be behind.
        maximum_lag "maximumLag": Option<Quantity>,
    }

    /// The liveness probe.
    pub struct LivenessProbe {
        /// Seconds before the first probe.
        initial_delay_seconds "initialDelaySeconds": Option<i32>,
        /// Seconds that a probe may take.
        timeout_seconds "timeoutSeconds": Option<i32>,
        /// Seconds between probes.
        period_seconds "periodSeconds": Option<i32>,
        /// Successes in a row until it counts as good.
        success_threshold "successThreshold": Option<i32>,
        /// Failures in a row until it counts as bad.
        failure_threshold "failureThreshold": Option<i32>,
        /// Seconds that the pod is given to end after the probe failed.
        termination_grace_period_seconds "terminationGracePeriodSeconds": Option<i64>,
        /// CloudNativePG's check of isolation. Here the Lease's rules stop a cut primary.
        isolation_check "isolationCheck": Option<IsolationCheck>,
    }

    /// CloudNativePG's check of isolation.
    pub struct IsolationCheck {
        /// Is it used.
        enabled "enabled": Option<bool>,
        /// Milliseconds of a request.
        request_timeout "requestTimeout": Option<i32>,
        /// Milliseconds of a connection.
        connection_timeout "connectionTimeout": Option<i32>,
    }
}

words! {
    /// What a probe asks.
    pub enum ProbeStrategy {
        /// Does PostgreSQL accept connections.
        PgIsReady = "pg_isready",
        /// Does a standby stream.
        Streaming = "streaming",
        /// Does a query run.
        Query = "query",
    }
}
