//! How a run of PostgreSQL ends in the world: asked to, killed, or with its processes one by one.

use crate::{
    postgres::{CHECKPOINT_BYTES, Phase, Role},
    story,
    world::{Event, World},
};

impl World {
    /// Fast shutdown.
    pub(crate) fn stop_fast(&mut self, pod: usize) {
        let Some(server) = self.pods[pod].server.as_mut() else { return };
        if server.frozen
            || matches!(server.phase, Phase::Stopping | Phase::Quitting | Phase::Orphaned)
        {
            return;
        }
        let (run, role, phase) = (server.run, server.role, server.phase);
        server.phase = Phase::Stopping;
        server.pending.clear();
        let takes = self.random.millis(10, 300);
        story!(self, "{}: fast shutdown begins", self.pod_name(pod));
        if role == Role::Primary && phase == Phase::Running {
            self.after(takes, Event::ShutdownCheckpoint { pod, run });
        } else {
            self.after(takes, Event::ServerGone { pod, run });
        }
    }

    /// Sessions end, nothing is written any more; walsenders go on until they are killed.
    pub(crate) fn stop_short(&mut self, pod: usize) {
        let Some(server) = self.pods[pod].server.as_mut() else { return };
        if matches!(server.phase, Phase::Running | Phase::Promoting | Phase::Starting) {
            server.phase = Phase::Stopping;
            server.pending.clear();
            story!(self, "{}: short shutdown begins", self.pod_name(pod));
        }
    }

    /// The shutdown checkpoint is written; walsenders stay until standbys have it.
    pub(crate) fn shutdown_checkpoint(&mut self, pod: usize, run: u64) {
        if self.run(pod, run).is_none_or(|server| server.phase != Phase::Stopping) {
            return;
        }
        let Some(branch) = self.directory(pod).map(|directory| directory.branch) else { return };
        let lsn = self.wal.append(branch, CHECKPOINT_BYTES);
        if let Some(directory) = self.directory_mut(pod) {
            directory.ends_with_checkpoint(lsn);
            directory.in_production = false;
        }
        if let Some(server) = self.run(pod, run) {
            server.shutdown_end = Some(lsn);
        }
        self.send_wal(pod);
        self.end_of_shutdown(pod);
    }

    /// Ends a fast shutdown as soon as every connected standby has the checkpoint.
    pub(crate) fn end_of_shutdown(&mut self, pod: usize) {
        let Some(server) = self.server(pod) else { return };
        let (run, Some(end)) = (server.run, server.shutdown_end) else { return };
        let missing = self
            .connections
            .values()
            .any(|link| link.primary == pod && link.primary_run == run && link.acknowledged < end);
        if !missing {
            self.after(1000, Event::ServerGone { pod, run });
        }
    }

    /// SIGQUIT to the postmaster: all leave within moments, seldom within seconds.
    pub(crate) fn stop_immediate(&mut self, pod: usize) {
        let Some(server) = self.pods[pod].server.as_mut() else { return };
        if server.frozen || matches!(server.phase, Phase::Quitting | Phase::Orphaned) {
            return;
        }
        server.phase = Phase::Quitting;
        server.pending.clear();
        let run = server.run;
        let takes = if self.random.chance(40) {
            self.random.millis(500, 6000)
        } else {
            self.random.millis(1, 30)
        };
        self.after(takes, Event::ServerGone { pod, run });
        story!(self, "{}: immediate shutdown", self.pod_name(pod));
    }

    /// SIGKILL to every process of the directory.
    pub(crate) fn kill_server(&mut self, pod: usize) {
        let Some(run) = self.server(pod).map(|server| server.run) else { return };
        story!(self, "{}: every process of PostgreSQL is killed", self.pod_name(pod));
        self.server_gone(pod, run);
    }

    /// SIGKILL to the postmaster alone: backends in a transaction outlive it.
    pub(crate) fn kill_postmaster(&mut self, pod: usize) {
        let Some(server) = self.pods[pod].server.as_mut() else { return };
        if server.phase == Phase::Orphaned {
            return;
        }
        server.phase = Phase::Orphaned;
        let run = server.run;
        let lives = if server.pending.is_empty() { 10_000 } else { self.random.millis(0, 2500) };
        for connection in self.connections_of(pod, run) {
            self.reset(connection);
        }
        if let Some(connection) = self.server(pod).and_then(|server| server.receiver) {
            self.reset(connection);
        }
        story!(self, "{}: postmaster killed", self.pod_name(pod));
        self.after(lives, Event::ServerGone { pod, run });
        self.postmaster_exited(pod);
    }

    /// No process of the run is left.
    pub(crate) fn server_gone(&mut self, pod: usize, run: u64) {
        if self.run(pod, run).is_none() {
            return;
        }
        let orphaned = self.server(pod).is_some_and(|server| server.phase == Phase::Orphaned);
        for connection in self.connections_of(pod, run) {
            self.reset(connection);
        }
        if let Some(connection) = self.server(pod).and_then(|server| server.receiver) {
            self.reset(connection);
        }
        self.pods[pod].server = None;
        story!(self, "{}: PostgreSQL is gone", self.pod_name(pod));
        if !orphaned {
            self.postmaster_exited(pod);
        }
        self.processes_gone(pod);
    }
}
