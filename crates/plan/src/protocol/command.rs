//! What the protocol wants done. A driver carries commands out in the order in which they come and
//! chooses nothing.

use serde::{Deserialize, Serialize};

use matriarch_pg::TimelineId;

use super::identity::{Address, InstanceName, Member, Term, Version};
use super::lease::LeaseRecord;
use super::ledger::Ledger;
use super::message::{Answer, Question};
use super::moment::{Moment, Span};
use super::quorum::StandbyNames;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);
    };
}

id! {
    /// Names a request of this process; a counter.
    RequestId
}
id! {
    /// Names an operation of this process; a counter.
    OperationId
}
id! {
    /// Chosen by the driver for each question that comes in.
    ReplyToken
}

/// A command to the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Read the Lease from the API (not from a cache), within 1 s, on the Lease's own client.
    /// Answered by [`super::Event::LeaseRead`].
    ReadLease {
        /// For the answer.
        request: RequestId,
    },
    /// Write the Lease, within 1 s, compare-and-swap. Answered by [`super::Event::LeaseWritten`].
    /// Not retried by the driver.
    WriteLease {
        /// For the answer.
        request: RequestId,
        /// What the write is based on.
        base: Base,
        /// What to write.
        record: LeaseRecord,
    },
    /// Ask a peer. Answered by [`super::Event::Answered`] or [`super::Event::Unanswered`].
    Ask {
        /// For the answer.
        request: RequestId,
        /// Whom; TLS verifies this name.
        to: InstanceName,
        /// Where.
        address: Address,
        /// What.
        question: Question,
        /// How long in all, connecting included.
        limit: Span,
    },
    /// Answer a peer's question.
    Reply {
        /// Which.
        token: ReplyToken,
        /// What.
        answer: Box<Answer>,
    },
    /// Write the ledger. It MUST be durable (written, fsynced) before any command behind it, in
    /// this vector or a later one, is begun; if it cannot be made durable the driver stops the
    /// process, and the keeper stops PostgreSQL in time.
    WriteLedger(Box<Ledger>),
    /// Tell the keeper how long PostgreSQL may accept writes; none: it is no primary, no limit.
    /// MUST have reached the keeper before any command behind it is begun.
    Arm(Option<Right>),
    /// Begin an operation on PostgreSQL, the data directory or the EndpointSlice. Ends with
    /// [`super::Event::Finished`].
    Run {
        /// For the end.
        operation: OperationId,
        /// What.
        action: Action,
    },
}

/// What a write of the Lease is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// The object with this version.
    Version(Version),
    /// That there is no object: create it.
    Absent,
}

/// A primary's right to accept writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Right {
    /// Start of the request whose success it comes from.
    pub from: Moment,
    /// D.
    pub duration: Span,
}

impl Right {
    /// When it ends.
    pub fn valid_until(&self) -> Moment {
        self.from + self.duration
    }

    /// When failsafe is asked for (0.6 D).
    pub fn ask_at(&self) -> Moment {
        self.from + self.duration.percent(60)
    }

    /// When SIGQUIT goes to the postmaster (0.75 D).
    pub fn quit_at(&self) -> Moment {
        self.from + self.duration.percent(75)
    }

    /// When every process is killed (0.85 D).
    pub fn kill_at(&self) -> Moment {
        self.from + self.duration.percent(85)
    }
}

/// How PostgreSQL is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StopMode {
    /// SIGTERM: waits for sessions.
    Smart,
    /// SIGINT: ends sessions, shutdown checkpoint, waits until standbys have it.
    Fast,
    /// SIGINT without a shutdown checkpoint's wait: ends sessions and kills what is left by rule 5
    /// as soon as a successor has all flushed WAL or the limit is over (traps H3).
    Short,
    /// SIGQUIT, then rule 5's kill at once: processes must be gone, WAL need not.
    Immediate,
}

/// An operation. At most one that touches the postmaster or the data directory runs at a time: a
/// later one supersedes an earlier ([`super::Outcome::Superseded`]); setting names, checkpoints and
/// the EndpointSlice run beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// initdb into the empty volume, and what goes with it; leaves PostgreSQL stopped. Done:
    /// [`super::Outcome::NewDirectory`].
    Initialize,
    /// Start PostgreSQL as primary with these names already in force. Done when it accepts
    /// writes.
    StartPrimary {
        /// `synchronous_standby_names`.
        names: StandbyNames,
    },
    /// Start PostgreSQL in recovery (standby.signal). Done when recovery has begun.
    StartStandby {
        /// Whom its walreceiver follows; nobody: it replays what it has and waits.
        follow: Option<Member>,
    },
    /// Change whom the running standby follows. Done when the old walreceiver has ended; the
    /// observation before [`super::Event::Finished`] has the final flushed position.
    Follow {
        /// Whom; nobody: no walreceiver any more.
        member: Option<Member>,
    },
    /// Stop PostgreSQL. Done when every process of the data directory is gone; the observation
    /// then has the end of WAL. After `limit` the next harsher way is taken by the driver.
    Stop {
        /// How.
        mode: StopMode,
        /// How long this way is tried.
        limit: Span,
    },
    /// CHECKPOINT, so that the stop behind it is short. A failure does no harm.
    Checkpoint,
    /// Promote. The driver places history files so that PostgreSQL takes a timeline above this
    /// one. Done when PostgreSQL accepts writes and its new timeline is observed.
    Promote {
        /// The greatest timeline known to L, to its members and to the archive.
        above: TimelineId,
        /// `synchronous_standby_names`, in force as [`Action::SetNames`] says before the promotion
        /// is asked for (rule 15).
        names: StandbyNames,
    },
    /// Set `synchronous_standby_names` and reload. With `need` above 0 and no names at all the
    /// driver writes one that nobody has, so that commits wait. The driver goes by the steps of
    /// [`StandbyNames::next_towards`], each in force before the next: a mixture of two settings is
    /// weaker than either. Done when the last is in force (rule 14b): reload confirmed by the
    /// postmaster, and every walsender has taken it or was started since.
    SetNames {
        /// The names.
        names: StandbyNames,
    },
    /// Rewind the stopped data directory onto this instance. Done: it can start as a standby.
    /// Failed: the directory is unchanged, or marked so that only a clone follows.
    Rewind {
        /// The holder.
        from: Member,
    },
    /// Move the data directory aside (never delete it) and copy this instance into a new one.
    /// Done: [`super::Outcome::NewDirectory`].
    Clone {
        /// The source.
        from: Member,
    },
    /// Swap the `-rw` EndpointSlice to this address in one write, by
    /// [`EndpointReading::pointing`](super::EndpointReading::pointing) (rule 12a). Failed: it is as
    /// it was, or leads to a later holder.
    PointService {
        /// The own address.
        to: Address,
        /// Of the own Lease.
        term: Term,
    },
    /// Take this address out of the `-rw` EndpointSlice if it is in it.
    UnpointService {
        /// The old holder's address.
        away: Address,
    },
}
