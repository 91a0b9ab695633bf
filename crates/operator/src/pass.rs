//! One pass of one cluster: read, observe, plan, lint, record, execute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::controller::Action as Next;
use kube::runtime::events::Recorder;
use kube::{Api, Client};
use matriarch_api::Cluster;
use matriarch_api::causes::chain;
use matriarch_plan::{Plan, lint, plan};
use matriarch_render::setup::{Owner, Setup};
use matriarch_render::status::{self, Outcome};
use matriarch_render::{Objects, observe, resolve, story};
use tokio::sync::watch;

use crate::agents::Offer;
use crate::ended::Ended;
use crate::execute::Executor;
use crate::gather;
use crate::metrics::{Metrics, PassOutcome};
use crate::record::{self, Written};
use crate::{Options, Work, requests};

/// How soon to look again after something was done of which no watch tells (Secrets).
const AFTER_ACTION: Duration = Duration::from_millis(500);
/// In so many clusters at once an agent is replaced: what a new operator breaks it breaks in few, and
/// its port and the nodes' disks are not asked for everything at once.
const UPGRADING_MAX: usize = 8;
/// How soon to try again what was refused.
const AFTER_FAILURE: Duration = Duration::from_secs(3);
/// How soon to look again after somebody else was faster.
const AFTER_RACE: Duration = Duration::from_millis(100);

/// What all passes share.
pub struct Passes {
    client: Client,
    options: Options,
    offer: Option<Offer>,
    /// Clusters in which an agent is being replaced.
    upgrading: Mutex<BTreeSet<String>>,
    metrics: Metrics,
    recorder: Recorder,
    /// What failed in the last pass, by cluster: shown in status until it succeeds.
    failed: Mutex<BTreeMap<String, Vec<String>>>,
    ended: Ended,
    /// How many passes are under way.
    under_way: watch::Sender<usize>,
    /// The version of each cluster's Lease and since when this process has seen it: other clocks do
    /// not count.
    versions: Mutex<BTreeMap<String, (String, Instant)>>,
}

/// A pass could not be carried through.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Cluster could not be read.
    #[error("cannot read the cluster")]
    Read(#[source] Box<kube::Error>),
    /// Memory and status could not be written; nothing was executed.
    #[error("cannot record memory and status")]
    Record(#[source] Box<kube::Error>),
}

/// A pass that is under way, for as long as this lives.
struct UnderWay<'a>(&'a watch::Sender<usize>);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Passes {
    /// Nothing has been done yet.
    pub fn new(work: &Work, recorder: Recorder, ended: Ended) -> Self {
        Self {
            client: requests::in_turn(&work.client),
            options: work.options.clone(),
            offer: work.offer.clone(),
            upgrading: Mutex::default(),
            metrics: work.metrics.clone(),
            recorder,
            failed: Mutex::default(),
            ended,
            under_way: watch::Sender::new(0),
            versions: Mutex::default(),
        }
    }

    /// What objects depend on now, for this cluster.
    fn setup(&self, key: &str) -> Setup {
        let upgrading = self.upgrading.lock().unwrap_or_else(PoisonError::into_inner);
        Setup {
            agent: self.offer.as_ref().and_then(Offer::binary),
            agents_wait: upgrading.len() >= UPGRADING_MAX && !upgrading.contains(key),
            ..self.options.setup()
        }
    }

    /// Takes note of whether an agent of this cluster is being replaced.
    fn count(&self, key: &str, plan: &Plan) {
        let mut upgrading = self.upgrading.lock().unwrap_or_else(PoisonError::into_inner);
        if plan.replaces_agents() {
            upgrading.insert(key.to_owned());
        } else {
            upgrading.remove(key);
        }
    }

    /// One pass.
    ///
    /// # Errors
    /// If the Cluster cannot be read, or nothing can be recorded.
    pub async fn run(&self, cached: &Cluster) -> Result<Next, Error> {
        let begun = Instant::now();
        let _under_way = UnderWay::begin(&self.under_way);
        let outcome = Box::pin(self.pass(cached)).await;
        let label = match &outcome {
            Ok((label, _)) => *label,
            Err(_) => PassOutcome::Error,
        };
        self.metrics.pass(label, begun.elapsed());
        outcome.map(|(_, next)| next)
    }

    /// Waits until no pass is under way.
    pub async fn none_under_way(&self) {
        let mut count = self.under_way.subscribe();
        // The sender lives as long as this value.
        let _closed = count.wait_for(|count| *count == 0).await.is_err();
    }

    async fn pass(&self, cached: &Cluster) -> Result<(PassOutcome, Next), Error> {
        let key = format!("{}/{}", cached.namespace(), cached.name());
        let setup = &self.setup(&key);
        let api = Api::<Cluster>::namespaced_with(
            self.client.clone(),
            cached.namespace(),
            &setup.identity,
        );
        let fresh = api.get_opt(cached.name()).await;
        let Some(cluster) = fresh.map_err(|error| Error::Read(Box::new(error)))? else {
            self.forget(&key);
            return Ok((PassOutcome::Settled, Next::await_change()));
        };
        if cluster.metadata.deletion_timestamp.is_some() {
            // What it owns goes by itself; what is to be kept has no owner.
            self.forget(&key);
            return Ok((PassOutcome::Settled, Next::await_change()));
        }
        let owner = Owner { setup, cluster: &cluster };
        let now_ms = Timestamp::now().as_millisecond();
        let references = gather::read_references(&self.client, &owner).await;
        let mut resolved = resolve(&owner, &references);
        let mut objects = gather::read(&self.client, &owner, &resolved, references, now_ms).await;
        objects.ended = self.ended.of(&key);
        objects.lease_unchanged_ms = self.unchanged(&key, &objects);
        resolved.note_versions(&objects.secrets);
        let world = observe(&owner, &resolved, &objects);
        let plan = plan(&world);
        self.count(&key, &plan);
        let findings = lint(&world, &plan);
        for finding in &findings {
            self.metrics.held_back();
            tracing::error!(cluster = %key, rule = finding.rule, finding.message, "plan held back");
        }
        let outcome = Outcome { failed: self.failures(&key), findings };
        let wanted = status::render(&owner, &resolved, &world, &plan, &outcome);
        let phase = wanted.phase.clone().unwrap_or_default();
        let written = record::status(&self.client, setup, &cluster, wanted)
            .await
            .map_err(|error| Error::Record(Box::new(error)))?;
        self.metrics.phase(&key, &phase);
        if written == Written::Conflict {
            return Ok((PassOutcome::Race, Next::requeue(AFTER_RACE)));
        }
        let mut events = story::events(&plan.report);
        events.extend(status::new_warnings(&plan.report, cluster.status.as_ref()));
        if !outcome.findings.is_empty() {
            record::events(&self.recorder, setup, &cluster, &events).await;
            return Ok((PassOutcome::HeldBack, Next::requeue(self.options.resync)));
        }
        let executor = Executor {
            client: &self.client,
            owner: &owner,
            resolved: &resolved,
            lifetimes: self.options.lifetimes,
            now_ms,
        };
        let (done, failed) = executor.run(&plan).await;
        record::events(&self.recorder, setup, &cluster, &events).await;
        Ok(self.conclude(&key, &plan, done, &failed))
    }

    fn conclude(
        &self,
        key: &str,
        plan: &Plan,
        done: usize,
        failed: &[crate::execute::Error],
    ) -> (PassOutcome, Next) {
        self.metrics.actions(done, failed.len());
        let refused: Vec<String> = failed
            .iter()
            .filter(|error| !error.is_race())
            .map(|error| {
                let text = chain(error);
                tracing::warn!(cluster = %key, error = %text, "action failed");
                text
            })
            .collect();
        let news = self.remember(key, refused);
        if !failed.is_empty() {
            let race = failed.iter().all(crate::execute::Error::is_race);
            let soon = if race || news { AFTER_RACE } else { AFTER_FAILURE };
            let outcome = if race { PassOutcome::Race } else { PassOutcome::Failed };
            return (outcome, Next::requeue(soon));
        }
        if done > 0 {
            return (PassOutcome::Acted, Next::requeue(AFTER_ACTION));
        }
        if news {
            return (PassOutcome::Settled, Next::requeue(AFTER_RACE));
        }
        let wake = plan.wake.as_ref().map(|wake| Duration::from_millis(wake.after_ms));
        let next = wake.unwrap_or(self.options.resync).min(self.options.resync);
        (PassOutcome::Settled, Next::requeue(next))
    }

    fn failures(&self, key: &str) -> Vec<String> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(key).cloned().unwrap_or_default()
    }

    /// Notes what failed; true if that is news.
    fn remember(&self, key: &str, refused: Vec<String>) -> bool {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failed.remove(key).unwrap_or_default();
        let news = before != refused;
        if !refused.is_empty() {
            failed.insert(key.to_owned(), refused);
        }
        news
    }

    /// For how long this version of the Lease has been seen, in milliseconds.
    fn unchanged(&self, key: &str, objects: &Objects) -> u64 {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let version = objects.lease.known().and_then(|it| it.metadata.resource_version.clone());
        let Some(version) = version else {
            versions.remove(key);
            return 0;
        };
        match versions.get(key) {
            Some((known, since)) if *known == version => {
                u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
            }
            Some(_) | None => {
                versions.insert(key.to_owned(), (version, Instant::now()));
                0
            }
        }
    }

    fn forget(&self, key: &str) {
        self.upgrading.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.remember(key, Vec::new());
        self.metrics.forget(key);
        self.ended.forget(key);
    }
}

/// What to do after a pass that could not be carried through.
pub fn after_error(cluster: &Arc<Cluster>, error: &Error, _passes: &Arc<Passes>) -> Next {
    tracing::warn!(cluster = cluster.name(), error = %chain(error), "pass failed");
    Next::requeue(AFTER_FAILURE)
}
