//! Harnesses for tests against real parts.

pub mod local;
pub mod writer;
pub mod apiserver;
