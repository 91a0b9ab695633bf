//! Against a real Kubernetes of three nodes. `cargo xtask e2e` starts it, installs the operator and
//! runs these; plain `cargo test` leaves them out.

mod daily;
mod images;
mod loss;
mod namespace;
mod nodes;
mod operators;
mod tablespaces;
mod volumes;
