//! Harnesses for tests against real parts.
