//! What a run of PostgreSQL does in the world: starts, commits, streams, promotes.

use std::collections::VecDeque;

use crate::{
    Micros, SECOND,
    postgres::{
        CHECKPOINT_BYTES, Connection, Directory, Files, Names, Pending, Phase, RECEIVER_RETRY,
        REPLICATION_TIMEOUT, Role, Server,
    },
    settings::ModelMutant,
    story,
    wal::{Commit, Place},
    world::{Event, World},
};

/// Why a server cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartRefused {
    /// No directory, or one in which a clone or rewind has not ended.
    NotWhole,
    /// Processes of this directory are still there ("lock file … already exists").
    StillRunning,
}

/// How a new run is started.
pub(crate) struct Start {
    pub(crate) role: Role,
    pub(crate) names: Names,
    pub(crate) upstream: Option<usize>,
}

impl World {
    pub(crate) fn directory(&self, pod: usize) -> Option<&Directory> {
        self.volumes[self.pods[pod].volume].directory.as_ref()
    }

    pub(crate) fn directory_mut(&mut self, pod: usize) -> Option<&mut Directory> {
        let volume = self.pods[pod].volume;
        self.volumes[volume].directory.as_mut()
    }

    pub(crate) fn server(&self, pod: usize) -> Option<&Server> {
        self.pods[pod].server.as_ref()
    }

    pub(crate) fn run(&mut self, pod: usize, run: u64) -> Option<&mut Server> {
        self.pods[pod].server.as_mut().filter(|server| server.run == run)
    }

    /// Starts a postmaster.
    pub(crate) fn start_server(&mut self, pod: usize, start: Start) -> Result<(), StartRefused> {
        if self.pods[pod].server.is_some() {
            return Err(StartRefused::StillRunning);
        }
        let volume = self.pods[pod].volume;
        let crashed = match &self.volumes[volume].directory {
            Some(directory) if directory.files == Files::Whole => directory.in_production,
            _ => return Err(StartRefused::NotWhole),
        };
        self.check_single_postmaster(pod);
        let run = self.fresh();
        let needs_recovery = crashed || start.role == Role::Standby;
        let takes =
            if needs_recovery { self.random.millis(100, 900) } else { self.random.millis(50, 200) };
        let lag =
            if self.random.chance(self.swarm.replay_lag) { self.random.millis(0, 3000) } else { 0 };
        story!(self, "{}: PostgreSQL starts as {:?} (run {run})", self.pod_name(pod), start.role);
        self.pods[pod].server = Some(Server {
            run,
            role: start.role,
            phase: Phase::Starting,
            frozen: false,
            started: self.now,
            wal_read: false,
            waits: start.names.defined(),
            names: start.names,
            released: 0,
            pending: VecDeque::new(),
            upstream: start.upstream,
            receiver: None,
            receiver_heard: self.now,
            shutdown_end: None,
            replay_lag: lag,
            receiver_stopped: false,
        });
        self.after(takes, Event::ServerUp { pod, run });
        Ok(())
    }

    pub(crate) fn server_up(&mut self, pod: usize, run: u64) {
        let Some(server) = self.run(pod, run) else { return };
        if server.phase != Phase::Starting {
            return;
        }
        server.wal_read = true;
        match server.role {
            Role::Primary => {
                server.phase = Phase::Running;
                self.primary_begins(pod);
                story!(self, "{}: PostgreSQL is up as primary", self.pod_name(pod));
            }
            Role::Standby => {
                // What recovery read it has flushed.
                if let Some(directory) = self.directory_mut(pod) {
                    directory.flushed = directory.written;
                }
                self.after(RECEIVER_RETRY / 10, Event::ReceiverRetry { pod, run });
                self.consistent(pod);
            }
        }
    }

    /// A standby lets sessions in as soon as it has all WAL that its pages need.
    fn consistent(&mut self, pod: usize) {
        if self.directory(pod).is_none_or(Directory::lacks_wal) {
            return;
        }
        let Some(server) = self.pods[pod].server.as_mut() else { return };
        if server.phase == Phase::Starting && server.wal_read && server.role == Role::Standby {
            server.phase = Phase::Running;
            story!(self, "{}: PostgreSQL is up as standby", self.pod_name(pod));
        }
    }

    /// Crash recovery has ended (or was not needed): client writes are taken in from here on.
    fn primary_begins(&mut self, pod: usize) {
        let Some(directory) = self.directory(pod).cloned() else { return };
        let mut branch = directory.branch;
        let place = self.wal.settle(directory.written_place());
        if self.wal.owner(directory.branch) != directory.incarnation {
            // Started without standby.signal on somebody else's history: the same timeline number,
            // other content from here on.
            let timeline = self.wal.timeline(place.branch);
            branch = self.wal.fork(Some(place), timeline, directory.incarnation);
        }
        let lsn = self.wal.append(branch, CHECKPOINT_BYTES);
        if let Some(directory) = self.directory_mut(pod) {
            directory.branch = branch;
            directory.ends_with_checkpoint(lsn);
            directory.in_production = true;
        }
        self.check_new_writer(pod);
    }

    /// A backend inserts a commit record; the answer comes when the rules allow it.
    pub(crate) fn commit(&mut self, pod: usize, client: usize, commit: Commit, bytes: u64) -> bool {
        let Some((run, lsn)) = self.insert_commit(pod, client, commit, bytes) else { return false };
        let flush = if self.random.chance(20) {
            self.random.millis(5, 60)
        } else {
            self.random.between(200, 2500)
        };
        self.after(flush, Event::CommitFlushed { pod, run, lsn });
        true
    }

    /// The run that has inserted it, and where it ends; it is not flushed.
    pub(crate) fn insert_commit(
        &mut self,
        pod: usize,
        client: usize,
        commit: Commit,
        bytes: u64,
    ) -> Option<(u64, u64)> {
        let run = self.server(pod).filter(|server| server.takes_writes())?.run;
        let branch = self.directory(pod).map(|directory| directory.branch)?;
        let lsn = self.wal.append(branch, bytes);
        if let Some(directory) = self.directory_mut(pod) {
            directory.written = lsn;
        }
        if let Some(server) = self.run(pod, run) {
            server.pending.push_back(Pending { lsn, client, commit });
        }
        Some((run, lsn))
    }

    pub(crate) fn commit_flushed(&mut self, pod: usize, run: u64, lsn: u64) {
        if self.run(pod, run).is_none() {
            return;
        }
        if let Some(directory) = self.directory_mut(pod) {
            directory.flushed = directory.flushed.max(lsn.min(directory.written));
        }
        self.send_wal(pod);
        self.acknowledge(pod);
    }

    /// Walsenders send what is flushed, never more.
    pub(crate) fn send_wal(&mut self, pod: usize) {
        let Some(server) = self.server(pod) else { return };
        if matches!(server.phase, Phase::Orphaned | Phase::Quitting | Phase::Starting) {
            return;
        }
        let run = server.run;
        let Some(flushed) = self.directory(pod).map(|directory| directory.flushed) else { return };
        let open: Vec<(u64, usize, Micros)> = self
            .connections
            .iter()
            .filter(|(_, link)| {
                link.primary == pod && link.primary_run == run && link.sent < flushed
            })
            .map(|(&id, link)| (id, link.standby, link.last_arrival))
            .collect();
        for (id, standby, floor) in open {
            let delay = self.pod_delay(pod, standby);
            let at = (self.now + delay).max(floor + 1);
            if let Some(link) = self.connections.get_mut(&id) {
                link.sent = flushed;
                link.last_arrival = at;
            }
            self.at(at, Event::WalArrives { connection: id, upto: flushed });
        }
    }

    pub(crate) fn wal_arrives(&mut self, connection: u64, upto: u64) {
        let Some(link) = self.connections.get(&connection) else { return };
        let (primary, standby, run) = (link.primary, link.standby, link.standby_run);
        if !self.pods_linked(primary, standby) {
            // TCP sends it again until the connection is given up.
            let again = self.random.millis(100, 400);
            self.after(again, Event::WalArrives { connection, upto });
            return;
        }
        let branch = link.branch;
        if self.run(standby, run).is_none() {
            return;
        }
        let place = Place { branch, lsn: upto };
        let held = self.directory(standby).map(Directory::written_place);
        if let Some(held) = held
            && !self.wal.holds(place, held)
            && !self.wal.holds(held, place)
        {
            self.found_corruption(standby, primary);
        }
        let now = self.now;
        if let Some(directory) = self.directory_mut(standby)
            && directory.written < upto
        {
            directory.branch = branch;
            directory.written = upto;
        }
        if let Some(link) = self.connections.get_mut(&connection) {
            link.standby_heard = now;
        }
        if let Some(server) = self.run(standby, run) {
            server.receiver_heard = now;
        }
        if self.settings.model_mutant == Some(ModelMutant::AcknowledgesBeforeFlush) {
            self.reply(connection, upto);
        }
        let flush = if self.random.chance(20) {
            self.random.millis(5, 80)
        } else {
            self.random.between(200, 2500)
        };
        self.after(flush, Event::WalFlushed { connection, pod: standby, run, upto });
    }

    pub(crate) fn wal_flushed(&mut self, connection: u64, pod: usize, run: u64, upto: u64) {
        if self.run(pod, run).is_none() {
            return;
        }
        if let Some(directory) = self.directory_mut(pod) {
            directory.flushed = directory.flushed.max(upto.min(directory.written));
        }
        self.consistent(pod);
        self.reply(connection, upto);
    }

    /// The walreceiver tells what it has flushed.
    fn reply(&mut self, connection: u64, upto: u64) {
        let Some(link) = self.connections.get(&connection) else { return };
        let (primary, standby, floor) = (link.primary, link.standby, link.last_reply);
        let delay = self.pod_delay(standby, primary);
        let at = (self.now + delay).max(floor + 1);
        if let Some(link) = self.connections.get_mut(&connection) {
            link.last_reply = at;
        }
        self.at(at, Event::ReplyArrives { connection, upto });
    }

    pub(crate) fn reply_arrives(&mut self, connection: u64, upto: u64) {
        let Some(link) = self.connections.get(&connection) else { return };
        let (primary, standby, run) = (link.primary, link.standby, link.primary_run);
        if !self.pods_linked(standby, primary) {
            let again = self.random.millis(100, 400);
            self.after(again, Event::ReplyArrives { connection, upto });
            return;
        }
        let now = self.now;
        if let Some(link) = self.connections.get_mut(&connection) {
            link.acknowledged = link.acknowledged.max(upto);
            link.primary_heard = now;
        }
        if self.run(primary, run).is_none() {
            return;
        }
        self.release(connection);
        self.acknowledge(primary);
        self.end_of_shutdown(primary);
    }

    /// A walsender lets commits go by its own reading of the configuration: it must be named
    /// itself, and enough of the named must have flushed.
    fn release(&mut self, connection: u64) {
        let Some(link) = self.connections.get(&connection) else { return };
        let (primary, run, names) = (link.primary, link.primary_run, link.names.clone());
        if !names.defined() || !names.of.contains(&link.incarnation) {
            return;
        }
        let mut flushed: Vec<u64> = self
            .connections
            .values()
            .filter(|other| {
                other.primary == primary
                    && other.primary_run == run
                    && other.names.of.contains(&other.incarnation)
            })
            .map(|other| other.acknowledged)
            .collect();
        if flushed.len() < names.needed {
            return;
        }
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        let upto = flushed[names.needed - 1];
        if let Some(server) = self.run(primary, run) {
            server.released = server.released.max(upto);
        }
    }

    /// Answers every client whose commit may be answered.
    pub(crate) fn acknowledge(&mut self, pod: usize) {
        let Some(flushed) = self.directory(pod).map(|directory| directory.flushed) else { return };
        loop {
            let Some(server) = self.pods[pod].server.as_mut() else { return };
            if matches!(server.phase, Phase::Stopping | Phase::Quitting | Phase::Starting) {
                return;
            }
            // A backend that waits for a standby and finds its postmaster dead gives up unanswered.
            let waits = server.waits || (server.phase == Phase::Orphaned && server.names.defined());
            let released = if waits { server.released } else { u64::MAX };
            match server.pending.front() {
                Some(first) if first.lsn <= flushed && first.lsn <= released => {}
                _ => return,
            }
            if let Some(done) = server.pending.pop_front() {
                self.answer_client(pod, &done);
            }
        }
    }

    /// `pg_reload_conf` with new names: the postmaster reads the file at once, its children each in
    /// their own time.
    pub(crate) fn set_names(&mut self, pod: usize, names: &Names) -> bool {
        let Some(server) = self.pods[pod].server.as_mut() else { return false };
        if server.frozen || matches!(server.phase, Phase::Orphaned | Phase::Quitting) {
            return false;
        }
        if server.names == *names {
            return true;
        }
        server.names = names.clone();
        let run = server.run;
        story!(self, "{}: synchronous_standby_names = {}", self.pod_name(pod), names.text());
        let slow = self.random.millis(1, 60);
        self.after(slow, Event::CheckpointerTakesNames { pod, run });
        let open: Vec<u64> = self.connections_of(pod, run);
        for connection in open {
            let slow = if self.random.chance(50) {
                self.random.millis(50, 600)
            } else {
                self.random.millis(1, 40)
            };
            self.after(slow, Event::WalSenderTakesNames { connection });
        }
        true
    }

    pub(crate) fn connections_of(&self, pod: usize, run: u64) -> Vec<u64> {
        self.connections
            .iter()
            .filter(|(_, link)| link.primary == pod && link.primary_run == run)
            .map(|(&id, _)| id)
            .collect()
    }

    pub(crate) fn checkpointer_takes_names(&mut self, pod: usize, run: u64) {
        let Some(server) = self.run(pod, run) else { return };
        server.waits = server.names.defined();
        self.acknowledge(pod);
    }

    pub(crate) fn walsender_takes_names(&mut self, connection: u64) {
        let Some(link) = self.connections.get(&connection) else { return };
        let (primary, run) = (link.primary, link.primary_run);
        let Some(names) = self.run(primary, run).map(|server| server.names.clone()) else { return };
        if let Some(link) = self.connections.get_mut(&connection) {
            link.names = names;
        }
        self.release(connection);
        self.acknowledge(primary);
    }

    /// Has every process that releases commits read the names that the file holds?
    pub(crate) fn names_in_force(&self, pod: usize) -> bool {
        let Some(server) = self.server(pod) else { return false };
        server.waits == server.names.defined()
            && self
                .connections
                .values()
                .filter(|link| link.primary == pod && link.primary_run == server.run)
                .all(|link| link.names == server.names)
    }

    /// Points the walreceiver elsewhere (`primary_conninfo` and a reload).
    pub(crate) fn follow(&mut self, pod: usize, upstream: Option<usize>) {
        let Some(server) = self.pods[pod].server.as_mut() else { return };
        let stopped = upstream.is_none();
        if server.upstream == upstream && server.receiver_stopped == stopped {
            return;
        }
        server.upstream = upstream;
        server.receiver_stopped = stopped;
        let run = server.run;
        if let Some(connection) = server.receiver {
            self.disconnect(connection);
        }
        story!(
            self,
            "{}: follows {}",
            self.pod_name(pod),
            upstream.map_or("nobody".to_owned(), |pod| self.pod_name(pod))
        );
        if !stopped {
            self.after(5000, Event::ReceiverRetry { pod, run });
        }
    }

    /// A process died: its peers learn it at once if the network carries the reset, else by silence.
    pub(crate) fn reset(&mut self, connection: u64) {
        let Some(link) = self.connections.get(&connection) else { return };
        if self.pods_linked(link.primary, link.standby)
            && self.pods_linked(link.standby, link.primary)
        {
            self.disconnect(connection);
        }
    }

    /// Ends a connection at both ends.
    pub(crate) fn disconnect(&mut self, connection: u64) {
        let Some(link) = self.connections.remove(&connection) else { return };
        let now = self.now;
        if let Some(server) = self.run(link.standby, link.standby_run)
            && server.receiver == Some(connection)
        {
            server.receiver = None;
            server.receiver_heard = server.receiver_heard.min(now);
            let stopped = server.receiver_stopped;
            // A walreceiver flushes what it has written before it leaves.
            if !self.pod_frozen(link.standby)
                && let Some(directory) = self.directory_mut(link.standby)
            {
                directory.flushed = directory.written;
            }
            if !stopped {
                self.after(
                    RECEIVER_RETRY,
                    Event::ReceiverRetry { pod: link.standby, run: link.standby_run },
                );
            }
        }
        self.end_of_shutdown(link.primary);
    }

    /// The walreceiver tries to connect.
    pub(crate) fn receiver_retry(&mut self, pod: usize, run: u64) {
        let Some(server) = self.run(pod, run) else { return };
        if server.receiver.is_some()
            || server.receiver_stopped
            || server.role != Role::Standby
            || !server.wal_read
            || !matches!(server.phase, Phase::Running | Phase::Starting)
            || server.frozen
        {
            return;
        }
        let Some(upstream) = server.upstream else { return };
        if !self.try_stream(pod, run, upstream) {
            self.after(RECEIVER_RETRY, Event::ReceiverRetry { pod, run });
        }
    }

    /// May a standby that ends at `standby` stream from `primary`, by the numbers that PostgreSQL
    /// compares? It knows timeline numbers and switch points, not content.
    fn numbers_allow(&self, standby: &Directory, primary: &Directory) -> bool {
        let own = self.wal.settle(standby.written_place());
        let number = self.wal.timeline(own.branch);
        let history = self.wal.history(primary.branch);
        let Some(at) = history.iter().rposition(|&(timeline, _)| timeline == number) else {
            return false;
        };
        let ends = history.get(at + 1).map_or(primary.flushed, |&(_, begins)| begins);
        own.lsn <= ends
    }

    /// The slot of a standby serves one walsender; an old one whose standby fell silent keeps it
    /// until its time-out. Without that a standby that comes again would be counted twice, because
    /// every walsender counts for itself (found by the simulator, seed 829).
    fn slot_in_use(&self, pod: usize, upstream: usize) -> bool {
        self.settings.model_mutant != Some(ModelMutant::StreamsWithoutSlot)
            && self.server(upstream).is_some_and(|source| {
                self.connections.values().any(|link| {
                    link.primary == upstream
                        && link.primary_run == source.run
                        && self.pods[link.standby].serial == self.pods[pod].serial
                })
            })
    }

    fn try_stream(&mut self, pod: usize, run: u64, upstream: usize) -> bool {
        if !self.pods_linked(pod, upstream)
            || !self.pods_linked(upstream, pod)
            || self.pod_frozen(upstream)
            || !self.pods[upstream].alive
        {
            return false;
        }
        let Some(source) = self.server(upstream) else { return false };
        if source.frozen
            || source.role != Role::Primary
            || !matches!(source.phase, Phase::Running)
            || self.pods[upstream].volume == self.pods[pod].volume
        {
            return false;
        }
        let (source_run, names) = (source.run, source.names.clone());
        let (Some(own), Some(theirs)) = (self.directory(pod), self.directory(upstream)) else {
            return false;
        };
        if !self.numbers_allow(own, theirs) || self.slot_in_use(pod, upstream) {
            return false;
        }
        let (held, known) = (own.written_place(), theirs.known_timeline);
        let (branch_end, branch) = (theirs.flushed_place(), theirs.branch);
        let incarnation = own.incarnation;
        if !self.wal.holds(branch_end, held) {
            // The numbers agree and the content does not: this is what rule 13 must prevent.
            self.found_corruption(pod, upstream);
        }
        let connection = self.fresh();
        let now = self.now;
        self.connections.insert(
            connection,
            Connection {
                primary: upstream,
                primary_run: source_run,
                standby: pod,
                standby_run: run,
                branch,
                incarnation,
                sent: held.lsn,
                acknowledged: 0,
                names,
                last_arrival: now,
                last_reply: now,
                standby_heard: now,
                primary_heard: now,
            },
        );
        if let Some(directory) = self.directory_mut(pod) {
            directory.known_timeline = directory.known_timeline.max(known);
        }
        if let Some(server) = self.run(pod, run) {
            server.receiver = Some(connection);
            server.receiver_heard = now;
        }
        story!(self, "{}: streams from {}", self.pod_name(pod), self.pod_name(upstream));
        let flushed = held.lsn.min(self.directory(pod).map_or(0, |directory| directory.flushed));
        self.reply(connection, flushed);
        self.send_wal(upstream);
        self.after(SECOND, Event::ConnectionCheck { connection });
        true
    }

    /// Keepalives and their time-outs, once a second.
    pub(crate) fn connection_check(&mut self, connection: u64) {
        let Some(link) = self.connections.get(&connection).cloned() else { return };
        let now = self.now;
        let primary_sends = self.sends(link.primary, link.primary_run);
        let standby_sends = self.sends(link.standby, link.standby_run);
        let down = primary_sends && self.pods_linked(link.primary, link.standby) && standby_sends;
        let up = standby_sends && self.pods_linked(link.standby, link.primary) && primary_sends;
        if let Some(open) = self.connections.get_mut(&connection) {
            if down {
                open.standby_heard = now;
            }
            if up {
                open.primary_heard = now;
            }
        }
        if down && let Some(server) = self.run(link.standby, link.standby_run) {
            server.receiver_heard = now;
        }
        let standby_gives_up =
            standby_sends && now.saturating_sub(link.standby_heard) > REPLICATION_TIMEOUT;
        let primary_gives_up =
            primary_sends && now.saturating_sub(link.primary_heard) > REPLICATION_TIMEOUT;
        let gone = self.run(link.primary, link.primary_run).is_none()
            && self.run(link.standby, link.standby_run).is_none();
        if gone || standby_gives_up || primary_gives_up {
            self.disconnect(connection);
        } else {
            self.after(SECOND, Event::ConnectionCheck { connection });
        }
    }

    /// Can the processes of this run send and receive?
    fn sends(&self, pod: usize, run: u64) -> bool {
        !self.pod_frozen(pod)
            && self.server(pod).is_some_and(|server| {
                server.run == run && !matches!(server.phase, Phase::Orphaned | Phase::Quitting)
            })
    }

    /// `pg_ctl promote`, after placeholder history files up to `above` were put in place.
    pub(crate) fn promote(&mut self, pod: usize, above: u32, names: &Names) -> bool {
        if let Some(directory) = self.directory_mut(pod) {
            directory.known_timeline = directory.known_timeline.max(above);
        }
        let Some(server) = self.pods[pod].server.as_mut() else { return false };
        if server.role != Role::Standby || server.phase != Phase::Running || server.frozen {
            return false;
        }
        server.phase = Phase::Promoting;
        server.names = names.clone();
        let (run, lag) = (server.run, server.replay_lag);
        if let Some(connection) = server.receiver {
            self.disconnect(connection);
        }
        let takes = self.random.millis(30, 250) + lag;
        story!(self, "{}: promotion begins", self.pod_name(pod));
        self.after(takes, Event::Promoted { pod, run });
        true
    }

    pub(crate) fn promoted(&mut self, pod: usize, run: u64) {
        let Some(server) = self.run(pod, run) else { return };
        if server.phase != Phase::Promoting {
            return;
        }
        server.phase = Phase::Running;
        server.role = Role::Primary;
        server.waits = server.names.defined();
        let Some(directory) = self.directory(pod) else { return };
        let place = self.wal.settle(directory.written_place());
        let timeline = directory.known_timeline.max(self.wal.timeline(place.branch)) + 1;
        let owner = directory.incarnation;
        let branch = self.wal.fork(Some(place), timeline, owner);
        let lsn = self.wal.append(branch, CHECKPOINT_BYTES);
        if let Some(directory) = self.directory_mut(pod) {
            directory.branch = branch;
            directory.ends_with_checkpoint(lsn);
            directory.known_timeline = timeline;
            directory.in_production = true;
        }
        self.counts.promotions += 1;
        story!(self, "{}: promoted to timeline {timeline} at {}", self.pod_name(pod), place.lsn);
        self.check_new_writer(pod);
    }

    /// The machine of a volume lost its memory: only what was flushed is left.
    pub(crate) fn forget_unflushed(&mut self, volume: usize) {
        let Some(directory) = self.volumes[volume].directory.as_mut() else { return };
        directory.written = directory.flushed;
        let (branch, flushed, owner) = (directory.branch, directory.flushed, directory.incarnation);
        if self.wal.owner(branch) == owner {
            self.wal.truncate(branch, flushed);
        }
    }
}
