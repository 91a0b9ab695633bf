//! The agents' protocol for high availability as pure state machines (docs/ha-protocol.md).
//!
//! [`Protocol`] is one instance's part: events in, commands out, time as an argument. The agent
//! (crate `agent`) and the simulator (crate `sim`) are its two drivers. [`Keeper`] is PID 1's part
//! and [`proof`] the operator's.
//!
//! What a driver owes is said at [`Command`], [`Action`] and [`Event`].

pub mod agent;
pub mod command;
pub mod directive;
pub mod endpoint;
pub mod event;
pub mod identity;
pub mod keeper;
pub mod lease;
pub mod ledger;
pub mod message;
pub mod moment;
#[cfg(feature = "mutation")]
pub mod mutation;
pub mod position;
pub mod proof;
pub mod quorum;
pub mod view;

pub use matriarch_pg::{Lsn, SystemId, TimelineId};

pub use agent::Protocol;
pub use command::{Action, Base, Command, OperationId, ReplyToken, RequestId, Right, StopMode};
pub use directive::{Bootstrap, Config, Delays, Directive, Limits, Peer, Synchronous, Timing};
pub use endpoint::{EndpointReading, Pointing};
pub use event::{
    ApiRefusal, Event, LeaseReading, LeaseWriting, Observation, Outcome, PostgresState, Receiver,
    Termination, WalSender,
};
pub use identity::{
    Address, ContainerId, Incarnation, InstanceName, Member, PodUid, Term, Version,
};
pub use keeper::{Keeper, KeeperCommand, KeeperEvent};
pub use lease::{
    Handover, Holder, Lease, LeaseError, LeaseMark, LeaseRecord, Release, ReleaseProof,
};
pub use ledger::{LastRole, Ledger, LedgerError};
pub use message::{Answer, MemberStatus, Question, Refusal, Standing, Verdict};
pub use moment::{Moment, Span};
#[cfg(feature = "mutation")]
pub use mutation::Mutation;
pub use position::{Branch, History, Kinship, Position};
pub use quorum::{Quorum, StandbyNames};
pub use view::{HumanOption, Role, View, Waiting};
