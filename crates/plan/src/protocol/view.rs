//! What status shows of the protocol: facts and reasons as data, never as text.

use serde::{Deserialize, Serialize};

use matriarch_pg::Lsn;

use super::identity::{Incarnation, InstanceName, Member, Term};
use super::moment::{Moment, Span};
use super::position::{History, Position};
use super::quorum::{Quorum, StandbyNames};

/// What the instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Nothing yet: no data, no directive, or nothing to follow.
    #[default]
    None,
    /// Follows the holder, or waits to.
    Standby,
    /// Runs for the Lease.
    Candidate,
    /// Holds the Lease and is being promoted or started.
    Promoting,
    /// Holds the Lease and accepts writes.
    Primary,
    /// Holds the Lease and gives it away.
    HandingOver,
    /// Is being stopped because its right has ended.
    Stopping,
    /// Stopped because the user fenced it.
    Fenced,
    /// Is being rewound or cloned.
    Rejoining,
}

/// Why an agent does not do what it might.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waiting {
    /// No directive has been read yet.
    Directive,
    /// The driver has not looked at PostgreSQL yet.
    Observation,
    /// The Lease cannot be read (rule 7: unknown).
    LeaseUnreadable,
    /// The Lease is absent and it is not for this instance to make it now (rule 7).
    LeaseAbsent,
    /// The Lease's term is below one already obeyed (rule 7: damaged).
    LeaseDamaged,
    /// Somebody holds the Lease, by this instance's clock until then at least.
    Held {
        /// When it counts as expired if nothing changes.
        until: Moment,
    },
    /// The Lease was handed to another, who has two seconds.
    HandedTo(Incarnation),
    /// It told the holder to go on (rule 3).
    Vouched {
        /// When it may run.
        until: Moment,
    },
    /// Fenced.
    Fenced,
    /// Leaving, excluded or delayed.
    Unfit,
    /// Another database system than the Lease's.
    OtherSystem,
    /// A straggler: the Lease must be unchanged for F + D.
    Straggler {
        /// When it may run.
        until: Moment,
    },
    /// A peer knows a higher term.
    HigherTerm(InstanceName),
    /// A peer runs, or may.
    PeerRuns(InstanceName),
    /// A peer vouched for the holder lately.
    PeerVouched(InstanceName),
    /// A reachable peer is better.
    BetterPeer(InstanceName),
    /// Fewer of M promised than are needed.
    Promises {
        /// Promised, itself included.
        have: u32,
        /// |M| − w + 1.
        need: u32,
        /// Members of M that did not promise.
        missing: Vec<Incarnation>,
    },
    /// Its position is behind that of a promiser.
    BehindPromiser(InstanceName),
    /// It lacks WAL that was acknowledged while a quorum held it.
    BehindQuorum {
        /// How much.
        bytes: u64,
    },
    /// Its WAL leaves the Lease's history.
    LeftHistory,
    /// Its lag behind the Lease's last published position is beyond the bound.
    Lag {
        /// Bytes behind.
        bytes: u64,
        /// `maximumLagOnFailover`.
        bound: u64,
    },
    /// It has no whole copy: being cloned or rewound.
    NoCopy,
    /// It gave the Lease up in this term because it could not promote (rule 12).
    CouldNotPromote,
    /// The former holder has not come back as itself: another pod on its volume waits D (traps H5).
    OtherPod {
        /// When it may run.
        until: Moment,
    },
    /// Not every instance has answered (rule 7, absent Lease).
    Unanswered(Vec<InstanceName>),
    /// Acknowledged commits may be on the old copies of these alone, which they gave up for new ones
    /// that nobody can give them (rule 7, absent Lease).
    CopyGivenUp(Vec<InstanceName>),
    /// There is nobody to follow or to clone from.
    NoSource,
    /// A successor has not received everything yet (rule 18).
    Successor(InstanceName),
    /// No peer is fit to succeed.
    NoSuccessor,
    /// A write of the Lease is unresolved.
    UnresolvedWrite,
    /// An operation failed and is tried again.
    Retry {
        /// In the words of what failed.
        message: String,
        /// When.
        at: Moment,
    },
}

/// What a human may do when the agents may not decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HumanOption {
    /// Bring this instance back.
    BringBack(InstanceName),
    /// Accept the loss of what only the missing ones may hold, and let this instance run.
    AcceptLoss,
    /// Accept a lag of so many bytes: raise `maximumLagOnFailover`.
    RaiseMaximumLag(u64),
    /// Take the fence away.
    Unfence,
    /// Make the Lease again, naming an instance.
    NameHolder,
}

/// Commits of a former primary that nobody has (rule 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// Where the histories part.
    pub from: Lsn,
    /// End of the own WAL.
    pub to: Lsn,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishOutcome {
    /// The wish.
    pub id: String,
    /// Done, or refused for this reason.
    pub refused: Option<Waiting>,
}

/// How far the synchronous shift of rule 14 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShiftStep {
    /// a, b: names for both are being put in force.
    Names,
    /// c: enough of the new set must have flushed this.
    CatchUp(Lsn),
    /// d: L.quorum is being written.
    Publish,
    /// e: the new names are being put in force.
    Finish,
}

/// Everything that status shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// What it is.
    pub role: Role,
    /// Own incarnation, once there is data.
    pub incarnation: Option<Incarnation>,
    /// Highest term obeyed.
    pub term: Term,
    /// Name of the Lease's holder, as last read.
    pub holder: Option<InstanceName>,
    /// Term of the Lease, as last read.
    pub lease_term: Option<Term>,
    /// Until when it may accept writes, if it holds the Lease.
    pub right_until: Option<Moment>,
    /// It goes on without the API since then (rule 3).
    pub failsafe_since: Option<Moment>,
    /// Time left of F while a straggler does not answer (traps H11).
    pub failsafe_left: Option<Span>,
    /// Whom it follows.
    pub following: Option<Member>,
    /// Term that it no longer follows.
    pub promised: Option<Term>,
    /// Own position.
    pub position: Position,
    /// Own history, as far as flushed.
    pub history: History,
    /// The published quorum.
    pub quorum: Option<Quorum>,
    /// Synchronous replication was asked for, but names outside the cluster may be the ones that
    /// acknowledge: failover is not protected (traps H15).
    pub unprotected: bool,
    /// Names in force, of a primary.
    pub names: Option<StandbyNames>,
    /// The shift under way.
    pub shift: Option<ShiftStep>,
    /// The Lease's cohort.
    pub cohort: Vec<Member>,
    /// The Lease's stragglers.
    pub stragglers: Vec<Member>,
    /// Why it does not do more, if it does not.
    pub waiting: Option<Waiting>,
    /// What a human may do about it.
    pub human: Vec<HumanOption>,
    /// The last switchover wish that was dealt with.
    pub switchover: Option<WishOutcome>,
    /// The last restart wish that was dealt with.
    pub restart: Option<WishOutcome>,
    /// Commits that were left behind at the last rejoin.
    pub unique: Option<Unique>,
    /// How often this process did what, for the simulator's closing line.
    pub counts: Counts,
}

/// Things done since this process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Leases taken by election (rule 11).
    pub elections: u32,
    /// Of these, by promises before expiry (rule 16).
    pub quick: u32,
    /// Failsafe rounds that succeeded (rule 3).
    pub failsafe_rounds: u32,
    /// Handovers released or told (rule 18).
    pub handovers: u32,
    /// Own Leases taken again (rule 8).
    pub retaken: u32,
    /// Terms re-asserted against promises (rule 16).
    pub reasserted: u32,
    /// Rewinds begun (rule 22).
    pub rewinds: u32,
    /// Clones begun.
    pub clones: u32,
    /// Damaged Leases written anew (rule 7).
    pub damaged: u32,
    /// Absent Leases created (rule 7).
    pub created: u32,
    /// Candidacies that ended with a reason not to run.
    pub refused: u32,
    /// Synchronous shifts finished (rule 14).
    pub shifts: u32,
}
