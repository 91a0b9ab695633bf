//! `matriarch local` as a user runs it, with real PostgreSQL.

mod bad_input;
mod failover;
mod operations;
mod repairs;
mod samples;
mod single;
mod slots;
mod tablespaces;
mod upgrade;
mod verbs;
