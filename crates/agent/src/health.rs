//! What the kubelet's probes are told (CloudNativePG's semantics).
//!
//! Liveness only says that the agent answers: a standby is never killed for being slow, and a
//! primary that lost its right is stopped by rule 5, not by the kubelet. Crash recovery and a long
//! shutdown count as started and alive, so neither is ever killed.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::peers::server::plain;

/// How PostgreSQL is, as far as probes are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerHealth {
    /// No postmaster runs.
    #[default]
    Down,
    /// A postmaster runs and refuses sessions: it starts, recovers or shuts down.
    Refusing,
    /// It answers statements.
    Answering,
}

/// How the instance is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// PostgreSQL.
    pub server: ServerHealth,
    /// The user fenced the instance.
    pub fenced: bool,
    /// It is a standby.
    pub standby: bool,
    /// Its walreceiver streams.
    pub streaming: bool,
    /// How far it is behind, in bytes, if known.
    pub lag: Option<u64>,
    /// When a startup probe is content.
    pub startup: Criterion,
    /// When a readiness probe is content.
    pub readiness: Criterion,
}

/// When a probe is content (`spec.probes.*.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Criterion {
    /// `pg_isready`: a postmaster is there.
    #[default]
    IsReady,
    /// `query`: a statement is answered.
    Query,
    /// `streaming`: a standby streams, and is at most so far behind.
    Streaming {
        /// Bytes; no bound if none.
        maximum_lag: Option<u64>,
    },
}

/// A probe's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Content.
    Good,
    /// Not content, because.
    Bad(&'static str),
}

impl From<Verdict> for Response<Full<Bytes>> {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Good => plain(StatusCode::OK, "OK\n"),
            Verdict::Bad(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
        }
    }
}

impl Health {
    /// The agent answers.
    #[must_use]
    pub fn liveness(&self) -> Verdict {
        Verdict::Good
    }

    /// Clients may be sent here.
    #[must_use]
    pub fn readiness(&self) -> Verdict {
        if self.fenced {
            return Verdict::Bad("fenced\n");
        }
        match self.server {
            ServerHealth::Down => Verdict::Bad("PostgreSQL is down\n"),
            ServerHealth::Refusing => Verdict::Bad("PostgreSQL refuses sessions\n"),
            ServerHealth::Answering => self.criterion(self.readiness),
        }
    }

    /// The first start is over.
    #[must_use]
    pub fn startup(&self) -> Verdict {
        match self.server {
            // A fenced instance is down on purpose.
            ServerHealth::Down if self.fenced => Verdict::Good,
            ServerHealth::Down => Verdict::Bad("PostgreSQL is down\n"),
            ServerHealth::Refusing | ServerHealth::Answering => self.criterion(self.startup),
        }
    }

    fn criterion(&self, criterion: Criterion) -> Verdict {
        match criterion {
            Criterion::IsReady => Verdict::Good,
            Criterion::Query if self.server == ServerHealth::Answering => Verdict::Good,
            Criterion::Query => Verdict::Bad("PostgreSQL answers no statement\n"),
            Criterion::Streaming { .. } if !self.standby => Verdict::Good,
            Criterion::Streaming { .. } if !self.streaming => Verdict::Bad("it does not stream\n"),
            Criterion::Streaming { maximum_lag } => match (maximum_lag, self.lag) {
                (Some(bound), Some(lag)) if lag > bound => Verdict::Bad("it is too far behind\n"),
                (Some(_), None) => Verdict::Bad("how far it is behind is not known\n"),
                (Some(_) | None, _) => Verdict::Good,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_and_shutdown_are_alive_and_started_but_not_ready() {
        let health = Health { server: ServerHealth::Refusing, ..Health::default() };
        assert_eq!(health.liveness(), Verdict::Good);
        assert_eq!(health.startup(), Verdict::Good);
        assert_ne!(health.readiness(), Verdict::Good);
    }

    #[test]
    fn a_fenced_instance_is_never_ready_and_never_killed() {
        let health = Health { fenced: true, ..Health::default() };
        assert_eq!(health.liveness(), Verdict::Good);
        assert_eq!(health.startup(), Verdict::Good);
        assert_ne!(health.readiness(), Verdict::Good);
    }

    #[test]
    fn a_standby_that_must_stream_within_a_bound_is_not_ready_when_its_lag_is_unknown() {
        let mut health = Health {
            server: ServerHealth::Answering,
            standby: true,
            streaming: true,
            readiness: Criterion::Streaming { maximum_lag: Some(10) },
            ..Health::default()
        };
        assert_ne!(health.readiness(), Verdict::Good);
        health.lag = Some(10);
        assert_eq!(health.readiness(), Verdict::Good);
        health.lag = Some(11);
        assert_ne!(health.readiness(), Verdict::Good);
        health.standby = false;
        assert_eq!(health.readiness(), Verdict::Good);
    }
}
