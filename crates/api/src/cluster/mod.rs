//! The Cluster kind: CloudNativePG's JSON, and what it lacks.
//!
//! Where CloudNativePG embeds a type of Kubernetes, so do we. Fields say what they mean and in
//! which unit; whether a field has an effect yet is said by [`crate::support`] alone.

mod backup;
mod bootstrap;
mod external;
mod managed;
mod monitoring;
mod placement;
mod postgresql;
mod probes;
mod replication;
mod spec;
mod status;
mod storage;

pub use backup::*;
pub use bootstrap::*;
pub use external::*;
pub use managed::*;
pub use monitoring::*;
pub use placement::*;
pub use postgresql::*;
pub use probes::*;
pub use replication::*;
pub use spec::*;
pub use status::*;
pub use storage::*;
