//! The simulator's model of PostgreSQL, rule by rule against a real server: the names are those of
//! crates/sim/model.md.

mod commits;
mod processes;
mod replication;
mod server;
mod timelines;
