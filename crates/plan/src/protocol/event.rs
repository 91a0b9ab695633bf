//! What happens to an agent: facts, with the times at which they were asked for left out, because
//! the protocol itself knows when it asked.

use serde::{Deserialize, Serialize};

use matriarch_pg::{Lsn, SystemId, TimelineId};

use super::command::{OperationId, ReplyToken, RequestId};
use super::directive::Directive;
use super::identity::{Incarnation, InstanceName, Version};
use super::lease::LeaseRecord;
use super::message::{Answer, Question};
use super::moment::Span;

/// A fact for [`super::Protocol::on`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The time of [`super::Protocol::poll_timeout`] has come. Extra ticks do no harm.
    Tick,
    /// The directive was read, or changed.
    Directive(Box<Directive>),
    /// The Lease was read: in answer to [`super::Command::ReadLease`], or seen by a watch.
    LeaseRead {
        /// The request that it answers; none from a watch.
        request: Option<RequestId>,
        /// What was read.
        reading: LeaseReading,
    },
    /// Result of [`super::Command::WriteLease`].
    LeaseWritten {
        /// The request.
        request: RequestId,
        /// What became of it.
        writing: LeaseWriting,
    },
    /// A peer answered [`super::Command::Ask`].
    Answered {
        /// The request.
        request: RequestId,
        /// What it said.
        answer: Box<Answer>,
    },
    /// A peer did not answer within the limit, or could not be reached.
    Unanswered {
        /// The request.
        request: RequestId,
    },
    /// A peer asks; the answer is a [`super::Command::Reply`], now or later.
    Asked {
        /// For the reply. A question that is not replied to within the asker's limit is dropped.
        token: ReplyToken,
        /// The name that TLS proved.
        from: InstanceName,
        /// What it asks.
        question: Question,
    },
    /// PostgreSQL as it is now. Sent when anything in it changed, at least every second while
    /// PostgreSQL runs, and always right before [`Event::Finished`] of an [`super::Action`].
    Observed(Box<Observation>),
    /// An operation ended.
    Finished {
        /// Which.
        operation: OperationId,
        /// How.
        outcome: Outcome,
    },
    /// SIGTERM reached the pod.
    Terminating(Termination),
}

/// What a read of the Lease found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseReading {
    /// It is there.
    Found {
        /// Its resourceVersion.
        version: Version,
        /// Its content.
        record: LeaseRecord,
    },
    /// 404: it is not there.
    Absent,
    /// The API answered, but not with the Lease.
    Refused(ApiRefusal),
    /// No answer within one second, 429, 5xx, or a broken connection.
    NoAnswer,
}

/// What became of a write of the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseWriting {
    /// Done; its resourceVersion now.
    Written(Version),
    /// 409: another version is there. Certainly not applied.
    Conflict,
    /// The API refused. Certainly not applied.
    Refused(ApiRefusal),
    /// No answer, 5xx, broken connection: it may be applied, even later.
    Unknown,
}

/// An answer of the API that is not silence (traps H4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiRefusal {
    /// 401, also after the token was read anew.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404 to a write.
    NotFound,
    /// 400 or 422: the record is not acceptable.
    Invalid,
}

/// How PostgreSQL is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PostgresState {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// There is no data directory.
    Empty,
    /// Every process of the data directory is gone; `clean` if pg_control says shut down.
    Stopped {
        /// Shut down cleanly.
        clean: bool,
    },
    /// The postmaster is gone, processes of the data directory are not.
    Dying,
    /// Starts, or recovers from a crash.
    Starting,
    /// In recovery as a standby.
    Standby,
    /// Accepts writes.
    Primary,
    /// On its way down by a command of ours.
    Stopping,
}

/// What is known of PostgreSQL and its data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// How it is.
    pub state: PostgresState,
    /// From pg_control.
    pub system_id: Option<SystemId>,
    /// Timeline of its last record.
    pub timeline: Option<TimelineId>,
    /// The timelines that lead to it, oldest first and itself last, each with where it begins by the
    /// history file (0/0 for the first); empty if that cannot be read.
    pub timelines: Vec<(TimelineId, Lsn)>,
    /// End of its last flushed record: of a primary the flush position; of a standby the greater
    /// of received and replayed; when stopped, where the valid records of pg_wal end.
    pub flushed: Option<Lsn>,
    /// How far a standby has replayed.
    pub replayed: Option<Lsn>,
    /// Bytes of WAL since the redo point of the last checkpoint: what a restart replays.
    pub since_checkpoint: Option<u64>,
    /// The walreceiver.
    pub receiver: Receiver,
    /// The walsenders, of a primary.
    pub walsenders: Vec<WalSender>,
}

impl Observation {
    /// True if the timelines that lead to its last record could be read.
    pub fn knows_timelines(&self) -> bool {
        let last = self.timelines.last().map(|(timeline, _)| *timeline);
        last.is_some() && last == self.timeline
    }
}

/// A standby's walreceiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Receiver {
    /// There is none, and none will start by itself.
    #[default]
    None,
    /// There is none now; PostgreSQL tries to connect.
    Connecting,
    /// It streams; time since the last message of the walsender.
    Streaming {
        /// How long nothing was received, keepalives included.
        silent: Span,
    },
}

/// One walsender of a primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalSender {
    /// Whose, by application_name (or slot and certificate under a peer's identity).
    pub incarnation: Incarnation,
    /// It has caught up and streams.
    pub streaming: bool,
    /// What that standby has flushed.
    pub flushed: Lsn,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done,
    /// [`super::Action::Initialize`] or [`super::Action::Clone`] made a new data directory with a
    /// new random incarnation.
    NewDirectory {
        /// Its id.
        incarnation: Incarnation,
        /// Its system.
        system_id: SystemId,
    },
    /// Did not succeed; nothing is half done that the action's description does not allow.
    Failed {
        /// For a human, in the words of the program that failed.
        message: String,
    },
    /// Withdrawn because a later command replaced it.
    Superseded,
}

/// SIGTERM, with what is known of the own pod (traps H3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Termination {
    /// The pod is being deleted with this much grace left.
    Graceful {
        /// Time until SIGKILL.
        grace: Span,
    },
    /// The pod object is gone.
    Gone,
    /// The API did not say within 100 ms.
    Unknown,
}
