//! Agents among themselves, and the kubelet's probes: one HTTPS port.

use matriarch_plan::slots::Slot;
use serde::{Deserialize, Serialize};

pub mod client;
pub mod server;

/// Path of the protocol's questions.
pub const QUESTION_PATH: &str = "/v1/question";
/// Path of the replication slots of a peer.
pub const SLOTS_PATH: &str = "/v1/slots";
/// Header with the asker's instance name. TLS proves membership of the cluster: all agents of one
/// cluster share the replication certificate.
pub const INSTANCE_HEADER: &str = "x-matriarch-instance";
/// Common name of the certificate that proves membership.
pub const MEMBER_COMMON_NAME: &str = crate::postgres::initdb::REPLICATION_ROLE;

/// The replication slots of a server, as its agent tells them to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerSlots {
    /// Who answers: all instances share one certificate.
    pub instance: String,
    /// It is a standby: its slots are copies themselves.
    pub in_recovery: bool,
    /// All of its slots.
    pub slots: Vec<Slot>,
}
