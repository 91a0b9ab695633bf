//! The write-ahead log: names of its files ([`name`]) and the validity of records ([`record`]).

pub mod name;
pub mod record;

pub use name::{SegmentName, WalFileName};
pub use record::{Record, RecordAt, WalBytes, WalEnd, WalLayout, WalPageSize};
