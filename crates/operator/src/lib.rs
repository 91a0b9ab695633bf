//! The operator: watches objects, runs `render` and `plan`, records and applies.
//!
//! One pass of a cluster: read everything anew, `observe`, `plan`, `lint`, record memory and status
//! by compare-and-swap, execute. The executor makes no choice; retry is the next pass. The operator
//! opens no connection to any pod and knows no SQL, and no failover waits for it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use matriarch_api::Identity;

pub mod agents;
pub mod gather;
pub mod install;
pub mod pki;

mod ended;
mod execute;
mod kinds;
mod leader;
mod metrics;
mod own_image;
mod pass;
mod readiness;
mod record;
mod requests;
mod serve;
mod watch;

pub use agents::AgentOptions;
pub use matriarch_render::Setup;
pub use own_image::own_image;

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Under which names it serves.
    pub identity: Identity,
    /// Image with this binary in it: the pods' init container copies it from there.
    pub operator_image: String,
    /// PostgreSQL's image where the user names none.
    pub postgres_image: String,
    /// The Kubernetes cluster's DNS domain.
    pub cluster_domain: String,
    /// The namespaces that are served; all of them if none is named.
    pub namespaces: Vec<String>,
    /// Where several operators elect the one that works; absent: there is only this one.
    pub leader: Option<LeaderOptions>,
    /// Where metrics and health are served; nowhere if absent.
    pub metrics: Option<SocketAddr>,
    /// Are Secrets with the cluster's label watched. Not where the operator may not list them (all
    /// namespaces, traps K4): then they are looked at in each pass and at least every `resync`.
    pub watch_secrets: bool,
    /// How long certificates last.
    pub lifetimes: pki::Lifetimes,
    /// How agents get this process's own program; absent: they are not upgraded in place.
    pub agents: Option<AgentOptions>,
    /// Every cluster is looked at at least so often, watched or not (Secrets are not).
    pub resync: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let Setup { identity, operator_image, postgres_image, cluster_domain, .. } =
            Setup::default();
        Self {
            identity,
            operator_image,
            postgres_image,
            cluster_domain,
            namespaces: Vec::new(),
            leader: None,
            metrics: None,
            watch_secrets: true,
            lifetimes: pki::Lifetimes::default(),
            agents: None,
            resync: Duration::from_secs(600),
        }
    }
}

impl Options {
    /// What objects depend on.
    pub fn setup(&self) -> Setup {
        Setup {
            identity: self.identity,
            operator_image: self.operator_image.clone(),
            postgres_image: self.postgres_image.clone(),
            cluster_domain: self.cluster_domain.clone(),
            agent: None,
            agents_wait: false,
        }
    }
}

/// The election among operators.
#[derive(Clone, Debug)]
pub struct LeaderOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Who this process is; unique among all of them.
    pub name: String,
}

/// The operator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address for metrics cannot be listened on.
    #[error("cannot serve metrics on {address}")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The own program cannot be served to agents.
    #[error("cannot serve this program to agents")]
    Agents(#[source] agents::Error),
    /// Another process became the leader; this one must end, so that two never act.
    #[error("the leader's Lease was lost")]
    LeadershipLost,
}

/// Runs until `shutdown` resolves; passes under way are finished first.
///
/// # Errors
/// If metrics cannot be served, or leadership is lost.
pub async fn run(
    client: Client,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let metrics = metrics::Metrics::new(options.identity);
    let shutdown = watch::Shutdown::new(shutdown);
    let server = match options.metrics {
        Some(address) => {
            let readiness = readiness::Readiness::default();
            tokio::spawn(readiness.clone().seek(client.clone(), options.clone()));
            let served = serve::start(address, metrics.clone(), readiness, shutdown.clone());
            Some(served.await?)
        }
        None => None,
    };
    // Every replica serves it, whoever leads: the Service leads to any of them.
    let offer = match &options.agents {
        Some(agents) => tokio::select! {
            offer = agents::serve(client.clone(), options.identity, agents.clone()) => {
                Some(offer.map_err(Error::Agents)?)
            }
            () = shutdown.wait() => None,
        },
        None => None,
    };
    let work = Work { client, options, offer, metrics };
    let outcome = match &work.options.leader {
        None => {
            work.metrics.leader(true);
            watch::run(&work, shutdown.clone()).await;
            Ok(())
        }
        Some(leader) => {
            let (client, identity) = (work.client.clone(), work.options.identity);
            let lease = leader::Candidate::new(client, identity, leader);
            lead(&work, lease, shutdown.clone()).await
        }
    };
    shutdown.begin();
    if let Some(server) = server
        && let Err(error) = server.await
    {
        tracing::warn!(%error, "metrics server ended badly");
    }
    outcome
}

/// What the one that leads works with.
pub(crate) struct Work {
    client: Client,
    options: Options,
    /// The own program, where agents get it.
    offer: Option<agents::Offer>,
    metrics: metrics::Metrics,
}

async fn lead(
    work: &Work,
    mut lease: leader::Candidate,
    shutdown: watch::Shutdown,
) -> Result<(), Error> {
    let metrics = &work.metrics;
    tokio::select! {
        () = lease.acquire() => {}
        () = shutdown.wait() => return Ok(()),
    }
    metrics.leader(true);
    let outcome = tokio::select! {
        () = watch::run(work, shutdown.clone()) => Ok(()),
        () = lease.keep() => Err(Error::LeadershipLost),
    };
    metrics.leader(false);
    if outcome.is_ok() {
        lease.release().await;
    }
    outcome
}
