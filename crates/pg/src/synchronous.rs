//! Synchronous replication: `synchronous_standby_names` ([`names`]) and the arithmetic of quorums
//! ([`quorum`]).

pub mod names;
pub mod quorum;

pub use names::{Method, StandbyName, StandbyNames};
pub use quorum::{Quorum, Wait};
