//! Agents among themselves, and the kubelet's probes: one HTTPS port.

pub mod client;
pub mod server;

/// Path of the protocol's questions.
pub const QUESTION_PATH: &str = "/v1/question";
/// Header with the asker's instance name. TLS proves membership of the cluster: all agents of one
/// cluster share the replication certificate.
pub const INSTANCE_HEADER: &str = "x-matriarch-instance";
/// Common name of the certificate that proves membership.
pub const MEMBER_COMMON_NAME: &str = crate::postgres::initdb::REPLICATION_ROLE;
