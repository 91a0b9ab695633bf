//! The election among operators, on a Lease. It saves work; safety does not rest on it: memory is
//! written by compare-and-swap, and every action is guarded.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::LeaderOptions;
use matriarch_api::Identity;

/// How long a leader leads after a renewal.
const LEASE: Duration = Duration::from_secs(15);
/// Time between renewals, and between looks at another's Lease.
const RETRY: Duration = Duration::from_secs(3);
/// A leader that could not renew for so long ends: before another may begin.
const DEADLINE: Duration = Duration::from_secs(10);

/// One of those that want to lead.
pub struct Candidate {
    api: Api<Lease>,
    lease_name: String,
    name: String,
    renewed: Instant,
    /// The version of another's Lease, and since when it has been unchanged by our own clock:
    /// clocks of two machines are never compared.
    watched: Option<(String, Instant)>,
}

impl Candidate {
    /// Wants to lead, does not yet.
    pub fn new(client: Client, identity: Identity, options: &LeaderOptions) -> Self {
        Self {
            api: Api::namespaced(client, &options.namespace),
            lease_name: identity.leader_lease().to_owned(),
            name: options.name.clone(),
            renewed: Instant::now(),
            watched: None,
        }
    }

    /// Waits until this process leads.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "cannot become the leader"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews; returns when leadership is lost.
    pub async fn keep(&mut self) {
        loop {
            tokio::time::sleep(RETRY).await;
            let outcome = tokio::time::timeout(RETRY, self.attempt()).await;
            match outcome {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew leadership"),
                Err(_) => tracing::warn!("renewal of leadership takes too long"),
            }
            if self.renewed.elapsed() > DEADLINE {
                return;
            }
        }
    }

    /// Gives leadership up, so that the next one need not wait; an API that does not answer is not
    /// waited for.
    pub async fn release(&mut self) {
        if tokio::time::timeout(RETRY, self.give_up()).await.is_err() {
            tracing::debug!("leadership runs out: giving it up takes too long");
        }
    }

    async fn give_up(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.lease_name).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(self.name.as_str()) {
            spec.holder_identity = None;
            if let Err(error) =
                self.api.replace(&self.lease_name, &PostParams::default(), &lease).await
            {
                tracing::debug!(%error, "leadership runs out instead of being given up");
            }
        }
    }

    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let begun = Instant::now();
        let Some(mut lease) = self.api.get_opt(&self.lease_name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.lease_name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(0)),
            };
            return self.settle(begun, self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let mine = holder == self.name;
        if !mine && !holder.is_empty() && !self.has_run_out(&lease) {
            return Ok(false);
        }
        let turns = spec.lease_transitions.unwrap_or_default();
        lease.spec = Some(self.spec(if mine { turns } else { turns.saturating_add(1) }));
        // The version that was read stands in the object: a race has one winner.
        let written = self.api.replace(&self.lease_name, &PostParams::default(), &lease).await;
        self.settle(begun, written)
    }

    fn settle(
        &mut self,
        begun: Instant,
        written: Result<Lease, kube::Error>,
    ) -> Result<bool, kube::Error> {
        match written {
            Ok(_) => {
                self.renewed = begun;
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn has_run_out(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.watched {
            Some((seen, since)) if *seen == version => since.elapsed() > LEASE,
            Some(_) | None => {
                self.watched = Some((version, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            renew_time: Some(now.clone()),
            acquire_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}
