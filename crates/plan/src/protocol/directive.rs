//! What the protocol is told: who it is (once) and what the operator wants (again and again).

use serde::{Deserialize, Serialize};

use super::identity::{Address, ContainerId, Incarnation, InstanceName, PodUid};
use super::moment::Span;
#[cfg(feature = "mutation")]
use super::mutation::Mutation;

/// What does not change while the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Own name.
    pub name: InstanceName,
    /// Uid of the own pod.
    pub pod_uid: PodUid,
    /// Id of the own container, or whatever tells its lives apart where the kubelet's is unknown
    /// to the pod (the keeper's start, for one); the operator's proof compares it as text.
    pub container_id: ContainerId,
    /// Where the own pod can be reached.
    pub address: Address,
    /// For the jitter of retries.
    pub seed: u64,
    /// The clause that is switched off in this run of the mutation check.
    #[cfg(feature = "mutation")]
    pub mutation: Option<Mutation>,
}

/// What the operator wants of this instance (`Instance.spec`, resolved) and where the peers are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// Every instance that the cluster wants, this one included, with what its Instance reports.
    pub members: Vec<Peer>,
    /// How an empty volume is filled.
    pub bootstrap: Bootstrap,
    /// True for the one instance that may fill the Lease for the first time (rule 7).
    pub bootstrap_primary: bool,
    /// The user has fenced this instance.
    pub fenced: bool,
    /// The instance is about to be removed: it leaves the cohort and is no successor.
    pub leaving: bool,
    /// The Cluster is gone or its deletion has begun: nobody makes a Lease any more (traps H6).
    pub cluster_gone: bool,
    /// The user keeps this instance out of elections.
    pub excluded: bool,
    /// It replays with a delay, so it is never promoted by itself.
    pub delayed: bool,
    /// The switchover wished for, if any.
    pub switchover: Option<Switchover>,
    /// Id of the restart in place that is wished for, if any.
    pub restart: Option<String>,
    /// Synchronous replication, if asked for.
    pub synchronous: Option<Synchronous>,
    /// Timing of the Lease.
    pub timing: Timing,
    /// Limits of an election.
    pub limits: Limits,
    /// Limits of starting and stopping.
    pub delays: Delays,
}

/// Another instance as its Instance object shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: InstanceName,
    /// `status.incarnation`.
    pub incarnation: Option<Incarnation>,
    /// `status.address`.
    pub address: Option<Address>,
    /// Its Instance is being deleted or `spec.leaving`: no successor, and to leave the cohort.
    pub leaving: bool,
}

/// How an empty volume is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bootstrap {
    /// By cloning another instance.
    #[default]
    Clone,
    /// By initdb.
    Initdb,
}

/// A switchover wished for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switchover {
    /// Identifies the wish; [`super::View::switchover`] says what became of it.
    pub id: String,
    /// To whom; the best fit one if none.
    pub to: Option<InstanceName>,
}

/// Synchronous replication as asked for. FIRST is treated as ANY (traps H15).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synchronous {
    /// k: how many standbys must have flushed a commit.
    pub number: u32,
    /// True: never fewer (`required`). False: as many as stream (`preferred`).
    pub required: bool,
    /// `standbyNamesPre` and `standbyNamesPost` together: names outside the cluster.
    pub outside: Vec<String>,
    /// At most so many members are listed.
    pub max_from_cluster: Option<u32>,
}

/// Timing of the Lease (`spec.primaryLease`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// D.
    pub duration: Span,
    /// Time between renewals.
    pub renew: Span,
}

impl Default for Timing {
    fn default() -> Self {
        Self { duration: Span::seconds(10), renew: Span::seconds(2) }
    }
}

/// Limits of an election (`spec.failover`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Greatest lag behind the Lease's last published position, in bytes; none: no bound.
    pub maximum_lag: Option<u64>,
    /// F: how long failsafe lasts while a straggler does not answer.
    pub failsafe_max: Span,
    /// After a crash, how long a restart in place is tried before the Lease is handed over.
    pub failover_delay: Span,
    /// Greater wins between equal positions.
    pub priority: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            maximum_lag: Some(1 << 20),
            failsafe_max: Span::seconds(600),
            failover_delay: Span::ZERO,
            priority: 0,
        }
    }
}

/// Limits of starting and stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays {
    /// How long a fast stop may take before it becomes an immediate one.
    pub stop: Span,
    /// How long a smart shutdown is tried first, when no successor is fit; none: not at all.
    pub smart: Option<Span>,
    /// How long a successor may take to receive everything in a switchover.
    pub switchover: Span,
    /// How long a promotion may take.
    pub promotion: Span,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            stop: Span::seconds(1800),
            smart: None,
            switchover: Span::seconds(3600),
            promotion: Span::seconds(40_000_000),
        }
    }
}
