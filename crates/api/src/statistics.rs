//! What an agent measures when it is asked for its status: figures that change all the time, and
//! therefore stand in no object.

use serde::{Deserialize, Serialize};

/// Annotation by which one-machine mode tells where the files of a pod's container are.
pub const LOCAL_DIRECTORY: &str = "local.matriarch.dev/directory";

/// The agent's socket below a container's root.
pub const AGENT_SOCKET: &str = "controller/run/agent.sock";

/// What `matriarch agent status` tells, as far as others than people read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Measured {
    /// What PostgreSQL says now.
    pub statistics: Option<Statistics>,
    /// Why it says nothing.
    pub unmeasured: Option<String>,
}

/// What PostgreSQL says now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Statistics {
    /// End of WAL: written on a primary, replayed on a standby.
    pub lsn: Option<String>,
    /// Name of the WAL file in which that is; on a primary.
    pub wal_file: Option<String>,
    /// All databases, in bytes.
    pub database_bytes: u64,
    /// The files in pg_wal, in bytes.
    pub wal_bytes: u64,
    /// `pg_stat_replication`.
    pub senders: Vec<Sender>,
    /// `pg_replication_slots`.
    pub slots: Vec<Slot>,
}

/// A row of `pg_stat_replication`, with the slot that it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sender {
    /// `application_name`: the data directory's id for an instance.
    pub application_name: String,
    /// `state`.
    pub state: Option<String>,
    /// `sent_lsn`.
    pub sent_lsn: Option<String>,
    /// `write_lsn`.
    pub write_lsn: Option<String>,
    /// `flush_lsn`.
    pub flush_lsn: Option<String>,
    /// `replay_lsn`.
    pub replay_lsn: Option<String>,
    /// `write_lag` as PostgreSQL writes an interval.
    pub write_lag: Option<String>,
    /// `flush_lag`.
    pub flush_lag: Option<String>,
    /// `replay_lag`.
    pub replay_lag: Option<String>,
    /// `sync_state`.
    pub sync_state: Option<String>,
    /// `sync_priority`.
    pub sync_priority: Option<i32>,
    /// `slot_name` of the slot in use.
    pub slot: Option<String>,
}

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Slot {
    /// `slot_name`.
    pub name: String,
    /// `slot_type`.
    pub kind: String,
    /// `active`.
    pub active: bool,
    /// `restart_lsn`.
    pub restart_lsn: Option<String>,
    /// `wal_status`.
    pub wal_status: Option<String>,
    /// `safe_wal_size`, in bytes; absent without a limit.
    pub safe_wal_bytes: Option<i64>,
}
