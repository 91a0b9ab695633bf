//! The model of PostgreSQL: data directories, postmasters, replication, synchronous commit.
//!
//! Every rule here is listed in `model.md` with the test against a real server that checks it.

use std::collections::{BTreeSet, VecDeque};

use crate::{
    Micros, SECOND,
    wal::{Branch, Commit, Place},
};

/// Bytes of a shutdown or end-of-recovery checkpoint with its page overhead.
pub(crate) const CHECKPOINT_BYTES: u64 = 120;
/// `wal_sender_timeout` and `wal_receiver_timeout`, as every server has them by default.
pub(crate) const REPLICATION_TIMEOUT: Micros = 5 * SECOND;
/// `wal_retrieve_retry_interval`, likewise.
pub(crate) const RECEIVER_RETRY: Micros = SECOND / 2;

/// What state the files of a directory are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// PostgreSQL can start on it.
    Whole,
    /// pg_rewind has begun to write and has not ended.
    Rewinding,
    /// pg_basebackup or initdb has not ended.
    Incomplete,
}

/// A data directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) incarnation: u64,
    pub(crate) branch: Branch,
    /// End of what was written; survives the death of every process, not that of the machine.
    pub(crate) written: u64,
    /// End of what was flushed; survives all but the loss of the volume.
    pub(crate) flushed: u64,
    pub(crate) files: Files,
    /// pg_control says "in production": the last run as primary has not shut down.
    pub(crate) in_production: bool,
    /// Highest timeline number of which a history file (real or placeholder) is here.
    pub(crate) known_timeline: u32,
    /// LSN of the last checkpoint.
    pub(crate) checkpoint: u64,
    /// pg_control's minimum recovery point: a standby refuses sessions until it has replayed so far.
    /// After a rewind it may lie beyond the WAL that was copied.
    pub(crate) consistent_from: u64,
}

impl Directory {
    pub(crate) fn written_place(&self) -> Place {
        Place { branch: self.branch, lsn: self.written }
    }

    /// Where recovery must wait for what somebody else sends before it is consistent.
    pub(crate) fn lacks_wal(&self) -> bool {
        self.written < self.consistent_from
    }

    /// Its last record is a checkpoint, which is flushed.
    pub(crate) fn ends_with_checkpoint(&mut self, lsn: u64) {
        (self.written, self.flushed, self.checkpoint) = (lsn, lsn, lsn);
    }

    pub(crate) fn flushed_place(&self) -> Place {
        Place { branch: self.branch, lsn: self.flushed }
    }
}

/// `synchronous_standby_names` as `ANY needed (of)`; `needed` 0 is the empty setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) needed: usize,
    /// Incarnations; `application_name` carries them.
    pub(crate) of: BTreeSet<u64>,
}

impl Names {
    pub(crate) fn defined(&self) -> bool {
        self.needed > 0
    }

    pub(crate) fn text(&self) -> String {
        if self.defined() {
            let of: Vec<String> =
                self.of.iter().map(|incarnation| format!("i{incarnation}")).collect();
            format!("ANY {} ({})", self.needed, of.join(", "))
        } else {
            "''".to_owned()
        }
    }
}

/// As what a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    Standby,
}

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Crash recovery, or replay to consistency, for which a standby may need a walreceiver.
    Starting,
    Running,
    Promoting,
    /// Fast shutdown: no client any more; a primary writes its checkpoint and sends it.
    Stopping,
    /// SIGQUIT was sent and the processes are leaving.
    Quitting,
    /// The postmaster is dead, some backends are not.
    Orphaned,
}

/// A commit that a client waits for.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) lsn: u64,
    pub(crate) client: usize,
    pub(crate) commit: Commit,
}

/// The processes of one run of PostgreSQL on a directory.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) run: u64,
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    /// SIGSTOP of the postmaster: no new connection, no reload, no promotion; backends go on.
    pub(crate) frozen: bool,
    /// True time of its start.
    pub(crate) started: Micros,
    /// Recovery has read all valid WAL of the directory: a standby tries to receive more.
    pub(crate) wal_read: bool,
    /// The configuration file, as the postmaster last read it.
    pub(crate) names: Names,
    /// What the checkpointer published: do commits wait at all?
    pub(crate) waits: bool,
    /// Up to where walsenders released those who wait.
    pub(crate) released: u64,
    pub(crate) pending: VecDeque<Pending>,
    /// Whom the walreceiver follows.
    pub(crate) upstream: Option<usize>,
    pub(crate) receiver: Option<u64>,
    /// True time of the walreceiver's last message or end.
    pub(crate) receiver_heard: Micros,
    /// Fast shutdown: the end of the checkpoint that standbys must have.
    pub(crate) shutdown_end: Option<u64>,
    /// When promotion has to be done by replay, how long that takes.
    pub(crate) replay_lag: Micros,
    /// The walreceiver was told to stop and is not started again.
    pub(crate) receiver_stopped: bool,
}

impl Server {
    /// Can a client's write be taken in by an existing backend?
    pub(crate) fn takes_writes(&self) -> bool {
        self.role == Role::Primary && self.phase == Phase::Running
    }
}

/// One walsender with its walreceiver.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) primary: usize,
    pub(crate) primary_run: u64,
    pub(crate) standby: usize,
    pub(crate) standby_run: u64,
    /// The history that the primary's run writes.
    pub(crate) branch: Branch,
    /// application_name of the walreceiver.
    pub(crate) incarnation: u64,
    pub(crate) sent: u64,
    /// What the standby has told to have flushed.
    pub(crate) acknowledged: u64,
    /// synchronous_standby_names as this walsender last read it.
    pub(crate) names: Names,
    /// Messages of one direction arrive in order.
    pub(crate) last_arrival: Micros,
    pub(crate) last_reply: Micros,
    pub(crate) standby_heard: Micros,
    pub(crate) primary_heard: Micros,
}

#[cfg(test)]
mod tests {
    use matriarch_pg::parameters::{defaults, units};
    use matriarch_pg::version::Major;

    use super::*;

    #[test]
    fn the_model_waits_as_long_as_servers_do() {
        for major in Major::ALL {
            for (name, modelled) in [
                ("wal_receiver_timeout", REPLICATION_TIMEOUT),
                ("wal_retrieve_retry_interval", RECEIVER_RETRY),
                ("wal_sender_timeout", REPLICATION_TIMEOUT),
            ] {
                let ours = defaults(major).remove(name);
                let ours = ours.and_then(|text| units::parse_time(&text, 1_000));
                assert_eq!(ours, Some(modelled), "{name} of PostgreSQL {major}");
            }
        }
    }
}
