//! What is taken for granted of PostgreSQL, against real servers.

mod files;
mod model;
mod user;
