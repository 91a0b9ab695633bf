//! Harnesses for tests against real parts.

pub mod apiserver;
pub mod local;
pub mod writer;
