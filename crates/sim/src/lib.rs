//! A whole world in one thread from one seed: the protocol of the agents, driven through machines,
//! clocks, a network, an API and a model of PostgreSQL that all fail as theirs do.
//!
//! The program behind `cargo xtask sim` calls [`main_with`]. The model's rules are listed in `model.md`.

mod api;
mod clients;
mod driver;
mod endpoint;
mod faults;
mod invariants;
mod machine;
#[cfg(feature = "mutation")]
mod mutation;
mod network;
mod operations;
mod operator;
mod postgres;
mod random;
mod report;
mod restored;
mod run;
mod schedules;
mod server;
mod settings;
mod shutdown;
mod story;
mod wal;
mod world;

pub use report::{Arguments, main_with};

/// True time in microseconds since the world began, or a length of it.
type Micros = u64;

const SECOND: Micros = 1_000_000;
