//! PostgreSQL itself: its programs, its data directory, its server.

pub mod clone;
pub mod data;
pub mod initdb;
pub mod program;
pub mod rewind;
pub mod server;
pub mod slots;
pub mod sql;
pub mod statistics;
pub mod tablespaces;
