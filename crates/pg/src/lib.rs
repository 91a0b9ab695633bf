//! What PostgreSQL is: positions, timelines, files, parameters, quorum arithmetic. PURE.
//!
//! Everything here is a function of its arguments. Texts and bytes come from the agent, from the
//! user's manifest or from a server; no input makes a parser panic.

pub mod conf;
pub mod control;
pub mod hba;
pub mod ident;
pub mod lsn;
pub mod parameters;
pub mod sql;
pub mod synchronous;
pub mod system_id;
pub mod timeline;
pub mod version;
pub mod wal;

pub use control::ControlData;
pub use lsn::{Lsn, SegmentSize};
pub use system_id::SystemId;
pub use timeline::{TimelineHistory, TimelineId};
pub use version::{Major, Version};
