//! Matriarch on a real three-node Kubernetes. `cargo xtask e2e` starts it, installs the operator and
//! runs these; plain `cargo test` leaves them out.

mod daily;
mod loss;
