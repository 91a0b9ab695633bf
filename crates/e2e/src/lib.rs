//! Harnesses for tests against real parts.

pub mod agents;
pub mod apiserver;
pub mod budget;
pub mod evidence;
pub mod kubernetes;
pub mod local;
pub mod owned;
pub mod podlogs;
pub mod turn;
pub mod writer;
